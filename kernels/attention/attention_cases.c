#include "attention_cases.h"

#include <string.h>

/* Documents: end offsets after a leading 0. */
static const int64_t t1[] = { 0, 1 }, t2[] = { 0, 2 }, t9[] = { 0, 9 }, t40[] = { 0, 40 }, t63[] = { 0, 63 },
                     t64[] = { 0, 64 }, t65[] = { 0, 65 }, two[] = { 0, 66, 71 }, t300[] = { 0, 300 },
                     t700[] = { 0, 700 }, t4097[] = { 0, 4097 };
static const int64_t pair[] = { 0, 520, 1040 }, unlike[] = { 0, 30, 30, 550, 600 };
static const int64_t tiny[] = { 0, 3, 3, 8 };                  /* one document is empty */
static const int64_t mixed[] = { 0, 1, 64, 64, 67, 138, 338 }; /* 1, 63, 0, 3, 71, 200 tokens */
static const int64_t steps[] = { 0, 1, 2, 3, 4 };              /* decoding: one query each */
static const int64_t step_start[] = { 0, 1, 40, 1300 };
static const int64_t step_len[] = { 1, 37, 1250, 65 }; /* row 39 and rows 1290-1299 belong to no document */
static const int64_t pieces[] = { 0, 2, 70, 71 };      /* chunked prefill on top of a cache */
static const int64_t piece_start[] = { 0, 50, 200 }, piece_len[] = { 40, 150, 1 };
static const int64_t shared_start[] = { 5, 5, 5, 0 }, shared_len[] = { 700, 650, 12, 1 }; /* a common prefix */
static const int64_t tiny_steps[] = { 0, 1, 3 }, tiny_start[] = { 1, 6 }, tiny_len[] = { 5, 6 };

#define ALONE(offsets)              { sizeof offsets / sizeof *offsets - 1, offsets, NULL, 0 }, NULL, NULL
#define CACHED(offsets, start, len) { sizeof offsets / sizeof *offsets - 1, offsets, NULL, 0 }, start, len

