/* What candidates start from before any training: see pn_supernet_job.start. */
#ifndef PN_SUPERNET_START_H
#define PN_SUPERNET_START_H

#include "supernet.h"

/* Gives the candidates that the job says so their start from attention, in the layers that have not begun[l] to train
 * (NULL: in all). Candidates whose weights want no gradient stay as they are. The batch it is fitted to comes after
 * those that the phase trains on. */
pn_status pn_supernet_start(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job, const bool *begun);

/* Identifies the starts in the state of a run, together with the drawn weights; 0 when all are random. */
uint64_t pn_supernet_start_hash(const pn_supernet_job *job);

#endif
