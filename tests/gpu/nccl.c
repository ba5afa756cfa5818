/* Collectives between GPUs: with one GPU on one rank, with more on two ranks and on as many as there are (four at
 * most). Ranks are processes that are forked before anybody opens a GPU. */
#include "dist/ranks.h"

#include <math.h>
#include <xxhash.h>

#include "device.h"
#include "gpu.h"

enum { N = 1 << 20, REFUSED = 77 };

static int gpus(void) {
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        int n = 0;
        const pn_status s = pn_device_count(&n);
        _exit(s ? 0 : n);
    }
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

/* Whole numbers: their sums are the same in any order, in BF16 too. */
static void fill(double *x, int64_t n, int rank, int seed) {
    for (int64_t i = 0; i < n; i++) x[i] = (double)((i * 7 + rank * 13 + seed) % 31 - 15);
}

typedef struct gpu_rank {
    pn_comm *comm;
    pn_pool *pool;
    rank_report *report;
} gpu_rank;

/* PN_UNSUPPORTED where there is no NCCL: all ranks find that out alike. */
static pn_status open_rank(ranks *r, int rank, pn_control *control, gpu_rank *out) {
    out->report = &r->report[rank];
    pn_control_busy(control, "opening the GPU");
    if (r->n > 1) PN_TRY(pn_device_choose(rank, r->n));
    PN_TRY(pn_device_open());
    PN_TRY(pn_pool_create(PN_POOL_DEVICE, &out->pool));
    PN_TRY(pn_comm_nccl(control, &out->comm));
    pn_control_busy(control, NULL);
    return PN_OK;
}

static int one_type(gpu_rank *g, pn_dtype t, int64_t n) {
    pn_comm *c = g->comm;
    rank_report *report = g->report;
    const int64_t whole = n * c->size;
    double *x = malloc((size_t)whole * sizeof *x), *y = malloc((size_t)whole * sizeof *y);
    double *want = calloc((size_t)whole, sizeof *want), *most = malloc((size_t)whole * sizeof *most);
    for (int k = 0; k < c->size; k++) {
        fill(x, whole, k, 1);
        for (int64_t i = 0; i < whole; i++) {
            want[i] += x[i];
            most[i] = k == 0 ? x[i] : fmax(most[i], x[i]);
        }
    }
    fill(x, whole, c->rank, 1);
    pn_tensor *a, *b, *d;
    RANK_OK(report, pn_tensor_create(g->pool, t, 1, &whole, &a));
    RANK_OK(report, pn_tensor_create(g->pool, t, 1, &n, &b));
    RANK_OK(report, pn_tensor_create(g->pool, t, 1, &whole, &d));

    pn_ticket ticket;
    RANK_OK(report, pn_tensor_write(a, x, PN_F64));
    RANK_OK(report, pn_comm_all_reduce_tensor(c, a, PN_MAX, NULL));
    RANK_OK(report, pn_comm_finish(c));
    RANK_OK(report, pn_tensor_read(a, y, PN_F64));
    RANK_CHECK(report, !memcmp(y, most, (size_t)whole * sizeof *y), "the largest, %s %lld", pn_dtype_name(t),
               (long long)n);

    RANK_OK(report, pn_tensor_write(a, x, PN_F64));
    RANK_OK(report, pn_comm_reduce_scatter(c, pn_data(a), pn_data(b), n, t, PN_SUM, &ticket));
    RANK_OK(report, pn_comm_all_gather(c, pn_data(b), pn_data(d), n, t, &ticket)); /* in order, with no wait between */
    RANK_OK(report, pn_comm_wait(c, ticket));
    RANK_OK(report, pn_comm_finish(c));
    RANK_OK(report, pn_tensor_read(d, y, PN_F64));
    RANK_CHECK(report, !memcmp(y, want, (size_t)whole * sizeof *y), "reduce_scatter and all_gather, %s %lld",
               pn_dtype_name(t), (long long)n);
    const int64_t at = n * c->rank;
    RANK_OK(report, pn_comm_reduce_scatter(c, pn_data(a), (char *)pn_data(a) + (size_t)at * pn_dtype_bytes(t), n, t,
                                           PN_SUM, NULL));
    RANK_OK(report, pn_comm_all_gather(c, (char *)pn_data(a) + (size_t)at * pn_dtype_bytes(t), pn_data(a), n, t, NULL));
    RANK_OK(report, pn_comm_finish(c));
    RANK_OK(report, pn_tensor_read(a, y, PN_F64));
    RANK_CHECK(report, !memcmp(y, want, (size_t)whole * sizeof *y), "in place, %s %lld", pn_dtype_name(t),
               (long long)n);

    for (int root = 0; root < c->size; root++) {
        fill(want, whole, root, 5);
        fill(x, whole, c->rank, 5);
        RANK_OK(report, pn_tensor_write(a, x, PN_F64));
        RANK_OK(report, pn_comm_broadcast_tensor(c, a, root, NULL));
        RANK_OK(report, pn_comm_finish(c));
        RANK_OK(report, pn_tensor_read(a, y, PN_F64));
        RANK_CHECK(report, !memcmp(y, want, (size_t)whole * sizeof *y), "broadcast from %d", root);
    }
    RANK_OK(report, pn_comm_barrier(c));
    pn_tensor_release(&a);
    pn_tensor_release(&b);
    pn_tensor_release(&d);
    free(x);
    free(y);
    free(want);
    free(most);
    return 0;
}

