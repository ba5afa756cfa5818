#include "fixed_gates.h"

static void fill_f64(double *gate, int64_t tokens, int64_t heads, double (*value)(int64_t)) {
    for (int64_t h = 0; h < heads; h++) {
        const double x = value(h);
        for (int64_t i = 0; i < tokens; i++) gate[i * heads + h] = x;
    }
}

static void fill_f32(float *gate, int64_t tokens, int64_t heads, double (*value)(int64_t)) {
    for (int64_t h = 0; h < heads; h++) {
        const float x = (float)value(h);
        for (int64_t i = 0; i < tokens; i++) gate[i * heads + h] = x;
    }
}

pn_status pn_fixed_gates(pn_tape *t, int64_t tokens, int64_t heads, double (*value)(int64_t head), pn_tensor **out) {
    const pn_dtype type = pn_wide_dtype(pn_tape_dtype(t));
    PN_TRY(pn_tape_new(t, type, 2, (int64_t[]){ tokens, heads }, out));
    if (!(*out)->storage->data) return PN_OK; /* a plan */
    if (type == PN_F64)
        fill_f64(pn_f64(*out), tokens, heads, value);
    else
        fill_f32(pn_f32(*out), tokens, heads, value);
    return PN_OK;
}
