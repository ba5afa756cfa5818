/* Queries, keys and values of a linear block: three projections, each with or without a short causal convolution after
 * it (blocks.md 1.6).
 *
 *     W x      or      conv(W x)      or      silu(conv(W x))      W x may have a bias
 *
 * Decode state: with convolutions the last W raw inputs of each, as state tensors 0 .. 2; then what the block makes of
 * keys and values, S [n, heads, dk, dv]. */
#ifndef PN_BLOCKS_QKV_H
#define PN_BLOCKS_QKV_H

#include "attention_map.h"

enum { PN_Q, PN_K, PN_V };

/* The caller sets the first three lines, the declarations below the last. */
typedef struct pn_qkv {
    int64_t channels[3], conv_size;      /* conv_size W = 0: no convolutions */
    int64_t heads, dk, dv;               /* of S */
    bool with_bias;                      /* an extension: pn_block_spec_extended */
    pn_tensor *w[3], *bias[3], *conv[3]; /* [channels, D]; [channels] or NULL; [channels, 1, W], or NULL */
} pn_qkv;

/* The width of one head: hidden * expand over heads. PN_USAGE, naming the block and the option `name`, unless both are
 * whole (the product within relative 1e-5, as blocks.md 10.2). */
pn_status pn_head_width(const char *block, const char *name, int64_t hidden, double expand, int64_t heads,
                        int64_t *out);

/* Rotary positions on q or k [N, heads width], as the model's attention has them, where `rope` is on (an extension: it
 * follows the activation; a rotation keeps lengths, so l2norm may come before it). */
pn_status pn_extension_rope(const pn_block *b, bool rope, int64_t heads, int64_t width, pn_tape *t, const pn_docs *docs,
                            pn_tensor **x);
/* PN_USAGE when heads of this width cannot be rotated. */
pn_status pn_extension_rope_check(const char *block, bool rope, int64_t width);

/* Declare the weights of part i, "q_proj.weight" .. and "q_conv1d.weight" .. (nothing without convolutions). One by
 * one, because the order of a block's weights is the order of the sums over them. */
pn_status pn_qkv_projection(pn_block *b, pn_params *params, pn_qkv *a, int i);
pn_status pn_qkv_convolution(pn_block *b, pn_params *params, pn_qkv *a, int i);

/* Part i of x [N, D]: [N, channels[i]]. silu: after the convolution; nothing without one. */
pn_status pn_qkv_apply(const pn_qkv *a, int i, bool silu, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                       pn_state *state, pn_tensor **out);

/* The three projections as heads of attention, and their convolutions. */
void pn_qkv_map(const pn_qkv *a, int64_t q_heads, int64_t k_heads, int64_t v_heads, pn_attention_map *map);

/* Adds the decode state to an empty one; which of its tensors is S; its bytes in one sequence, S in F32. */
pn_status pn_qkv_state(const pn_qkv *a, pn_state *s);
int pn_qkv_state_index(const pn_qkv *a);
double pn_qkv_state_bytes(const pn_qkv *a, size_t activation_bytes);

#endif
