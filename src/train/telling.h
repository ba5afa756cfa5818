/* What a training run tells while it works: its progress line, and points for the log, TensorBoard and the report. */
#ifndef PN_TRAIN_TELLING_H
#define PN_TRAIN_TELLING_H

#include "meter.h"
#include "progress.h"

typedef struct pn_telling {
    const pn_train_job *job; /* borrowed */
    int64_t steps;
    pn_meter meter;
    pn_progress progress;
    int64_t shown_tokens; /* at the point before */
    double shown, memory; /* when that was; bytes in use then */
    double smooth;        /* the loss on the progress line */
} pn_telling;

/* Before the step after `first` of `steps`. */
pn_status pn_telling_open(pn_telling *t, const pn_train_job *job, int64_t first, int64_t steps);
/* A step that was made; `point`: it is one for the log too. */
void pn_telling_step(pn_telling *t, const pn_curve_point *p, bool point);
/* Held-out losses after p->step steps. */
void pn_telling_heldout(pn_telling *t, const pn_curve_point *p);
void pn_telling_close(pn_telling *t);

#endif
