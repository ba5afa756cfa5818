/* Run state: arrays and tensors come back as they were, and nothing else is taken for them. */
#include "checkpoint.h"

#include "harness.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

enum { N = 5 };

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

TEST_MAIN("checkpoint", what_was_saved_comes_back)
