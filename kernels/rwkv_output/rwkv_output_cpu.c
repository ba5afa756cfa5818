#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "rwkv_output.h"

enum { O, R, K, V, GATE, R_K };

/* One head of a token. */
typedef struct head {
    const float *o, *r, *k, *v, *gate, *r_k;
    int64_t d;
} head;

PN_INLINE float bonus(const head *h) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < h->d; i++) sum += h->r[i] * h->k[i] * h->r_k[i];
    return sum;
}

PN_CLONES static void apply(const head *h, float *y) {
    float c = bonus(h);
#pragma omp simd
    for (int64_t i = 0; i < h->d; i++) y[i] = (h->o[i] + c * h->v[i]) * h->gate[i];
}

typedef struct head_grad { /* every pointer is writable */
    float *o, *r, *k, *v, *gate, *r_k;
} head_grad;

PN_CLONES static void add_gradient(const head *h, const float *dy, const head_grad *g) {
    float c = bonus(h), dc = 0;
#pragma omp simd reduction(+ : dc)
    for (int64_t i = 0; i < h->d; i++) dc += dy[i] * h->gate[i] * h->v[i];
#pragma omp simd
    for (int64_t i = 0; i < h->d; i++) {
        float d_o = dy[i] * h->gate[i];
        g->o[i] += d_o;
        g->r[i] += dc * h->k[i] * h->r_k[i];
        g->k[i] += dc * h->r[i] * h->r_k[i];
        g->v[i] += c * d_o;
        g->gate[i] += dy[i] * (h->o[i] + c * h->v[i]);
        g->r_k[i] += dc * h->r[i] * h->k[i];
    }
}

static head head_at(const pn_op_call *c, int64_t at, int64_t channel) {
    return (head){ .o = pn_f32(c->in[O]) + at,
                   .r = pn_f32(c->in[R]) + at,
                   .k = pn_f32(c->in[K]) + at,
                   .v = pn_f32(c->in[V]) + at,
                   .gate = pn_f32(c->in[GATE]) + at,
                   .r_k = pn_f32(c->in[R_K]) + channel,
                   .d = c->in[R_K]->shape[1] };
}

static pn_status forward(const pn_op_call *c) {
    const int64_t N = c->in[O]->shape[0], C = c->in[O]->shape[1], d = c->in[R_K]->shape[1];
    float *y = pn_f32(c->out[0]);
#pragma omp parallel for schedule(static) if (N * C > 16384)
    for (int64_t at = 0; at < N * C; at += d) {
        head h = head_at(c, at, at % C);
        apply(&h, y + at);
    }
    return PN_OK;
}

/* Scratch: [blocks, C] of the gradient of r_k; [blocks, 5 d] that is never read for gradients that nobody wants. */
static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const int64_t N = c->in[O]->shape[0], C = c->in[O]->shape[1], d = c->in[R_K]->shape[1];
    const int64_t n_blocks = pn_reduce_blocks(N);
    const float *dy = pn_f32(c->dout[0]);
    float *dr_k = c->scratch, *sinks = dr_k + n_blocks * C, *din[R_K];
    for (int i = O; i < R_K; i++) din[i] = pn_f32_or_null(c->din[i]);
#pragma omp parallel for schedule(static) if (N * C > 16384)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        float *to[R_K];
        memset(dr_k + b * C, 0, (size_t)C * sizeof *dr_k);
        memset(sinks + 5 * b * d, 0, (size_t)(5 * d) * sizeof *sinks);
        for (int64_t at = b * PN_REDUCE_ROWS * C; at < end * C; at += d) {
            head h = head_at(c, at, at % C);
            for (int i = O; i < R_K; i++) to[i] = din[i] ? din[i] + at : sinks + (5 * b + i) * d;
            head_grad g = { to[O], to[R], to[K], to[V], to[GATE], dr_k + b * C + at % C };
            add_gradient(&h, dy + at, &g);
        }
    }
    if (c->din[R_K]) pn_add_row_sum(pn_f32(c->din[R_K]), dr_k, n_blocks, C);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    return (size_t)(pn_reduce_blocks(c->in[O]->shape[0]) * (c->in[O]->shape[1] + 5 * c->in[R_K]->shape[1])) *
           sizeof(float);
}

static const pn_op_impl impl = {
    .name = "rwkv_output/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const rwkv_output_cpu[];
const pn_op_impl *const rwkv_output_cpu[] = { &impl, NULL };
