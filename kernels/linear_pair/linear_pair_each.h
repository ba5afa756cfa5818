/* A pair as two calls of linear, each by the implementation that would take it alone. */
#ifndef PN_KERNELS_LINEAR_PAIR_EACH_H
#define PN_KERNELS_LINEAR_PAIR_EACH_H

#include "op.h"

size_t pn_linear_pair_scratch(const pn_op_call *c, pn_backend on, bool backward);
pn_status pn_linear_pair_forward(const pn_op_call *c, pn_backend on);
pn_status pn_linear_pair_backward(const pn_op_call *c, pn_backend on);

#endif
