#include "optim.h"

#include <math.h>
#include <stdlib.h>

#include "profile.h"

typedef struct slot {
    pn_tensor *value, *moment[2];
    bool decay;
} slot;

struct pn_adamw {
    pn_adamw_settings set;
    pn_pool *pool;
    slot *slots;
    int n;
    double *block; /* sums of the blocks of the largest gradient */
    int64_t steps;
};

enum { SUM_BLOCK = 4096 };
static int64_t sum_blocks(int64_t n) {
    return (n + SUM_BLOCK - 1) / SUM_BLOCK;
}

pn_status pn_adamw_create(const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings, pn_adamw **out) {
    pn_status s;
    pn_adamw *o = calloc(1, sizeof *o);
    PN_CHECK(o, PN_MEMORY, "out of memory");
    o->set = *settings;
    o->slots = calloc((size_t)n + 1, sizeof *o->slots);
    if (!o->slots) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    int64_t most = 1;
    for (int i = 0; i < n; i++) {
        int64_t blocks = sum_blocks(pn_tensor_elems(slots[i].value));
        most = blocks > most ? blocks : most;
    }
    o->block = malloc((size_t)most * sizeof *o->block);
    if (!o->block) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, pn_pool_create(PN_POOL_HOST, &o->pool), fail);
    for (int i = 0; i < n; i++) {
        pn_tensor *v = slots[i].value;
        PN_ASSERT(v->dtype == PN_F32 && v->wants_grad);
        slot *x = &o->slots[o->n++];
        x->value = pn_tensor_retain(v);
        x->decay = slots[i].decay;
        for (int k = 0; k < 2; k++)
            PN_TRY_GOTO(s, pn_tensor_zeros(o->pool, PN_F32, v->rank, v->shape, &x->moment[k]), fail);
        pn_tensor_release(&v->grad);
        PN_TRY_GOTO(s, pn_tensor_zeros(o->pool, PN_F32, v->rank, v->shape, &v->grad), fail);
    }
    *out = o;
    return PN_OK;
fail:
    pn_adamw_destroy(&o);
    return s;
}

void pn_adamw_destroy(pn_adamw **op) {
    if (!op || !*op) return;
    pn_adamw *o = *op;
    for (int i = 0; i < o->n; i++) {
        pn_tensor_release(&o->slots[i].moment[0]);
        pn_tensor_release(&o->slots[i].moment[1]);
        pn_tensor_release(&o->slots[i].value->grad);
        pn_tensor_release(&o->slots[i].value);
    }
    free(o->slots);
    free(o->block);
    pn_pool_destroy(&o->pool);
    free(o);
    *op = NULL;
}

pn_status pn_adamw_zero_grad(pn_adamw *o) {
    for (int i = 0; i < o->n; i++) PN_TRY(pn_tensor_fill_zero(o->slots[i].value->grad));
    return PN_OK;
}

static double block_sum(const float *x, int64_t n) {
    float lanes[16] = { 0 };
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) lanes[l] += x[i + l] * x[i + l];
    double sum = 0;
    for (int l = 0; l < 16; l++) sum += lanes[l];
    for (; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

/* Blocks of fixed size summed in order: the same bits whatever the number of threads. block: room for their sums. */
static double sum_of_squares(const float *x, int64_t n, double *block) {
    int64_t blocks = sum_blocks(n);
#pragma omp parallel for schedule(static) if (n > 65536)
    for (int64_t b = 0; b < blocks; b++)
        block[b] = block_sum(x + b * SUM_BLOCK, n - b * SUM_BLOCK < SUM_BLOCK ? n - b * SUM_BLOCK : SUM_BLOCK);
    double total = 0;
    for (int64_t b = 0; b < blocks; b++) total += block[b];
    return total;
}

/* Useful work of a step: read weight, gradient and moments, write them back. */
static pn_op_cost step_cost(const pn_adamw *o) {
    pn_op_cost cost = { 0 };
    for (int i = 0; i < o->n; i++) {
        cost.flops += 14.0 * (double)pn_tensor_elems(o->slots[i].value);
        cost.bytes += 8.0 * (double)pn_tensor_bytes(o->slots[i].value);
    }
    return cost;
}

pn_status pn_adamw_step(pn_adamw *o, double learning_rate, double *norm_out) {
    double began = pn_profile_begin();
    double squares = 0;
    for (int i = 0; i < o->n; i++)
        squares += sum_of_squares(pn_f32(o->slots[i].value->grad), pn_tensor_elems(o->slots[i].value), o->block);
    double norm = sqrt(squares);
    if (norm_out) *norm_out = norm;
    PN_CHECK(isfinite(norm), PN_NUMERIC, "the gradient norm is not finite: lower the learning rate or check the data");
    double scale = o->set.clip > 0 && norm > o->set.clip ? o->set.clip / norm : 1.0;
    o->steps++;
    double c1 = 1 - pow(o->set.beta1, (double)o->steps), c2 = 1 - pow(o->set.beta2, (double)o->steps);
    const float b1 = (float)o->set.beta1, b2 = (float)o->set.beta2, gs = (float)scale;
    const float rate = (float)(learning_rate / c1), root = (float)(1 / sqrt(c2)), eps = (float)o->set.epsilon;
    for (int i = 0; i < o->n; i++) {
        slot *x = &o->slots[i];
        int64_t n = pn_tensor_elems(x->value);
        float *w = pn_f32(x->value), *g = pn_f32(x->value->grad);
        float *m = pn_f32(x->moment[0]), *v = pn_f32(x->moment[1]);
        const float shrink = x->decay ? (float)(1 - learning_rate * o->set.weight_decay) : 1.0f;
#pragma omp parallel for simd schedule(static) if (n > 32768)
        for (int64_t k = 0; k < n; k++) {
            float gk = g[k] * gs;
            m[k] = b1 * m[k] + (1 - b1) * gk;
            v[k] = b2 * v[k] + (1 - b2) * gk * gk;
            w[k] = shrink * w[k] - rate * m[k] / (sqrtf(v[k]) * root + eps);
            g[k] = 0;
        }
    }
    pn_op_cost cost = step_cost(o);
    pn_profile_end(began, "adamw", false, &cost);
    return PN_OK;
}

int pn_adamw_slots(const pn_adamw *o) {
    return o->n;
}
int64_t *pn_adamw_steps(pn_adamw *o) {
    return &o->steps;
}
pn_tensor *pn_adamw_moment(pn_adamw *o, int i, int which) {
    return o->slots[i].moment[which];
}
