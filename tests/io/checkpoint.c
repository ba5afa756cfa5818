/* Run state of one process: arrays and tensors come back as they were, nothing else is taken for them, and no damage,
 * full disk or kill loses the last state that was whole. */
#include "checkpoint_background.h"

#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "full_disk.h"
#include "log.h"

enum { N = 5, JOB = 7 };

typedef struct state {
    pn_pool *pool;
    pn_tensor *wide, *narrow;
    int64_t steps;
    double sums[2];
    int64_t halves[2][N]; /* of what is kept whole */
    pn_checkpoint_array array[5];
} state;

/* A source: part 1 of a state, which keeps halves of its values. */
static pn_status read_whole(const void *of, int index, void *values) {
    const state *s = of;
    ck_assert_int_eq(index, 1);
    for (int i = 0; i < N; i++) ((int64_t *)values)[i] = s->halves[0][i] + s->halves[1][i];
    return PN_OK;
}
static pn_status write_whole(void *of, int index, const void *values) {
    state *s = of;
    ck_assert_int_eq(index, 1);
    for (int i = 0; i < N; i++) {
        s->halves[0][i] = ((const int64_t *)values)[i] / 2;
        s->halves[1][i] = ((const int64_t *)values)[i] - s->halves[0][i];
    }
    return PN_OK;
}
static const pn_checkpoint_source whole = { read_whole, write_whole };

static void state_open(state *s, double first) {
    *s = (state){ .steps = (int64_t)first, .sums = { first, -first } };
    ck_ok(pn_pool_create(PN_POOL_HOST, &s->pool));
    ck_ok(pn_tensor_create(s->pool, PN_F32, 1, (int64_t[]){ N }, &s->wide));
    ck_ok(pn_tensor_create(s->pool, PN_BF16, 1, (int64_t[]){ N }, &s->narrow));
    float x[N];
    for (int i = 0; i < N; i++) x[i] = (float)first + 0.25f * (float)i;
    ck_ok(pn_tensor_write(s->wide, x, PN_F32));
    ck_ok(pn_tensor_write(s->narrow, x, PN_F32));
    s->array[0] = pn_checkpoint_tensor("weight/wide", PN_F32, s->wide);
    s->array[1] = pn_checkpoint_tensor("weight/narrow", PN_F32, s->narrow);
    s->array[2] = pn_checkpoint_data("steps", PN_I64, 1, &s->steps);
    s->array[3] = pn_checkpoint_data("sums", PN_F64, 2, s->sums);
    s->array[4] = pn_checkpoint_from("whole", PN_I64, N, &whole, s, 1);
    for (int i = 0; i < N; i++) s->halves[0][i] = s->halves[1][i] = (int64_t)first + i;
}

static void state_close(state *s) {
    pn_tensor_release(&s->wide);
    pn_tensor_release(&s->narrow);
    pn_pool_destroy(&s->pool);
}

