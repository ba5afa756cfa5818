#include "optim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "master.h"
#include "optim_gpu.h"
#include "profile.h"
#include "readback.h"

typedef struct slot {
    pn_tensor *value, *moment[2];
    pn_storage *low; /* of the masters of a BF16 value (master.h), int16; NULL: an F32 value is its own master */
    bool decay;
    const char *name;
} slot;

struct pn_adamw {
    pn_adamw_settings set;
    pn_pool *pool; /* where the values are */
    slot *slots;
    int n;
    double *block;     /* on the host: sums of the blocks of the largest gradient */
    pn_adamw_gpu *gpu; /* NULL: on the host */
    int64_t steps;
    pn_adamw_sum sum; /* over ranks; NULL: alone */
    void *sum_ctx;
    pn_tensor *shared;    /* on the host: what is summed, F64 [PN_ADAMW_SHARED] */
    bool begun;           /* a step, which is not finished */
    pn_readback *reading; /* of the GPU: its norm, and whether it was made */
    struct {              /* of the host: the same, and the first slot with a gradient that is not finite, -1: none */
        double norm, made;
        int row;
    } found;
};

enum { SUM_BLOCK = 4096 };
static int64_t sum_blocks(int64_t n) {
    return (n + SUM_BLOCK - 1) / SUM_BLOCK;
}

static pn_status open_slot(pn_adamw *o, const pn_adamw_slot *from, slot *x) {
    pn_tensor *v = from->value;
    PN_ASSERT(v->wants_grad && (v->dtype == PN_F32 || v->dtype == PN_BF16));
    x->value = pn_tensor_retain(v);
    x->decay = from->decay;
    x->name = from->name;
    if (v->dtype == PN_BF16) {
        const size_t n_bytes = (size_t)pn_tensor_elems(v) * sizeof(uint16_t);
        PN_TRY(pn_storage_create(o->pool, n_bytes, &x->low));
        PN_TRY(pn_storage_fill(x->low, 0, n_bytes, 0)); /* a master starts as its value */
    }
    for (int k = 0; k < 2; k++) PN_TRY(pn_tensor_zeros(o->pool, PN_F32, v->rank, v->shape, &x->moment[k]));
    pn_tensor_release(&v->grad);
    return PN_OK;
}

static pn_status open_gpu(pn_adamw *o) {
    pn_adamw_row *rows = calloc((size_t)o->n + 1, sizeof *rows);
    PN_CHECK(rows, PN_MEMORY, "out of memory");
    for (int i = 0; i < o->n; i++) {
        const slot *x = &o->slots[i];
        rows[i] = (pn_adamw_row){ .value = pn_data(x->value),
                                  .low = x->low ? x->low->data : NULL,
                                  .moment = { pn_f32(x->moment[0]), pn_f32(x->moment[1]) },
                                  .n = pn_tensor_elems(x->value),
                                  .decay = x->decay };
    }
    pn_status s = pn_adamw_gpu_create(o->pool, rows, o->n, &o->gpu);
    if (!s) s = pn_readback_create(PN_POOL_DEVICE, &o->reading);
    free(rows);
    return s;
}

pn_status pn_adamw_create(const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings, pn_adamw **out) {
    return pn_adamw_create_in(n ? pn_pool_kind_of(slots[0].value->storage->pool) : PN_POOL_HOST, slots, n, settings,
                              out);
}

pn_status pn_adamw_create_in(pn_pool_kind kind, const pn_adamw_slot *slots, int n, const pn_adamw_settings *settings,
                             pn_adamw **out) {
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
    PN_TRY_GOTO(s, pn_pool_create_exact(kind, &o->pool), fail);
    for (int i = 0; i < n; i++) {
        PN_ASSERT(pn_pool_kind_of(slots[i].value->storage->pool) == kind);
        PN_TRY_GOTO(s, open_slot(o, &slots[i], &o->slots[o->n++]), fail);
    }
    if (kind == PN_POOL_DEVICE)
        PN_TRY_GOTO(s, open_gpu(o), fail);
    else
        PN_TRY_GOTO(s, pn_tensor_zeros(o->pool, PN_F64, 1, &(int64_t){ PN_ADAMW_SHARED }, &o->shared), fail);
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
        pn_storage_release(&o->slots[i].low);
        pn_tensor_release(&o->slots[i].value->grad);
        pn_tensor_release(&o->slots[i].value);
    }
    pn_tensor_release(&o->shared);
    pn_readback_destroy(&o->reading);
    pn_adamw_gpu_destroy(&o->gpu);
    free(o->slots);
    free(o->block);
    pn_pool_destroy(&o->pool);
    free(o);
    *op = NULL;
}

