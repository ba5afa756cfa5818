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

/* Rank 1 is played: it comes last, after strangers who say nothing, half of it, or something else. */
static int come_after_strangers(rank_report *report, pn_control *control) {
    enum { STRANGERS = 24 };
    static const char other[] = "GET / HTTP/1.1\r\nHost: localhost:80\r\n\r\n";
    unsigned char hello[PN_WIRE_HEADER + PN_HELLO_BYTES];
    const double deadline = pn_seconds() + 30;
    int32_t ports[2], mine = 0;
    int64_t elsewhere = 0;
    int fd[STRANGERS + 1];
    pn_net_address to;
    RANK_OK(report, pn_control_max(control, "ranks elsewhere", &elsewhere));
    RANK_OK(report, pn_control_exchange(control, "ports of ranks", &mine, sizeof mine, ports));
    RANK_OK(report, pn_control_address(control, 0, &to));
    pn_net_set_port(&to, ports[0]);
    pn_wire_write(hello, PN_WIRE_DATA, 1, PN_HELLO_BYTES);
    pn_wire_digest(pn_control_token(control), true, hello + PN_WIRE_HEADER);
    pn_put32(hello + PN_WIRE_HEADER + PN_TOKEN_BYTES, 2);
    for (int i = 0; i <= STRANGERS; i++) {
        RANK_OK(report, pn_net_connect_to(&to, deadline, &fd[i]));
        if (i % 3 == 1) RANK_OK(report, pn_net_send_all(fd[i], hello, sizeof hello / 2, deadline));
        if (i % 3 == 2) RANK_OK(report, pn_net_send_all(fd[i], other, sizeof other, deadline));
    }
    const double at = pn_seconds();
    RANK_OK(report, pn_net_send_all(fd[STRANGERS], hello, sizeof hello, deadline));
    RANK_OK(report, pn_control_agree(control, "connections", PN_OK));
    RANK_CHECK(report, pn_seconds() - at < 4, "strangers kept rank 0 busy for %g s", pn_seconds() - at);
    for (int i = 0; i <= STRANGERS; i++) pn_net_close(&fd[i]);
    return 0;
}

static int among_strangers(ranks *r, int rank, pn_control *control) {
    pn_comm *comm;
    if (rank == 1) return come_after_strangers(&r->report[1], control);
    RANK_OK(&r->report[0], pn_comm_tcp(control, &comm));
    pn_comm_destroy(&comm);
    return 0;
}

START_TEST(strangers_keep_nobody_waiting) {
    ranks *r = ranks_new(2);
    ranks_start(r, among_strangers);
    ranks_all_succeed(r);
    ranks_free(r);
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

TEST_MAIN("comm", one_rank_alone, every_collective_over_tcp, strangers_keep_nobody_waiting,
          bits_do_not_depend_on_the_count, whole_tensors)
