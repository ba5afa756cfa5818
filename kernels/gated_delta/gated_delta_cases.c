/* Cases are products of the lists below: every block of the table takes the named subsets of them. */
#include "gated_delta.h"
#include "infer.h"
#include "packs.h"

#include <math.h>
#include <string.h>

static const struct {
    int dk, dv;
} shapes[] = { { 96, 256 }, { 128, 256 }, { 128, 128 }, { 192, 384 }, { 64, 64 }, /* the tuned ones */
               { 16, 24 },  { 16, 32 },   { 12, 24 },   { 3, 4 },     { 33, 7 },  { 256, 40 } };
enum { TUNED = 0x1f, SMALL = 0xe0, TINY = 0x100, ODD = 0x600, S33 = 0x200, S256 = 0x400 };
enum { S96 = 1, S128 = 2, S128Q = 4, S192 = 8, S64 = 16 };

static const struct {
    const char *name;
    double lo, beta; /* log decay in lo .. 0; beta in 0 .. beta */
} decays[] = { { "plain", 0, 2 }, { "mild", -0.1, 1 }, { "medium", -1, 1 }, { "strong", -20, 1 } };
enum { PLAIN = 1, MILD = 2, MEDIUM = 4, STRONG = 8, ANY = 15 };

enum { NO = 1, YES = 2, BOTH = 3 }; /* S0 absent, given; Hv = H, Hv = 2 H */

static const struct {
    int shapes, packs, decays, s0, grouped;
    /* Finite differences; no gradients; left out by default; for `check ops --each`. */
    enum { QUICK, CHECKED = 1, DECODE = 2, SLOW = 4, EACH = 8 } kind;
} blocks[] = {
    { TINY, PN_PACK_T5 | PN_PACK_TINY, ANY, BOTH, BOTH, CHECKED },
    { SMALL, PN_PACK_MIXED, ANY, BOTH, BOTH, QUICK },
    { S64, PN_PACK_SINGLE | PN_PACK_MIXED, MILD | STRONG, YES, NO, QUICK },
    { S64, PN_PACK_MIXED | PN_PACK_T1000, ANY, NO, YES, QUICK },
    { TUNED & ~S64, PN_PACK_MIXED, MEDIUM, YES, NO, QUICK },
    { S96 | S128 | S128Q, PN_PACK_T65, ANY, BOTH, NO, QUICK },
    { S96, PN_PACK_SINGLE, MILD, NO, NO, QUICK },
    { S96 | S64, PN_PACK_T4097, MILD, YES, NO, QUICK },
    { S192, PN_PACK_T65, STRONG, YES, NO, QUICK },
    { ODD, PN_PACK_MIXED, MILD, YES, YES, QUICK },
    { SMALL, PN_PACK_EMPTY | PN_PACK_STEPS, MILD, BOTH, YES, QUICK },
    { TUNED | SMALL | ODD, PN_PACK_T1 | PN_PACK_STEPS, PLAIN | MEDIUM, BOTH, YES, DECODE },
    { TUNED | S33 | S256, PN_PACK_TWO, MILD, YES, YES, EACH },
    { S64 | S33, PN_PACK_TWO, PLAIN | MILD, NO, NO, EACH },
    { TUNED | S33, PN_PACK_STEPS, MILD, YES, YES, DECODE | EACH },
    { S64, PN_PACK_MIXED, MEDIUM, BOTH, YES, DECODE },
    { TINY, PN_PACK_70, ANY, NO, BOTH, CHECKED | SLOW },
    { TUNED, PN_PACK_SINGLE | PN_PACK_MIXED, ANY, BOTH, NO, SLOW },
    /* Not one token alone: where its two heads cancel in dq, BF16's rounding of either is all that is left. */
    { TUNED, (PN_PACK_SINGLE & ~PN_PACK_T1) | PN_PACK_MIXED, ANY, BOTH, YES, SLOW },
};

static void fill(pn_op_case *out, size_t b, int shape, int pack, int decay, bool s0, bool grouped) {
    pn_gated_delta_attr a = { .docs = pn_packs[pack].docs, .dk = shapes[shape].dk, .dv = shapes[shape].dv };
    a.heads = grouped ? 1 : 2;
    a.v_heads = 2;
    a.scale = 1 / sqrt(a.dk);
    _Static_assert(sizeof a <= PN_OP_ATTR_BYTES, "attr");
    memcpy(out->attr, &a, sizeof a);
    int64_t tokens = pn_docs_tokens(&a.docs);
    snprintf(out->name, sizeof out->name, "%dx%d %s %s%s%s%s", a.dk, a.dv, pn_packs[pack].name, decays[decay].name,
             s0 ? " S0" : "", grouped ? " Hv=2H" : "", blocks[b].kind & DECODE ? " no grad" : "");
    out->n_in = 6;
    out->in[0] = pn_case_matrix(tokens, (int64_t)a.heads * a.dk);
    out->in[0].fill = PN_FILL_L2ROWS;
    out->in[0].group = a.dk;
    out->in[1] = out->in[0];
    out->in[2] = pn_case_matrix(tokens, (int64_t)a.v_heads * a.dv);
    out->in[4] = pn_case_matrix(tokens, a.v_heads);
    out->in[4].wide = true;
    out->in[4].fill = PN_FILL_UNIFORM;
    out->in[3] = out->in[4];
    out->in[3].present = decays[decay].lo < 0;
    out->in[3].lo = decays[decay].lo;
    out->in[4].hi = decays[decay].beta;
    if (s0) {
        out->in[5] = (pn_case_input){
            .present = true, .wide = true, .rank = 4, .shape = { a.docs.n, a.v_heads, a.dk, a.dv }, .hi = 0.3
        };
    }
    for (int i = 0; i < 6; i++) out->in[i].no_grad = blocks[b].kind & DECODE;
    out->limit_din[3] = out->limit_din[4] = 1e-4; /* differences of row and column sums that cancel */
    out->gradcheck = blocks[b].kind & CHECKED;
    out->slow = blocks[b].kind & SLOW;
    out->kind = blocks[b].kind & EACH ? 1 + decay + 4 * grouped + (blocks[b].kind & DECODE ? 8 : 0) : -1;
    out->size = shape;
}

bool pn_gated_delta_case(int i, pn_op_case *out) {
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (int shape = 0; shape < (int)(sizeof shapes / sizeof *shapes); shape++)
            for (int pack = 0; pack < PN_PACKS; pack++)
                for (int x = 0; x < 16; x++) {
                    int decay = x / 4, s0 = x / 2 % 2, grouped = x % 2;
                    if (!(blocks[b].shapes >> shape & 1) || !(blocks[b].packs >> pack & 1) ||
                        !(blocks[b].decays >> decay & 1) || !(blocks[b].s0 >> s0 & 1) ||
                        !(blocks[b].grouped >> grouped & 1))
                        continue;
                    if (i-- > 0) continue;
                    fill(out, b, shape, pack, decay, s0, grouped);
                    return true;
                }
    return false;
}
