/* Run state of many ranks, which are threads here: any number reads what any other number wrote, and what goes wrong on
 * one is the same failure on all. */
#include "checkpoint_background.h"

#include "harness.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "full_disk.h"

enum { RANKS = 5, JOB = 7, LONG = (1 << 20) + 70001, SHORT = 7, WHOLE = 3 };

/* ---- ranks that are threads ---- */

typedef struct world {
    int n;
    pthread_barrier_t all;
    const void *given[RANKS];
    size_t n_bytes[RANKS];
    const void *told;
    char dir[64];
    bool background;
    pn_status (*work)(struct world *w, const pn_checkpoint_place *where);
    pn_status status[RANKS];
    char message[RANKS][256];
} world;

typedef struct member {
    world *w;
    pn_checkpoint_ranks ranks;
} member;

static pn_status gather(void *ctx, const void *mine, size_t n_bytes, pn_buf *all) {
    member *m = ctx;
    world *w = m->w;
    w->given[m->ranks.rank] = mine;
    w->n_bytes[m->ranks.rank] = n_bytes;
    pthread_barrier_wait(&w->all);
    for (int r = 0; all && r < w->n; r++) pn_buf_append(&all[r], w->given[r], w->n_bytes[r]);
    pthread_barrier_wait(&w->all);
    return PN_OK;
}

static pn_status broadcast(void *ctx, void *bytes, size_t n_bytes) {
    member *m = ctx;
    world *w = m->w;
    if (m->ranks.rank == 0) w->told = bytes;
    pthread_barrier_wait(&w->all);
    if (m->ranks.rank) memcpy(bytes, w->told, n_bytes);
    pthread_barrier_wait(&w->all);
    return PN_OK;
}

static void *run_member(void *ctx) {
    member *m = ctx;
    const int r = m->ranks.rank;
    m->ranks.ctx = m;
    const pn_checkpoint_place where = { .dir = m->w->dir, .fingerprint = JOB, .ranks = &m->ranks };
    m->w->status[r] = m->w->work(m->w, &where);
    snprintf(m->w->message[r], sizeof *m->w->message, "%s", m->w->status[r] ? pn_error_message() : "");
    return NULL;
}

static void together(world *w, int n, pn_status (*work)(world *w, const pn_checkpoint_place *where)) {
    pthread_t thread[RANKS];
    member m[RANKS];
    w->n = n;
    w->work = work;
    pthread_barrier_init(&w->all, NULL, (unsigned)n);
    for (int r = 0; r < n; r++) {
        m[r] = (member){ .w = w, .ranks = { .rank = r, .n = n, .gather = gather, .broadcast = broadcast } };
        ck_assert_int_eq(pthread_create(&thread[r], NULL, run_member, &m[r]), 0);
    }
    for (int r = 0; r < n; r++) pthread_join(thread[r], NULL);
    pthread_barrier_destroy(&w->all);
}

static void all_are(const world *w, pn_status s) {
    for (int r = 0; r < w->n; r++) ck_assert_msg(w->status[r] == s, "rank %d of %d: %s", r, w->n, w->message[r]);
}

static void world_open(world *w) {
    *w = (world){ .dir = "/tmp/pn_ranks_XXXXXX" };
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
}

/* ---- a state of three arrays: long, two parts of it on each rank; short, on whom it falls; whole ---- */

typedef struct part {
    int64_t begin, end;
} part;

/* Of n elements in as many unequal pieces, the k-th. */
static part piece(int64_t n, int k, int pieces) {
    const int64_t weights = (int64_t)pieces * (pieces + 1) / 2;
    return (part){ n * k * (k + 1) / 2 / weights, n * (k + 1) * (k + 2) / 2 / weights };
}

static double value(int64_t step, int64_t i) {
    return (double)(step * 10000000 + i);
}

typedef struct held {
    int64_t step;
    double *values; /* of all parts, one after the other */
    int64_t whole[WHOLE];
    int64_t first, n;
    int32_t some[SHORT];
    pn_checkpoint_array array[4];
    part of[2];
} held;

static void hold(held *h, int64_t step, int rank, int n, bool fill) {
    const part low = piece(LONG, rank, 2 * n), high = piece(LONG, 2 * n - 1 - rank, 2 * n), s = piece(SHORT, rank, n);
    const int64_t n_low = low.end - low.begin, n_high = high.end - high.begin;
    *h = (held){ .step = step, .of = { low, high } };
    h->values = malloc((size_t)(n_low + n_high) * sizeof *h->values);
    for (int64_t i = 0; i < n_low + n_high; i++)
        h->values[i] = fill ? value(step, i < n_low ? low.begin + i : high.begin + i - n_low) : -1;
    for (int i = 0; i < WHOLE; i++) h->whole[i] = fill ? step + i : -1;
    h->first = s.begin;
    h->n = s.end - s.begin;
    for (int64_t i = 0; i < h->n; i++) h->some[i] = fill ? (int32_t)(step + s.begin + i) : -1;
    /* the later part first: order does not matter */
    h->array[0] = pn_checkpoint_part(pn_checkpoint_data("a/long", PN_F64, n_high, h->values + n_low), high.begin, LONG);
    h->array[1] = pn_checkpoint_part(pn_checkpoint_data("a/long", PN_F64, n_low, h->values), low.begin, LONG);
    h->array[2] = pn_checkpoint_data("whole", PN_I64, WHOLE, h->whole);
    h->array[3] = pn_checkpoint_part(pn_checkpoint_data("short", PN_I32, h->n, h->some), h->first, SHORT);
}

