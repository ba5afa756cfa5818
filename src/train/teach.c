#include "teach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "batch.h"
#include "files.h"
#include "linear_topk/linear_topk.h"
#include "log.h"
#include "memory.h"
#include "progress.h"
#include "signals.h"

enum { PASS_TOKENS = 8192 };

pn_status pn_teach_info(const char *name, const pn_model *teacher, uint64_t tokenizer_hash, const pn_mixture *mixture,
                        pn_teacher_info *out) {
    *out = (pn_teacher_info){ .tokenizer_hash = tokenizer_hash,
                              .mixture_hash = pn_mixture_hash(mixture),
                              .vocab = teacher->config.vocab,
                              .sequence_length = pn_mixture_row_tokens(mixture) };
    snprintf(out->teacher, sizeof out->teacher, "%s", name);
    PN_TRY(pn_params_hash(teacher->params, &out->teacher_hash));
    return PN_OK;
}

/* ---- room ---- */

/* Rows that are in dir already. */
static pn_status rows_there(const char *dir, int64_t *rows) {
    char path[PN_PATH_MAX];
    pn_teacher_rows *there;
    *rows = 0;
    PN_TRY(pn_path_join(path, dir, "manifest.json"));
    if (!pn_file_exists(path)) return PN_OK;
    PN_TRY(pn_teacher_rows_open(dir, &there));
    *rows = pn_teacher_rows_count(there);
    pn_teacher_rows_close(&there);
    return PN_OK;
}

/* Bytes free where dir is or will be. */
static pn_status room_for(const char *dir, double *bytes) {
    char path[PN_PATH_MAX];
    struct statvfs disk;
    PN_CHECK(strlen(dir) < sizeof path - 2, PN_USAGE, "%.40s...: the path is too long", dir);
    strcpy(path, dir);
    while (!pn_is_directory(path)) {
        char *slash = strrchr(path, '/');
        if (slash && slash != path)
            *slash = '\0';
        else
            strcpy(path, slash ? "/" : ".");
    }
    PN_CHECK(!statvfs(path, &disk), PN_IO, "%s: cannot see how much room there is: %s", path, strerror(errno));
    *bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    return PN_OK;
}

static pn_status check_room(const pn_teach_job *job, int64_t done) {
    const pn_teacher_info *o = &job->info;
    const double token = (double)(o->k * PN_TEACHER_ENTRY_BYTES);
    const double all = token * (double)(job->rows * o->sequence_length);
    const double missing = token * (double)((job->rows - done) * o->sequence_length);
    double room;
    char text[3][16];
    PN_TRY(room_for(job->dir, &room));
    pn_compact_text(all, text[0], sizeof text[0]);
    pn_compact_text(missing, text[1], sizeof text[1]);
    pn_compact_text(room, text[2], sizeof text[2]);
    pn_info("%s: %lld rows of %lld tokens, the %lld most likely of %lld words at temperature %g: %.0f bytes a token, "
            "%sB, of which %sB are to be written; %sB are free",
            job->name, (long long)job->rows, (long long)o->sequence_length, (long long)o->k, (long long)o->vocab,
            o->temperature, token, text[0], text[1], text[2]);
    PN_CHECK(1.01 * missing + 1e6 < room, PN_USAGE,
             "%s: %sB are to be written and %sB are free: name another disk with --output, lower --top, or lower the "
             "stage's tokens",
             job->dir, text[1], text[2]);
    return PN_OK;
}

/* ---- passes ---- */

/* The GPU is asked for a pass before what the one before it found is written, and batches are made meanwhile. */
typedef struct teach {
    const pn_teach_job *job;
    pn_tape *tape;
    pn_batch batch[2]; /* of the pass asked for last, and of the next */
    pn_teacher_writer *writer;
    int64_t pass_rows;
    pn_tensor *asked_ids, *asked_log_p; /* of the pass asked for, owned by the tape */
    int32_t *ids;                       /* (pass_rows T k) of the pass that was taken */
    float *log_p;
} teach;

static pn_batch *batch_of(teach *t, int64_t first) {
    return &t->batch[first / t->pass_rows % 2];
}

static pn_status load(teach *t, int64_t first) {
    return first < t->job->rows ? pn_batch_load(t->job->mixture, first, t->pass_rows, batch_of(t, first)) : PN_OK;
}

static pn_status pass(const pn_teach_job *job, pn_tape *tape, const pn_batch *batch, pn_tensor **ids,
                      pn_tensor **log_p) {
    pn_tensor *tokens, *targets, *weights, *hidden;
    PN_TRY(pn_batch_tensors(batch, tape, &tokens, &targets, &weights));
    PN_TRY(pn_model_hidden(job->teacher, NULL, tape, tokens, &batch->docs, &hidden));
    PN_TRY(pn_linear_topk(tape, hidden, job->teacher->head, job->info.k, job->info.temperature, ids, log_p));
    return PN_OK;
}

/* Asks what the teacher says of rows first .. first + pass_rows - 1, which are loaded. */
static pn_status ask(teach *t, int64_t first) {
    pn_tape_reset(t->tape);
    return pass(t->job, t->tape, batch_of(t, first), &t->asked_ids, &t->asked_log_p);
}

