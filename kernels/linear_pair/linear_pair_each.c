#include "linear_pair_each.h"

/* The call of linear for output k. What the first writes to dx the second adds to. */
static pn_op_call single(const pn_op_call *c, int k) {
    const bool fresh[] = { !pn_op_adds(c, 0) && k == 0, !pn_op_adds(c, 1 + k) };
    return (pn_op_call){ .op = &pn_op_linear,
                         .dtype = c->dtype,
                         .n_in = 3,
                         .n_out = 1,
                         .in = { c->in[0], c->in[1 + k] },
                         .out = { c->out[k] },
                         .wants = { c->wants[0], c->wants[1 + k] },
                         .din = { c->din[0], c->din[1 + k] },
                         .dout = { c->dout[k] },
                         .fresh = (uint32_t)fresh[0] | (uint32_t)fresh[1] << 1,
                         .scratch = c->scratch };
}

size_t pn_linear_pair_scratch(const pn_op_call *c, pn_backend on, bool backward) {
    size_t most = 0;
    for (int k = 0; k < 2; k++) {
        const pn_op_call one = single(c, k);
        const pn_op_impl *impl;
        if (pn_op_pick(&one, on, &impl) || !impl->scratch_bytes) continue;
        const size_t need = impl->scratch_bytes(&one, backward);
        if (need > most) most = need;
    }
    return most;
}

pn_status pn_linear_pair_forward(const pn_op_call *c, pn_backend on) {
    for (int k = 0; k < 2; k++) {
        const pn_op_call one = single(c, k);
        const pn_op_impl *impl;
        PN_TRY(pn_op_pick(&one, on, &impl));
        PN_TRY(impl->forward(&one));
    }
    return PN_OK;
}

pn_status pn_linear_pair_backward(const pn_op_call *c, pn_backend on) {
    for (int k = 0; k < 2; k++) {
        const pn_op_call one = single(c, k);
        const pn_op_impl *impl;
        PN_TRY(pn_op_pick(&one, on, &impl));
        PN_TRY(impl->backward(&one));
    }
    return PN_OK;
}