static bool is_of(const held *h, int64_t step) {
    bool same = true;
    const double *v = h->values;
    for (int p = 0; p < 2; p++)
        for (int64_t i = h->of[p].begin; i < h->of[p].end; i++) same &= *v++ == value(step, i);
    for (int i = 0; i < WHOLE; i++) same &= h->whole[i] == step + i;
    for (int64_t i = 0; i < h->n; i++) same &= h->some[i] == step + h->first + i;
    return same;
}

static int64_t saving; /* the step */

/* In the background, until all ranks know that it is there. */
static pn_status save_beside(pn_checkpoint_writer *writer, const pn_checkpoint_place *where, held *h) {
    char path[128], *latest = NULL, name[32];
    size_t n_bytes;
    PN_TRY(pn_checkpoint_writer_save(writer, saving, h->array, 4));
    memset(h->whole, 0, sizeof h->whole); /* a copy is written */
    for (int i = 0; i < 500; i++) {
        PN_TRY(pn_checkpoint_writer_advance(writer));
        usleep(1000);
    }
    PN_TRY(pn_path_join(path, where->dir, "latest"));
    PN_TRY(pn_file_read(path, 100, &latest, &n_bytes));
    snprintf(name, sizeof name, "step-%lld", (long long)saving);
    const bool there = !strcmp(latest, name);
    free(latest);
    PN_CHECK(there, PN_MISMATCH, "not there without being waited for");
    return PN_OK;
}

static pn_status save(world *w, const pn_checkpoint_place *where) {
    held h;
    hold(&h, saving, where->ranks->rank, where->ranks->n, true);
    pn_checkpoint_writer *writer;
    pn_status s = pn_checkpoint_writer_open(where, &writer);
    if (!s && w->background) s = save_beside(writer, where, &h);
    if (!s && !w->background) s = pn_checkpoint_write(where, saving, h.array, 4);
    pn_checkpoint_writer_close(&writer);
    free(h.values);
    return s;
}

static pn_status load(world *w, const pn_checkpoint_place *where) {
    (void)w;
    held h;
    int64_t step;
    hold(&h, 0, where->ranks->rank, where->ranks->n, false);
    pn_status s = pn_checkpoint_read(where, h.array, 4, &step);
    if (!s && (step != saving || !is_of(&h, step)))
        s = pn_fail_at(__FILE__, __LINE__, PN_MISMATCH, "step %lld came back as another", (long long)step);
    free(h.values);
    return s;
}

START_TEST(any_number_reads_what_any_other_wrote) {
    static const int numbers[] = { 1, 2, 3, 5 };
    world w;
    world_open(&w);
    for (int i = 0; i < 4; i++) {
        saving = 10 * (i + 1);
        w.background = i % 2;
        together(&w, numbers[i], save);
        all_are(&w, PN_OK);
        for (int k = 0; k < 4; k++) {
            together(&w, numbers[k], load);
            all_are(&w, PN_OK);
        }
    }
    ck_ok(pn_remove_tree(w.dir));
}
END_TEST

START_TEST(one_process_reads_a_range) {
    world w;
    world_open(&w);
    saving = 10;
    together(&w, 3, save);
    all_are(&w, PN_OK);
    const int64_t begins[] = { 0, 1, 4711, (1 << 20) - 5, LONG - 10 };
    for (int i = 0; i < 5; i++) {
        double got[10];
        int64_t step;
        const pn_checkpoint_array some =
            pn_checkpoint_part(pn_checkpoint_data("a/long", PN_F64, 10, got), begins[i], LONG);
        ck_ok(pn_checkpoint_load(w.dir, JOB, &some, 1, &step));
        for (int k = 0; k < 10; k++) ck_assert_double_eq(got[k], value(10, begins[i] + k));
    }
    ck_ok(pn_remove_tree(w.dir));
}
END_TEST

/* ---- what goes wrong ---- */

static pn_status fails(const void *of, int index, void *values) {
    (void)of, (void)index, (void)values;
    PN_FAIL(PN_IO, "this part is not to be had");
}
static pn_status never(void *of, int index, const void *values) {
    (void)of, (void)index, (void)values;
    return PN_OK;
}
static const pn_checkpoint_source broken = { fails, never };

