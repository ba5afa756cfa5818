/* Starting a linear block from the softmax attention whose layer it is to take over (blocks.md 11.2).
 *
 *     q, k, v    copied head by head; where the block's heads are narrower, the best fewer channels (head_basis.h);
 *                where they are wider, as they are: the further channels of q and v stay as drawn, those of k and the
 *                columns of W_o that read v's are 0, so that they add nothing and still learn
 *     heads      part head h of n starts from attention's head floor(h Hq / n), and k and v from the key/value head
 *                which that one reads: repeated where there are fewer of those (GQA)
 *     W_o        the columns of the head, divided among the output heads that start from it, times the ratio of RMS on
 *                a batch: attention's before W_o over the block's own
 *     the rest   convolutions pass their input through, decays start slow in some (attention_map.h); all else stays as
 * drawn, the output gate too
 *
 * Nothing of it makes the block the same function: softmax, its normaliser and (but for blocks that have it) the
 * rotation are missing. Fewer channels of a head that is rotated mix what turns at different rates. */
#ifndef PN_SUPERNET_FROM_ATTENTION_H
#define PN_SUPERNET_FROM_ATTENTION_H

#include "block.h"

/* Attention on a batch: what a start is fitted to. */
typedef struct pn_attention_batch {
    const pn_block *block; /* borrowed, as x and docs */
    pn_tensor *x;          /* [N, D], its input */
    const pn_docs *docs;
    pn_tensor *in[3]; /* W x without bias: q [N, Hq d], k and v [N, Hkv d]; owned by the tape, like heads */
    pn_tensor *heads; /* [N, Hq d], what W_o takes */
} pn_attention_batch;

/* The tape does not record. */
pn_status pn_attention_batch_run(const pn_block *attention, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                                 pn_attention_batch *out);

typedef struct pn_start_report {
    double kept_qk, kept_v; /* least share, over heads, of |q k^T|^2 and |W_o v|^2 that narrower heads keep; 1: all */
    double least_scale, most_scale; /* of the ratios folded into W_o */
} pn_start_report;

/* Overwrites weights of b, whose type has an attention_map; F32. */
pn_status pn_start_from_attention(pn_block *b, const pn_attention_batch *a, pn_tape *t, pn_start_report *report);

#endif
