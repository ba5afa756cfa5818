/* Cases are products of the lists below: every block of the table takes the named subsets of them. */
#include "dplr.h"
#include "infer.h"
#include "packs.h"

#include <math.h>
#include <string.h>

static const struct {
    int dk, dv;
} shapes[] = { { 64, 64 }, { 64, 128 }, { 128, 128 }, { 32, 32 }, /* RWKV-7 and wider values or heads */
               { 16, 24 }, { 12, 24 },  { 3, 4 },     { 33, 7 },  { 260, 40 } };
enum { TUNED = 0xf, SMALL = 0x30, TINY = 0x40, ODD = 0x180, S64 = 1, S64W = 2, S128 = 4, S33 = 0x80 };

static const struct {
    const char *name;
    double lo, hi; /* log decay in lo .. hi */
} gates[] = { { "mild", -0.05, 0 }, { "rwkv7", -0.6065, 0 }, { "medium", -3, 0 },
              { "strong", -20, 0 }, { "steep", -40, -10 },   { "full", -0.6065, -0.6 } };
enum { MILD = 1, RWKV7 = 2, MEDIUM = 4, STRONG = 8, STEEP = 16, FULL = 32, ANY = 63 };

enum { NO = 1, YES = 2, BOTH = 3 }; /* S0 absent, given */

static const struct {
    int shapes, packs, gates, s0;
    /* Finite differences; no gradients; left out by default; for `check ops --each`. */
    enum { QUICK, CHECKED = 1, DECODE = 2, SLOW = 4, EACH = 8 } kind;
} blocks[] = {
    { TINY, PN_PACK_T5, MILD | RWKV7 | MEDIUM, BOTH, CHECKED },
    { TINY, PN_PACK_T5, STRONG, NO, CHECKED }, /* little of S0 would be left to differentiate */
    { TINY, PN_PACK_TINY, ANY & ~STEEP, BOTH, CHECKED },
    { SMALL, PN_PACK_MIXED | PN_PACK_BLOCKS, ANY, BOTH, QUICK },
    { S64, PN_PACK_SINGLE | PN_PACK_MIXED, MILD | RWKV7 | STRONG, YES, QUICK },
    { S64, PN_PACK_MIXED | PN_PACK_T1000, ANY, NO, QUICK },
    { S64, PN_PACK_T4097, RWKV7, YES, QUICK },
    { TUNED & ~S64, PN_PACK_MIXED, RWKV7 | MEDIUM, YES, QUICK },
    { S64W | S128, PN_PACK_T65, ANY, BOTH, QUICK },
    { ODD, PN_PACK_MIXED, MILD | RWKV7 | STRONG, YES, QUICK },
    { SMALL, PN_PACK_EMPTY | PN_PACK_STEPS, RWKV7, BOTH, QUICK },
    { TUNED | SMALL | ODD, PN_PACK_T1 | PN_PACK_STEPS, RWKV7 | STRONG, BOTH, DECODE },
    { S64, PN_PACK_MIXED, RWKV7, BOTH, DECODE },
    { S64 | S64W | S128 | ODD, PN_PACK_TWO, RWKV7, YES, EACH },
    { S64 | S33, PN_PACK_STEPS, RWKV7, YES, DECODE | EACH },
    { TINY, PN_PACK_70, ANY & ~STEEP, BOTH, CHECKED | SLOW },
    { TUNED, PN_PACK_SINGLE | PN_PACK_T4097 | PN_PACK_MIXED | PN_PACK_BLOCKS, ANY, BOTH, SLOW },
};

static void fill(pn_op_case *out, size_t block, int shape, int pack, int gate, bool s0) {
    pn_dplr_attr attr = { .docs = pn_packs[pack].docs, .heads = 2, .dk = shapes[shape].dk, .dv = shapes[shape].dv };
    attr.scale = 1 / sqrt(attr.dk);
    _Static_assert(sizeof attr <= PN_OP_ATTR_BYTES, "attr");
    memcpy(out->attr, &attr, sizeof attr);
    int64_t tokens = pn_docs_tokens(&attr.docs), dk = attr.dk, dv = attr.dv;
    snprintf(out->name, sizeof out->name, "%dx%d %s %s%s%s", attr.dk, attr.dv, pn_packs[pack].name, gates[gate].name,
             s0 ? " S0" : "", blocks[block].kind & DECODE ? " no grad" : "");
    out->n_in = 7;
    for (int i = 0; i < 6; i++) out->in[i] = pn_case_matrix(tokens, attr.heads * (i == 2 ? dv : dk));
    out->in[3].fill = PN_FILL_L2ROWS;
    out->in[3].group = dk;
    /* Unrelated to a, unlike in RWKV-7: a length of 1 would let the state grow e^(T / 2 dk) times without decay. */
    out->in[4].hi = 0.5 / sqrt((double)dk);
    out->in[5].wide = true;
    out->in[5].fill = PN_FILL_UNIFORM;
    out->in[5].lo = gates[gate].lo, out->in[5].hi = gates[gate].hi;
    if (s0)
        out->in[6] =
            (pn_case_input){ .present = true, .wide = true, .rank = 4, .shape = { attr.docs.n, attr.heads, dk, dv } };
    for (int i = 0; i < 7; i++) out->in[i].no_grad = blocks[block].kind & DECODE;
    for (int i = 3; i < 6; i++) out->limit_din[i] = 1e-4; /* a, b and the decay: blocks.md 13 */
    out->gradcheck = blocks[block].kind & CHECKED;
    out->slow = blocks[block].kind & SLOW;
    out->kind = blocks[block].kind & EACH ? 1 + shape + (blocks[block].kind & DECODE ? 16 : 0) : -1;
}

bool pn_dplr_case(int i, pn_op_case *out) {
    enum { SHAPES = sizeof shapes / sizeof *shapes, GATES = sizeof gates / sizeof *gates };
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (int x = 0; x < SHAPES * PN_PACKS * GATES * 2; x++) {
            int s0 = x % 2, gate = x / 2 % GATES, pack = x / 2 / GATES % PN_PACKS, shape = x / 2 / GATES / PN_PACKS;
            if (!(blocks[b].shapes >> shape & 1) || !(blocks[b].packs >> pack & 1) || !(blocks[b].gates >> gate & 1) ||
                !(blocks[b].s0 >> s0 & 1))
                continue;
            if (i-- > 0) continue;
            fill(out, b, shape, pack, gate, s0);
            return true;
        }
    return false;
}
