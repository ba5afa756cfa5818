/* Gates of L layers over C candidates, and what they are expected to cost:
 *
 *     p_l = softmax(z_l),  z_lc = (a_lc + s [c = 0]) / temperature         a, p: [L, C]
 *     cost = sum_lc p_lc w_lc                                              w: [L, C] or NULL (cost 0); no gradient
 *
 * budget < 0: s = 0. Otherwise s is the number for which candidate 0 gets the budget, sum_l p_l0 = budget: layers then
 * compete for it, and a gain that all layers share moves nothing. With b_lc = p_l0 ([c = 0] - p_lc) and B = sum_l b_l0,
 *
 *     dz_lc = p_lc (g_lc - <p_l, g_l>) - (b_lc / B) sum_m p_m0 (g_m0 - <p_m, g_m>),  g = dp + dcost w,  da = dz / T
 *
 * A logit of -infinity is a candidate that the layer does not have: p = 0, whatever the others are. The budget is met
 * as far as layers with one candidate allow; 0 and L are met exactly. */
#ifndef PN_KERNELS_GATE_SOFTMAX_H
#define PN_KERNELS_GATE_SOFTMAX_H

#include "op.h"

typedef struct pn_gate_softmax_attr {
    double temperature, budget;
} pn_gate_softmax_attr;

static inline pn_status pn_gate_softmax(pn_tape *t, pn_tensor *a, pn_tensor *w, double temperature, double budget,
                                        pn_tensor **p, pn_tensor **cost) {
    const pn_gate_softmax_attr attr = { temperature, budget };
    pn_tensor *in[] = { a, w }, *out[2];
    PN_TRY(pn_tape_call(t, &pn_op_gate_softmax, &attr, sizeof attr, in, 2, out, 2));
    *p = out[0];
    *cost = out[1];
    return PN_OK;
}

#endif
