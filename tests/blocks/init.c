/* First values of weights (init.h) that later code cannot check by itself. */
#include "harness.h"
#include <math.h>

#include "init.h"

static pn_tensor *filled(const pn_init *init, pn_dtype dtype, int64_t rows, int64_t cols, pn_pool *pool) {
    pn_tensor *t;
    pn_rng rng;
    pn_rng_stream(7, "w", 0, &rng);
    ck_ok(pn_tensor_create(pool, dtype, 2, (int64_t[]){ rows, cols }, &t));
    ck_ok(pn_init_fill(init, &rng, t));
    return t;
}

/* <vector i, vector j> of the rows, or of the columns. */
static double product(const pn_tensor *t, bool of_columns, int64_t i, int64_t j) {
    const int64_t rows = t->shape[0], cols = t->shape[1];
    const double *x = pn_f64(t);
    double sum = 0;
    for (int64_t n = 0; n < (of_columns ? rows : cols); n++)
        sum += of_columns ? x[n * cols + i] * x[n * cols + j] : x[i * cols + n] * x[j * cols + n];
    return sum;
}

START_TEST(orthogonal_matrices_are) {
    static const int64_t shapes[][2] = {
        { 1, 1 }, { 5, 5 }, { 70, 70 }, { 33, 100 }, { 100, 33 }, { 1, 9 }, { 64, 2 }
    };
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t rows = shapes[s][0], cols = shapes[s][1], n = rows < cols ? rows : cols;
        const pn_init init = { PN_INIT_ORTHOGONAL, 0.1, 0 };
        pn_tensor *t = filled(&init, PN_F64, rows, cols, pool), *single = filled(&init, PN_F32, rows, cols, pool);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) {
                double p = product(t, rows > cols, i, j);
                ck_assert_msg(fabs(p - (i == j ? 0.01 : 0)) < 1e-16 * (double)(rows + cols + 50),
                              "%lldx%lld: <%lld, %lld> = %g", (long long)rows, (long long)cols, (long long)i,
                              (long long)j, p);
            }
        for (int64_t i = 0; i < rows * cols; i++) ck_assert(pn_f32(single)[i] == (float)pn_f64(t)[i]);
        pn_tensor_release(&t);
        pn_tensor_release(&single);
    }
    pn_pool_destroy(&pool);
}
END_TEST

/* Threads share a large weight: its values are those of one draw after another. */
START_TEST(parts_are_one_stream) {
    enum { ROWS = 3, COLS = 66667 };
    static const pn_init_kind kinds[] = { PN_INIT_NORMAL, PN_INIT_UNIFORM };
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    for (int k = 0; k < 2; k++) {
        pn_rng rng, again;
        pn_tensor *t;
        pn_rng_stream(7, "parts", 0, &rng);
        again = rng;
        ck_ok(pn_tensor_create(pool, PN_F64, 2, (int64_t[]){ ROWS, COLS }, &t));
        ck_ok(pn_init_fill(&(pn_init){ kinds[k], 0.5, 2.5 }, &rng, t));
        for (int64_t i = 0; i < ROWS * COLS; i++) {
            const double x = k ? 0.5 + 2 * pn_rng_uniform(&again) : 0.5 * pn_rng_normal(&again);
            if (pn_f64(t)[i] != x) ck_abort_msg("value %lld", (long long)i);
        }
        ck_assert_uint_eq(pn_rng_u64(&rng), pn_rng_u64(&again));
        pn_tensor_release(&t);
    }
    pn_pool_destroy(&pool);
}
END_TEST

/* Neither rows nor columns in some fixed order of size or sign: the mean over many elements is near 0, and no element
 * of the diagonal stands out. */
START_TEST(orthogonal_matrices_are_random) {
    enum { N = 200 };
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *t = filled(&(pn_init){ PN_INIT_ORTHOGONAL, 1, 0 }, PN_F64, N, N, pool);
    double sum = 0, trace = 0;
    for (int64_t i = 0; i < N * N; i++) sum += pn_f64(t)[i];
    for (int64_t i = 0; i < N; i++) trace += pn_f64(t)[i * N + i];
    ck_assert_double_lt(fabs(sum), 4 * sqrt((double)N)); /* both are standard normal but for a factor */
    ck_assert_double_lt(fabs(trace), 4);
    pn_tensor_release(&t);
    pn_pool_destroy(&pool);
}
END_TEST

/* blocks.md 9.2 for D = 12, N = 4. */
START_TEST(ramps_of_rwkv7) {
    enum { D = 12 };
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *shift = filled(&(pn_init){ PN_INIT_TOKEN_SHIFT, 0.7, 0 }, PN_F64, 1, D, pool);
    pn_tensor *decay = filled(&(pn_init){ PN_INIT_RWKV_DECAY, 1.5, 4 }, PN_F64, 1, D, pool);
    pn_tensor *rate = filled(&(pn_init){ PN_INIT_RWKV_RATE, 0, 4 }, PN_F64, 1, D, pool);
    pn_tensor *line = filled(&(pn_init){ PN_INIT_LINE, 0.76, 0.66 }, PN_F64, 1, D, pool);
    static const double z[] = { -1, -1.0 / 9, 1.0 / 9, 1 };
    for (int i = 0; i < D; i++) {
        double lin = i / 11.0 - 0.5;
        ck_assert_double_eq_tol(pn_f64(shift)[i], 1 - pow(i / 12.0, 0.7), 1e-15);
        ck_assert_double_eq_tol(pn_f64(decay)[i], -6 + 6 * pow(i / 11.0, 1.5) + 0.5 + 2.5 * z[i % 4], 1e-14);
        ck_assert_double_eq_tol(pn_f64(rate)[i], -0.19 + 0.3 * z[i % 4] + 0.4 * lin, 1e-15);
        ck_assert_double_eq_tol(pn_f64(line)[i], 0.71 - 0.1 * lin, 1e-15);
    }
    pn_tensor *all[] = { shift, decay, rate, line };
    for (int i = 0; i < 4; i++) pn_tensor_release(&all[i]);
    pn_pool_destroy(&pool);
}
END_TEST

TEST_MAIN("init", parts_are_one_stream, orthogonal_matrices_are, orthogonal_matrices_are_random, ramps_of_rwkv7)