START_TEST(what_was_saved_comes_back) {
    char dir[] = "/tmp/pn_checkpoint_XXXXXX";
    state saved, loaded;
    int64_t step;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    state_open(&saved, 3);
    state_open(&loaded, 100);
    ck_ok(pn_checkpoint_load(dir, 7, loaded.array, 5, &step));
    ck_assert_int_eq(step, -1);
    ck_ok(pn_checkpoint_save(dir, 12, 7, saved.array, 5));
    ck_ok(pn_checkpoint_load(dir, 7, loaded.array, 5, &step));
    ck_assert_int_eq(step, 12);
    ck_assert_mem_eq(pn_data(loaded.wide), pn_data(saved.wide), pn_tensor_bytes(saved.wide));
    ck_assert_mem_eq(pn_data(loaded.narrow), pn_data(saved.narrow), pn_tensor_bytes(saved.narrow));
    ck_assert_int_eq(loaded.steps, 3);
    ck_assert_mem_eq(loaded.halves, saved.halves, sizeof saved.halves);
    ck_assert_mem_eq(loaded.sums, saved.sums, sizeof saved.sums);
    ck_assert_int_eq(pn_checkpoint_load(dir, 8, loaded.array, 5, &step), PN_USAGE); /* of another job */
    state_close(&saved);
    state_close(&loaded);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

/* ---- a state that is only its step, at some length ---- */

enum { LONG = 30000 };

typedef struct plain {
    int64_t step;
    double values[LONG];
    pn_checkpoint_array array[2];
} plain;

static void plain_set(plain *p, int64_t step) {
    p->step = step;
    for (int i = 0; i < LONG; i++) p->values[i] = (double)step + 1e-3 * i;
    p->array[0] = pn_checkpoint_data("step", PN_I64, 1, &p->step);
    p->array[1] = pn_checkpoint_data("values/all", PN_F64, LONG, p->values);
}

static plain state_of_step; /* too large for a stack */

static void plain_save(const char *dir, int64_t step) {
    plain_set(&state_of_step, step);
    ck_ok(pn_checkpoint_save(dir, step, JOB, state_of_step.array, 2));
}

/* What is loaded is one step, all of it. */
static int64_t plain_load(const char *dir) {
    static plain loaded;
    int64_t step;
    plain_set(&loaded, -5);
    ck_ok(pn_checkpoint_load(dir, JOB, loaded.array, 2, &step));
    if (step < 0) return step;
    plain_set(&state_of_step, step);
    ck_assert_int_eq(loaded.step, step);
    ck_assert_mem_eq(loaded.values, state_of_step.values, sizeof loaded.values);
    return step;
}

static char top[32], dir[80], messages[96];

static void setup(void) {
    strcpy(top, "/tmp/pn_checkpoint_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/state", top);
    snprintf(messages, sizeof messages, "%s/log.jsonl", top);
    ck_ok(pn_log_open(messages));
    pn_log_quiet(true);
}

static void teardown(void) {
    pn_log_close();
    ck_ok(pn_remove_tree(top));
}

/* How often the log says so; it is empty after. */
static int said(const char *text) {
    char *log;
    size_t n_bytes;
    int n = 0;
    ck_ok(pn_file_read(messages, 1 << 20, &log, &n_bytes));
    for (char *p = log; (p = strstr(p, text)); p++) n++;
    free(log);
    ck_assert_int_eq(truncate(messages, 0), 0);
    return n;
}

static bool there(const char *name) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return pn_file_exists(path);
}

static int entries(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

START_TEST(the_newest_steps_stay) {
    setup();
    for (int64_t step = 1; step <= 5; step++) plain_save(dir, 10 * step);
    ck_assert(there("step-50") && there("step-40") && there("latest"));
    ck_assert_int_eq(entries(dir), 3);
    plain_set(&state_of_step, 60);
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = JOB, .keep = 3 };
    ck_ok(pn_checkpoint_write(&where, 60, state_of_step.array, 2));
    ck_assert(there("step-60") && there("step-50") && there("step-40"));
    ck_assert_int_eq(entries(dir), 4);
    ck_assert_int_eq(plain_load(dir), 60);
    ck_assert_int_eq(said("warn"), 0);
    teardown();
}
END_TEST

/* ---- damage ---- */

static void change(const char *name, const char *how) {
    char path[160], *text;
    size_t n_bytes;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!strcmp(how, "gone")) {
        ck_ok(pn_remove_tree(path));
        return;
    }
    if (!strcmp(how, "garbage")) {
        ck_ok(pn_file_write(path, "{]", 2));
        return;
    }
    ck_ok(pn_file_read(path, 1 << 24, &text, &n_bytes));
    if (!strcmp(how, "short")) n_bytes /= 2;
    if (!strcmp(how, "flipped")) text[n_bytes / 3] ^= 4;
    if (!strcmp(how, "flipped first")) text[9] ^= 1; /* of HDF5's own */
    if (!strcmp(how, "another step")) strstr(text, ": 20")[2] = '3';
    if (!strcmp(how, "too long")) strstr(text, "[0, 0, 1,")[7] = '2';
    if (!strcmp(how, "another hash")) *strpbrk(strstr(text, "[0, 0, 1,") + 11, "0123456789") ^= 1;
    ck_ok(pn_file_write(path, text, n_bytes));
    free(text);
}

