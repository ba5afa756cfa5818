/* Inside local training: what the training (local.c) and its state on disk (local_state.c) share. */
#ifndef PN_SUPERNET_LOCAL_INTERNAL_H
#define PN_SUPERNET_LOCAL_INTERNAL_H

#include "local.h"
#include "progress.h"
#include "readback.h"

/* One candidate that trains: its optimizer and how its error went. On the GPU an update is settled late, so that there
 * is always work: before the next one of this candidate, and before its state is used. */
typedef struct learner {
    int layer, choice;
    pn_adamw *optim;      /* NULL: not begun, or finished */
    pn_readback *sent;    /* the error of the last update, on its way */
    bool open;            /* that update is not settled */
    int64_t step;         /* its step */
    double error_sums[3]; /* means over the first and over the last tenth of the steps, as far as they have come; the
                             error before the first */
} learner;

typedef struct local {
    pn_model *m;
    const char *name; /* of the job; NULL: none */
    const pn_train_options *train;
    pn_tape *tape;
    int64_t steps, rows;
    int64_t trained[PN_MAX_LAYERS]; /* steps that the candidates of each layer have made */
    learner *learner;               /* by layer, then choice */
    int n_learners;
    pn_progress progress;
    int64_t done;          /* layer-tokens */
    double error;          /* smoothed, for the progress line */
    const char *state_dir; /* NULL: none */
    uint64_t fingerprint;
    double saved; /* when state was last written, pn_seconds */
} local;

/* Whether a weight belongs to this candidate. */
bool pn_local_owns(const local *r, const learner *x, const pn_param *p);
/* Gives the layer's candidates their optimizers, unless they have them or are finished. */
pn_status pn_local_start(local *r, int layer);
/* Waits for what the layer's candidates were last asked to update. PN_NUMERIC, naming candidate or weight, when an
 * error or a gradient is not finite: that update was not made. */
pn_status pn_local_settle(local *r, int layer);

/* State: <state_dir>/layer-<l> is a checkpoint (checkpoint.h) of what layer l has learnt after so many steps; of a
 * finished layer the weights and errors alone. Layers need not stand at the same step. Without a state_dir nothing is
 * read or written. */
pn_status pn_local_load(local *r);            /* fills `trained`; begins the layers that were stopped half way */
pn_status pn_local_save(local *r, int layer); /* settles the layer */

#endif
