/* What training a super-network takes on the GPU, planned before it starts (memory.h). */
#ifndef PN_SUPERNET_PLAN_H
#define PN_SUPERNET_PLAN_H

#include "memory.h"
#include "supernet.h"

/* Of one phase, whose activation store (local.c) stays on the host; free_bytes as in pn_train_plan. */
pn_status pn_supernet_plan(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job, double free_bytes,
                           pn_memory_need *out);
/* Bytes of a phase's activation store; 0: it has none. */
double pn_supernet_store_bytes(const pn_model *m, const pn_supernet_phase *phase);
/* PN_USAGE when a phase, with `weights` bytes that are yet to be made, needs more than free_bytes. */
pn_status pn_supernet_check(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job, double weights,
                            double free_bytes);
/* Plans and checks every phase where the model is on the GPU, whose memory is asked for. */
pn_status pn_supernet_fits(pn_model *m, const pn_supernet_job *job);

#endif