START_TEST(a_damaged_newest_step_is_passed_over) {
    static const struct {
        const char *file, *how, *message;
    } cases[] = {
        { "step-20/state-0-of-1.h5", "short", "step-20/state-0-of-1.h5: changed or cut short" },
        { "step-20/state-0-of-1.h5", "flipped", "step-20/state-0-of-1.h5: changed or cut short" },
        { "step-20/state-0-of-1.h5", "flipped first", "step-20/state-0-of-1.h5: changed or cut short" },
        { "step-20/state-0-of-1.h5", "gone", "step-20/state-0-of-1.h5: cannot read the file: No such file" },
        { "step-20/manifest.json", "garbage", "step-20/manifest.json:1:2: not valid JSON" },
        { "step-20/manifest.json", "short", "step-20/manifest.json:" },
        { "step-20/manifest.json", "gone", "step-20/manifest.json: cannot open: No such file" },
        { "step-20/manifest.json", "another step", "step-20/manifest.json: is of step 30" },
        { "step-20/manifest.json", "too long", "step-20/manifest.json: arrays.0.ranges.0.2" },
        { "step-20/manifest.json", "another hash", "step-20/state-0-of-1.h5: array step: elements 0 to 1 are not" },
        { "step-20", "gone", "step-20: named by" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setup();
        plain_save(dir, 10);
        plain_save(dir, 20);
        change(cases[i].file, cases[i].how);
        ck_assert_msg(plain_load(dir) == 10, "%s %s", cases[i].file, cases[i].how);
        ck_assert_int_eq(said("going back to step 10"), 1);
        plain_load(dir);
        ck_assert_msg(said(cases[i].message) == 1, "%s %s: %s", cases[i].file, cases[i].how, cases[i].message);
        plain_save(dir, 20); /* what is damaged does not pass for the state of its step */
        ck_assert_int_eq(plain_load(dir), 20);
        ck_assert_int_eq(said("warn"), 0);
        teardown();
    }
}
END_TEST

START_TEST(a_latest_that_is_gone_or_damaged_is_no_loss) {
    setup();
    plain_save(dir, 10);
    plain_save(dir, 20);
    change("latest", "garbage");
    ck_assert_int_eq(plain_load(dir), 20);
    ck_assert_int_eq(said("latest: names no step; going back to step 20"), 1);
    change("latest", "gone");
    ck_assert_int_eq(plain_load(dir), 20);
    plain_save(dir, 30);
    ck_assert_int_eq(plain_load(dir), 30);
    teardown();
}
END_TEST

START_TEST(no_whole_step_is_an_error_with_the_remedy) {
    setup();
    int64_t step;
    plain_save(dir, 10);
    plain_save(dir, 20);
    change("step-20/state-0-of-1.h5", "gone");
    ck_ok(pn_checkpoint_step(dir, JOB, &step)); /* sees what is gone */
    ck_assert_int_eq(step, 10);
    change("step-10/state-0-of-1.h5", "flipped");
    ck_assert_int_eq(pn_checkpoint_load(dir, JOB, state_of_step.array, 2, &step), PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "step-10/state-0-of-1.h5: changed"));
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "; remove "));
    ck_assert_int_eq(step, -1);
    ck_assert_int_eq(said("step-20/state-0-of-1.h5: cannot read"), 1);
    teardown();
}
END_TEST

START_TEST(the_state_of_an_earlier_version_is_refused) {
    setup();
    static const char old[] = "{ \"format\": 1, \"step\": 10, \"fingerprint\": \"0000000000000007\", \"bytes\": 3, "
                              "\"xxh3_64\": \"0123456789abcdef\" }";
    int64_t step;
    plain_save(dir, 10);
    char path[160];
    snprintf(path, sizeof path, "%s/step-10/manifest.json", dir);
    ck_ok(pn_file_write(path, old, strlen(old)));
    ck_assert_int_eq(pn_checkpoint_load(dir, JOB, state_of_step.array, 2, &step), PN_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "manifest.json: state of an earlier version"));
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "; remove "));
    ck_assert_int_eq(pn_checkpoint_step(dir, JOB, &step), PN_UNSUPPORTED);
    teardown();
}
END_TEST

/* ---- in the background ---- */

START_TEST(a_save_in_the_background_is_of_its_moment) {
    setup();
    state s, loaded;
    int64_t step;
    pn_checkpoint_writer *w;
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = JOB };
    ck_ok(pn_make_directories(dir));
    char left[160];
    snprintf(left, sizeof left, "%s/step-4.partial", dir);
    ck_ok(pn_make_directories(left));
    ck_ok(pn_checkpoint_writer_open(&where, &w));
    ck_assert(!pn_file_exists(left)); /* of a process that died */
    state_open(&s, 3);
    state_open(&loaded, 100);
    for (int64_t i = 1; i <= 4; i++) {
        s.steps = i;
        ck_ok(pn_checkpoint_writer_save(w, i, s.array, 5));
        s.steps = 99;
    }
    ck_ok(pn_checkpoint_writer_finish(w));
    ck_ok(pn_checkpoint_load(dir, JOB, loaded.array, 5, &step));
    ck_assert_int_eq(step, 4);
    ck_assert_int_eq(loaded.steps, 4);
    ck_assert_mem_eq(pn_data(loaded.narrow), pn_data(s.narrow), pn_tensor_bytes(s.narrow));
    ck_assert_mem_eq(loaded.halves, s.halves, sizeof s.halves);
    s.steps = 5;
    ck_ok(pn_checkpoint_writer_save(w, 5, s.array, 5));
    pn_checkpoint_writer_close(&w); /* waits */
    ck_ok(pn_checkpoint_load(dir, JOB, loaded.array, 5, &step));
    ck_assert_int_eq(step, 5);
    state_close(&s);
    state_close(&loaded);
    teardown();
}
END_TEST

