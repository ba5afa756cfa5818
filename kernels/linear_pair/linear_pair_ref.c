#include "linear_pair_each.h"

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return pn_linear_pair_scratch(c, PN_REF, backward);
}

static pn_status forward(const pn_op_call *c) {
    return pn_linear_pair_forward(c, PN_REF);
}

static pn_status backward(const pn_op_call *c) {
    return pn_linear_pair_backward(c, PN_REF);
}

static const pn_op_impl impl = {
    .name = "linear_pair/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_pair_ref[];
const pn_op_impl *const linear_pair_ref[] = { &impl, NULL };
