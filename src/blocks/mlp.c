/* mlp: SwiGLU, y = W_down( silu(W_gate x) * (W_up x) ), no biases (blocks.md 2.1). */
#include "block.h"

#include "linear/linear.h"
#include "swiglu_linear/swiglu_linear.h"

typedef struct mlp {
    pn_tensor *gate, *up, *down; /* [I, D], [I, D], [D, I] */
} mlp;

static pn_status build(pn_block *b, pn_params *params) {
    mlp *w = b->data;
    const int64_t D = b->dims.hidden, I = b->dims.intermediate;
    const pn_init normal = { PN_INIT_NORMAL, 0.02, 0 };
    PN_TRY(
        pn_block_weight(b, params, &(pn_param_spec){ "gate_proj.weight", 2, { I, D }, normal, true, false }, &w->gate));
    PN_TRY(pn_block_weight(b, params, &(pn_param_spec){ "up_proj.weight", 2, { I, D }, normal, true, false }, &w->up));
    PN_TRY(
        pn_block_weight(b, params, &(pn_param_spec){ "down_proj.weight", 2, { D, I }, normal, true, false }, &w->down));
    return PN_OK;
}

static pn_status forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y) {
    (void)docs, (void)state, (void)carry;
    const mlp *w = b->data;
    pn_tensor *gate, *up;
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, w->gate, NULL, &gate));
    PN_TRY(pn_tape_branch(t));
    PN_TRY(pn_linear(t, x, w->up, NULL, &up));
    PN_TRY(pn_tape_join(t));
    PN_TRY(pn_swiglu_linear(t, gate, up, w->down, y));
    return PN_OK;
}

const pn_block_type pn_block_mlp = {
    .name = "mlp",
    .summary = "SwiGLU feed-forward network",
    .role = PN_MLP,
    .data_bytes = sizeof(mlp),
    .build = build,
    .forward = forward,
};
