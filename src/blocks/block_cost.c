#include "block_cost.h"

/* A block whose weights have no memory, and the tape that plans with it. */
typedef struct plan {
    pn_params *params;
    pn_block *block;
    pn_tape *tape;
} plan;

static void plan_close(plan *p) {
    pn_tape_destroy(&p->tape);
    pn_block_destroy(&p->block);
    pn_params_destroy(&p->params);
}

static pn_status plan_open(const pn_block_spec *spec, const pn_dims *dims, plan *p) {
    *p = (plan){ 0 };
    PN_TRY(pn_params_plan(PN_F32, &p->params));
    PN_TRY(pn_block_create(spec, dims, p->params, "", &p->block));
    PN_TRY(pn_tape_create(PN_PLAN, &p->tape));
    return PN_OK;
}

static pn_status plan_pass(plan *p, const pn_docs *docs, bool backward, pn_op_cost *out) {
    const int64_t shape[] = { pn_docs_tokens(docs), p->block->dims.hidden };
    pn_tensor *x, *dy, *y;
    pn_carry carry = { 0 };
    pn_tape_reset(p->tape);
    pn_tape_record(p->tape, backward);
    pn_params_train(p->params, "*", backward);
    PN_TRY(pn_tape_new(p->tape, PN_F32, 2, shape, &x));
    x->wants_grad = backward;
    PN_TRY(pn_block_forward(p->block, p->tape, x, docs, &carry, &y));
    if (backward && y->wants_grad) {
        PN_TRY(pn_tape_new(p->tape, PN_F32, 2, shape, &dy));
        PN_TRY(pn_tape_backward_from(p->tape, &y, &dy, 1));
    }
    *out = pn_tape_cost(p->tape);
    return PN_OK;
}

pn_status pn_block_spec_pass_cost(const pn_block_spec *spec, const pn_dims *dims, const pn_docs *docs, bool backward,
                                  pn_op_cost *out) {
    plan p;
    pn_status s = plan_open(spec, dims, &p);
    if (!s) s = plan_pass(&p, docs, backward, out);
    plan_close(&p);
    return s;
}

/* Costs are sums over tokens, so the last token of a context costs what it adds to the context before it: of attention
 * its row of keys, of a recurrence one step. */
static pn_status plan_tokens(plan *p, int64_t context, pn_block_cost *out) {
    pn_op_cost all, before = { 0 };
    const pn_docs whole = { .n = 1, .offset = (int64_t[]){ 0, context } },
                  shorter = { .n = 1, .offset = (int64_t[]){ 0, context - 1 } };
    PN_TRY(plan_pass(p, &whole, false, &all));
    if (context > 1) PN_TRY(plan_pass(p, &shorter, false, &before));
    out->prompt_flops = all.flops;
    out->token_flops = all.flops - before.flops;
    return PN_OK;
}

pn_status pn_block_spec_cost(const pn_block_spec *spec, const pn_dims *dims, int64_t context, size_t activation_bytes,
                             pn_block_cost *out) {
    plan p;
    PN_ASSERT(context >= 1);
    pn_status s = plan_open(spec, dims, &p);
    if (!s) {
        *out = (pn_block_cost){ .parameters = (double)pn_params_count(p.params, false),
                                .state_bytes = pn_block_cache_bytes(p.block, context, activation_bytes) };
        s = plan_tokens(&p, context, out);
    }
    plan_close(&p);
    return s;
}
