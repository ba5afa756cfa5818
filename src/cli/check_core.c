/* Golden files of cores: the recurrence alone, against every implementation of its op on a backend. An implementation
 * that does not take the whole sequence (a decode step) is run one token at a time, and gives no gradients. */
#include "check_vectors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dplr/dplr.h"
#include "gated_delta/gated_delta.h"
#include "gated_linear/gated_linear.h"
#include "golden.h"
#include "op.h"

typedef struct core_dims {
    int64_t tokens, heads, dk, dv;
} core_dims;

typedef struct core_kind {
    const char *kind;
    const pn_op *op;
    const char *input[PN_OP_IN]; /* the op's inputs by their names in the file; NULL: absent */
    int n_in;
    void (*attr)(const core_dims *d, const pn_docs *docs, double scale, void *attr);
} core_kind;

static void delta_attr(const core_dims *d, const pn_docs *docs, double scale, void *attr) {
    pn_gated_delta_attr a = { .docs = *docs,
                              .heads = (int)d->heads,
                              .v_heads = (int)d->heads,
                              .dk = (int)d->dk,
                              .dv = (int)d->dv,
                              .scale = scale };
    _Static_assert(sizeof a <= PN_OP_ATTR_BYTES, "attributes fit a call");
    memcpy(attr, &a, sizeof a);
}

static void dplr_attr(const core_dims *d, const pn_docs *docs, double scale, void *attr) {
    pn_dplr_attr a = { .docs = *docs, .heads = (int)d->heads, .dk = (int)d->dk, .dv = (int)d->dv, .scale = scale };
    _Static_assert(sizeof a <= PN_OP_ATTR_BYTES, "attributes fit a call");
    memcpy(attr, &a, sizeof a);
}

static void linear_attr(const core_dims *d, const pn_docs *docs, double scale, bool vector_gate, void *attr) {
    int heads = (int)d->heads;
    pn_gated_linear_attr a = { .docs = *docs,
                               .heads = heads,
                               .q_heads = heads,
                               .k_heads = heads,
                               .v_heads = heads,
                               .g_heads = heads,
                               .dk = (int)d->dk,
                               .dv = (int)d->dv,
                               .vector_gate = vector_gate,
                               .scale = scale };
    _Static_assert(sizeof a <= PN_OP_ATTR_BYTES, "attributes fit a call");
    memcpy(attr, &a, sizeof a);
}
static void scalar_attr(const core_dims *d, const pn_docs *docs, double scale, void *attr) {
    linear_attr(d, docs, scale, false, attr);
}
static void vector_attr(const core_dims *d, const pn_docs *docs, double scale, void *attr) {
    linear_attr(d, docs, scale, true, attr);
}

/* Every op here gives o first and the final state second. */
static const core_kind kinds[] = {
    { .kind = "delta",
      .op = &pn_op_gated_delta,
      .input = { "q", "kn", "v", NULL, "beta", "S0" },
      .n_in = 6,
      .attr = delta_attr },
    { .kind = "gated_delta",
      .op = &pn_op_gated_delta,
      .input = { "q", "kn", "v", "gs", "beta", "S0" },
      .n_in = 6,
      .attr = delta_attr },
    { .kind = "la_scalar",
      .op = &pn_op_gated_linear,
      .input = { "q", "k", "v", "gs", "S0" },
      .n_in = 5,
      .attr = scalar_attr },
    { .kind = "la_vector",
      .op = &pn_op_gated_linear,
      .input = { "q", "k", "v", "gv", "S0" },
      .n_in = 5,
      .attr = vector_attr },
    { .kind = "dplr",
      .op = &pn_op_dplr,
      .input = { "q", "k", "v", "a", "b", "gv", "S0" },
      .n_in = 7,
      .attr = dplr_attr },
};
enum { OUT_O, OUT_STATE };

typedef struct core {
    const pn_safetensors *file;
    const pn_compute *on;
    const core_kind *kind;
    core_dims dims;
    double scale;
    pn_pool *pool;
    pn_tensor *in[PN_OP_IN], *dout[2]; /* owned */
} core;