/* ---- a full disk ---- */

START_TEST(a_full_disk_keeps_the_last_state) {
    setup();
    plain_save(dir, 10);
    struct stat is;
    char path[160];
    snprintf(path, sizeof path, "%s/step-10/state-0-of-1.h5", dir);
    ck_assert_int_eq(stat(path, &is), 0);
    int failures = 0;
    const int open_files = entries("/proc/self/fd");
    plain_set(&state_of_step, 20);
    for (rlim_t limit = 0; limit < (rlim_t)is.st_size; limit = limit * 5 / 4 + 200) {
        let_files_grow(limit);
        pn_status s = pn_checkpoint_save(dir, 20, JOB, state_of_step.array, 2);
        let_files_grow(RLIM_INFINITY);
        ck_assert_msg(s == PN_IO, "%lld bytes: %s", (long long)limit, pn_error_message());
        ck_assert_ptr_nonnull(strstr(pn_error_message(), "step-20.partial/state-0-of-1.h5: "));
        ck_assert_msg(strstr(pn_error_message(), "disk"), "%s", pn_error_message());
        ck_assert_int_eq(entries(dir), 2); /* step-10 and latest */
        failures++;
    }
    ck_assert_int_gt(failures, 20);
    ck_assert_int_eq(entries("/proc/self/fd"), open_files);
    ck_assert_int_eq(plain_load(dir), 10);
    plain_save(dir, 20);
    ck_assert_int_eq(plain_load(dir), 20);
    teardown();
}
END_TEST

/* A disk of this process alone, where the system lets it have one. */
static bool small_disk(const char *at, const char *size) {
    return !unshare(CLONE_NEWNS) && !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
           !mount("tmpfs", at, "tmpfs", 0, size);
}

/* Step 20 onto a disk that is as full as that: it is there, or nothing has changed. */
static pn_status save_or_not(void) {
    plain_set(&state_of_step, 20);
    const pn_status s = pn_checkpoint_save(dir, 20, JOB, state_of_step.array, 2);
    ck_assert(s == PN_IO || s == PN_OK);
    if (s) ck_assert_msg(strstr(pn_error_message(), strerror(ENOSPC)), "%s", pn_error_message());
    ck_assert_int_eq(entries(dir), s ? 2 : 3);
    ck_assert_int_eq(plain_load(dir), s ? 10 : 20);
    return s;
}

/* Of bytes, and of files: those run out at any point, from the directory to the name of the newest step. */
START_TEST(a_disk_that_is_full_at_any_point_keeps_the_last_state) {
    setup();
    enum { FILES = 40, PAGE = 4096 };
    char disk[48], filler[80];
    snprintf(disk, sizeof disk, "%s/disk", top);
    snprintf(filler, sizeof filler, "%s/filler", disk);
    snprintf(dir, sizeof dir, "%s/state", disk);
    ck_ok(pn_make_directories(disk));
    if (!small_disk(disk, "size=2m,nr_inodes=40")) {
        puts("no disk of its own for this test: it is left to the one before");
        teardown();
        return;
    }
    plain_save(dir, 10);
    struct statvfs is;
    ck_assert_int_eq(statvfs(disk, &is), 0);
    const size_t room = is.f_bavail * is.f_frsize;
    char *zeros = calloc(1, room);
    ck_ok(pn_file_write(filler, zeros, room));
    free(zeros);
    for (size_t left = 0; save_or_not(); left += PAGE) ck_assert_int_eq(truncate(filler, (off_t)(room - left)), 0);
    ck_ok(pn_remove_tree(filler));
    ck_ok(pn_remove_tree(dir));
    plain_save(dir, 10);
    int n = 0;
    for (int fd; n < FILES; n++) { /* until there is no other file to be had */
        snprintf(filler, sizeof filler, "%s/filler%d", disk, n);
        fd = open(filler, O_CREAT | O_WRONLY, 0666);
        if (fd < 0) break;
        close(fd);
    }
    bool manifest = false, latest = false;
    while (save_or_not()) {
        manifest |= strstr(pn_error_message(), "manifest.json: ") != NULL;
        latest |= strstr(pn_error_message(), "latest: ") != NULL;
        snprintf(filler, sizeof filler, "%s/filler%d", disk, --n);
        ck_ok(pn_remove_tree(filler));
    }
    ck_assert(manifest);
    ck_assert(latest);
    ck_assert_int_eq(umount(disk), 0);
    teardown();
}
END_TEST

