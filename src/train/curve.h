/* Loss over training, thinned to a few hundred points. */
#ifndef PN_TRAIN_CURVE_H
#define PN_TRAIN_CURVE_H

#include "checkpoint.h"
#include "distill.h"

typedef struct pn_curve_point {
    int64_t step, tokens;
    double learning_rate, norm;
    pn_loss_parts loss;
} pn_curve_point;

typedef struct pn_curve {
    pn_curve_point *point;
    int n;
} pn_curve;
void pn_curve_free(pn_curve *c);

/* How many points the curve of so many steps has. */
int64_t pn_curve_points(int64_t steps);

/* The points of a run on its way: part of its state, so that a resumed run has them all. */
typedef struct pn_curve_record {
    int64_t steps, stride, n; /* a point every `stride` steps and at the end; n in all */
    double *values;           /* owned */
} pn_curve_record;

/* stride 0: for a few hundred points. */
pn_status pn_curve_record_open(int64_t steps, int64_t stride, pn_curve_record *out);
void pn_curve_record_close(pn_curve_record *r); /* also one that is zeroed */
pn_checkpoint_array pn_curve_record_array(pn_curve_record *r, const char *name);
/* Which point the state after `step` steps is; -1: none. */
int64_t pn_curve_index(const pn_curve_record *r, int64_t step);
/* p->step is on the curve. */
void pn_curve_keep(pn_curve_record *r, const pn_curve_point *p);
bool pn_curve_has(const pn_curve_record *r, int64_t step); /* whether that point was kept */
/* The points up to `step`, in place of what *out had; without those of steps that were skipped. */
pn_status pn_curve_copy(const pn_curve_record *r, int64_t step, pn_curve *out);

#endif