static pn_status save_a_broken_part(world *w, const pn_checkpoint_place *where) {
    const int r = where->ranks->rank;
    int64_t x = r;
    pn_checkpoint_array a = pn_checkpoint_data("x", PN_I64, 1, &x);
    if (r == 1) a = pn_checkpoint_from("x", PN_I64, 1, &broken, NULL, 0);
    a = pn_checkpoint_part(a, r, where->ranks->n);
    if (!w->background) return pn_checkpoint_write(where, 20, &a, 1);
    pn_checkpoint_writer *writer;
    PN_TRY(pn_checkpoint_writer_open(where, &writer));
    pn_status s = pn_checkpoint_writer_save(writer, 20, &a, 1);
    pn_checkpoint_writer_close(&writer);
    return s;
}

static int64_t shift, length; /* of the parts that follow, from what they should be */

static pn_status save_shifted_parts(world *w, const pn_checkpoint_place *where) {
    (void)w;
    const int r = where->ranks->rank;
    int64_t x[9] = { 0 };
    const int64_t begin = 3 * r + (r == 1 ? shift : 0), n = 3 + (r == 1 ? length : 0);
    pn_checkpoint_array a = pn_checkpoint_part(pn_checkpoint_data("x", PN_I64, n, x), begin, 9);
    return pn_checkpoint_write(where, 20, &a, 1);
}

static int entries(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

START_TEST(what_fails_on_one_rank_fails_on_all_and_changes_nothing) {
    world w;
    world_open(&w);
    saving = 10;
    together(&w, 3, save);
    all_are(&w, PN_OK);
    for (int i = 0; i < 2; i++) {
        w.background = i;
        together(&w, 3, save_a_broken_part);
        all_are(&w, PN_IO);
        for (int r = 0; r < 3; r++) ck_assert_str_eq(w.message[r], "rank 1: this part is not to be had");
    }
    static const struct {
        int64_t shift, length;
        const char *message;
    } cases[] = { { 0, 1, "array x: elements 6 to 7 are there twice" },
                  { 0, -1, "array x: elements 5 to 6 are there not at all" },
                  { 1, -1, "array x: elements 3 to 4 are there not at all" },
                  { -1, 1, "array x: elements 2 to 3 are there twice" } };
    for (int i = 0; i < 4; i++) {
        shift = cases[i].shift;
        length = cases[i].length;
        together(&w, 3, save_shifted_parts);
        all_are(&w, PN_FORMAT);
        ck_assert_ptr_nonnull(strstr(w.message[2], cases[i].message));
    }
    ck_assert_int_eq(entries(w.dir), 2);
    together(&w, 2, load);
    all_are(&w, PN_OK);
    ck_ok(pn_remove_tree(w.dir));
}
END_TEST

/* No file grows beyond so much: whoever writes values fails, in its thread. */
static pn_status save_on_a_full_disk(world *w, const pn_checkpoint_place *where) {
    (void)w;
    held h;
    hold(&h, 30, where->ranks->rank, where->ranks->n, true);
    pn_checkpoint_writer *writer;
    PN_TRY(pn_checkpoint_writer_open(where, &writer));
    pn_status s = pn_checkpoint_writer_save(writer, 30, h.array, 4);
    if (!s) s = pn_checkpoint_writer_finish(writer);
    pn_checkpoint_writer_close(&writer);
    free(h.values);
    return s;
}

START_TEST(a_full_disk_in_the_background_is_told_to_all) {
    world w;
    world_open(&w);
    saving = 10;
    together(&w, 3, save);
    all_are(&w, PN_OK);
    let_files_grow(100000);
    together(&w, 3, save_on_a_full_disk);
    let_files_grow(RLIM_INFINITY);
    all_are(&w, PN_IO);
    for (int r = 0; r < 3; r++) ck_assert_ptr_nonnull(strstr(w.message[r], "step-30.partial/state-0-of-3.h5: "));
    ck_assert_int_eq(entries(w.dir), 2);
    together(&w, 3, load);
    all_are(&w, PN_OK);
    ck_ok(pn_remove_tree(w.dir));
}
END_TEST

START_TEST(ranks_fall_back_together) {
    world w;
    char path[128];
    world_open(&w);
    for (saving = 10; saving <= 20; saving += 10) {
        together(&w, 3, save);
        all_are(&w, PN_OK);
    }
    snprintf(path, sizeof path, "%s/step-20/state-2-of-3.h5", w.dir);
    ck_assert_int_eq(truncate(path, 100), 0);
    saving = 10;
    for (int n = 1; n <= 4; n++) {
        together(&w, n, load);
        all_are(&w, PN_OK);
    }
    snprintf(path, sizeof path, "%s/step-10/state-1-of-3.h5", w.dir);
    ck_assert_int_eq(truncate(path, 100), 0);
    together(&w, 4, load);
    all_are(&w, PN_FORMAT);
    ck_assert_ptr_nonnull(strstr(w.message[3], "rank 1: "));
    ck_assert_ptr_nonnull(strstr(w.message[3], "step-10/state-1-of-3.h5: changed or cut short"));
    ck_ok(pn_remove_tree(w.dir));
}
END_TEST

TEST_MAIN("checkpoint ranks", any_number_reads_what_any_other_wrote, one_process_reads_a_range,
          what_fails_on_one_rank_fails_on_all_and_changes_nothing, a_full_disk_in_the_background_is_told_to_all,
          ranks_fall_back_together)
