#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "decay_gate.h"
#include "cpu/reduce.h"

/* Rows of H heads: heads are few, so the loop over both is left to the vectoriser one row at a time. */
PN_CLONES static void gate_rows(float *g, const float *a, const float *A, const float *dt_bias, int64_t rows,
                                int64_t H) {
    for (int64_t n = 0; n < rows; n++) {
#pragma omp simd
        for (int64_t h = 0; h < H; h++) g[n * H + h] = -A[h] * pn_softplusf(a[n * H + h] + dt_bias[h]);
    }
}

static pn_status forward(const pn_op_call *c) {
    const float *a = pn_f32(c->in[0]), *A_log = pn_f32(c->in[1]), *dt_bias = pn_f32(c->in[2]);
    float *g = pn_f32(c->out[0]), *A = c->scratch; /* [H] */
    int64_t N = c->in[0]->shape[0], H = c->in[0]->shape[1];
    for (int64_t h = 0; h < H; h++) A[h] = pn_expf(A_log[h]);
#pragma omp parallel for schedule(static) if (N * H > 16384)
    for (int64_t n = 0; n < N; n += PN_REDUCE_ROWS)
        gate_rows(g + n * H, a + n * H, A, dt_bias, N - n < PN_REDUCE_ROWS ? N - n : PN_REDUCE_ROWS, H);
    return PN_OK;
}

/* One block of rows: da is added to, the partial sums of d_dt_bias and dA_log are written. */
PN_CLONES static void block(const pn_op_call *c, const float *A, int64_t n0, int64_t n1, float *ddt, float *dA_log) {
    int64_t H = c->in[0]->shape[1];
    const float *dg = pn_f32(c->dout[0]);
    if (dA_log) {
        const float *g = pn_f32(c->out[0]);
        memset(dA_log, 0, (size_t)H * sizeof *dA_log);
        for (int64_t n = n0; n < n1; n++)
            for (int64_t h = 0; h < H; h++) dA_log[h] += g[n * H + h] * dg[n * H + h];
    }
    float *da = pn_f32_or_null(c->din[0]);
    if (!da && !ddt) return;
    const float *a = pn_f32(c->in[0]), *dt_bias = pn_f32(c->in[2]);
    if (ddt) memset(ddt, 0, (size_t)H * sizeof *ddt);
    for (int64_t n = n0; n < n1; n++)
        for (int64_t h = 0; h < H; h++) {
            float du = -A[h] * pn_sigmoidf(a[n * H + h] + dt_bias[h]) * dg[n * H + h];
            if (da) da[n * H + h] += du;
            if (ddt) ddt[h] += du;
        }
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    int64_t N = c->in[0]->shape[0], H = c->in[0]->shape[1], n_blocks = pn_reduce_blocks(N);
    float *A = c->scratch, *ddt = A + H, *dA_log = ddt + n_blocks * H; /* [H], [blocks, H] twice */
    if (c->din[0] || c->din[2])
        for (int64_t h = 0; h < H; h++) A[h] = pn_expf(pn_f32(c->in[1])[h]);
#pragma omp parallel for schedule(static) if (N * H > 16384)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t n0 = b * PN_REDUCE_ROWS, n1 = n0 + PN_REDUCE_ROWS < N ? n0 + PN_REDUCE_ROWS : N;
        block(c, A, n0, n1, c->din[2] ? ddt + b * H : NULL, c->din[1] ? dA_log + b * H : NULL);
    }
    if (c->din[2]) pn_add_row_sum(pn_f32(c->din[2]), ddt, n_blocks, H);
    if (c->din[1]) pn_add_row_sum(pn_f32(c->din[1]), dA_log, n_blocks, H);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    int64_t H = c->in[0]->shape[1], n_blocks = backward_pass ? pn_reduce_blocks(c->in[0]->shape[0]) : 0;
    return (size_t)(H + 2 * n_blocks * H) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "decay_gate/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const decay_gate_cpu[];
const pn_op_impl *const decay_gate_cpu[] = { &impl, NULL };
