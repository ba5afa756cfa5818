#include "step.h"

#include <math.h>

enum { TOTAL, CE, KL, FEATURE, LOSSES };

pn_status pn_step_open(pn_step *s, pn_tape *tape, pn_adamw *optim) {
    *s = (pn_step){ .tape = tape, .optim = optim };
    PN_TRY(pn_pass_graphs_create(tape, &s->graphs));
    PN_TRY(pn_readback_create(pn_backend_pool(pn_tape_backend(tape)), &s->sent));
    return PN_OK;
}

void pn_step_close(pn_step *s) {
    pn_readback_destroy(&s->sent);
    pn_pass_graphs_destroy(&s->graphs);
    *s = (pn_step){ 0 };
}

pn_status pn_step_forward(pn_step *s, const pn_distill *pass, const pn_batch *batch) {
    PN_TRY(pn_pass_graphs_forward(s->graphs, pass, batch, &s->losses));
    return PN_OK;
}

pn_status pn_step_update(pn_step *s, double learning_rate) {
    const pn_tensor *const sent[LOSSES] = {
        [TOTAL] = s->losses.total, [CE] = s->losses.ce, [KL] = s->losses.kl, [FEATURE] = s->losses.feature
    };
    PN_ASSERT(!s->open);
    PN_TRY(pn_pass_graphs_backward(s->graphs));
    PN_TRY(pn_adamw_begin(s->optim, learning_rate, s->losses.total));
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
