#include "cpu/span.h"
#include "lerp.h"

enum { A, B, W };

static pn_status forward(const pn_op_call *c) {
    const float *a = pn_f32(c->in[A]), *b = pn_f32(c->in[B]), *w = pn_f32(c->in[W]);
    float *y = pn_f32(c->out[0]);
    int64_t n = pn_tensor_elems(c->out[0]);
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + w[i] * (b[i] - a[i]);
    return PN_OK;
}

static void add_da(float *da, const float *w, const float *dy, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) da[i] += (1 - w[i]) * dy[i];
}

/* b goes to several layers, and its gradient is the sum of theirs. Products are rounded before they are added, so that
 * the sum has the same bits where a layer is recomputed and adds its own apart. */
static void add_db(float *db, const float *w, const float *dy, int64_t n) {
    enum { RUN = 256 };
    float product[RUN];
    for (int64_t at = 0; at < n; at += RUN) {
        int64_t len = n - at < RUN ? n - at : RUN;
        for (int64_t i = 0; i < len; i++) product[i] = w[at + i] * dy[at + i];
        for (int64_t i = 0; i < len; i++) db[at + i] += product[i];
    }
}

static void add_dw(float *dw, const float *a, const float *b, const float *dy, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) dw[i] += (b[i] - a[i]) * dy[i];
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    const float *dy = pn_f32(c->dout[0]);
    float *da = pn_f32_or_null(c->din[A]), *db = pn_f32_or_null(c->din[B]), *dw = pn_f32_or_null(c->din[W]);
    const float *w = da || db ? pn_f32(c->in[W]) : NULL, *a = dw ? pn_f32(c->in[A]) : NULL;
    const float *b = dw ? pn_f32(c->in[B]) : NULL;
    int64_t n = pn_tensor_elems(c->dout[0]);
    PN_FOR_SPANS(i, len, n) {
        if (da) add_da(da + i, w + i, dy + i, len);
        if (db) add_db(db + i, w + i, dy + i, len);
        if (dw) add_dw(dw + i, a + i, b + i, dy + i, len);
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "lerp/cpu", .forward = forward, .backward = backward };
extern const pn_op_impl *const lerp_cpu[];
const pn_op_impl *const lerp_cpu[] = { &impl, NULL };
