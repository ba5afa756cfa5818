#include <stdlib.h>
#include <string.h>

#include "mixture_internal.h"
#include "permute.h"

/* Sets of numbers that must not share random streams. */
static uint64_t part_seed(const pn_mixture *m, int64_t part) {
    return m->seed + UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(part + 1);
}

/* ---- a row's memory ---- */

static pn_status row_reserve(pn_row *row, int64_t n) {
    row->n_docs = row->n_answers = 0;
    if (row->n_tokens == n) return PN_OK;
    pn_row_free(row);
    const size_t t = (size_t)n;
    row->tokens = malloc((t + 1) * sizeof *row->tokens); /* one more: the token after a window is its last target */
    row->targets = malloc(t * sizeof *row->targets);
    row->weights = malloc(t * sizeof *row->weights);
    row->token_class = malloc(t + 1);
    row->doc_offsets = malloc((t + 2) * sizeof *row->doc_offsets);
    if (!row->tokens || !row->targets || !row->weights || !row->token_class || !row->doc_offsets) {
        pn_row_free(row);
        PN_FAIL(PN_MEMORY, "out of memory for a row of %lld tokens", (long long)n);
    }
    row->n_tokens = n;
    return PN_OK;
}

void pn_row_free(pn_row *row) {
    free(row->tokens);
    free(row->targets);
    free(row->weights);
    free(row->token_class);
    free(row->doc_offsets);
    free(row->answers);
    *row = (pn_row){ 0 };
}

static pn_status row_answer(pn_row *row, const pn_answer *a) {
    if (row->n_answers == row->cap_answers) {
        int64_t cap = row->cap_answers ? 2 * row->cap_answers : 64;
        pn_answer *fresh = realloc(row->answers, (size_t)cap * sizeof *fresh);
        PN_CHECK(fresh, PN_MEMORY, "out of memory for a row's answers");
        row->answers = fresh;
        row->cap_answers = cap;
    }
    row->answers[row->n_answers++] = *a;
    return PN_OK;
}

/* ---- a row of a skill ---- */

static int64_t document_bytes(const pn_mixture *m, const pn_part *p, pn_rng *lengths, int64_t room) {
    const int64_t fits = room - pn_doc_frame_tokens(m->frame);
    if (p->document_max == 0) return fits;
    const uint64_t span = (uint64_t)(p->document_max - p->document_min) + 1;
    const int64_t n = p->document_min + (int64_t)pn_rng_below(lengths, span);
    return n <= fits ? n : 0;
}

static pn_status add_document(pn_row *row, const pn_token_doc *d, int64_t at) {
    memcpy(row->tokens + at, d->tokens, (size_t)d->n * sizeof *d->tokens);
    memcpy(row->token_class + at, d->token_class, (size_t)d->n);
    for (int64_t i = 0; i < d->n_answers; i++) {
        pn_answer a = d->answers[i];
        a.begin += at;
        a.end += at;
        a.choice = a.gold = -1;
        PN_TRY(row_answer(row, &a));
    }
    row->doc_offsets[++row->n_docs] = at + d->n;
    return PN_OK;
}

/* The random stream of the document lengths of row `ordinal`. */
static void lengths_of(const pn_mixture *m, int64_t part, pn_split split, int64_t ordinal, pn_rng *out) {
    pn_rng_stream(part_seed(m, part), "mixture/lengths", (uint64_t)ordinal * PN_SPLITS + split, out);
}

enum { ROW_DOCS_MAX = 1 << 20 };

/* The skill's index of the first document of row `ordinal`. */
static uint64_t first_document(int64_t ordinal) {
    return (uint64_t)ordinal * ROW_DOCS_MAX;
}

/* *end: where documents end and padding begins. */
static pn_status skill_row(pn_mixture *m, int64_t part, pn_split split, int64_t ordinal, pn_row *row, int64_t *end) {
    const pn_part *p = &m->parts[part];
    const uint64_t seed = part_seed(m, part);
    const int64_t least = p->skill->type->least_bytes(p->skill), t = m->sequence_length;
    pn_rng lengths;
    lengths_of(m, part, split, ordinal, &lengths);
    int64_t at = 0;
    for (uint64_t k = 0; k < ROW_DOCS_MAX; k++) {
        const int64_t n_bytes = document_bytes(m, p, &lengths, t - at);
        if (n_bytes < least) break;
        PN_TRY(pn_skill_document(p->skill, m->tokenizer, m->frame, seed, split, first_document(ordinal) + k, n_bytes,
                                 &m->doc));
        if (m->doc.n > t - at) break; /* a tokenizer that makes more tokens than bytes */
        PN_TRY(add_document(row, &m->doc, at));
        at += m->doc.n;
    }
    *end = at;
    if (at == t) return PN_OK;
    for (int64_t i = at; i < t; i++) row->tokens[i] = m->pad;
    memset(row->token_class + at, PN_CLASS_NOISE, (size_t)(t - at));
    row->doc_offsets[++row->n_docs] = t;
    return PN_OK;
}

