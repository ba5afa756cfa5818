#include <string.h>

#include "cpu/clones.h"
#include "cpu/reduce.h"
#include "feature_loss.h"

typedef struct sums {
    double error, variance, energy;
} sums;

/* Sums of one row; rows are short enough for float, what is added over rows is double. */
PN_CLONES static void row_sums(const float *y, const float *t, const float *mean, int64_t D, sums *s) {
    float error = 0, variance = 0, energy = 0;
#pragma omp simd reduction(+ : error, variance, energy)
    for (int64_t i = 0; i < D; i++) {
        float e = y[i] - t[i], v = t[i] - mean[i];
        error += e * e;
        variance += v * v;
        energy += t[i] * t[i];
    }
    s->error += error;
    s->variance += variance;
    s->energy += energy;
}

static pn_status forward(const pn_op_call *c) {
    const float *y = pn_f32(c->in[0]), *t = pn_f32(c->in[1]);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], n_blocks = pn_reduce_blocks(N);
    sums *block = c->scratch;                  /* [blocks] */
    float *mean = (float *)(block + n_blocks); /* [D] */
    memset(mean, 0, (size_t)D * sizeof *mean);
    pn_add_row_sum(mean, t, N, D);
    for (int64_t i = 0; i < D; i++) mean[i] /= (float)N;
#pragma omp parallel for schedule(static) if (N * D > 65536)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < N ? (b + 1) * PN_REDUCE_ROWS : N;
        sums s = { 0 };
        for (int64_t n = b * PN_REDUCE_ROWS; n < end; n++) row_sums(y + n * D, t + n * D, mean, D, &s);
        block[b] = s;
    }
    sums all = { 0 };
    for (int64_t b = 0; b < n_blocks; b++) {
        all.error += block[b].error;
        all.variance += block[b].variance;
        all.energy += block[b].energy;
    }
    double S = all.variance > PN_FEATURE_LOSS_MIN_VARIANCE * all.energy ? all.variance : (double)(N * D);
    pn_f32(c->out[0])[0] = N * D > 0 ? (float)(all.error / S) : 0;
    pn_f32(c->out[1])[0] = (float)S;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    const float *y = pn_f32(c->in[0]), *t = pn_f32(c->in[1]);
    float *dy = pn_f32(c->din[0]);
    int64_t n = pn_tensor_elems(c->in[0]);
    float k = n ? (float)(2 * (double)pn_f32(c->dout[0])[0] / pn_f32(c->out[1])[0]) : 0;
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (int64_t i = 0; i < n; i++) dy[i] += k * (y[i] - t[i]);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (backward_pass) return 0;
    return (size_t)pn_reduce_blocks(c->in[0]->shape[0]) * sizeof(sums) + (size_t)c->in[0]->shape[1] * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "feature_loss/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const feature_loss_cpu[];
const pn_op_impl *const feature_loss_cpu[] = { &impl, NULL };
