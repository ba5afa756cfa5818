/* What a configuration says of one training: budget, batches, learning rate, optimizer, losses, memory. */
#ifndef PN_TRAIN_TRAIN_OPTIONS_H
#define PN_TRAIN_TRAIN_OPTIONS_H

#include "distill.h"
#include "options.h"
#include "schedule.h"

typedef struct pn_train_options {
    int64_t tokens;       /* budget */
    int64_t batch_tokens; /* per step, a multiple of the mixture's sequence length; at most tokens */
    pn_schedule schedule;
    double weight_decay, beta1, beta2, epsilon, clip;
    pn_loss_weights loss;
    int recompute;             /* pn_recompute_level, or PN_RECOMPUTE_AUTO */
    double memory_gb;          /* of the GPU, at most; 0: what is free */
    double checkpoint_seconds; /* between checkpoints; 0: none but the last */
} pn_train_options;

extern const pn_option pn_train_option_table[];

/* PN_USAGE, starting with `where`, when the mixture cannot serve the budget: no training rows, batch_tokens that is not
 * a whole number of rows, tokens for less than one step. */
pn_status pn_train_options_check(const pn_train_options *o, const pn_mixture *mixture, const char *where);

/* Identifies everything in the options that the trained weights depend on. */
uint64_t pn_train_options_hash(const pn_train_options *o);

#endif
