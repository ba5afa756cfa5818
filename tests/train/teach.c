/* Teaching: rows written once teach as the teacher in the loop does, and a run that was stopped leaves the same files.
 */
#include "teach.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "linear_topk/linear_topk.h"
#include "signals.h"
#include "supernet/supernet_fixture.h"
#include "trainer.h"

enum { ROWS = 10, VOCAB = 260, STEPS = 5 };

static char dir[] = "/tmp/pn_teach_XXXXXX";

static const char *in_dir(const char *name) {
    static char path[4][PN_PATH_MAX];
    static unsigned next;
    char *p = path[next++ % 4];
    ck_ok(pn_path_join(p, dir, name));
    return p;
}

static pn_teach_job job_of(const pn_model *teacher, int64_t k, const char *to) {
    pn_teach_job job = { .name = "teach", .teacher = teacher, .mixture = mixture, .rows = ROWS, .dir = to };
    ck_ok(pn_teach_info("a test", teacher, pn_tokenizer_hash(tokenizer), mixture, &job.info));
    job.info.k = k;
    job.info.temperature = 2;
    job.batch_tokens = 4 * 128;
    return job;
}

/* Another student than the teacher: its curve of a few steps. */
static pn_curve train_student(const pn_model *teacher, pn_teacher_rows *rows, int64_t pass_tokens) {
    pn_model *student = tiny_base();
    pn_curve curve = { 0 };
    pn_train_options o = options(STEPS * 256);
    ck_ok(pn_params_init(student->params, 7));
    pn_params_train(student->params, "*", true);
    o.micro_batch_tokens = pass_tokens;
    o.loss = pn_loss_constant(&(pn_loss_weights){ .ce = 0.3, .kl = 1, .temperature = 2 });
    const pn_train_job job = { .name = "student",
                               .options = &o,
                               .mixture = mixture,
                               .student = student,
                               .teacher = rows ? NULL : teacher,
                               .teacher_rows = rows };
    ck_ok(pn_train_run(&job, &curve));
    pn_model_destroy(&student);
    ck_assert_int_eq(curve.n, STEPS);
    return curve;
}

static void begin(void) {
    setup();
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void end(void) {
    ck_ok(pn_remove_tree(dir));
    teardown();
}

START_TEST(rows_of_all_words_teach_as_the_teacher_does) {
    begin();
    pn_model *teacher = tiny_base();
    pn_teacher_rows *rows;
    pn_teach_job job = job_of(teacher, VOCAB, in_dir("all"));
    ck_ok(pn_teach_run(&job));
    ck_ok(pn_teacher_rows_open(job.dir, &rows));
    ck_ok(pn_teacher_rows_need(rows, &job.info, ROWS, "here"));
    pn_curve loop = train_student(teacher, NULL, 0);
    for (int parts = 0; parts < 2; parts++) { /* in one pass and in two */
        pn_curve read = train_student(teacher, rows, parts ? 128 : 0);
        for (int i = 0; i < STEPS; i++) {
            const double kl = loop.point[i].loss.kl;
            ck_assert_double_gt(kl, 0.1);
            ck_assert_double_eq_tol(read.point[i].loss.kl, kl, 2e-5 * kl);
            ck_assert_double_eq_tol(read.point[i].loss.total, loop.point[i].loss.total, 2e-5 * kl);
            ck_assert_double_eq_tol(read.point[i].norm, loop.point[i].norm, 1e-4 * loop.point[i].norm);
        }
        pn_curve_free(&read);
    }
    pn_curve_free(&loop);
    pn_teacher_rows_close(&rows);
    pn_model_destroy(&teacher);
    end();
}
END_TEST

START_TEST(rows_of_few_words_teach_less) {
    begin();
    pn_model *teacher = tiny_base();
    pn_curve loop = train_student(teacher, NULL, 0);
    double before = 0;
    for (int64_t k = 1; k < VOCAB; k *= 6) {
        char name[16];
        pn_teacher_rows *rows;
        snprintf(name, sizeof name, "k%lld", (long long)k);
        pn_teach_job job = job_of(teacher, k, in_dir(name));
        ck_ok(pn_teach_run(&job));
        ck_ok(pn_teacher_rows_open(job.dir, &rows));
        pn_curve read = train_student(teacher, rows, 0);
        ck_assert_double_gt(read.point[0].loss.kl, before);
        ck_assert_double_lt(read.point[0].loss.kl, loop.point[0].loss.kl);
        before = read.point[0].loss.kl;
        pn_curve_free(&read);
        pn_teacher_rows_close(&rows);
    }
    pn_curve_free(&loop);
    pn_model_destroy(&teacher);
    end();
}
END_TEST

static void same_file(const char *a, const char *b) {
    uint64_t x, y;
    int64_t n, m;
    ck_ok(pn_file_hash(a, &x, &n));
    ck_ok(pn_file_hash(b, &y, &m));
    ck_assert_msg(x == y && n == m, "%s and %s differ", a, b);
}

START_TEST(a_run_that_was_stopped_or_grew_leaves_the_same_files) {
    begin();
    pn_model *teacher = tiny_base();
    pn_teach_job whole = job_of(teacher, 5, in_dir("whole")), job = job_of(teacher, 5, in_dir("parts"));
    ck_ok(pn_teach_run(&whole));
    job.rows = 3; /* within a pass of four rows */
    ck_ok(pn_teach_run(&job));
    job.rows = ROWS;
    pn_interrupt_after(1);
    ck_assert_int_eq(pn_teach_run(&job), PN_INTERRUPTED);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "at row 4 of 10"));
    pn_interrupt_after(0);
    ck_ok(pn_teach_run(&job));
    ck_ok(pn_teach_run(&job)); /* there is nothing left to do */
    char file[PN_PATH_MAX];
    static const char *const names[] = { "manifest.json", "rows-00000-to-10.h5" };
    for (int i = 0; i < 2; i++) {
        ck_ok(pn_path_join(file, whole.dir, names[i]));
        char other[PN_PATH_MAX];
        ck_ok(pn_path_join(other, job.dir, names[i]));
        same_file(file, other);
    }
    ck_ok(pn_path_join(file, job.dir, "rows-00000-to-4.h5"));
    ck_assert(!pn_file_exists(file));
    pn_model_destroy(&teacher);
    end();
}
END_TEST

