/* One document as tokens, with what is known about it: how predictable each token is, and the answers to score. */
#ifndef PN_IO_TOKEN_DOC_H
#define PN_IO_TOKEN_DOC_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* What a token is to a loss: weights are given by class (mixture.h). */
typedef enum pn_token_class {
    PN_CLASS_NOISE,  /* drawn at random: nothing can predict it */
    PN_CLASS_TEXT,   /* ordinary text */
    PN_CLASS_ANSWER, /* part of an answer: what came before decides it */
    PN_CLASS_COUNT
} pn_token_class;

/* One scored span of a document. Positions count the document's tokens from 0. */
typedef struct pn_answer {
    int64_t begin, end;
    int64_t distance;  /* tokens from where the document states the answer to `begin`; 0: it is not stated */
    int32_t skill;     /* index into the skill names that travel with the document */
    int32_t n_choices; /* how many answers are possible; 0: open */
    int32_t gold;      /* which of the listed choices is right; -1: choices are not listed */
    double chance;     /* accuracy of guessing uniformly among the possible answers */
    int64_t choice;    /* first of n_choices entries of the document's choices; -1: not listed */
} pn_answer;

/* Start from {0}; pn_token_doc_clear keeps the memory for the next document, pn_token_doc_free gives it back. */
typedef struct pn_token_doc {
    int32_t *tokens;      /* (n) */
    uint8_t *token_class; /* (n) pn_token_class */
    int64_t n, cap;
    pn_answer *answers; /* (n_answers) by begin, not overlapping */
    int64_t n_answers, cap_answers;
    int64_t *choice_begin; /* (n_choices + 1) into choice_tokens; NULL while there are none */
    int64_t n_choices, cap_choices;
    int32_t *choice_tokens; /* (choice_begin[n_choices]) */
    int64_t cap_choice_tokens;
} pn_token_doc;

/* Makes room for n tokens in all. */
pn_status pn_token_doc_reserve(pn_token_doc *d, int64_t n);
pn_status pn_token_doc_append(pn_token_doc *d, const int32_t *tokens, int64_t n, pn_token_class c);
pn_status pn_token_doc_answer(pn_token_doc *d, const pn_answer *a);
pn_status pn_token_doc_choice(pn_token_doc *d, const int32_t *tokens, int64_t n);
/* PN_USAGE when answers or choices do not fit the tokens; what: names the document in the message. */
pn_status pn_token_doc_check(const pn_token_doc *d, const char *what);
void pn_token_doc_clear(pn_token_doc *d);
void pn_token_doc_free(pn_token_doc *d);

#endif
