/* The trainer: steps of forward, backward, clip and update over a mixture, resumable, with progress and a loss curve.
 *
 * One trainer serves pre-training, super-network training along sampled paths and the distillation of a winner: the job
 * says who is the student, along which path, who teaches and what is lost. What trains is whatever has wants_grad. */
#ifndef PN_TRAIN_TRAINER_H
#define PN_TRAIN_TRAINER_H

#include "checkpoint.h"
#include "distill.h"
#include "optim.h"
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

typedef struct pn_curve_point {
    int64_t step, tokens;
    double learning_rate, norm;
    pn_loss_parts loss;
} pn_curve_point;

typedef struct pn_curve { /* loss over training, thinned to a few hundred points */
    pn_curve_point *point;
    int n;
} pn_curve;
void pn_curve_free(pn_curve *c);

typedef struct pn_train_job {
    const char *name; /* "distil postnas": progress and log */
    const pn_train_options *options;
    pn_mixture *mixture;
    pn_model *student;
    const pn_path *path;     /* NULL: candidate 0 */
    const pn_model *teacher; /* NULL: none */
    const pn_path *teacher_path;
    /* Called before every step with the pass that it is about to make, which it may change. NULL: nothing to change. */
    pn_status (*before)(void *ctx, pn_tape *t, int64_t step, pn_distill *pass);
    /* Called after every step, when the weights are updated; point: its index on the curve, -1 when it is not on it. */
    pn_status (*after)(void *ctx, int64_t step, int64_t point);
    void *ctx;
    const pn_checkpoint_array *arrays; /* what else belongs to the state: saved and loaded with the weights */
    int n_arrays;
    uint64_t identity;     /* hash of what else the result depends on: first weights, teacher, choice of paths */
    const char *state_dir; /* where checkpoints live; NULL: none, no resume */
    bool finished;         /* PN_USAGE instead of training, unless state_dir holds the end of the run */
    int64_t stop_after;    /* stop as a signal would, after this many steps of this run; 0: never */
} pn_train_job;

/* How many points the curve of a whole run has. */
int64_t pn_train_curve_points(const pn_train_options *o);

/* Identifies everything in the options that the trained weights depend on. */
uint64_t pn_train_options_hash(const pn_train_options *o);

/* Runs to the end of the budget, resuming from the newest checkpoint in state_dir. *curve (NULL ok) receives the
 * losses from the first step on; it starts as {0}. PN_INTERRUPTED after saving, when a signal asked to stop; PN_NUMERIC
 * when a loss or gradient is not finite. The same job, seed and thread count give the same weights bit for bit,
 * interrupted or not. */
pn_status pn_train_run(const pn_train_job *job, pn_curve *curve);

#endif