static void core_free(core *c) {
    for (int i = 0; i < PN_OP_IN; i++) pn_tensor_release(&c->in[i]);
    for (int i = 0; i < 2; i++) pn_tensor_release(&c->dout[i]);
    pn_pool_destroy(&c->pool);
}

static pn_status read_dims(core *c) {
    const pn_tensor_info *q, *v;
    PN_TRY(pn_golden_info(c->file, "q", &q));
    PN_TRY(pn_golden_info(c->file, "v", &v));
    PN_CHECK(q->rank == 3 && v->rank == 3, PN_FORMAT, "%s: q %s and v %s must be [tokens, heads, width]",
             pn_safetensors_path(c->file), pn_tensor_info_shape_text(q), pn_tensor_info_shape_text(v));
    c->dims = (core_dims){ q->shape[0], q->shape[1], q->shape[2], v->shape[2] };
    for (int i = 0; i < 3; i++)
        PN_CHECK(q->shape[i] >= 1 && q->shape[i] <= 1 << 20 && v->shape[i] >= 1 && v->shape[i] <= 1 << 20, PN_FORMAT,
                 "%s: q %s, v %s: a dimension is outside 1 .. %d", pn_safetensors_path(c->file),
                 pn_tensor_info_shape_text(q), pn_tensor_info_shape_text(v), 1 << 20);
    bool found;
    const pn_golden_settings settings = { .file = c->file };
    PN_TRY(pn_golden_number(&settings, "scale", &c->scale, &found));
    PN_CHECK(found, PN_FORMAT, "%s: no scale in its metadata", pn_safetensors_path(c->file));
    return PN_OK;
}

static bool is_one_of(const char *name, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name)) return true;
    return false;
}

/* [tokens, channels]; a state: [1, H, dk, dv]. Gates and states are wide. */
static pn_status read_input(core *c, const char *name, pn_tensor **out) {
    static const char *const gates[] = { "gs", "gv", "beta" };
    const core_dims *d = &c->dims;
    const pn_dtype wide = pn_wide_dtype(c->on->dtype);
    const pn_dtype type = is_one_of(name, gates, sizeof gates / sizeof *gates) ? wide : c->on->dtype;
    if (!strcmp(name, "S0") || !strcmp(name, "dST")) {
        PN_TRY(pn_golden_read(c->file, name, c->pool, wide, 4, (int64_t[]){ 1, d->heads, d->dk, d->dv }, out));
        return PN_OK;
    }
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(c->file, name, &info));
    const int64_t shape[] = { d->tokens, info->n_elems / d->tokens };
    PN_TRY(pn_golden_read(c->file, name, c->pool, type, 2, shape, out));
    return PN_OK;
}

static pn_status core_read(core *c) {
    PN_TRY(pn_pool_create(pn_backend_pool(c->on->backend), &c->pool));
    PN_TRY(read_dims(c));
    for (int i = 0; i < c->kind->n_in; i++)
        if (c->kind->input[i]) PN_TRY(read_input(c, c->kind->input[i], &c->in[i]));
    PN_TRY(read_input(c, "do", &c->dout[OUT_O]));
    PN_TRY(read_input(c, "dST", &c->dout[OUT_STATE]));
    return PN_OK;
}

/* ---- calls ---- */

typedef struct call {
    pn_op_call c;
    _Alignas(16) unsigned char attr[PN_OP_ATTR_BYTES];
} call;

static void call_free(call *x) {
    for (int i = 0; i < PN_OP_IN; i++) {
        pn_tensor_release(&x->c.in[i]);
        pn_tensor_release(&x->c.din[i]);
    }
    for (int i = 0; i < PN_OP_OUT; i++) pn_tensor_release(&x->c.out[i]);
}

