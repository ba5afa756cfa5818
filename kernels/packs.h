/* Document layouts that the cases of the recurrent cores pack their tokens in: a document of every length that chunks
 * of 64 and steps treat apart, and mixtures. A set of layouts is a mask. */
#ifndef PN_KERNELS_PACKS_H
#define PN_KERNELS_PACKS_H

#include "docs.h"

enum {
    PN_PACK_T1 = 1 << 0,
    PN_PACK_T2 = 1 << 1,
    PN_PACK_T5 = 1 << 2,
    PN_PACK_T63 = 1 << 3,
    PN_PACK_T64 = 1 << 4,
    PN_PACK_T65 = 1 << 5,
    PN_PACK_T1000 = 1 << 6,
    PN_PACK_T4097 = 1 << 7,
    PN_PACK_MIXED = 1 << 8,  /* 1, 3, 64, 67 and 130 tokens */
    PN_PACK_BLOCKS = 1 << 9, /* around blocks of 16 */
    PN_PACK_TINY = 1 << 10,  /* 3, 0, 1 and 2 tokens */
    PN_PACK_STEPS = 1 << 11, /* decoding: one token each */
    PN_PACK_70 = 1 << 12,    /* 64 and 6 tokens */
    PN_PACK_EMPTY = 1 << 13, /* two documents without tokens */
    PN_PACK_TWO = 1 << 14,   /* 66 and 5 tokens: what there is to chunks, in few of them */
    PN_PACKS = 15,
    PN_PACK_SINGLE = PN_PACK_T1 | PN_PACK_T2 | PN_PACK_T63 | PN_PACK_T64 | PN_PACK_T65 | PN_PACK_T1000
};

typedef struct pn_pack {
    const char *name;
    pn_docs docs;
} pn_pack;

extern const pn_pack pn_packs[PN_PACKS]; /* layout i is the one of mask 1 << i */

#endif