/* Sums that depend on their order: the same bits on every rank, and in the next run. More at once than there are
 * events.
 */
static int many(gpu_rank *g) {
    enum { AT_ONCE = 100, EACH = 10007 };
    pn_comm *c = g->comm;
    rank_report *report = g->report;
    const int64_t n = EACH;
    pn_tensor *x[AT_ONCE];
    pn_ticket t[AT_ONCE];
    float *values = malloc(EACH * sizeof *values);
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    for (int i = 0; i < AT_ONCE; i++) {
        for (int k = 0; k < EACH; k++) values[k] = sinf((float)(k * (c->rank + 2) + i)) * expf((float)(k % 9));
        RANK_OK(report, pn_tensor_create(g->pool, PN_F32, 1, &n, &x[i]));
        RANK_OK(report, pn_tensor_write(x[i], values, PN_F32));
        RANK_OK(report, pn_comm_all_reduce_tensor(c, x[i], PN_SUM, &t[i]));
    }
    for (int i = 0; i < AT_ONCE; i++) {
        RANK_OK(report, pn_comm_wait(c, t[i]));
        if (i == 0) RANK_OK(report, pn_comm_finish(c));
        RANK_OK(report, pn_tensor_read(x[i], values, PN_F32));
        XXH3_64bits_update(hash, values, EACH * sizeof *values);
        pn_tensor_release(&x[i]);
    }
    report->digest = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    free(values);
    return 0;
}

/* For the record: how fast. */
static int speed(gpu_rank *g) {
    const int64_t n = 64 << 20;
    pn_tensor *x;
    RANK_OK(g->report, pn_tensor_zeros(g->pool, PN_F32, 1, &n, &x));
    double began = 0;
    for (int i = 0; i < 12; i++) {
        if (i == 2) {
            RANK_OK(g->report, pn_comm_finish(g->comm));
            began = pn_seconds();
        }
        RANK_OK(g->report, pn_comm_all_reduce_tensor(g->comm, x, PN_SUM, NULL));
    }
    RANK_OK(g->report, pn_comm_finish(g->comm));
    const double each = (pn_seconds() - began) / 10;
    if (g->comm->rank == 0)
        printf("all_reduce of 256 MiB on %d GPUs: %.3f ms, %.0f GB/s (bus)\n", g->comm->size, each * 1e3,
               (double)n * 4 / each * 2 * (g->comm->size - 1) / g->comm->size / 1e9);
    fflush(stdout);
    pn_tensor_release(&x);
    return 0;
}

static int everything(ranks *r, int rank, pn_control *control) {
    static const pn_dtype types[] = { PN_F32, PN_BF16, PN_F64, PN_I64 };
    gpu_rank g = { NULL };
    const pn_status s = open_rank(r, rank, control, &g);
    if (s) report_failure(&r->report[rank], s);
    if (s) return s == PN_UNSUPPORTED ? REFUSED : 11;
    int code = 0;
    for (int i = 0; i < 4 && !code; i++) {
        code = one_type(&g, types[i], 1);
        if (!code) code = one_type(&g, types[i], 1001);
        if (!code) code = one_type(&g, types[i], N);
    }
    if (!code) code = many(&g);
    if (!code) code = speed(&g);
    pn_comm_destroy(&g.comm);
    pn_pool_destroy(&g.pool);
    return code;
}