void pn_adamw_drop_gradients(pn_adamw *o) {
    for (int i = 0; i < o->n; i++) pn_tensor_release(&o->slots[i].value->grad);
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

/* Useful work of a step: read gradient, weight and moments, write these back. */
static pn_op_cost step_cost(const pn_adamw *o) {
    pn_op_cost cost = { 0 };
    for (int i = 0; i < o->n; i++) {
        const pn_tensor *v = o->slots[i].value;
        const double n = (double)pn_tensor_elems(v);
        cost.flops += 14 * n;
        cost.bytes += 2 * ((double)pn_tensor_bytes(v) + pn_adamw_bytes(n, v->dtype)) + (double)sizeof(float) * n;
    }
    return cost;
}

/* What the step after the present one works with, on the host and on the GPU. */
static pn_adamw_rates next_rates(const pn_adamw *o, double learning_rate) {
    const double steps = (double)(o->steps + 1);
    double c1 = 1 - pow(o->set.beta1, steps), c2 = 1 - pow(o->set.beta2, steps);
    return (pn_adamw_rates){ .clip = o->set.clip,
                             .beta1 = (float)o->set.beta1,
                             .beta2 = (float)o->set.beta2,
                             .rate = (float)(learning_rate / c1),
                             .root = (float)(1 / sqrt(c2)),
                             .epsilon = (float)o->set.epsilon,
                             .shrink = (float)(1 - learning_rate * o->set.weight_decay) };
}

static pn_status host_step(pn_adamw *o, const pn_adamw_rates *rates, const pn_tensor *loss) {
    double squares = 0, total = 0;
    int row = -1;
    for (int i = 0; i < o->n; i++) {
        const pn_tensor *v = o->slots[i].value;
        double own = v->grad ? sum_of_squares(pn_f32(v->grad), pn_tensor_elems(v), o->block) : 0;
        if (row < 0 && !isfinite(own)) row = i;
        squares += own;
    }
    if (loss) PN_TRY(pn_tensor_read(loss, &total, PN_F64));
    double *shared = pn_f64(o->shared);
    shared[PN_ADAMW_SQUARES] = squares;
    shared[PN_ADAMW_FAULTS] = !isfinite(total);
    if (o->sum) PN_TRY(o->sum(o->sum_ctx, o->shared));
    const double norm = sqrt(shared[PN_ADAMW_SQUARES]);
    const bool made = isfinite(norm) && shared[PN_ADAMW_FAULTS] == 0;
    o->found.norm = norm;
    o->found.made = made;
    o->found.row = row;
    if (!made) return PN_OK;
    const float gs = (float)(rates->clip > 0 && norm > rates->clip ? rates->clip / norm : 1.0);
    const float b1 = rates->beta1, b2 = rates->beta2, rate = rates->rate, root = rates->root, eps = rates->epsilon;
    for (int i = 0; i < o->n; i++) {
        slot *x = &o->slots[i];
        int64_t n = pn_tensor_elems(x->value);
        float *w = pn_f32(x->value);
        const float *g = pn_f32_or_null(x->value->grad);
        float *m = pn_f32(x->moment[0]), *v = pn_f32(x->moment[1]);
        const float shrink = x->decay ? rates->shrink : 1.0f;
#pragma omp parallel for simd schedule(static) if (n > 32768)
        for (int64_t k = 0; k < n; k++) {
            const float gk = g ? g[k] * gs : 0;
            m[k] = b1 * m[k] + (1 - b1) * gk;
            v[k] = b2 * v[k] + (1 - b2) * gk * gk;
            w[k] = shrink * w[k] - rate * m[k] / (sqrtf(v[k]) * root + eps);
        }
    }
    return PN_OK;
}

static pn_status gpu_step(pn_adamw *o, const pn_adamw_rates *rates, const pn_tensor *loss) {
    for (int i = 0; i < o->n; i++) pn_adamw_gpu_gradient(o->gpu, i, pn_f32_or_null(o->slots[i].value->grad));
    PN_TRY(pn_adamw_gpu_norm(o->gpu, pn_f32_or_null(loss)));
    if (o->sum) PN_TRY(o->sum(o->sum_ctx, pn_adamw_gpu_shared(o->gpu)));
    PN_TRY(pn_adamw_gpu_step(o->gpu, rates));
    PN_TRY(pn_readback_add(o->reading, pn_adamw_gpu_found(o->gpu)));
    return PN_OK;
}

void pn_adamw_share(pn_adamw *o, pn_adamw_sum sum, void *ctx) {
    o->sum = sum;
    o->sum_ctx = ctx;
}

pn_status pn_adamw_begin(pn_adamw *o, double learning_rate, const pn_tensor *loss) {
    PN_ASSERT(!o->begun);
    const double began = pn_profile_begin();
    const pn_adamw_rates rates = next_rates(o, learning_rate);
    PN_TRY(o->gpu ? gpu_step(o, &rates, loss) : host_step(o, &rates, loss));
    pn_adamw_drop_gradients(o); /* the GPU takes their memory again after it has read them */
    const pn_op_cost cost = step_cost(o);
    pn_profile_end(began, "adamw", false, &cost);
    o->begun = true;
    return PN_OK;
}

pn_status pn_adamw_finish(pn_adamw *o, double *norm_out) {
    PN_ASSERT(o->begun);
    double found[PN_ADAMW_FOUND] = { [PN_ADAMW_NORM] = o->found.norm, [PN_ADAMW_MADE] = o->found.made };
    int row = o->found.row;
    o->begun = false;
    if (o->gpu) PN_TRY(pn_readback_wait(o->reading, found));
    const double norm = found[PN_ADAMW_NORM];
    if (norm_out) *norm_out = norm;
    if (found[PN_ADAMW_MADE] != 0) {
        o->steps++;
        return PN_OK;
    }
    if (o->gpu) PN_TRY(pn_adamw_gpu_row(o->gpu, &row));
    PN_CHECK(row < 0, PN_NUMERIC, "the gradient of %s is not finite: lower the learning rate or check the data",
             o->slots[row].name);
    PN_FAIL(PN_NUMERIC, "the %s is not finite: lower the learning rate or check the data",
            isfinite(norm) ? "loss" : "gradient norm");
}

pn_status pn_adamw_step(pn_adamw *o, double learning_rate, double *norm) {
    PN_TRY(pn_adamw_begin(o, learning_rate, NULL));
    PN_TRY(pn_adamw_finish(o, norm));
    return PN_OK;
}

int pn_adamw_slots(const pn_adamw *o) {
    return o->n;
}
int64_t *pn_adamw_steps(pn_adamw *o) {
    return &o->steps;
}
const char *pn_adamw_name(const pn_adamw *o, int i) {
    return o->slots[i].name;
}
pn_tensor *pn_adamw_value(pn_adamw *o, int i) {
    return o->slots[i].value;
}
pn_tensor *pn_adamw_moment(pn_adamw *o, int i, int which) {
    return o->slots[i].moment[which];
}

/* ---- masters ---- */

/* On the host, the two halves of the masters of a BF16 value. */
typedef struct halves {
    int64_t n;
    uint16_t *value, *low;
} halves;

static pn_status open_halves(const slot *x, halves *h) {
    *h = (halves){ .n = pn_tensor_elems(x->value) };
    h->value = malloc(((size_t)h->n + 1) * 2 * sizeof *h->value);
    PN_CHECK(h->value, PN_MEMORY, "out of memory");
    h->low = h->value + h->n;
    return PN_OK;
}

static void join(const halves *h, float *masters) {
#pragma omp parallel for simd schedule(static) if (h->n > 1 << 20)
    for (int64_t i = 0; i < h->n; i++) {
        const uint32_t bits = pn_master_join((pn_master_halves){ h->value[i], h->low[i] });
        memcpy(&masters[i], &bits, sizeof bits);
    }
}

static void split(const halves *h, const float *masters) {
#pragma omp parallel for simd schedule(static) if (h->n > 1 << 20)
    for (int64_t i = 0; i < h->n; i++) {
        uint32_t bits;
        memcpy(&bits, &masters[i], sizeof bits);
        const pn_master_halves x = pn_master_split(bits);
        h->value[i] = x.value;
        h->low[i] = x.low;
    }
}

pn_status pn_adamw_read_master(const pn_adamw *o, int i, float *masters) {
    const slot *x = &o->slots[i];
    if (!x->low) return pn_tensor_read(x->value, masters, PN_F32);
    halves h;
    PN_TRY(open_halves(x, &h));
    pn_status s = pn_tensor_read(x->value, h.value, PN_BF16);
    if (!s) s = pn_storage_read(h.low, x->low, 0, (size_t)h.n * sizeof *h.low);
    if (!s) join(&h, masters);
    free(h.value);
    return s;
}

pn_status pn_adamw_write_master(pn_adamw *o, int i, const float *masters) {
    slot *x = &o->slots[i];
    if (!x->low) return pn_tensor_write(x->value, masters, PN_F32);
    halves h;
    PN_TRY(open_halves(x, &h));
    split(&h, masters);
    pn_status s = pn_tensor_write(x->value, h.value, PN_BF16);
    if (!s) s = pn_storage_write(x->low, 0, h.low, (size_t)h.n * sizeof *h.low);
    free(h.value);
    return s;
}

double pn_adamw_bytes(double n, pn_dtype type) {
    const double low = type == PN_F32 ? 0 : sizeof(uint16_t);
    return (2 * sizeof(float) + low) * n;
}
