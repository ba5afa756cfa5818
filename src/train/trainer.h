/* The trainer: steps of forward, backward, clip and update over a mixture, resumable, with progress and a loss curve.
 *
 * One trainer serves pre-training, super-network training along sampled paths and the distillation of a winner: the job
 * says who is the student, along which path, who teaches and what is lost. What trains is whatever has wants_grad. */
#ifndef PN_TRAIN_TRAINER_H
#define PN_TRAIN_TRAINER_H

#include "curve.h"
#include "optim.h"
#include "train_options.h"
#include "world.h"

typedef struct pn_train_job {
    const char *name; /* "distil postnas": progress and log */
    const pn_train_options *options;
    pn_mixture *mixture;
    pn_model *student;
    const pn_path *path;     /* NULL: candidate 0 */
    const pn_model *teacher; /* NULL: none */
    const pn_path *teacher_path;
    pn_teacher_rows *teacher_rows; /* of the mixture: what kl follows in place of a teacher; NULL: none */
    /* Where they are still to be written: as if of so many words of a token there were some, to plan and to measure
     * with. 0: no. */
    int64_t teacher_words;
    /* Called before every step with the pass that it is about to make, which it may change. NULL: nothing to change. */
    pn_status (*before)(void *ctx, pn_tape *t, int64_t step, pn_distill *pass);
    /* Called after every step, when the weights are updated; point: its index on the curve, -1 when it is not on it. */
    pn_status (*after)(void *ctx, int64_t step, int64_t point);
    /* Called after every evaluation, whose held-out losses are the last point of heldout, and at the end of the run. */
    pn_status (*shows)(void *ctx, const pn_curve *curve, const pn_curve *heldout);
    void *ctx;
    const pn_checkpoint_array *arrays; /* what else belongs to the state: saved and loaded with the weights */
    int n_arrays;
    uint64_t identity;     /* hash of what else the result depends on: first weights, teacher, choice of paths */
    const char *state_dir; /* where checkpoints live; NULL: none, no resume */
    bool finished;         /* PN_USAGE instead of training, unless state_dir holds the end of the run */
    int64_t stop_after;    /* stop as a signal would, after this many steps of this run; 0: never */
    const pn_world *world; /* the ranks that train together, each with its part of every batch; NULL: this one alone */
    double mfu_tflops;     /* what the device could do at most (meter.h); 0: as its name says */
} pn_train_job;

/* Tokens of a pass on a rank: at most its part of a batch. */
int64_t pn_train_rank_pass(const pn_train_job *job);
/* Rows first .. first + n - 1 of the job's data, with what the teacher's rows say of them. */
pn_status pn_train_batch(const pn_train_job *job, int64_t first, int64_t n, pn_batch *b);

/* Runs to the end of the budget, resuming from the newest checkpoint in state_dir. *curve (NULL ok) receives the
 * losses from the first step on; it starts as {0}. PN_INTERRUPTED after saving, when a signal or the time limit asked
 * to stop (signals.h). A step whose loss or gradient is not finite changes nothing: as many as the options allow are
 * passed over with a warning, one more is PN_NUMERIC, and so is the first where they allow none; what the last good
 * step left is then saved. The same job, seed, number of ranks and thread count give the same weights bit for bit,
 * interrupted or not, where it is deterministic. */
pn_status pn_train_run(const pn_train_job *job, pn_curve *curve);

#endif
