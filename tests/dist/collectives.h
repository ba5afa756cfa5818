/* Every collective on a communicator, against what each rank works out by itself: it knows what the others gave. */
#ifndef PN_TESTS_COLLECTIVES_H
#define PN_TESTS_COLLECTIVES_H

#include <math.h>
#include <xxhash.h>

#include "ranks.h"

/* What a rank gives: numbers whose sum depends on the order they are added in. */
static inline void given_values(void *out, pn_dtype t, int rank, int64_t n, uint64_t seed) {
    double *x = malloc((size_t)n * sizeof *x + 1);
    uint64_t state = seed * 1000 + (uint64_t)rank;
    for (int64_t i = 0; i < n; i++) { /* Weyl's sequence, mixed; sizes over seven binary orders */
        uint64_t z = (state += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z ^= z >> 27;
        x[i] = (double)((int64_t)z >> 33) * 0x1p-20 * (double)(1 << (z & 7));
        if (t == PN_I64) x[i] = (double)(int64_t)(x[i] * 1000);
    }
    pn_convert(out, t, x, PN_F64, n);
    free(x);
}

/* The definition: in double precision, in the order of ranks, rounded once. */
static inline void expected_values(void *out, pn_dtype t, int size, int64_t n, uint64_t seed, pn_reduce op) {
    void *given = malloc((size_t)n * 8 + 1);
    double *x = malloc((size_t)n * sizeof *x + 1), *sum = malloc((size_t)n * sizeof *sum + 1);
    for (int r = 0; r < size; r++) {
        given_values(given, t, r, n, seed);
        pn_convert(x, PN_F64, given, t, n);
        for (int64_t i = 0; i < n; i++) sum[i] = r == 0 ? x[i] : op == PN_SUM ? sum[i] + x[i] : fmax(sum[i], x[i]);
    }
    pn_convert(out, t, sum, PN_F64, n);
    free(sum);
    free(x);
    free(given);
}

typedef struct exercise {
    pn_comm *comm;
    rank_report *report;
    XXH3_state_t *hash;
} exercise;

static inline int exercise_one(exercise *e, pn_dtype t, int64_t n, pn_reduce op) {
    pn_comm *c = e->comm;
    rank_report *report = e->report;
    const size_t bytes = pn_dtype_bytes(t), whole = (size_t)n * (size_t)c->size * bytes, part = (size_t)n * bytes;
    const size_t at = (size_t)c->rank * part;
    const uint64_t seed = (uint64_t)n * 100 + t * 10 + op;
    char *x = malloc(whole), *y = malloc(whole), *want = malloc(whole), *mine = malloc(part);

    given_values(x, t, c->rank, n, seed);
    expected_values(want, t, c->size, n, seed, op);
    RANK_OK(report, pn_comm_all_reduce(c, x, n, t, op, NULL));
    RANK_CHECK(report, !memcmp(x, want, part), "all_reduce %s %lld", pn_dtype_name(t), (long long)n);
    XXH3_64bits_update(e->hash, x, part);

    given_values(x, t, c->rank, n * c->size, seed + 1);
    memcpy(y, x, whole);
    expected_values(want, t, c->size, n * c->size, seed + 1, op);
    RANK_OK(report, pn_comm_reduce_scatter(c, x, mine, n, t, op, NULL));
    RANK_CHECK(report, !memcmp(mine, want + at, part), "reduce_scatter %s %lld", pn_dtype_name(t), (long long)n);
    RANK_CHECK(report, !memcmp(x, y, whole), "reduce_scatter wrote its source");
    RANK_OK(report, pn_comm_reduce_scatter(c, x, x + at, n, t, op, NULL));
    RANK_CHECK(report, !memcmp(x + at, mine, part), "reduce_scatter in place");
    memcpy(x + at, y + at, part);
    RANK_CHECK(report, !memcmp(x, y, whole), "reduce_scatter in place wrote other parts");

    memset(y, 0xff, whole);
    RANK_OK(report, pn_comm_all_gather(c, mine, y, n, t, NULL));
    RANK_CHECK(report, !memcmp(y, want, whole), "all_gather %s %lld", pn_dtype_name(t), (long long)n);
    memset(y, 0xff, whole);
    memcpy(y + at, mine, part);
    RANK_OK(report, pn_comm_all_gather(c, y + at, y, n, t, NULL));
    RANK_CHECK(report, !memcmp(y, want, whole), "all_gather in place %s %lld", pn_dtype_name(t), (long long)n);
    XXH3_64bits_update(e->hash, y, whole);

    for (int root = 0; root < c->size; root++) {
        given_values(want, t, root, n, seed + 2);
        if (c->rank == root)
            memcpy(x, want, part);
        else
            memset(x, 0xff, part);
        RANK_OK(report, pn_comm_broadcast(c, x, n, t, root, NULL));
        RANK_CHECK(report, !memcmp(x, want, part), "broadcast %s %lld from %d", pn_dtype_name(t), (long long)n, root);
    }
    free(x);
    free(y);
    free(want);
    free(mine);
    return 0;
}

/* Many at once, while the caller goes on; waited for in another order. */
static inline int exercise_overlap(exercise *e) {
    enum { N = 12, COUNT = 5000 };
    pn_comm *c = e->comm;
    rank_report *report = e->report;
    static float x[N][COUNT], want[COUNT];
    pn_ticket t[N];
    for (int i = 0; i < N; i++) {
        given_values(x[i], PN_F32, c->rank, COUNT, (uint64_t)i);
        RANK_OK(report, pn_comm_all_reduce(c, x[i], COUNT, PN_F32, PN_SUM, &t[i]));
    }
    for (int k = 0; k < N; k++) {
        const int i = k * 5 % N;
        RANK_OK(report, pn_comm_wait(c, t[i]));
        expected_values(want, PN_F32, c->size, COUNT, (uint64_t)i, PN_SUM);
        RANK_CHECK(report, !memcmp(x[i], want, sizeof want), "the %d-th of many at once", i);
    }
    RANK_OK(report, pn_comm_finish(c));
    return 0;
}

static inline int exercise_not_a_number(exercise *e) {
    pn_comm *c = e->comm;
    rank_report *report = e->report;
    float x[2] = { c->rank == c->size - 1 ? NAN : (float)c->rank, c->rank == 0 ? NAN : (float)c->rank };
    float y[2] = { x[0], x[1] };
    RANK_OK(report, pn_comm_all_reduce(c, x, 2, PN_F32, PN_MAX, NULL));
    RANK_CHECK(report, isnan(x[0]) && isnan(x[1]), "the largest of NaN and a number is %g, %g", x[0], x[1]);
    RANK_OK(report, pn_comm_all_reduce(c, y, 2, PN_F32, PN_SUM, NULL));
    RANK_CHECK(report, isnan(y[0]) && isnan(y[1]), "the sum of NaN and a number is %g, %g", y[0], y[1]);
    return 0;
}

/* All of them: 0, and a digest of the results in the report, the same for all ranks. */
static inline int exercise_all(pn_comm *c, rank_report *report) {
    static const pn_dtype types[] = { PN_F32, PN_BF16, PN_F64, PN_I64 };
    static const int64_t counts[] = { 0, 1, 3, 1000, 1025, 140000 };
    exercise e = { c, report, XXH3_createState() };
    XXH3_64bits_reset(e.hash);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
            for (int op = PN_SUM; op <= PN_MAX; op++) {
                if (counts[k] > 10000 && (types[i] != PN_F32 || op != PN_SUM)) continue;
                const int code = exercise_one(&e, types[i], counts[k], (pn_reduce)op);
                if (code) return code;
            }
    int code = exercise_overlap(&e);
    if (!code) code = exercise_not_a_number(&e);
    RANK_OK(report, pn_comm_barrier(c));
    report->digest = XXH3_64bits_digest(e.hash);
    XXH3_freeState(e.hash);
    return code;
}

#endif