static const struct {
    const char *name;
    pn_attention_attr attr;
    int64_t keys; /* rows of k and v; 0: as many as queries */
    bool gradcheck;
} cases[] = {
    { "1 token", { ALONE(t1), 1, 1, 16, 0, 0.25 }, .gradcheck = true },
    { "2 tokens, group 3", { ALONE(t2), 3, 1, 4, 0, 0.5 }, .gradcheck = true },
    { "tiny documents", { ALONE(tiny), 2, 1, 4, 0, 0.5 }, .gradcheck = true },
    { "tiny documents, window 2", { ALONE(tiny), 4, 2, 3, 2, 0.6 }, .gradcheck = true },
    { "9 tokens, window 5", { ALONE(t9), 2, 2, 4, 5, 0.5 }, .gradcheck = true },
    { "tiny cache", { CACHED(tiny_steps, tiny_start, tiny_len), 2, 1, 4, 0, 0.5 }, .keys = 13, .gradcheck = true },
    { "tiny cache, window 3",
      { CACHED(tiny_steps, tiny_start, tiny_len), 2, 1, 4, 3, 0.5 },
      .keys = 12,
      .gradcheck = true },
    { "63 tokens, d 20", { ALONE(t63), 3, 1, 20, 0, 0.22 }, .keys = 0 },
    { "64 tokens, d 64", { ALONE(t64), 9, 3, 64, 0, 0.125 }, .keys = 0 },
    { "65 tokens, d 16", { ALONE(t65), 7, 1, 16, 0, 0.25 }, .keys = 0 },
    { "65 tokens, window 64", { ALONE(t65), 2, 2, 64, 64, 0.125 }, .keys = 0 },
    { "300 tokens, d 128", { ALONE(t300), 2, 2, 128, 0, 0.09 }, .keys = 0 },
    { "300 tokens, group 7", { ALONE(t300), 14, 2, 64, 0, 0.125 }, .keys = 0 },
    { "300 tokens, window 5", { ALONE(t300), 3, 1, 20, 5, 0.22 }, .keys = 0 },
    { "300 tokens, window 64", { ALONE(t300), 6, 2, 64, 64, 0.125 }, .keys = 0 },
    { "700 tokens, group 20", { ALONE(t700), 20, 1, 16, 0, 0.25 }, .keys = 0 },
    { "4097 tokens, group 2", { ALONE(t4097), 2, 1, 64, 0, 0.125 }, .keys = 0 },
    { "4097 tokens, d 128, window 1152", { ALONE(t4097), 2, 1, 128, 1152, 0.09 }, .keys = 0 },
    { "40 tokens, d 256", { ALONE(t40), 2, 1, 256, 0, 0.0625 }, .keys = 0 },
    { "40 tokens, d 300, window 9", { ALONE(t40), 2, 1, 300, 9, 0.0577 }, .keys = 0 },
    { "66 and 5 tokens, d 128", { ALONE(two), 2, 1, 128, 0, 0.09 }, .keys = 0 },
    { "66 and 5 tokens, d 128, window 9", { ALONE(two), 2, 2, 128, 9, 0.09 }, .keys = 0 },
    { "66 and 5 tokens, d 256", { ALONE(two), 2, 2, 256, 0, 0.0625 }, .keys = 0 },
    { "2 of 520 tokens, group 2", { ALONE(pair), 4, 2, 64, 0, 0.125 }, .keys = 0 },
    { "2 of 520 tokens, d 128, window 200", { ALONE(pair), 2, 2, 128, 200, 0.09 }, .keys = 0 },
    { "unlike documents, d 128, group 2", { ALONE(unlike), 2, 1, 128, 0, 0.09 }, .keys = 0 },
    { "unlike documents, d 64, window 200", { ALONE(unlike), 3, 3, 64, 200, 0.125 }, .keys = 0 },
    /* Scores of standard deviation 9: nearly one-hot rows, and exponents far below the maximum. */
    { "300 tokens, sharp scores", { ALONE(t300), 3, 1, 64, 0, 1.1 }, .keys = 0 },
    { "mixed documents", { ALONE(mixed), 9, 3, 64, 0, 0.125 }, .keys = 0 },
    { "mixed documents, d 20, window 5", { ALONE(mixed), 3, 3, 20, 5, 0.22 }, .keys = 0 },
    { "mixed documents, d 32, window 64", { ALONE(mixed), 4, 4, 32, 64, 0.18 }, .keys = 0 },
    { "decode, group 3", { CACHED(steps, step_start, step_len), 9, 3, 64, 0, 0.125 }, .keys = 1400 },
    { "decode, group 7, window 64", { CACHED(steps, step_start, step_len), 7, 1, 128, 64, 0.09 }, .keys = 1400 },
    { "decode, group 1, d 20", { CACHED(steps, step_start, step_len), 2, 2, 20, 0, 0.22 }, .keys = 1365 },
    { "decode, group 20", { CACHED(steps, step_start, step_len), 20, 1, 16, 0, 0.25 }, .keys = 1365 },
    { "decode, shared keys", { CACHED(steps, shared_start, shared_len), 6, 2, 32, 0, 0.18 }, .keys = 705 },
    { "pieces on a cache", { CACHED(pieces, piece_start, piece_len), 6, 2, 64, 0, 0.125 }, .keys = 201 },
    { "pieces on a cache, window 5", { CACHED(pieces, piece_start, piece_len), 6, 2, 20, 5, 0.22 }, .keys = 201 },
    { "pieces on a cache, window 64", { CACHED(pieces, piece_start, piece_len), 3, 3, 16, 64, 0.25 }, .keys = 230 },
};

bool pn_attention_case_at(int i, pn_op_case *out) {
    if (i >= (int)(sizeof cases / sizeof *cases)) return false;
    const pn_attention_attr *a = &cases[i].attr;
    snprintf(out->name, sizeof out->name, "%s", cases[i].name);
    memcpy(out->attr, a, sizeof *a);
    int64_t queries = pn_docs_tokens(&a->docs), keys = cases[i].keys ? cases[i].keys : queries;
    out->n_in = 3;
    for (int k = 0; k < 3; k++)
        out->in[k] =
            (pn_case_input){ .present = true,
                             .rank = 2,
                             .shape = { k ? keys : queries, (int64_t)(k ? a->kv_heads : a->heads) * a->head_dim } };
    out->gradcheck = cases[i].gradcheck;
    const int layout = a->key_start ? 2 : a->docs.n > 1, width = a->head_dim <= 64 ? 0 : a->head_dim <= 128 ? 1 : 2;
    out->kind = keys < 4096 ? 1 + layout : -1; /* for tools that make everything slow there are shorter ones */
    const bool few_rows = queries * a->heads / a->kv_heads <= 16;
    out->size = 8 * width + 4 * few_rows + 2 * (keys >= 1024) + (a->window > 0);
    return true;
}
