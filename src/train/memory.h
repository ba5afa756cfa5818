/* What training takes on the GPU, planned before it starts. */
#ifndef PN_TRAIN_MEMORY_H
#define PN_TRAIN_MEMORY_H

#include "trainer.h"

/* Bytes beside the weights that are there. */
typedef struct pn_memory_need {
    double weights;   /* that are yet to be made */
    double optimizer; /* moments and masters of all that trains */
    double step;      /* the most that one step holds besides: activations, and gradients as they take their place */
    double gradients; /* of that, what is left of it however few the tokens of a pass */
    double data;      /* kept from step to step */
} pn_memory_need;

double pn_memory_sum(const pn_memory_need *need);

/* Of the job's first steps, which are walked through and not run (backend `plan`); where its options leave recompute to
 * us, with the least that is within free_bytes. *how (NULL ok) is what recompute it is. PN_UNSUPPORTED when an op has
 * no implementation for what it meets there. job->before is called; state and checkpoints are not looked at. */
pn_status pn_train_plan(const pn_train_job *job, double free_bytes, pn_recompute *how, pn_memory_need *out);
/* What the pool of a tape takes from the system by the end of a pass over a batch, for this and all it planned before.
 */
pn_status pn_pass_plan(pn_tape *plan, const pn_distill *pass, const pn_batch *batch, double *bytes);
/* Of the optimizer of the weights that train, and of their gradients. */
double pn_optimizer_need(const pn_params *p);
double pn_gradients_need(const pn_params *p);

struct pn_memory_settings; /* memory_advice.h */

/* PN_USAGE, starting with `where`, when it is more than free_bytes; it says how much of what, and which of the settings
 * make it enough less. */
pn_status pn_memory_check(const pn_memory_need *need, double free_bytes, const struct pn_memory_settings *settings,
                          const char *where);
/* What a plan may still take of the GPU: what is free, or what is left of memory_gb (0: no such limit), less what
 * libraries load and keep for themselves when they first run. */
pn_status pn_memory_budget(double memory_gb, double *bytes);
/* Plans and checks the job where its student is on the GPU; *how: the recompute to train with. */
pn_status pn_train_fits(const pn_train_job *job, pn_recompute *how);

#endif
