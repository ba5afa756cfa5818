/* Collectives on one rank and over TCP: every rank has the same bits, from run to run, and they are those of the
 * definition. */
#include "collectives.h"

static int all_over_tcp(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    RANK_OK(&r->report[rank], pn_comm_tcp(control, &comm));
    const int code = exercise_all(comm, &r->report[rank]);
    pn_comm_destroy(&comm);
    return code;
}

static int all_alone(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    RANK_OK(&r->report[rank], pn_comm_self(control, PN_POOL_HOST, &comm));
    const int code = exercise_all(comm, &r->report[rank]);
    pn_comm_destroy(&comm);
    return code;
}

static uint64_t digest_of(int n, rank_program *program) {
    ranks *r = ranks_new(n);
    ranks_start(r, program);
    ranks_all_succeed(r);
    const uint64_t digest = r->report[0].digest;
    for (int i = 1; i < n; i++) ck_assert_msg(r->report[i].digest == digest, "rank %d of %d has other bits", i, n);
    ranks_free(r);
    return digest;
}

START_TEST(one_rank_alone) {
    ck_assert(digest_of(1, all_alone) == digest_of(1, all_over_tcp));
}
END_TEST

START_TEST(every_collective_over_tcp) {
    for (int n = 2; n <= 4; n++) ck_assert_msg(digest_of(n, all_over_tcp) == digest_of(n, all_over_tcp), "%d ranks", n);
}
END_TEST

/* What is summed for every rank by itself, and what in parts, has the same bits. */
static int small_and_large(ranks *r, int rank, pn_control *control) {
    enum { N = 3000 };
    rank_report *report = &r->report[rank];
    float *x = malloc(2 * N * sizeof *x), *y = x + N;
    pn_comm *comm;
    RANK_OK(report, pn_comm_tcp(control, &comm));
    given_values(x, PN_F32, rank, N, 1);
    memcpy(y, x, N * sizeof *y);
    RANK_OK(report, pn_comm_all_reduce(comm, x, N, PN_F32, PN_SUM, NULL));
    for (int i = 0; i < N; i += 100) RANK_OK(report, pn_comm_all_reduce(comm, y + i, 100, PN_F32, PN_SUM, NULL));
    RANK_CHECK(report, !memcmp(x, y, N * sizeof *y), "sums depend on the count");
    pn_comm_destroy(&comm);
    free(x);
    return 0;
}

START_TEST(bits_do_not_depend_on_the_count) {
    ranks *r = ranks_new(3);
    ranks_start(r, small_and_large);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

static int tensors(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    pn_pool *pool;
    pn_comm *comm;
    pn_tensor *x;
    RANK_OK(report, pn_comm_tcp(control, &comm));
    RANK_OK(report, pn_pool_create(PN_POOL_HOST, &pool));
    RANK_OK(report, pn_tensor_create(pool, PN_F32, 2, (int64_t[]){ 3, 5 }, &x));
    for (int i = 0; i < 15; i++) pn_f32(x)[i] = (float)(i * (rank + 1));
    RANK_OK(report, pn_comm_all_reduce_tensor(comm, x, PN_SUM, NULL));
    for (int i = 0; i < 15; i++) RANK_CHECK(report, pn_f32(x)[i] == 3.0f * (float)i, "a tensor's sum");
    if (rank == 0) RANK_OK(report, pn_tensor_fill_zero(x));
    RANK_OK(report, pn_comm_broadcast_tensor(comm, x, 1, NULL));
    for (int i = 0; i < 15; i++) RANK_CHECK(report, pn_f32(x)[i] == 3.0f * (float)i, "a tensor's copy");
    pn_tensor_release(&x);
    pn_pool_destroy(&pool);
    pn_comm_destroy(&comm);
    return 0;
}

START_TEST(whole_tensors) {
    ranks *r = ranks_new(2);
    ranks_start(r, tensors);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

TEST_MAIN("comm", one_rank_alone, every_collective_over_tcp, bits_do_not_depend_on_the_count, whole_tensors)