START_TEST(more_than_the_disk_holds_is_refused_before_anything_is_written) {
    begin();
    pn_model *teacher = tiny_base();
    pn_teach_job job = job_of(teacher, VOCAB, in_dir("never/there"));
    job.rows = INT64_C(1) << 40;
    ck_assert_int_eq(pn_teach_run(&job), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "B are free: name another disk"));
    ck_assert(!pn_file_exists(in_dir("never")));
    job.rows = 1;
    job.info.k = VOCAB + 1;
    ck_assert_int_eq(pn_teach_run(&job), PN_USAGE);
    ck_assert(!pn_file_exists(in_dir("never")));
    pn_model_destroy(&teacher);
    end();
}
END_TEST

/* What a pass takes, planned, is what the tape of one takes. */
START_TEST(a_pass_is_planned) {
    begin();
    pn_model *teacher = tiny_base();
    pn_teach_job job = job_of(teacher, 5, dir);
    pn_batch batch = { 0 };
    pn_tensor *tokens, *targets, *weights, *hidden, *ids, *log_p;
    pn_tape *t;
    ck_ok(pn_batch_load(mixture, 0, 4, &batch));
    ck_ok(pn_params_tape(teacher->params, &t));
    pn_tape_record(t, false);
    ck_ok(pn_batch_tensors(&batch, t, &tokens, &targets, &weights));
    ck_ok(pn_model_hidden(teacher, NULL, t, tokens, &batch.docs, &hidden));
    ck_ok(pn_linear_topk(t, hidden, teacher->head, 5, 2, &ids, &log_p));
    const double bytes = (double)pn_pool_system_bytes(pn_tape_pool(t));
    pn_tape_destroy(&t);
    pn_batch_free(&batch);
    ck_ok(pn_teach_check(&job, bytes));
    ck_assert_int_eq(pn_teach_check(&job, bytes - 1), PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), "teach: a pass of 512 tokens needs ") &&
                      strstr(pn_error_message(), "lower --batch-tokens or --top"),
                  "%s", pn_error_message());
    job.batch_tokens = 128; /* a row: it can be no smaller */
    ck_assert_int_eq(pn_teach_check(&job, 0), PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), "lower sequence_length or --top"), "%s", pn_error_message());
    pn_model_destroy(&teacher);
    end();
}
END_TEST

TEST_MAIN("teach", rows_of_all_words_teach_as_the_teacher_does, rows_of_few_words_teach_less,
          a_run_that_was_stopped_or_grew_leaves_the_same_files,
          more_than_the_disk_holds_is_refused_before_anything_is_written, a_pass_is_planned)
