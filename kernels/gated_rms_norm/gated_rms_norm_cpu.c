#include <math.h>
#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "gated_rms_norm.h"
#include "cpu/reduce.h"

static inline float rstd(const float *o, int64_t d, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; i++) sum += o[i] * o[i];
    return 1 / sqrtf(sum / (float)d + eps);
}

PN_CLONES static void norm_row(float *y, const float *o, const float *z, const float *w, float eps, int64_t d) {
    float r = rstd(o, d, eps);
    if (z) {
#pragma omp simd
        for (int64_t i = 0; i < d; i++) y[i] = w[i] * o[i] * r * pn_siluf(z[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < d; i++) y[i] = w[i] * o[i] * r;
    }
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_rms_norm_attr *attr = c->attr;
    const float *o = pn_f32(c->in[0]), *z = pn_f32_or_null(c->in[1]), *w = pn_f32(c->in[2]);
    float *y = pn_f32(c->out[0]), eps = (float)attr->eps;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d;
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (int64_t n = 0; n < rows; n++) norm_row(y + n * d, o + n * d, z ? z + n * d : NULL, w, eps, d);
    return PN_OK;
}

/* q = dy * silu(z), and dz += dy * w * o r * silu'(z) when wanted. */
PN_CLONES static void ungate(float *q, float *dz, const float *dy, const float *z, const float *w, const float *o,
                             float r, int64_t d) {
    if (dz) {
#pragma omp simd
        for (int64_t i = 0; i < d; i++) {
            float s = pn_sigmoidf(z[i]);
            q[i] = dy[i] * z[i] * s;
            dz[i] += dy[i] * w[i] * o[i] * r * s * (1 + z[i] * (1 - s));
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < d; i++) q[i] = dy[i] * pn_siluf(z[i]);
    }
}

/* dout += r (c - o r^2 mean(c * o)) with c = w * q. */
PN_CLONES static void add_norm(float *dout, const float *q, const float *w, const float *o, float r, int64_t d) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < d; i++) dot += w[i] * q[i] * o[i];
    float k = r * r * dot / (float)d;
#pragma omp simd
    for (int64_t i = 0; i < d; i++) dout[i] += r * (w[i] * q[i] - o[i] * k);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const pn_gated_rms_norm_attr *attr = c->attr;
    const float *o = pn_f32(c->in[0]), *z = pn_f32_or_null(c->in[1]), *dy = pn_f32(c->dout[0]);
    const float *w = c->din[0] || c->din[1] ? pn_f32(c->in[2]) : NULL;
    float *d_o = pn_f32_or_null(c->din[0]), *dz = pn_f32_or_null(c->din[1]), *dw = pn_f32_or_null(c->din[2]);
    float eps = (float)attr->eps;
    int64_t d = attr->head_dim, rows = pn_tensor_elems(c->in[0]) / d, n_blocks = pn_reduce_blocks(rows);
    float *partial = c->scratch, *gated = partial + n_blocks * d; /* [blocks, d] each: of dw; q of the current row */
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (int64_t b = 0; b < n_blocks; b++) {
        int64_t end = (b + 1) * PN_REDUCE_ROWS < rows ? (b + 1) * PN_REDUCE_ROWS : rows;
        float *dwb = partial + b * d;
        memset(dwb, 0, (size_t)d * sizeof *dwb);
        for (int64_t n = b * PN_REDUCE_ROWS; n < end; n++) {
            const float *on = o + n * d, *q = z ? gated + b * d : dy + n * d;
            float r = rstd(on, d, eps);
            if (z) ungate(gated + b * d, dz ? dz + n * d : NULL, dy + n * d, z + n * d, w, on, r, d);
            if (d_o) add_norm(d_o + n * d, q, w, on, r, d);
            if (!dw) continue;
#pragma omp simd
            for (int64_t i = 0; i < d; i++) dwb[i] += q[i] * on[i] * r;
        }
    }
    if (dw) pn_add_row_sum(dw, partial, n_blocks, d);
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    const pn_gated_rms_norm_attr *attr = c->attr;
    if (!backward_pass) return 0;
    int64_t rows = pn_tensor_elems(c->in[0]) / attr->head_dim;
    return (size_t)(2 * pn_reduce_blocks(rows) * attr->head_dim) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "gated_rms_norm/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const gated_rms_norm_cpu[];
const pn_op_impl *const gated_rms_norm_cpu[] = { &impl, NULL };