START_TEST(a_failure_in_the_background_is_told_once) {
    setup();
    pn_checkpoint_writer *w;
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = JOB };
    ck_ok(pn_checkpoint_writer_open(&where, &w));
    plain_set(&state_of_step, 10);
    ck_ok(pn_checkpoint_writer_save(w, 10, state_of_step.array, 2));
    ck_ok(pn_checkpoint_writer_finish(w));
    let_files_grow(5000);
    pn_status s[6] = { 0 };
    char message[256];
    s[0] = pn_checkpoint_writer_save(w, 20, state_of_step.array, 2);
    s[1] = pn_checkpoint_writer_finish(w);
    snprintf(message, sizeof message, "%s", pn_error_message());
    s[2] = pn_checkpoint_writer_finish(w);
    s[3] = pn_checkpoint_writer_save(w, 20, state_of_step.array, 2);
    s[4] = pn_checkpoint_writer_save(w, 30, state_of_step.array, 2); /* the failure of the one before */
    s[5] = pn_checkpoint_writer_save(w, 30, state_of_step.array, 2);
    pn_checkpoint_writer_close(&w);
    let_files_grow(RLIM_INFINITY);
    for (int i = 0; i < 6; i++) ck_assert_int_eq(s[i], i == 1 || i == 4 ? PN_IO : PN_OK);
    ck_assert_ptr_nonnull(strstr(message, "step-20.partial/state-0-of-1.h5: "));
    ck_assert_int_eq(said("step 30 is not saved: "), 1);
    ck_assert_int_eq(plain_load(dir), 10);
    teardown();
}
END_TEST

/* ---- kill -9 ---- */

/* Saves step after step, says which ones are saved, and never ends. */
static void save_forever(int64_t first, volatile int64_t *saved) {
    pn_checkpoint_writer *w;
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = JOB };
    if (pn_checkpoint_writer_open(&where, &w)) _exit(1);
    for (int64_t step = first;; step++) {
        plain_set(&state_of_step, step);
        if (pn_checkpoint_writer_save(w, step, state_of_step.array, 2)) _exit(2);
        if (step % 2 && pn_checkpoint_writer_finish(w)) _exit(3);
        *saved = step % 2 ? step : step - 1; /* where it does not wait, the one before */
    }
}

START_TEST(a_kill_at_any_moment_loses_nothing) {
    setup();
    volatile int64_t *saved = mmap(NULL, sizeof *saved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(saved != MAP_FAILED);
    *saved = -1;
    int64_t step = -1;
    unsigned at = 1;
    for (int kills = 0; kills < 40; kills++) {
        const int64_t before = *saved;
        pid_t child = fork();
        if (child == 0) save_forever(step + 1, saved);
        while (*saved == before && waitpid(child, NULL, WNOHANG) == 0) usleep(50);
        at = at * 1103515245 + 12345;
        usleep(at / 65536 % 16384);
        kill(child, SIGKILL);
        int how;
        waitpid(child, &how, 0);
        ck_assert(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
        step = plain_load(dir);
        ck_assert_msg(step >= *saved, "kill %d: step %lld was saved, %lld is there", kills, (long long)*saved,
                      (long long)step);
        ck_assert_int_eq(said("warn"), 0);
    }
    pn_checkpoint_writer *w;
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = JOB };
    ck_ok(pn_checkpoint_writer_open(&where, &w));
    pn_checkpoint_writer_close(&w);
    ck_assert_int_le(entries(dir), 1 + PN_CHECKPOINT_KEEP + 1); /* a step that `latest` did not come to name */
    teardown();
}
END_TEST

TEST_MAIN("checkpoint", what_was_saved_comes_back, the_newest_steps_stay, a_damaged_newest_step_is_passed_over,
          a_latest_that_is_gone_or_damaged_is_no_loss, no_whole_step_is_an_error_with_the_remedy,
          the_state_of_an_earlier_version_is_refused, a_save_in_the_background_is_of_its_moment,
          a_full_disk_keeps_the_last_state, a_disk_that_is_full_at_any_point_keeps_the_last_state,
          a_failure_in_the_background_is_told_once, a_kill_at_any_moment_loses_nothing)