/* ---- a row of token shards ---- */

/* The window, and in row->tokens[T] what follows it; *follows is false where the document or the set ends with it. */
static pn_status shard_row(pn_mixture *m, int64_t part, pn_split split, int64_t ordinal, pn_row *row, bool *follows) {
    const pn_windows *w = &m->parts[part].windows[split];
    const int64_t n = w->first[w->n], t = m->sequence_length;
    const int64_t window = pn_permute(part_seed(m, part), (uint64_t)(ordinal / n) * PN_SPLITS + split, n, ordinal % n);
    int64_t i = 0;
    while (w->first[i + 1] <= window) i++;
    pn_token_set *set = w->sets[i];
    const int64_t begin = (window - w->first[i]) * t;
    const int64_t take = t + (begin + t < pn_token_set_info(set)->n_tokens);
    PN_TRY(pn_token_set_read(set, begin, take, row->tokens));
    PN_TRY(pn_token_set_classes(set, begin, take, row->token_class));
    PN_TRY(pn_token_set_offsets(set, begin, take, row->doc_offsets, &row->n_docs));
    *follows = take > t && row->doc_offsets[row->n_docs - 1] < t;
    if (take > t && !*follows) row->n_docs--; /* what follows is another document */
    row->doc_offsets[row->n_docs] = t;
    return PN_OK;
}

/* ---- targets ---- */

/* end: where the padding begins, which has no targets. */
static void set_targets(const pn_part *p, pn_row *row, int64_t end, bool follows) {
    const int64_t t = row->n_tokens;
    for (int64_t d = 0; d < row->n_docs; d++)
        for (int64_t i = row->doc_offsets[d]; i < row->doc_offsets[d + 1]; i++) {
            const bool last = i + 1 == row->doc_offsets[d + 1] && !(i + 1 == t && follows);
            row->targets[i] = last || i >= end ? -1 : row->tokens[i + 1];
            row->weights[i] = last || i >= end ? 0 : p->class_weight[row->token_class[i + 1]];
        }
}

/* ---- what an index stands for ---- */

static pn_status locate(pn_mixture *m, pn_split split, int64_t index, int64_t *part, int64_t *ordinal) {
    PN_ASSERT(index >= 0);
    PN_CHECK(
        pn_mixture_has(m, split), PN_USAGE,
        "mixture: no part has data for split %s; add a skill, or token shards of that split (`postnas data --help`)",
        pn_split_names[split]);
    pn_mixture_locate(m, split, index, part, ordinal);
    return PN_OK;
}

pn_status pn_mixture_row(pn_mixture *m, pn_split split, int64_t index, pn_row *row) {
    int64_t part, ordinal;
    PN_TRY(locate(m, split, index, &part, &ordinal));
    PN_TRY(row_reserve(row, m->sequence_length));
    row->part = part;
    row->doc_offsets[0] = 0;
    bool follows = false;
    int64_t end = row->n_tokens;
    if (m->parts[part].skill)
        PN_TRY(skill_row(m, part, split, ordinal, row, &end));
    else
        PN_TRY(shard_row(m, part, split, ordinal, row, &follows));
    set_targets(&m->parts[part], row, end, follows);
    return PN_OK;
}

pn_status pn_mixture_document(pn_mixture *m, pn_split split, int64_t index, pn_token_doc *out) {
    int64_t part, ordinal;
    PN_TRY(locate(m, split, index, &part, &ordinal));
    const pn_part *p = &m->parts[part];
    PN_CHECK(p->skill, PN_USAGE, "mixture: part %lld is token shards; a corpus of skills is made of skills only",
             (long long)part);
    pn_rng lengths;
    lengths_of(m, part, split, ordinal, &lengths);
    const int64_t n_bytes = document_bytes(m, p, &lengths, m->sequence_length);
    return pn_skill_document(p->skill, m->tokenizer, m->frame, part_seed(m, part), split, first_document(ordinal),
                             n_bytes, out);
}
