#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "head_scale.h"

enum { X, S, A };

/* One token: H heads of p channels. */
PN_CLONES static void scale_row(float *y, const float *x, const float *s, const float *a, int64_t H, int64_t p) {
    for (int64_t h = 0; h < H; h++) {
        if (a) {
#pragma omp simd
            for (int64_t i = h * p; i < (h + 1) * p; i++) y[i] = s[h] * x[i] + a[i];
        } else {
#pragma omp simd
            for (int64_t i = h * p; i < (h + 1) * p; i++) y[i] = s[h] * x[i];
        }
    }
}

PN_CLONES static void add_dx(float *dx, const float *dy, const float *s, int64_t H, int64_t p) {
    for (int64_t h = 0; h < H; h++) {
#pragma omp simd
        for (int64_t i = h * p; i < (h + 1) * p; i++) dx[i] += s[h] * dy[i];
    }
}

PN_CLONES static void add_ds(float *ds, const float *dy, const float *x, int64_t H, int64_t p) {
    for (int64_t h = 0; h < H; h++) {
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = h * p; i < (h + 1) * p; i++) dot += dy[i] * x[i];
        ds[h] += dot;
    }
}

static pn_status forward(const pn_op_call *c) {
    const pn_tensor *s = c->in[S];
    const float *x = pn_f32(c->in[X]), *a = pn_f32_or_null(c->in[A]);
    float *y = pn_f32(c->out[0]);
    const int64_t N = c->in[X]->shape[0], C = c->in[X]->shape[1], H = s->shape[s->rank - 1];
    const int64_t next = s->rank == 2 ? H : 0; /* to the factors of the next token */
#pragma omp parallel for schedule(static) if (N * C > 65536)
    for (int64_t n = 0; n < N; n++)
        scale_row(y + n * C, x + n * C, pn_f32(s) + n * next, a ? a + n * C : NULL, H, C / H);
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const int64_t N = c->dout[0]->shape[0], C = c->dout[0]->shape[1], n_blocks = pn_reduce_blocks(N);
    const int64_t H = c->in[S]->shape[c->in[S]->rank - 1], p = C / H;
    const bool each = c->in[S]->rank == 2;
    const float *dy = pn_f32(c->dout[0]);
    const float *s = c->din[X] ? pn_f32(c->in[S]) : NULL, *x = c->din[S] ? pn_f32(c->in[X]) : NULL;
    float *dx = pn_f32_or_null(c->din[X]), *ds = pn_f32_or_null(c->din[S]), *da = pn_f32_or_null(c->din[A]);
    float *partial = c->scratch; /* [blocks, H] of ds that all tokens share */
#pragma omp parallel for schedule(static) if (N * C > 65536)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        if (ds && !each) memset(partial + b * H, 0, (size_t)H * sizeof *partial);
        for (int64_t n = b * PN_REDUCE_ROWS; n < end; n++) {
            if (dx) add_dx(dx + n * C, dy + n * C, s + (each ? n * H : 0), H, p);
            if (ds) add_ds(each ? ds + n * H : partial + b * H, dy + n * C, x + n * C, H, p);
            if (!da) continue;
#pragma omp simd
            for (int64_t i = n * C; i < (n + 1) * C; i++) da[i] += dy[i];
        }
    }
    if (ds && !each) pn_add_row_sum(ds, partial, n_blocks, H);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass || !c->wants[S] || c->in[S]->rank == 2) return 0;
    return (size_t)(pn_reduce_blocks(c->in[X]->shape[0]) * c->in[S]->shape[0]) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "head_scale/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const head_scale_cpu[];
const pn_op_impl *const head_scale_cpu[] = { &impl, NULL };
