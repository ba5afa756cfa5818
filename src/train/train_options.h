/* What a configuration says of one training: budget, batches, learning rate, optimizer, losses, memory. */
#ifndef PN_TRAIN_TRAIN_OPTIONS_H
#define PN_TRAIN_TRAIN_OPTIONS_H

#include "distill.h"
#include "options.h"
#include "schedule.h"

typedef struct pn_loss_schedule { /* weights of the losses from the first step to the last */
    pn_ramp ce, kl, feature;
    double temperature;
} pn_loss_schedule;

static inline pn_loss_schedule pn_loss_constant(const pn_loss_weights *w) {
    return (pn_loss_schedule){ { w->ce, w->ce }, { w->kl, w->kl }, { w->feature, w->feature }, w->temperature };
}
/* step counts from 0 to steps - 1. */
pn_loss_weights pn_loss_at(const pn_loss_schedule *l, int64_t step, int64_t steps);
/* The most of each: what memory must be there for. */
pn_loss_weights pn_loss_most(const pn_loss_schedule *l);

typedef struct pn_train_options {
    int64_t tokens;       /* budget */
    int64_t batch_tokens; /* per step, a multiple of the mixture's sequence length; at most tokens */
    pn_schedule schedule;
    double weight_decay, beta1, beta2, epsilon, clip;
    pn_loss_schedule loss;
    int recompute;             /* pn_recompute_level, or PN_RECOMPUTE_AUTO */
    double memory_gb;          /* of the GPU, at most; 0: what is free */
    bool deterministic;        /* the same bits every time; false: a GPU's attention may vary them, and be faster */
    double checkpoint_seconds; /* between checkpoints; 0: none but the last */
    /* Of stages of finetune only; 0 elsewhere. */
    int64_t micro_batch_tokens;            /* of a pass, whose gradients add up to a step's; 0: batch_tokens */
    int64_t checkpoint_keep;               /* newest checkpoints that stay; 0: 2 */
    int64_t warmup_tokens;                 /* in place of schedule.warmup; 0: that */
    int64_t evaluate_tokens;               /* trained on between two evaluations; 0: at the end only */
    int64_t heldout_tokens;                /* in an evaluation; 0: none are made */
    int64_t skip_steps, skip_steps_in_all; /* not finite, that are passed over: in a row, and in all */
} pn_train_options;

extern const pn_option pn_train_option_table[]; /* but for what stages alone have */
/* Of a stage of finetune, whose losses have other defaults: cross-entropy alone. */
extern const pn_option pn_train_stage_table[];

/* What follows from the options read: pn_train_stage_table alone needs it. */
void pn_train_stage_settle(pn_train_options *o);

/* PN_USAGE, starting with `where`, when the mixture cannot serve the budget: no training rows, batch_tokens that is not
 * a whole number of rows, tokens for less than one step. */
pn_status pn_train_options_check(const pn_train_options *o, const pn_mixture *mixture, const char *where);
/* Of that, what needs to know no more than how long rows are. */
pn_status pn_train_options_check_rows(const pn_train_options *o, int64_t row_tokens, const char *where);
/* The same for ranks that share its batches: every one takes as many rows, in parts that are whole passes. */
pn_status pn_train_options_check_ranks(const pn_train_options *o, int64_t row_tokens, int ranks, const char *where);

int64_t pn_train_steps(const pn_train_options *o);
/* Tokens of a pass. */
int64_t pn_train_pass_tokens(const pn_train_options *o);

/* Whether they are of a stage of finetune, and have what such stages alone have. */
bool pn_train_is_stage(const pn_train_options *o);
/* The largest pass of whole rows that divides share_tokens and has at most so many tokens; at least a row. */
int64_t pn_train_pass_within(int64_t share_tokens, int64_t row_tokens, int64_t most_tokens);
/* What of the options is the whole process's: before each training, and before what it takes is planned. */
void pn_train_options_apply(const pn_train_options *o, pn_backend backend);

/* Identifies everything in the options that the trained weights depend on. When training gives up (skip_steps) is no
 * part of it: a run that gave up goes on where more steps may be passed over, as if that had been said at once. */
uint64_t pn_train_options_hash(const pn_train_options *o);

#endif
