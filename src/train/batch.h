/* One step's tokens: packed documents, next-token targets and loss weights. */
#ifndef PN_TRAIN_BATCH_H
#define PN_TRAIN_BATCH_H

#include "mixture.h"
#include "tape.h"
#include "teacher_rows.h"

enum {
    PN_BATCH_IDS,
    PN_BATCH_TARGETS,
    PN_BATCH_WEIGHTS,
    PN_BATCH_TEACHER_IDS,
    PN_BATCH_TEACHER_LOG_P,
    PN_BATCH_TENSORS
};

typedef struct pn_batch {
    int64_t n_tokens, n_docs;
    int64_t *offset;      /* n_docs + 1, and the end again up to pn_batch_docs of any layout */
    pn_docs docs;         /* over offset */
    int64_t longest;      /* no document is longer, in this batch and those that are packed as it is */
    int32_t *ids;         /* n_tokens */
    int32_t *targets;     /* n_tokens: the next token of the same document, -1 at its end */
    float *weights;       /* n_tokens, of each target in the loss */
    bool weighted;        /* false: all weights are 1 */
    int64_t cap_tokens;   /* what the arrays have room for */
    pn_row row;           /* the mixture's row being copied */
    int64_t k;            /* words of the teacher's for each token; 0: it has said nothing */
    int32_t *teacher_ids; /* n_tokens x k, ascending for each token */
    float *teacher_log_p; /* n_tokens x k */
    int64_t cap_words;    /* what these two have room for */
    /* Where its tensors are already; NULL: they are made when asked for. Borrowed. */
    pn_tensor *there[PN_BATCH_TENSORS];
} pn_batch;

/* Rows first .. first + n - 1 of the mixture's train split, or of another, packed one after another. *b starts as {0}
 * and is reused. */
pn_status pn_batch_load(pn_mixture *mixture, int64_t first, int64_t n, pn_batch *b);
pn_status pn_batch_load_split(pn_mixture *mixture, pn_split split, int64_t first, int64_t n, pn_batch *b);
/* What the teacher said of a batch just loaded, whose first row is row `first` of the train split. */
pn_status pn_batch_teach(pn_batch *b, pn_teacher_rows *rows, int64_t first);
/* As if it had said something: k words of every token. */
pn_status pn_batch_make_up(pn_batch *b, int64_t k);
/* Tokens first .. first + n - 1 of a loaded batch, copied; documents begin and end there. */
pn_status pn_batch_part(const pn_batch *whole, int64_t first, int64_t n, pn_batch *b);
/* What the weights of its targets add up to: by which the mean losses of two batches make that of both. */
double pn_batch_weight(const pn_batch *b);
/* One batch from given documents: ids of all of them, offsets n_docs + 1 (both copied). Targets are the next tokens. */
pn_status pn_batch_from_ids(const int32_t *ids, const int64_t *offset, int64_t n_docs, pn_batch *b);
void pn_batch_free(pn_batch *b);

/* The documents as they are, or as one of many layouts (pn_docs.longest): with empty documents after the last, up to a
 * power of two that most batches of as many tokens have in common. Over b's offsets. */
pn_docs pn_batch_docs(const pn_batch *b, bool any_layout);

/* The tensors of a step, owned by the tape's current scope; *weights is NULL when the batch has none. */
pn_status pn_batch_tensors(const pn_batch *b, pn_tape *t, pn_tensor **ids, pn_tensor **targets, pn_tensor **weights);
/* What the teacher said: [tokens, k] each. */
pn_status pn_batch_teacher_tensors(const pn_batch *b, pn_tape *t, pn_tensor **ids, pn_tensor **log_p);

#endif
