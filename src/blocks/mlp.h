/* mlp: SwiGLU, y = W_down( silu(W_gate x) * (W_up x) ), no biases (blocks.md 2.1). */
#ifndef PN_BLOCKS_MLP_H
#define PN_BLOCKS_MLP_H

#include "block.h"

/* y = h + mlp(x), added as the last product ends; h NULL: the block's forward. b: of type pn_block_mlp. */
pn_status pn_mlp_add(const pn_block *b, pn_tape *t, pn_tensor *h, pn_tensor *x, pn_tensor **y);

#endif