static bool has_nccl(ranks *r) {
    ranks_wait(r);
    return !(WIFEXITED(r->exit_status[0]) && WEXITSTATUS(r->exit_status[0]) == REFUSED);
}

START_TEST(every_collective) {
    const int there = gpus();
    if (!there) ck_skip("no GPU that this build can use");
    for (int n = 1; n <= there && n <= 4; n *= 2) {
        uint64_t digest[2];
        for (int k = 0; k < 2; k++) {
            ranks *r = ranks_new(n);
            ranks_start(r, everything);
            if (!has_nccl(r)) ck_skip("%s", r->report[0].message);
            ranks_all_succeed(r);
            digest[k] = r->report[0].digest;
            for (int i = 1; i < n; i++) ck_assert_msg(r->report[i].digest == digest[k], "rank %d has other bits", i);
            ranks_free(r);
        }
        ck_assert_msg(digest[0] == digest[1], "%d ranks: other bits in the next run", n);
    }
}
END_TEST

/* The other rank answers what NCCL's start asks over the control channel, and is gone before NCCL can find it. */
static int leave_before_connecting(ranks *r, int rank, pn_control *control) {
    if (rank == 1) {
        char id[128];
        RANK_OK(&r->report[rank], pn_control_agree(control, "NCCL", PN_OK));
        RANK_OK(&r->report[rank], pn_control_broadcast(control, "NCCL id", 0, id, sizeof id));
        usleep(500000);
        raise(SIGKILL);
    }
    pn_comm *comm = NULL;
    RANK_OK(&r->report[rank], pn_device_open());
    const pn_status s = pn_comm_nccl(control, &comm);
    report_failure(&r->report[rank], s);
    return s == PN_COMM ? 0 : s == PN_UNSUPPORTED ? REFUSED : 13;
}

START_TEST(a_rank_that_dies_while_gpus_connect) {
    if (!gpus()) ck_skip("no GPU that this build can use");
    ranks *r = ranks_new(2);
    ranks_start(r, leave_before_connecting);
    if (!has_nccl(r)) ck_skip("%s", r->report[0].message);
    ck_assert_msg(r->exit_status[0] == 0 && strstr(r->report[0].message, "rank 1 failed: its process ended"),
                  "status %d: %s", r->exit_status[0], r->report[0].message);
    ranks_free(r);
}
END_TEST

/* The last rank is gone in the middle of sums that are queued on the GPU; the main thread of the others waits there. */
static int sum_until_failure(ranks *r, int rank, pn_control *control) {
    gpu_rank g = { NULL };
    const int64_t n = 16 << 20;
    pn_tensor *x;
    RANK_OK(&r->report[rank], open_rank(r, rank, control, &g));
    RANK_OK(&r->report[rank], pn_tensor_zeros(g.pool, PN_F32, 1, &n, &x));
    for (int i = 0;; i++) {
        pn_ticket t;
        pn_status s = pn_comm_all_reduce_tensor(g.comm, x, PN_SUM, &t);
        if (!s) s = pn_comm_wait(g.comm, t);
        if (!s && i % 8 == 7) s = pn_comm_finish(g.comm);
        if (!s && i == 100 && rank == r->n - 1) raise(SIGKILL);
        if (!s) continue;
        report_failure(&r->report[rank], s);
        pn_comm_destroy(&g.comm);
        return s == PN_COMM ? 0 : 13;
    }
}

START_TEST(a_rank_that_dies_between_sums) {
    if (gpus() < 2) {
        puts("one GPU: nothing was run between two");
        return;
    }
    ranks *r = ranks_new(2);
    ranks_start(r, sum_until_failure);
    ranks_wait(r);
    ck_assert_msg(r->exit_status[0] == 0 && strstr(r->report[0].message, "rank 1 failed: its process ended"),
                  "status %d: %s", r->exit_status[0], r->report[0].message);
    ranks_free(r);
}
END_TEST

TEST_MAIN("nccl", every_collective, a_rank_that_dies_while_gpus_connect, a_rank_that_dies_between_sums)