static int64_t rows_of_pass(const pn_teach_job *job) {
    const int64_t tokens = job->batch_tokens ? job->batch_tokens : PASS_TOKENS, row = job->info.sequence_length;
    return tokens / row > 1 ? tokens / row : 1;
}

pn_status pn_teach_check(const pn_teach_job *job, double free_bytes) {
    const int64_t rows = rows_of_pass(job), row = job->info.sequence_length;
    pn_batch batch = { 0 };
    pn_tape *plan;
    pn_tensor *ids, *log_p;
    PN_TRY(pn_params_tape_plan(job->teacher->params, &plan));
    pn_tape_record(plan, false);
    pn_status s = pn_batch_load(job->mixture, 0, rows, &batch);
    if (!s) s = pass(job, plan, &batch, &ids, &log_p);
    const double bytes = (double)pn_pool_system_bytes(pn_tape_pool(plan));
    pn_tape_destroy(&plan);
    pn_batch_free(&batch);
    PN_TRY(s);
    PN_CHECK(bytes <= free_bytes, PN_USAGE,
             "%s: a pass of %lld tokens needs %.2f GB beside the teacher, and %.2f are free: lower %s or --top",
             job->name, (long long)(rows * row), bytes / 1e9, free_bytes / 1e9,
             rows > 1 ? "--batch-tokens" : "sequence_length");
    return PN_OK;
}

/* Waits for it. */
static pn_status take(teach *t, int64_t first) {
    const pn_teach_job *job = t->job;
    PN_TRY(pn_tensor_read(t->asked_ids, t->ids, PN_I32));
    PN_TRY(pn_tensor_read(t->asked_log_p, t->log_p, PN_F32));
    const int64_t row = job->info.sequence_length * job->info.k;
    for (int64_t i = 0; i < t->pass_rows * row; i++)
        PN_CHECK(
            t->log_p[i] <= 0, PN_NUMERIC,
            "%s: row %lld: a log-probability is %g; the teacher's weights are damaged, or overflow in this precision",
            job->name, (long long)(first + i / row), (double)t->log_p[i]);
    return PN_OK;
}

/* Passes begin at multiples of pass_rows and are always whole, so that no row depends on where a run began or ends. */
static pn_status loop(teach *t) {
    const pn_teach_job *job = t->job;
    const int64_t T = job->info.sequence_length, row = T * job->info.k;
    int64_t done = pn_teacher_writer_rows(t->writer), first = done / t->pass_rows * t->pass_rows;
    bool stop = false;
    pn_progress progress = pn_progress_begin(job->name, done * T, job->rows * T, "tokens");
    if (done < job->rows) {
        PN_TRY(load(t, first));
        PN_TRY(ask(t, first));
    }
    for (; done < job->rows && !stop; first += t->pass_rows) {
        const int64_t next = first + t->pass_rows, skip = done - first, end = next < job->rows ? next : job->rows;
        PN_TRY(load(t, next));
        PN_TRY(take(t, first));
        stop = pn_interrupted();
        if (next < job->rows && !stop) PN_TRY(ask(t, next));
        PN_TRY(pn_teacher_writer_add(t->writer, end - done, t->ids + skip * row, t->log_p + skip * row));
        done = end;
        pn_progress_update(&progress, done * T, "row %lld/%lld", (long long)done, (long long)job->rows);
    }
    PN_TRY(pn_teacher_writer_save(t->writer));
    PN_CHECK(done >= job->rows, PN_INTERRUPTED,
             "%s: stopped by a signal at row %lld of %lld; the same command goes on from here", job->name,
             (long long)done, (long long)job->rows);
    pn_progress_end(&progress);
    return PN_OK;
}

static pn_status open_teach(teach *t) {
    const pn_teach_job *job = t->job;
    t->pass_rows = rows_of_pass(job);
    const size_t n = (size_t)(t->pass_rows * job->info.sequence_length * job->info.k);
    t->ids = malloc(n * sizeof *t->ids);
    t->log_p = malloc(n * sizeof *t->log_p);
    PN_CHECK(t->ids && t->log_p, PN_MEMORY, "%s: out of memory for %zu words of a pass; lower --batch-tokens or --top",
             job->name, n);
    PN_TRY(pn_params_tape(job->teacher->params, &t->tape));
    pn_tape_record(t->tape, false);
    return pn_teacher_writer_open(job->dir, &job->info, 0, &t->writer);
}

pn_status pn_teach_run(const pn_teach_job *job) {
    teach t = { .job = job };
    int64_t there;
    PN_CHECK(job->info.k >= 1 && job->info.k <= job->info.vocab, PN_USAGE,
             "%s: the %lld most likely words are asked for, and the teacher has %lld; give --top from 1 to that",
             job->name, (long long)job->info.k, (long long)job->info.vocab);
    PN_TRY(rows_there(job->dir, &there));
    PN_TRY(check_room(job, there < job->rows ? there : job->rows));
    if (job->teacher->params->backend == PN_CUDA) {
        double budget;
        PN_TRY(pn_memory_budget(0, &budget));
        PN_TRY(pn_teach_check(job, budget));
    }
    pn_status s = open_teach(&t);
    if (!s) s = loop(&t);
    pn_teacher_writer_close(&t.writer);
    for (int i = 0; i < 2; i++) pn_batch_free(&t.batch[i]);
    pn_tape_destroy(&t.tape);
    free(t.ids);
    free(t.log_p);
    return s;
}
