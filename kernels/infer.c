#include "infer.h"

#include <math.h>
#include <string.h>

static const char *dim_text(char *buffer, size_t size, int64_t n) {
    if (n == PN_ANY)
        snprintf(buffer, size, "any");
    else
        snprintf(buffer, size, "%lld", (long long)n);
    return buffer;
}

static pn_status need(const pn_op_call *c, int i, const char *name, pn_dtype dtype, int rank, const int64_t *shape) {
    const pn_tensor *t = i < c->n_in ? c->in[i] : NULL;
    PN_CHECK(t, PN_USAGE, "%s: input %s is missing", c->op->name, name);
    bool ok = t->dtype == dtype && t->rank == rank;
    for (int k = 0; ok && k < rank; k++) ok = shape[k] == PN_ANY || shape[k] == t->shape[k];
    if (ok) return PN_OK;
    char a[24], b[24];
    dim_text(a, sizeof a, shape[0]);
    if (rank == 2) dim_text(b, sizeof b, shape[1]);
    PN_FAIL(PN_USAGE, "%s: input %s is %s %s; it must be %s [%s%s%s]", c->op->name, name, pn_dtype_name(t->dtype),
            pn_tensor_shape_text(t), pn_dtype_name(dtype), a, rank == 2 ? ", " : "", rank == 2 ? b : "");
}

pn_status pn_need_matrix(const pn_op_call *c, int i, const char *name, pn_dtype dtype, int64_t rows, int64_t cols) {
    return need(c, i, name, dtype, 2, (const int64_t[]){ rows, cols });
}

pn_status pn_need_vector(const pn_op_call *c, int i, const char *name, pn_dtype dtype, int64_t n) {
    return need(c, i, name, dtype, 1, (const int64_t[]){ n });
}

pn_status pn_need_state(const pn_op_call *c, int i, const char *name, const pn_out_spec *state) {
    const pn_tensor *s = i < c->n_in ? c->in[i] : NULL;
    if (!s) return PN_OK;
    bool ok = s->dtype == state->dtype && s->rank == state->rank;
    for (int k = 0; ok && k < state->rank; k++) ok = s->shape[k] == state->shape[k];
    PN_CHECK(ok, PN_USAGE, "%s: input %s is %s %s; it must be %s [%lld, %lld, %lld, %lld], a state per document",
             c->op->name, name, pn_dtype_name(s->dtype), pn_tensor_shape_text(s), pn_dtype_name(state->dtype),
             (long long)state->shape[0], (long long)state->shape[1], (long long)state->shape[2],
             (long long)state->shape[3]);
    return PN_OK;
}

void pn_out_like(const pn_tensor *x, pn_out_spec *out) {
    out->rank = x->rank;
    memcpy(out->shape, x->shape, sizeof out->shape);
}

pn_status pn_need_ids(const char *op, const char *name, const pn_tensor *ids, int64_t lo, int64_t hi) {
    const int32_t *id = pn_i32(ids);
    for (int64_t i = 0, n = pn_tensor_elems(ids); i < n; i++)
        PN_CHECK(id[i] >= lo && id[i] < hi, PN_USAGE,
                 "%s: %s %d at position %lld is outside %lld .. %lld; was the text split by this model's tokenizer?",
                 op, name, (int)id[i], (long long)i, (long long)lo, (long long)(hi - 1));
    return PN_OK;
}

pn_status pn_need_ascending(const char *op, const char *name, const pn_tensor *ids, int64_t end) {
    const int32_t *id = pn_i32(ids);
    const int64_t k = ids->shape[1];
    for (int64_t i = 0, n = pn_tensor_elems(ids); i < n; i++) {
        const int64_t low = i % k ? (int64_t)id[i - 1] + 1 : 0;
        PN_CHECK(id[i] >= low && id[i] < end, PN_USAGE,
                 "%s: %s %d at position %lld is outside %lld .. %lld; the ids of a row must ascend", op, name,
                 (int)id[i], (long long)i, (long long)low, (long long)(end - 1));
    }
    return PN_OK;
}

pn_status pn_need_weights(const char *op, const pn_tensor *weights) {
    for (int64_t i = 0, n = weights ? pn_tensor_elems(weights) : 0; i < n; i++) {
        double w = weights->dtype == PN_F64 ? pn_f64(weights)[i] : (double)pn_f32(weights)[i];
        PN_CHECK(isfinite(w) && w >= 0, PN_USAGE, "%s: weight %g of row %lld is not a finite number >= 0", op, w,
                 (long long)i);
    }
    return PN_OK;
}
