/* Cases are products of the lists below: every block of the table takes the named subsets of them. */
#include "gated_linear.h"
#include "infer.h"
#include "packs.h"

#include <math.h>
#include <string.h>

static const struct {
    int dk, dv;
} shapes[] = { { 96, 256 }, { 128, 256 }, { 128, 128 }, { 192, 384 }, { 64, 64 }, /* the tuned ones */
               { 16, 24 },  { 12, 24 },   { 3, 4 },     { 33, 7 },    { 260, 40 }, { 16, 136 } };
enum { TUNED = 0x1f, SMALL = 0x60, TINY = 0x80, ODD = 0x300, MANY = 0x400 };
enum { S96 = 1, S128 = 2, S128Q = 4, S192 = 8, S64 = 16, S16 = 0x20, S33 = 0x100 };

static const struct {
    const char *name;
    double lo, hi; /* log decay in lo .. hi */
    bool vector;
} gates[] = { { "plain", 0, 0, false },          { "mild", -0.1, 0, false },       { "strong", -20, 0, false },
              { "vector mild", -0.1, 0, true },  { "vector medium", -1, 0, true }, { "vector strong", -20, 0, true },
              { "vector steep", -40, -10, true } };
enum { PLAIN = 1, MILD = 2, STRONG = 4, VMILD = 8, VMEDIUM = 16, VSTRONG = 32, VSTEEP = 64, ANY = 127 };

/* Heads of q, k, v, g for so many heads. */
static const struct {
    const char *name;
    int heads, q, k, v, g;
} sharing[] = { { "", 2, 2, 2, 2, 2 },
                { " shared kvg", 2, 2, 1, 1, 1 },
                { " shared qk", 2, 1, 1, 2, 2 },
                { " 6 heads", 6, 6, 2, 3, 1 },
                { " 40 heads", 40, 40, 8, 40, 40 } }; /* more than a GPU runs at once, in narrow pieces of a state */
enum { OWN = 1, KVG = 2, QK = 4, SIX = 8, ALL = 15, FORTY = 16 };

enum { NO = 1, YES = 2, BOTH = 3 }; /* S0 absent, given */

static const struct {
    int shapes, packs, gates, s0, sharing;
    /* Finite differences; no gradients; left out by default; for `check ops --each`. */
    enum { QUICK, CHECKED = 1, DECODE = 2, SLOW = 4, EACH = 8 } kind;
} blocks[] = {
    { TINY, PN_PACK_T5, ANY & ~(STRONG | VSTRONG | VSTEEP), BOTH, OWN | KVG, CHECKED },
    { TINY, PN_PACK_T5, STRONG | VSTRONG, NO, OWN | KVG, CHECKED }, /* little of S0 would be left to differentiate */
    { TINY, PN_PACK_TINY, ANY & ~VSTEEP, BOTH, OWN | KVG, CHECKED },
    { TINY, PN_PACK_TINY, MILD | VMEDIUM, YES, QK | SIX, CHECKED },
    { SMALL, PN_PACK_MIXED | PN_PACK_BLOCKS, ANY, BOTH, OWN | KVG, QUICK },
    { SMALL, PN_PACK_MIXED, MILD | VMEDIUM, YES, ALL, QUICK },
    { S64, PN_PACK_SINGLE | PN_PACK_MIXED, MILD | STRONG | VMILD | VSTRONG, YES, OWN, QUICK },
    { S64, PN_PACK_MIXED | PN_PACK_T1000, ANY, NO, KVG | QK, QUICK },
    { TUNED & ~S64, PN_PACK_MIXED, MILD | VMEDIUM, YES, OWN, QUICK },
    { S96 | S128 | S128Q, PN_PACK_T65, ANY, BOTH, OWN, QUICK },
    { S96, PN_PACK_SINGLE, MILD | VMILD, NO, OWN, QUICK },
    { S64, PN_PACK_T4097, MILD | VMEDIUM, YES, OWN, QUICK },
    { S192, PN_PACK_T65, STRONG | VSTRONG, YES, OWN, QUICK },
    { ODD, PN_PACK_MIXED, MILD | VMILD | VSTRONG, YES, KVG, QUICK },
    { MANY, PN_PACK_MIXED, MILD | VMEDIUM, YES, FORTY, QUICK },
    { TUNED, PN_PACK_TWO, MILD | VMEDIUM, YES, KVG, EACH },
    { S16 | S33, PN_PACK_TWO, PLAIN, YES, OWN, EACH },
    { S16 | S33, PN_PACK_TWO, MILD, YES, ALL, EACH },
    { S16 | S33, PN_PACK_TWO, VMEDIUM, YES, KVG | SIX, EACH },
    { TUNED | S33, PN_PACK_STEPS, MILD | VMEDIUM, YES, KVG, DECODE | EACH },
    { SMALL, PN_PACK_EMPTY | PN_PACK_STEPS, MILD | VMILD, BOTH, KVG, QUICK },
    { TUNED | SMALL | ODD, PN_PACK_T1 | PN_PACK_STEPS, PLAIN | MILD | VMEDIUM, BOTH, KVG, DECODE },
    { S64, PN_PACK_MIXED, VMEDIUM, BOTH, KVG, DECODE },
    { TINY, PN_PACK_70, ANY & ~VSTEEP, NO, ALL, CHECKED | SLOW },
    { TUNED, PN_PACK_SINGLE | PN_PACK_MIXED | PN_PACK_BLOCKS, ANY, BOTH, OWN | KVG, SLOW },
};

