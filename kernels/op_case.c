#include "op_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A small generator of its own: the checks must not depend on the program's random streams. Its state counts draws, so
 * any value can be made without those before it. */
static const uint64_t draw = 0x9e3779b97f4a7c15u;
static uint64_t next_u64(uint64_t *s) {
    uint64_t z = (*s += draw);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static double uniform(uint64_t *s) {
    return (double)(next_u64(s) >> 11) * 0x1p-53;
}
static double normal(uint64_t *s) {
    double u = 1.0 - uniform(s), v = uniform(s);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

enum { FEW = 1 << 15 }; /* values that are not worth a second thread */

static double value(const pn_case_input *in, uint64_t rng) {
    switch (in->fill) {
    case PN_FILL_NORMAL: return (in->hi != 0 ? in->hi : 1.0) * normal(&rng);
    case PN_FILL_L2ROWS: return normal(&rng);
    case PN_FILL_ONES: return 1.0 + in->hi * normal(&rng);
    case PN_FILL_UNIFORM: return in->lo + (in->hi - in->lo) * uniform(&rng);
    case PN_FILL_INT: return floor(in->lo + (in->hi - in->lo) * uniform(&rng));
    }
    return NAN;
}

/* pn_case_ascending, from whole numbers in lo .. hi - 1. */
static void make_ascend(const pn_case_input *in, double *x, int64_t n) {
    const int64_t range = (int64_t)(in->hi - in->lo);
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = i % in->group, begin = range * j / in->group, end = range * (j + 1) / in->group;
        x[i] = in->lo + (double)(begin + (int64_t)(x[i] - in->lo) % (end - begin));
    }
}

static void fill_values(const pn_case_input *in, uint64_t *rng, double *x, int64_t n) {
    const uint64_t start = *rng, each = in->fill == PN_FILL_UNIFORM || in->fill == PN_FILL_INT ? draw : 2 * draw;
#pragma omp parallel for schedule(static) if (n > FEW)
    for (int64_t i = 0; i < n; i++) x[i] = value(in, start + (uint64_t)i * each);
    *rng = start + (uint64_t)n * each;
    if (in->fill == PN_FILL_INT && in->group) make_ascend(in, x, n);
    if (in->fill != PN_FILL_L2ROWS) return;
#pragma omp parallel for schedule(static) if (n > FEW)
    for (int64_t g = 0; g <= n - in->group; g += in->group) {
        double sum = 0;
        for (int64_t i = 0; i < in->group; i++) sum += x[g + i] * x[g + i];
        for (int64_t i = 0; i < in->group; i++) x[g + i] /= sqrt(sum);
    }
}

static void round_to(pn_dtype type, double *x, int64_t n) {
    enum { RUN = 1024 };
#pragma omp parallel for schedule(static) if (n > FEW)
    for (int64_t at = 0; at < n; at += RUN) {
        const int64_t some = n - at < RUN ? n - at : RUN;
        float narrow[RUN];
        uint16_t narrower[RUN];
        for (int64_t i = 0; i < some; i++) narrow[i] = (float)x[at + i];
        if (type == PN_BF16) {
            pn_convert(narrower, PN_BF16, narrow, PN_F32, some);
            pn_convert(narrow, PN_F32, narrower, PN_BF16, some);
        }
        for (int64_t i = 0; i < some; i++) x[at + i] = (double)narrow[i];
    }
}

/* exact_in: the values are ones of this type. */
static pn_status fill(pn_tensor *t, const pn_case_input *as, pn_dtype exact_in, uint64_t *rng) {
    int64_t n = pn_tensor_elems(t);
    if (!t->storage->data) return PN_OK; /* shapes only */
    double *values = malloc(sizeof *values * (size_t)(n ? n : 1));
    PN_CHECK(values, PN_MEMORY, "out of memory");
    fill_values(as, rng, values, n);
    round_to(exact_in, values, n);
    pn_status s = pn_tensor_write(t, values, PN_F64);
    free(values);
    return s;
}

/* Values of t: those of `from` where there is one. */
static pn_status fill_or_copy(pn_tensor *t, const pn_tensor *from, const pn_case_input *as, pn_dtype exact_in,
                              uint64_t *rng) {
    return from ? pn_tensor_copy(t, from) : fill(t, as, exact_in, rng);
}

static pn_status make_inputs(pn_case_call *x, const pn_op_case *c, pn_dtype type, const pn_op_call *from,
                             uint64_t *rng) {
    pn_dtype real = x->call.dtype, wide = pn_wide_dtype(real);
    for (int i = 0; i < c->n_in; i++) {
        const pn_case_input *in = &c->in[i];
        if (!in->present) continue;
        pn_dtype as = in->integer ? PN_I32 : in->wide ? wide : real;
        PN_TRY(pn_tensor_create(x->pool, as, in->rank, in->shape, &x->call.in[i]));
        PN_TRY(
            fill_or_copy(x->call.in[i], from ? from->in[i] : NULL, in, in->wide || in->integer ? PN_F32 : type, rng));
        x->call.wants[i] = !in->integer && !in->no_grad;
        if (x->call.wants[i])
            PN_TRY(pn_tensor_zeros(x->pool, in->weight ? wide : as, in->rank, in->shape, &x->call.din[i]));
    }
    return PN_OK;
}

static pn_status make(const pn_op *op, const pn_op_case *c, pn_backend backend, pn_dtype type, const pn_op_call *from,
                      pn_case_call *x) {
    memset(x, 0, sizeof *x);
    pn_dtype real = backend == PN_REF ? PN_F64 : type;
    x->call.op = op;
    x->call.attr = c->attr;
    x->call.dtype = real;
    x->call.n_in = c->n_in;
    uint64_t rng = 20;
    PN_TRY(pn_pool_create(pn_backend_pool(backend), &x->pool));
    PN_TRY(make_inputs(x, c, type, from, &rng));
    pn_out_spec spec[PN_OP_OUT] = { 0 };
    for (int i = 0; i < PN_OP_OUT; i++) spec[i].dtype = real;
    PN_TRY(op->contract->infer(&x->call, &x->call.n_out, spec));
    for (int i = 0; i < x->call.n_out; i++) {
        PN_TRY(pn_tensor_create(x->pool, spec[i].dtype, spec[i].rank, spec[i].shape, &x->call.out[i]));
        if (spec[i].dtype == PN_I32 || spec[i].no_grad) continue;
        PN_TRY(pn_tensor_create(x->pool, spec[i].dtype, spec[i].rank, spec[i].shape, &x->call.dout[i]));
        PN_TRY(fill_or_copy(x->call.dout[i], from ? from->dout[i] : NULL, &(pn_case_input){ .fill = PN_FILL_NORMAL },
                            type, &rng));
    }
    return PN_OK;
}

pn_status pn_case_call_make(const pn_op *op, const pn_op_case *c, pn_backend backend, pn_dtype type, pn_case_call *x) {
    return make(op, c, backend, type, NULL, x);
}

pn_status pn_case_call_like(const pn_case_call *of, const pn_op_case *c, pn_backend backend, pn_dtype type,
                            pn_case_call *x) {
    return make(of->call.op, c, backend, type, &of->call, x);
}

static pn_status copy_tensors(pn_pool *pool, pn_tensor *const *from, int n, pn_tensor **to) {
    for (int i = 0; i < n; i++) {
        if (!from[i]) continue;
        PN_TRY(pn_tensor_create(pool, from[i]->dtype, from[i]->rank, from[i]->shape, &to[i]));
        PN_TRY(pn_tensor_copy(to[i], from[i]));
    }
    return PN_OK;
}

pn_status pn_case_call_copy(const pn_case_call *from, pn_pool_kind kind, pn_case_call *x) {
    memset(x, 0, sizeof *x);
    x->call.op = from->call.op;
    x->call.attr = from->call.attr;
    x->call.dtype = from->call.dtype;
    x->call.n_in = from->call.n_in;
    x->call.n_out = from->call.n_out;
    memcpy(x->call.wants, from->call.wants, sizeof x->call.wants);
    PN_TRY(pn_pool_create(kind, &x->pool));
    PN_TRY(copy_tensors(x->pool, from->call.in, PN_OP_IN, x->call.in));
    PN_TRY(copy_tensors(x->pool, from->call.din, PN_OP_IN, x->call.din));
    PN_TRY(copy_tensors(x->pool, from->call.out, PN_OP_OUT, x->call.out));
    PN_TRY(copy_tensors(x->pool, from->call.dout, PN_OP_OUT, x->call.dout));
    return PN_OK;
}

pn_status pn_case_call_results(const pn_case_call *from, pn_case_call *x) {
    memset(x, 0, sizeof *x);
    x->call.n_in = from->call.n_in;
    x->call.n_out = from->call.n_out;
    PN_TRY(pn_pool_create(PN_POOL_HOST, &x->pool));
    PN_TRY(copy_tensors(x->pool, from->call.din, PN_OP_IN, x->call.din));
    PN_TRY(copy_tensors(x->pool, from->call.out, PN_OP_OUT, x->call.out));
    return PN_OK;
}

pn_status pn_case_call_scratch(pn_case_call *x, const pn_op_impl *impl, bool backward) {
    size_t need = impl->scratch_bytes ? impl->scratch_bytes(&x->call, backward) : 0;
    pn_storage_release(&x->scratch);
    x->call.scratch = NULL;
    if (!need) return PN_OK;
    PN_TRY(pn_storage_create(x->pool, need, &x->scratch));
    x->call.scratch = x->scratch->data;
    /* Contents are undefined by contract: an op that reads them shows. */
    if (!x->bare) PN_TRY(pn_storage_fill(x->scratch, 0, need, 0xff));
    return PN_OK;
}

void pn_case_call_free(pn_case_call *x) {
    for (int i = 0; i < PN_OP_IN; i++) {
        pn_tensor_release(&x->call.in[i]);
        pn_tensor_release(&x->call.din[i]);
    }
    for (int i = 0; i < PN_OP_OUT; i++) {
        pn_tensor_release(&x->call.out[i]);
        pn_tensor_release(&x->call.dout[i]);
    }
    pn_storage_release(&x->scratch);
    x->call.scratch = NULL;
    pn_pool_destroy(&x->pool);
}
