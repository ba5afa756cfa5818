#include "token_doc.h"

#include <stdlib.h>
#include <string.h>

/* Makes *array hold at least `need` elements; contents are kept. */
static pn_status grow(void **array, int64_t *cap, int64_t need, size_t element_bytes) {
    if (need <= *cap) return PN_OK;
    int64_t larger = *cap < 64 ? 64 : *cap;
    while (larger < need) larger += larger / 2;
    void *fresh = realloc(*array, (size_t)larger * element_bytes);
    PN_CHECK(fresh, PN_MEMORY, "out of memory for a document of %lld tokens", (long long)need);
    *array = fresh;
    *cap = larger;
    return PN_OK;
}

pn_status pn_token_doc_reserve(pn_token_doc *d, int64_t n) {
    int64_t cap = d->cap;
    PN_TRY(grow((void **)&d->token_class, &cap, n, sizeof *d->token_class));
    return grow((void **)&d->tokens, &d->cap, n, sizeof *d->tokens);
}

pn_status pn_token_doc_append(pn_token_doc *d, const int32_t *tokens, int64_t n, pn_token_class c) {
    if (n == 0) return PN_OK;
    PN_TRY(pn_token_doc_reserve(d, d->n + n));
    memcpy(d->tokens + d->n, tokens, (size_t)n * sizeof *tokens);
    memset(d->token_class + d->n, (int)c, (size_t)n);
    d->n += n;
    return PN_OK;
}

pn_status pn_token_doc_answer(pn_token_doc *d, const pn_answer *a) {
    PN_TRY(grow((void **)&d->answers, &d->cap_answers, d->n_answers + 1, sizeof *d->answers));
    d->answers[d->n_answers++] = *a;
    return PN_OK;
}

pn_status pn_token_doc_choice(pn_token_doc *d, const int32_t *tokens, int64_t n) {
    PN_TRY(grow((void **)&d->choice_begin, &d->cap_choices, d->n_choices + 2, sizeof *d->choice_begin));
    if (d->n_choices == 0) d->choice_begin[0] = 0;
    int64_t begin = d->choice_begin[d->n_choices];
    PN_TRY(grow((void **)&d->choice_tokens, &d->cap_choice_tokens, begin + n, sizeof *d->choice_tokens));
    if (n) memcpy(d->choice_tokens + begin, tokens, (size_t)n * sizeof *tokens);
    d->choice_begin[++d->n_choices] = begin + n;
    return PN_OK;
}

pn_status pn_token_doc_check(const pn_token_doc *d, const char *what) {
    int64_t end = 0;
    for (int64_t i = 0; i < d->n_answers; i++) {
        const pn_answer *a = &d->answers[i];
        PN_CHECK(a->begin >= end && a->end > a->begin && a->end <= d->n, PN_USAGE,
                 "%s: answer %lld is tokens %lld to %lld, which overlaps the one before or is not inside the document "
                 "of %lld tokens",
                 what, (long long)i, (long long)a->begin, (long long)a->end, (long long)d->n);
        PN_CHECK(a->distance >= 0 && a->distance <= a->begin, PN_USAGE,
                 "%s: answer %lld is stated %lld tokens before it begins, which is before the document", what,
                 (long long)i, (long long)a->distance);
        PN_CHECK(a->n_choices >= 0 && a->chance >= 0 && a->chance <= 1, PN_USAGE,
                 "%s: answer %lld has %d choices and chance %g", what, (long long)i, a->n_choices, a->chance);
        bool listed = a->choice >= 0 && a->choice <= d->n_choices && a->n_choices <= d->n_choices - a->choice &&
                      a->gold >= 0 && a->gold < a->n_choices;
        PN_CHECK(listed || (a->choice == -1 && a->gold == -1), PN_USAGE,
                 "%s: answer %lld points at choices that are not listed", what, (long long)i);
        end = a->end;
    }
    return PN_OK;
}

void pn_token_doc_clear(pn_token_doc *d) {
    d->n = d->n_answers = d->n_choices = 0;
}

void pn_token_doc_free(pn_token_doc *d) {
    free(d->tokens);
    free(d->token_class);
    free(d->answers);
    free(d->choice_begin);
    free(d->choice_tokens);
    *d = (pn_token_doc){ 0 };
}