static void fill(pn_op_case *out, size_t b, int shape, int pack, int gate, bool s0, int share) {
    pn_gated_linear_attr a = { .docs = pn_packs[pack].docs,
                               .heads = sharing[share].heads,
                               .q_heads = sharing[share].q,
                               .k_heads = sharing[share].k,
                               .v_heads = sharing[share].v,
                               .g_heads = sharing[share].g,
                               .dk = shapes[shape].dk,
                               .dv = shapes[shape].dv,
                               .vector_gate = gates[gate].vector };
    a.scale = 1 / sqrt(a.dk);
    _Static_assert(sizeof a <= PN_OP_ATTR_BYTES, "attr");
    memcpy(out->attr, &a, sizeof a);
    int64_t tokens = pn_docs_tokens(&a.docs);
    snprintf(out->name, sizeof out->name, "%dx%d %s %s%s%s%s", a.dk, a.dv, pn_packs[pack].name, gates[gate].name,
             s0 ? " S0" : "", sharing[share].name, blocks[b].kind & DECODE ? " no grad" : "");
    out->n_in = 5;
    out->in[0] = pn_case_matrix(tokens, (int64_t)a.q_heads * a.dk);
    out->in[1] = pn_case_matrix(tokens, (int64_t)a.k_heads * a.dk);
    out->in[2] = pn_case_matrix(tokens, (int64_t)a.v_heads * a.dv);
    out->in[3] = pn_case_matrix(tokens, (int64_t)a.g_heads * (a.vector_gate ? a.dk : 1));
    out->in[3].present = gates[gate].lo < 0;
    out->in[3].wide = true;
    out->in[3].fill = PN_FILL_UNIFORM;
    out->in[3].lo = gates[gate].lo, out->in[3].hi = gates[gate].hi;
    if (s0)
        out->in[4] =
            (pn_case_input){ .present = true, .wide = true, .rank = 4, .shape = { a.docs.n, a.heads, a.dk, a.dv } };
    for (int i = 0; i < 5; i++) out->in[i].no_grad = blocks[b].kind & DECODE;
    out->limit_din[3] = 1e-4; /* sums of differences that cancel */
    out->gradcheck = blocks[b].kind & CHECKED;
    out->slow = blocks[b].kind & SLOW;
    out->kind = blocks[b].kind & EACH ? 1 + gate + 8 * share + (blocks[b].kind & DECODE ? 64 : 0) : -1;
    out->size = shape;
}

bool pn_gated_linear_case(int i, pn_op_case *out) {
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    enum { GATES = sizeof gates / sizeof *gates, SHARING = sizeof sharing / sizeof *sharing };
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (int x = 0; x < SHAPES * PN_PACKS * GATES * 2 * SHARING; x++) {
            int share = x % SHARING, s0 = x / SHARING % 2, gate = x / SHARING / 2 % GATES;
            int pack = x / SHARING / 2 / GATES % PN_PACKS, shape = x / SHARING / 2 / GATES / PN_PACKS;
            if (!(blocks[b].shapes >> shape & 1) || !(blocks[b].packs >> pack & 1) || !(blocks[b].gates >> gate & 1) ||
                !(blocks[b].s0 >> s0 & 1) || !(blocks[b].sharing >> share & 1))
                continue;
            if (i-- > 0) continue;
            fill(out, b, shape, pack, gate, s0, share);
            return true;
        }
    return false;
}