/* Takes references to the inputs; makes the outputs. */
static pn_status call_make(const core *c, pn_tensor *const *in, bool wants, const pn_docs *docs, call *x) {
    memset(x, 0, sizeof *x);
    core_dims dims = c->dims;
    dims.tokens = docs->offset[docs->n];
    c->kind->attr(&dims, docs, c->scale, x->attr);
    x->c.op = c->kind->op;
    x->c.attr = x->attr;
    x->c.dtype = c->on->dtype;
    x->c.n_in = c->kind->n_in;
    for (int i = 0; i < x->c.n_in; i++) {
        if (!in[i]) continue;
        x->c.in[i] = pn_tensor_retain(in[i]);
        x->c.wants[i] = wants;
    }
    pn_out_spec spec[PN_OP_OUT] = { 0 };
    for (int i = 0; i < PN_OP_OUT; i++) spec[i].dtype = c->on->dtype;
    PN_TRY(x->c.op->contract->infer(&x->c, &x->c.n_out, spec));
    for (int i = 0; i < x->c.n_out; i++)
        PN_TRY(pn_tensor_create(c->pool, spec[i].dtype, spec[i].rank, spec[i].shape, &x->c.out[i]));
    return PN_OK;
}

static pn_status run(const core *c, const pn_op_impl *impl, call *x, bool backward) {
    size_t need = impl->scratch_bytes ? impl->scratch_bytes(&x->c, backward) : 0;
    pn_storage *scratch = NULL;
    if (need) PN_TRY(pn_storage_create(c->pool, need, &scratch));
    x->c.scratch = scratch ? scratch->data : NULL;
    pn_status s = backward ? impl->backward(&x->c) : impl->forward(&x->c);
    pn_storage_release(&scratch);
    PN_TRY(s);
    return PN_OK;
}

static double gradient_limit(const core *c, const char *input) {
    static const char *const gates[] = { "gs", "gv", "beta", "a", "b" };
    const pn_golden_limits *limits = pn_golden_limits_of(c->on->dtype);
    return is_one_of(input, gates, sizeof gates / sizeof *gates) ? limits->core_gate : limits->core_gradient;
}

static pn_status row_tensor(const core *c, pn_row *r, const char *name, const pn_tensor *x, double limit) {
    double error;
    PN_TRY(pn_golden_tensor_error(c->file, name, x, &error));
    pn_row_error(r, name, error, limit);
    return PN_OK;
}

/* The whole sequence, forward and backward. */
static pn_status check_whole(const core *c, const pn_op_impl *impl, pn_row *r, bool *taken) {
    pn_status s;
    const int64_t offset[] = { 0, c->dims.tokens };
    call x;
    PN_TRY_GOTO(s, call_make(c, c->in, true, &(pn_docs){ .n = 1, .offset = offset }, &x), done);
    *taken = pn_op_takes(impl, &x.c) && impl->backward;
    if (!*taken) goto done;
    PN_TRY_GOTO(s, run(c, impl, &x, false), done);
    for (int i = 0; i < x.c.n_in; i++)
        if (x.c.in[i])
            PN_TRY_GOTO(s, pn_tensor_zeros(c->pool, x.c.in[i]->dtype, x.c.in[i]->rank, x.c.in[i]->shape, &x.c.din[i]),
                        done);
    for (int i = 0; i < 2; i++) x.c.dout[i] = c->dout[i];
    PN_TRY_GOTO(s, run(c, impl, &x, true), done);
    PN_TRY_GOTO(s, row_tensor(c, r, "o", x.c.out[OUT_O], pn_golden_limits_of(c->on->dtype)->core), done);
    PN_TRY_GOTO(s, row_tensor(c, r, "ST", x.c.out[OUT_STATE], pn_golden_limits_of(c->on->dtype)->core), done);
    for (int i = 0; i < x.c.n_in; i++) {
        if (!x.c.in[i]) continue;
        const char *name = c->kind->input[i];
        char grad[32];
        snprintf(grad, sizeof grad, !strcmp(name, "S0") ? "d%s" : "d_%s", name);
        PN_TRY_GOTO(s, row_tensor(c, r, grad, x.c.din[i], gradient_limit(c, name)), done);
    }
done:
    call_free(&x);
    return s;
}

