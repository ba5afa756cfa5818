#include "op.h"

#include <string.h>

/* The plan backend: one implementation for every op, which runs nothing. */
static pn_status nothing(const pn_op_call *c) {
    (void)c;
    return PN_OK;
}
static const pn_op_impl plan_impl = { .name = "plan", .bf16 = true, .forward = nothing, .backward = nothing };
static const pn_op_impl *const plan_list[] = { &plan_impl, NULL };

/* The column of a backend that an op does not have yet, or the build does not. */
__attribute__((unused)) static const pn_op_impl *const pn_no_impl[] = { NULL };
#ifdef POSTNAS_HAVE_CUDA
#define CUDA_LIST(list) list
#else
#define CUDA_LIST(list) pn_no_impl
#endif

#define PN_OP(op, ref, cpu, cuda)                                                                                      \
    extern const pn_op_contract pn_##op##_contract;                                                                    \
    extern const pn_op_impl *const ref[], *const cpu[], *const op##_cuda[];                                            \
    const pn_op pn_op_##op = {                                                                                         \
        .name = #op,                                                                                                   \
        .contract = &pn_##op##_contract,                                                                               \
        .impl = { [PN_REF] = ref, [PN_CPU] = cpu, [PN_CUDA] = CUDA_LIST(cuda), [PN_PLAN] = plan_list },                \
    };
#include "ops.def"
#undef PN_OP

static const pn_op *const ops[] = {
#define PN_OP(op, ref, cpu, cuda) &pn_op_##op,
#include "ops.def"
#undef PN_OP
    NULL,
};

const pn_op *const *pn_op_list(int *n) {
    *n = (int)(sizeof ops / sizeof *ops) - 1;
    return ops;
}

const pn_op *pn_op_find(const char *name) {
    for (const pn_op *const *o = ops; *o; o++)
        if (!strcmp((*o)->name, name)) return *o;
    return NULL;
}

const char *pn_backend_name(pn_backend b) {
    static const char *const names[] = { [PN_REF] = "ref", [PN_CPU] = "cpu", [PN_CUDA] = "cuda", [PN_PLAN] = "plan" };
    return names[b];
}

pn_dtype pn_backend_dtype(pn_backend b) {
    return b == PN_REF ? PN_F64 : PN_F32;
}

pn_pool_kind pn_backend_pool(pn_backend b) {
    return b == PN_CUDA ? PN_POOL_DEVICE : b == PN_PLAN ? PN_POOL_COUNTING : PN_POOL_HOST;
}

bool pn_op_takes(const pn_op_impl *impl, const pn_op_call *c) {
    return (c->dtype != PN_BF16 || impl->bf16) && (!impl->takes || impl->takes(c));
}

pn_status pn_op_pick(const pn_op_call *c, pn_backend b, const pn_op_impl **out) {
    for (const pn_op_impl *const *i = c->op->impl[b]; *i; i++) {
        if (!pn_op_takes(*i, c)) continue;
        *out = *i;
        return PN_OK;
    }
    PN_FAIL(PN_UNSUPPORTED, "%s: no %s implementation takes a first input of shape %s in %s", c->op->name,
            pn_backend_name(b), c->n_in && c->in[0] ? pn_tensor_shape_text(c->in[0]) : "(none)",
            pn_dtype_name(c->dtype));
}
