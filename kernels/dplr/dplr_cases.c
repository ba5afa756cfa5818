/* Cases are products of the lists below: every block of the table takes the named subsets of them. */
#include "dplr.h"
#include "infer.h"

#include <math.h>
#include <string.h>

static const struct {
    int dk, dv;
} shapes[] = { { 64, 64 }, { 64, 128 }, { 128, 128 }, { 32, 32 }, /* RWKV-7 and wider values or heads */
               { 16, 24 }, { 12, 24 },  { 3, 4 },     { 33, 7 },  { 260, 40 } };
enum { TUNED = 0xf, SMALL = 0x30, TINY = 0x40, ODD = 0x180, S64 = 1, S64W = 2, S128 = 4 };

static const struct {
    const char *name;
    pn_docs docs;
} packs[] = {
    { "T1", { 1, (const int64_t[]){ 0, 1 }, NULL } },
    { "T2", { 1, (const int64_t[]){ 0, 2 }, NULL } },
    { "T63", { 1, (const int64_t[]){ 0, 63 }, NULL } },
    { "T64", { 1, (const int64_t[]){ 0, 64 }, NULL } },
    { "T65", { 1, (const int64_t[]){ 0, 65 }, NULL } },
    { "T1000", { 1, (const int64_t[]){ 0, 1000 }, NULL } },
    { "T4097", { 1, (const int64_t[]){ 0, 4097 }, NULL } },
    { "docs 1 3 64 67 130", { 5, (const int64_t[]){ 0, 1, 4, 68, 135, 265 }, NULL } },
    { "docs 15 16 17 31 33", { 5, (const int64_t[]){ 0, 15, 31, 48, 79, 112 }, NULL } }, /* around blocks of 16 */
    { "T5", { 1, (const int64_t[]){ 0, 5 }, NULL } },
    { "docs 3 0 1 2", { 4, (const int64_t[]){ 0, 3, 3, 4, 6 }, NULL } },
    { "docs 1 1 1", { 3, (const int64_t[]){ 0, 1, 2, 3 }, NULL } },
    { "docs 64 6", { 2, (const int64_t[]){ 0, 64, 70 }, NULL } },
    { "docs 0 0", { 2, (const int64_t[]){ 0, 0, 0 }, NULL } },
};
enum {
    SINGLE = 0x3f,
    T1 = 1,
    T65 = 16,
    T1000 = 32,
    T4097 = 64,
    MIXED = 128,
    BLOCKS = 256,
    T5 = 512,
    DOCS_TINY = 1024,
    STEPS = 2048,
    DOCS_70 = 4096,
    DOCS_EMPTY = 8192
};

static const struct {
    const char *name;
    double lo, hi; /* log decay in lo .. hi */
} gates[] = { { "mild", -0.05, 0 }, { "rwkv7", -0.6065, 0 }, { "medium", -3, 0 },
              { "strong", -20, 0 }, { "steep", -40, -10 },   { "full", -0.6065, -0.6 } };
enum { MILD = 1, RWKV7 = 2, MEDIUM = 4, STRONG = 8, STEEP = 16, FULL = 32, ANY = 63 };

enum { NO = 1, YES = 2, BOTH = 3 }; /* S0 absent, given */

static const struct {
    int shapes, packs, gates, s0;
    enum { QUICK, CHECKED = 1, DECODE = 2, SLOW = 4 } kind; /* finite differences; no gradients; left out by default */
} blocks[] = {
    { TINY, T5, MILD | RWKV7 | MEDIUM, BOTH, CHECKED },
    { TINY, T5, STRONG, NO, CHECKED }, /* little of S0 would be left to differentiate */
    { TINY, DOCS_TINY, ANY & ~STEEP, BOTH, CHECKED },
    { SMALL, MIXED | BLOCKS, ANY, BOTH, QUICK },
    { S64, SINGLE | MIXED, MILD | RWKV7 | STRONG, YES, QUICK },
    { S64, MIXED | T1000, ANY, NO, QUICK },
    { S64, T4097, RWKV7, YES, QUICK },
    { TUNED & ~S64, MIXED, RWKV7 | MEDIUM, YES, QUICK },
    { S64W | S128, T65, ANY, BOTH, QUICK },
    { ODD, MIXED, MILD | RWKV7 | STRONG, YES, QUICK },
    { SMALL, DOCS_EMPTY | STEPS, RWKV7, BOTH, QUICK },
    { TUNED | SMALL | ODD, T1 | STEPS, RWKV7 | STRONG, BOTH, DECODE },
    { S64, MIXED, RWKV7, BOTH, DECODE },
    { TINY, DOCS_70, ANY & ~STEEP, BOTH, CHECKED | SLOW },
    { TUNED, SINGLE | T4097 | MIXED | BLOCKS, ANY, BOTH, SLOW },
};

static void fill(pn_op_case *out, size_t block, int shape, int pack, int gate, bool s0) {
    pn_dplr_attr attr = { .docs = packs[pack].docs, .heads = 2, .dk = shapes[shape].dk, .dv = shapes[shape].dv };
    attr.scale = 1 / sqrt(attr.dk);
    _Static_assert(sizeof attr <= PN_OP_ATTR_BYTES, "attr");
    memcpy(out->attr, &attr, sizeof attr);
    int64_t tokens = pn_docs_tokens(&attr.docs), dk = attr.dk, dv = attr.dv;
    snprintf(out->name, sizeof out->name, "%dx%d %s %s%s%s", attr.dk, attr.dv, packs[pack].name, gates[gate].name,
             s0 ? " S0" : "", blocks[block].kind & DECODE ? " no grad" : "");
    out->n_in = 7;
    for (int i = 0; i < 6; i++) out->in[i] = pn_case_matrix(tokens, attr.heads * (i == 2 ? dv : dk));
    out->in[3].fill = PN_FILL_L2ROWS;
    out->in[3].group = dk;
    /* Unrelated to a, unlike in RWKV-7: a length of 1 would let the state grow e^(T / 2 dk) times without decay. */
    out->in[4].hi = 0.5 / sqrt((double)dk);
    out->in[5].fill = PN_FILL_UNIFORM;
    out->in[5].lo = gates[gate].lo, out->in[5].hi = gates[gate].hi;
    if (s0) out->in[6] = (pn_case_input){ .present = true, .rank = 4, .shape = { attr.docs.n, attr.heads, dk, dv } };
    for (int i = 0; i < 7; i++) out->in[i].no_grad = blocks[block].kind & DECODE;
    for (int i = 3; i < 6; i++) out->limit_din[i] = 1e-4; /* a, b and the decay: blocks.md 13 */
    out->gradcheck = blocks[block].kind & CHECKED;
    out->slow = blocks[block].kind & SLOW;
}

bool pn_dplr_case(int i, pn_op_case *out) {
    enum { SHAPES = sizeof shapes / sizeof *shapes, PACKS = sizeof packs / sizeof *packs };
    enum { GATES = sizeof gates / sizeof *gates };
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (int x = 0; x < SHAPES * PACKS * GATES * 2; x++) {
            int s0 = x % 2, gate = x / 2 % GATES, pack = x / 2 / GATES % PACKS, shape = x / 2 / GATES / PACKS;
            if (!(blocks[b].shapes >> shape & 1) || !(blocks[b].packs >> pack & 1) || !(blocks[b].gates >> gate & 1) ||
                !(blocks[b].s0 >> s0 & 1))
                continue;
            if (i-- > 0) continue;
            fill(out, b, shape, pack, gate, s0);
            return true;
        }
    return false;
}