/* Token t from `state`, which becomes the state after it; the output row goes into o. */
static pn_status one_token(const core *c, const pn_op_impl *impl, int64_t t, pn_tensor **state, pn_tensor *o,
                           bool *taken) {
    pn_status s = PN_OK;
    static const int64_t offset[] = { 0, 1 };
    pn_tensor *in[PN_OP_IN] = { 0 }, *row = NULL;
    call x = { 0 };
    for (int i = 0; i < c->kind->n_in; i++) {
        if (!c->in[i]) continue;
        if (!strcmp(c->kind->input[i], "S0"))
            in[i] = pn_tensor_retain(*state);
        else
            PN_TRY_GOTO(s, pn_tensor_rows(c->in[i], t, t + 1, &in[i]), done);
    }
    PN_TRY_GOTO(s, call_make(c, in, false, &(pn_docs){ .n = 1, .offset = offset }, &x), done);
    *taken = pn_op_takes(impl, &x.c);
    if (!*taken) goto done;
    PN_TRY_GOTO(s, run(c, impl, &x, false), done);
    PN_TRY_GOTO(s, pn_tensor_rows(o, t, t + 1, &row), done);
    PN_TRY_GOTO(s, pn_tensor_copy(row, x.c.out[OUT_O]), done);
    pn_tensor_release(state);
    *state = pn_tensor_retain(x.c.out[OUT_STATE]);
done:
    pn_tensor_release(&row);
    for (int i = 0; i < PN_OP_IN; i++) pn_tensor_release(&in[i]);
    call_free(&x);
    return s;
}

static pn_status check_steps(const core *c, const pn_op_impl *impl, pn_row *r, bool *taken) {
    pn_status s = PN_OK;
    pn_tensor *o = NULL, *state = NULL;
    for (int i = 0; i < c->kind->n_in; i++)
        if (c->kind->input[i] && !strcmp(c->kind->input[i], "S0")) state = pn_tensor_retain(c->in[i]);
    PN_ASSERT(state);
    PN_TRY_GOTO(s, pn_tensor_zeros(c->pool, c->on->dtype, 2, c->dout[OUT_O]->shape, &o), done);
    *taken = true;
    for (int64_t t = 0; t < c->dims.tokens && *taken; t++)
        PN_TRY_GOTO(s, one_token(c, impl, t, &state, o, taken), done);
    if (!*taken) goto done;
    PN_TRY_GOTO(s, row_tensor(c, r, "o", o, pn_golden_limits_of(c->on->dtype)->core), done);
    PN_TRY_GOTO(s, row_tensor(c, r, "ST", state, pn_golden_limits_of(c->on->dtype)->core), done);
done:
    pn_tensor_release(&o);
    pn_tensor_release(&state);
    return s;
}

pn_status pn_check_core_file(const pn_safetensors *f, const char *kind, const pn_compute *on, pn_report *report,
                             bool *built_in) {
    core c = { .file = f, .on = on };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].kind, kind)) c.kind = &kinds[i];
    *built_in = c.kind != NULL;
    if (!c.kind) return PN_OK;
    pn_status s;
    PN_TRY_GOTO(s, core_read(&c), done);
    for (const pn_op_impl *const *impl = c.kind->op->impl[on->backend]; *impl; impl++) {
        if (on->dtype == PN_BF16 && !(*impl)->bf16) continue;
        pn_row r = pn_row_start(pn_golden_name(f), (*impl)->name);
        bool taken;
        PN_TRY_GOTO(s, check_whole(&c, *impl, &r, &taken), done);
        if (!taken) PN_TRY_GOTO(s, check_steps(&c, *impl, &r, &taken), done);
        char why[96];
        snprintf(why, sizeof why, "%.60s takes neither all nor one", (*impl)->name);
        if (taken)
            pn_row_end(report, &r);
        else
            pn_row_skip(report, pn_golden_name(f), why);
    }
done:
    core_free(&c);
    return s;
}
