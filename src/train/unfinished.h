/* The model of a finetune run that has not come to its end: the weights of its newest checkpoint that is whole.
 *
 * A checkpoint holds the weights that trained in its stage, whole, whatever the number of ranks that wrote them. The
 * others are those of the stages before, whose last checkpoints are kept, and of the model that the run began with. */
#ifndef PN_TRAIN_UNFINISHED_H
#define PN_TRAIN_UNFINISHED_H

#include "model.h"
#include "tokenizer.h"

typedef struct pn_unfinished { /* owns both; starts as {0} */
    pn_tokenizer *tokenizer;
    pn_model *model;     /* on the host, F32 */
    int stage, n_stages; /* which the checkpoint is of, from 0 */
    int64_t step, steps; /* of the stage: made, and in all */
} pn_unfinished;

/* Changes nothing in `run`. PN_USAGE, saying what can be done, for the run of a search and where nothing was saved. */
pn_status pn_unfinished_open(const char *run, pn_unfinished *out);
void pn_unfinished_close(pn_unfinished *x);

#endif
