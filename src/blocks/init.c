#include "init.h"

#include <math.h>

#include "orthogonal.h"

/* z of blocks.md 9.2 at element i of heads of `width` values. */
static double signed_square(int64_t i, double width) {
    double middle = (width - 1) / 2, ramp = middle > 0 ? (fmod((double)i, width) - middle) / middle : 0;
    return ramp * fabs(ramp);
}

/* How far along element i of n is, 0 .. 1. */
static double along(int64_t i, int64_t n) {
    return n > 1 ? (double)i / (double)(n - 1) : 0;
}

static double element(const pn_init *init, pn_rng *rng, int64_t i, int64_t n) {
    const double a = init->a, b = init->b;
    switch (init->kind) {
    case PN_INIT_ZEROS: return 0;
    case PN_INIT_ONES: return 1;
    case PN_INIT_CONSTANT: return a;
    case PN_INIT_IDENTITY_TAPS: return i % (int64_t)a == (int64_t)a - 1;
    case PN_INIT_NORMAL: return a * pn_rng_normal(rng);
    case PN_INIT_UNIFORM: return a + (b - a) * pn_rng_uniform(rng);
    case PN_INIT_LOG_UNIFORM: {
        double u = 0;
        while (u <= 0) u = a + (b - a) * pn_rng_uniform(rng);
        return log(u);
    }
    case PN_INIT_DT_BIAS: {
        double dt = exp(log(a) + (log(b) - log(a)) * pn_rng_uniform(rng));
        if (dt < 1e-4) dt = 1e-4;
        return dt + log(-expm1(-dt));
    }
    case PN_INIT_LINE: return a + (b - a) * along(i, n);
    case PN_INIT_TOKEN_SHIFT: return 1 - pow((double)i / (double)n, a);
    case PN_INIT_RWKV_DECAY: return 6 * pow(along(i, n), a) - 5.5 + 2.5 * signed_square(i, b);
    case PN_INIT_RWKV_RATE: return 0.4 * (along(i, n) - 0.5) - 0.19 + 0.3 * signed_square(i, b);
    case PN_INIT_ORTHOGONAL: break; /* not element by element */
    }
    PN_ASSERT(!"an init kind");
}

/* How many numbers of the stream an element takes, -1: that depends on them. */
static int draws(pn_init_kind kind) {
    switch (kind) {
    case PN_INIT_NORMAL: return 2;
    case PN_INIT_UNIFORM:
    case PN_INIT_DT_BIAS: return 1;
    case PN_INIT_LOG_UNIFORM: return -1;
    default: return 0;
    }
}

static void fill(const pn_init *init, pn_rng *rng, pn_tensor *value, int64_t begin, int64_t end) {
    const int64_t n = pn_tensor_elems(value);
    for (int64_t i = begin; i < end; i++) {
        const double x = element(init, rng, i, n);
        if (value->dtype == PN_F64)
            pn_f64(value)[i] = x;
        else
            pn_f32(value)[i] = (float)x;
    }
}

pn_status pn_init_fill(const pn_init *init, pn_rng *rng, pn_tensor *value) {
    enum { PART = 1 << 16 };
    const int64_t n = pn_tensor_elems(value), parts = (n + PART - 1) / PART;
    const int each = draws(init->kind);
    if (init->kind == PN_INIT_ORTHOGONAL) return pn_orthogonal_fill(init->a, rng, value);
    if (each < 0) {
        fill(init, rng, value, 0, n);
        return PN_OK;
    }
#pragma omp parallel for schedule(dynamic) if (parts > 1)
    for (int64_t k = 0; k < parts; k++) {
        pn_rng own = *rng;
        pn_rng_skip(&own, (uint64_t)(k * PART * each));
        fill(init, &own, value, k * PART, (k + 1) * PART < n ? (k + 1) * PART : n);
    }
    pn_rng_skip(rng, (uint64_t)(n * each));
    return PN_OK;
}
