/* The trainer: steps of forward, backward, clip and update over a mixture, resumable, with progress and a loss curve.
 *
 * One trainer serves pre-training, super-network training along sampled paths and the distillation of a winner: the job
 * says who is the student, along which path, who teaches and what is lost. What trains is whatever has wants_grad. */
#ifndef PN_TRAIN_TRAINER_H
#define PN_TRAIN_TRAINER_H

#include "curve.h"
#include "optim.h"
#include "train_options.h"

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

/* Runs to the end of the budget, resuming from the newest checkpoint in state_dir. *curve (NULL ok) receives the
 * losses from the first step on; it starts as {0}. PN_INTERRUPTED after saving, when a signal asked to stop; PN_NUMERIC
 * when a loss or gradient is not finite. The same job, seed and thread count give the same weights bit for bit,
 * interrupted or not. */
pn_status pn_train_run(const pn_train_job *job, pn_curve *curve);

#endif
