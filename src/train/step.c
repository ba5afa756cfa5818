#include "step.h"

#include <math.h>

#include "weighted_sum/weighted_sum.h"

enum { TOTAL, CE, KL, FEATURE, LOSSES };

pn_status pn_step_open(pn_step *s, pn_tape *tape, pn_adamw *optim) {
    *s = (pn_step){ .tape = tape, .optim = optim };
    PN_TRY(pn_pass_graphs_create(tape, &s->graphs));
    PN_TRY(pn_readback_create(pn_backend_pool(pn_tape_backend(tape)), &s->sent));
    return PN_OK;
}

pn_status pn_step_open_zero(pn_step *s, pn_tape *tape, pn_zero *zero) {
    PN_TRY(pn_step_open(s, tape, pn_zero_optimizer(zero)));
    s->zero = zero;
    return PN_OK;
}

void pn_step_close(pn_step *s) {
    pn_readback_destroy(&s->sent);
    pn_pass_graphs_destroy(&s->graphs);
    for (int i = 0; i < LOSSES; i++) pn_tensor_release(&s->sum[i]);
    pn_pool_destroy(&s->pool);
    *s = (pn_step){ 0 };
}

pn_status pn_step_forward(pn_step *s, const pn_distill *pass, const pn_batch *batch) {
    PN_TRY(pn_pass_graphs_forward(s->graphs, pass, batch, &s->losses));
    return PN_OK;
}

/* ---- steps in parts ---- */

pn_status pn_step_forward_part(pn_step *s, const pn_distill *pass, const pn_batch *batch) {
    pn_pass_graphs_leave(s->graphs);
    PN_TRY(pn_distill_forward(s->tape, pass, batch, &s->losses));
    return PN_OK;
}

static pn_status make_sums(pn_step *s) {
    PN_TRY(pn_pool_create_exact(pn_backend_pool(pn_tape_backend(s->tape)), &s->pool));
    for (int i = 0; i < LOSSES; i++)
        PN_TRY(pn_tensor_zeros(s->pool, pn_wide_dtype(pn_tape_dtype(s->tape)), 1, (int64_t[]){ 1 }, &s->sum[i]));
    return PN_OK;
}

/* The total is of a pass with its share in the weights. */
static pn_status add_losses(pn_step *s, const pn_step_share *share) {
    pn_tensor *const loss[LOSSES] = {
        [TOTAL] = s->losses.total, [CE] = s->losses.ce, [KL] = s->losses.kl, [FEATURE] = s->losses.feature
    };
    const double weight[LOSSES] = { [TOTAL] = 1, [CE] = share->term, [KL] = share->term, [FEATURE] = share->feature };
    if (!s->pool) PN_TRY(make_sums(s));
    const bool recording = pn_tape_record(s->tape, false);
    for (int i = 0; i < LOSSES; i++) {
        pn_tensor *sum, *const terms[] = { s->sum[i], loss[i] };
        if (!s->parted) PN_TRY(pn_tensor_fill_zero(s->sum[i]));
        if (!loss[i]) continue;
        PN_TRY(pn_weighted_sum(s->tape, terms, (double[]){ 1, weight[i] }, 2, &sum));
        PN_TRY(pn_tensor_copy(s->sum[i], sum));
    }
    pn_tape_record(s->tape, recording);
    s->parted = true;
    return PN_OK;
}

pn_status pn_step_part(pn_step *s, const pn_step_share *share) {
    PN_ASSERT(!s->open && !pn_pass_graphs_begun(s->graphs));
    PN_TRY(add_losses(s, share));
    PN_TRY(pn_tape_backward_unchecked(s->tape, s->losses.total));
    return PN_OK;
}

pn_status pn_step_last_part(pn_step *s, const pn_step_share *share) {
    PN_TRY(add_losses(s, share));
    return PN_OK;
}

pn_status pn_step_nothing(pn_step *s) {
    PN_ASSERT(!s->open && s->zero);
    if (!s->pool) PN_TRY(make_sums(s));
    for (int i = 0; i < LOSSES; i++) PN_TRY(pn_tensor_fill_zero(s->sum[i]));
    s->parted = s->nothing = true;
    return PN_OK;
}

pn_status pn_step_update(pn_step *s, double learning_rate) {
    const pn_tensor *sent[LOSSES] = {
        [TOTAL] = s->losses.total, [CE] = s->losses.ce, [KL] = s->losses.kl, [FEATURE] = s->losses.feature
    };
    PN_ASSERT(!s->open);
    if (!s->nothing)
        PN_TRY(s->parted ? pn_tape_backward_unchecked(s->tape, s->losses.total) : pn_pass_graphs_backward(s->graphs));
    for (int i = 0; i < LOSSES && s->parted; i++) sent[i] = s->sum[i];
    s->parted = s->nothing = false;
    if (s->zero) PN_TRY(pn_zero_reduce(s->zero));
    PN_TRY(pn_adamw_begin(s->optim, learning_rate, sent[TOTAL]));
    if (s->zero) PN_TRY(pn_zero_gather(s->zero));
    s->open = true;
    for (int i = 0; i < LOSSES; i++) PN_TRY(pn_readback_add(s->sent, sent[i]));
    return PN_OK;
}

pn_status pn_step_settle(pn_step *s, pn_loss_parts *losses, double *norm) {
    double v[LOSSES];
    PN_ASSERT(s->open);
    s->open = false;
    PN_TRY(pn_readback_wait(s->sent, v));
    *losses = (pn_loss_parts){ .total = v[TOTAL], .ce = v[CE], .kl = v[KL], .feature = v[FEATURE] };
    const pn_status updated = pn_adamw_finish(s->optim, norm);
    PN_CHECK(isfinite(v[TOTAL]), PN_NUMERIC, "the loss is %g: lower the learning rate or check the data", v[TOTAL]);
    return updated;
}
