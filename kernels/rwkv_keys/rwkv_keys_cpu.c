#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "rwkv_keys.h"

enum { K, A, K_K, K_A };
enum { KEY, REMOVE, ADD };

/* One head of a token. */
typedef struct head {
    const float *k, *a, *k_k, *k_a;
    int64_t d;
    float eps, floor;
} head;

PN_INLINE float unit(const head *h) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < h->d; i++) {
        float u = h->k[i] * h->k_k[i];
        sum += u * u;
    }
    float norm = sqrtf(sum + h->eps);
    return 1 / (norm > h->floor ? norm : h->floor);
}

PN_CLONES static void make(const head *h, float *key, float *rem, float *add) {
    float r = unit(h);
#pragma omp simd
    for (int64_t i = 0; i < h->d; i++) {
        float kk = h->k[i] * h->k_k[i] * r;
        key[i] = h->k[i] * (1 + (h->a[i] - 1) * h->k_a[i]);
        rem[i] = -kk;
        add[i] = kk * h->a[i];
    }
}

/* Gradients of one head; every pointer is readable or writable. */
typedef struct head_grad {
    const float *key, *rem, *add;
    float *k, *a, *k_k, *k_a;
} head_grad;

PN_CLONES static void add_gradient(const head *h, const head_grad *g) {
    const float *k = h->k, *a = h->a, *k_k = h->k_k, *k_a = h->k_a;
    float r = unit(h), dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < h->d; i++) dot += (a[i] * g->add[i] - g->rem[i]) * (k[i] * k_k[i] * r);
#pragma omp simd
    for (int64_t i = 0; i < h->d; i++) {
        float kk = k[i] * k_k[i] * r, du = r * (a[i] * g->add[i] - g->rem[i] - kk * dot);
        g->k[i] += g->key[i] * (1 + (a[i] - 1) * k_a[i]) + k_k[i] * du;
        g->a[i] += kk * g->add[i] + k[i] * k_a[i] * g->key[i];
        g->k_k[i] += k[i] * du;
        g->k_a[i] += k[i] * (a[i] - 1) * g->key[i];
    }
}

static head head_at(const pn_op_call *c, int64_t at, int64_t channel) {
    const pn_rwkv_keys_attr *attr = c->attr;
    return (head){ .k = pn_f32(c->in[K]) + at,
                   .a = pn_f32(c->in[A]) + at,
                   .k_k = pn_f32(c->in[K_K]) + channel,
                   .k_a = pn_f32(c->in[K_A]) + channel,
                   .d = attr->head_dim,
                   .eps = (float)attr->eps,
                   .floor = (float)attr->floor };
}

static pn_status forward(const pn_op_call *c) {
    const int64_t N = c->in[K]->shape[0], C = c->in[K]->shape[1];
    const int64_t d = ((const pn_rwkv_keys_attr *)c->attr)->head_dim;
    float *key = pn_f32(c->out[KEY]), *rem = pn_f32(c->out[REMOVE]), *add = pn_f32(c->out[ADD]);
#pragma omp parallel for schedule(static) if (N * C > 16384)
    for (int64_t at = 0; at < N * C; at += d) {
        head h = head_at(c, at, at % C);
        make(&h, key + at, rem + at, add + at);
    }
    return PN_OK;
}

/* Scratch: [blocks, C] of the gradients of k_k and of k_a; [C] zeros for a gradient that did not come; [blocks, d] that
 * is never read for gradients that nobody wants. */
static pn_status backward(const pn_op_call *c) {
    const int64_t N = c->in[K]->shape[0], C = c->in[K]->shape[1], n_blocks = pn_reduce_blocks(N);
    const int64_t d = ((const pn_rwkv_keys_attr *)c->attr)->head_dim;
    const float *key = pn_f32_or_null(c->dout[KEY]), *rem = pn_f32_or_null(c->dout[REMOVE]);
    const float *add = pn_f32_or_null(c->dout[ADD]);
    float *dk = pn_f32_or_null(c->din[K]), *da = pn_f32_or_null(c->din[A]);
    float *k_k = c->scratch, *k_a = k_k + n_blocks * C, *zeros = k_a + n_blocks * C, *sinks = zeros + C;
    memset(k_k, 0, (size_t)((2 * n_blocks + 1) * C + n_blocks * d) * sizeof *k_k);
#pragma omp parallel for schedule(static) if (N * C > 16384)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        float *sink = sinks + b * d;
        for (int64_t at = b * PN_REDUCE_ROWS * C; at < end * C; at += d) {
            head h = head_at(c, at, at % C);
            head_grad g = { .key = key ? key + at : zeros,
                            .rem = rem ? rem + at : zeros,
                            .add = add ? add + at : zeros,
                            .k = dk ? dk + at : sink,
                            .a = da ? da + at : sink,
                            .k_k = k_k + b * C + at % C,
                            .k_a = k_a + b * C + at % C };
            add_gradient(&h, &g);
        }
    }
    if (c->din[K_K]) pn_add_row_sum(pn_f32(c->din[K_K]), k_k, n_blocks, C);
    if (c->din[K_A]) pn_add_row_sum(pn_f32(c->din[K_A]), k_a, n_blocks, C);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    const int64_t C = c->in[K]->shape[1], n_blocks = pn_reduce_blocks(c->in[K]->shape[0]);
    const int64_t d = ((const pn_rwkv_keys_attr *)c->attr)->head_dim;
    return (size_t)((2 * n_blocks + 1) * C + n_blocks * d) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "rwkv_keys/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const rwkv_keys_cpu[];
const pn_op_impl *const rwkv_keys_cpu[] = { &impl, NULL };
