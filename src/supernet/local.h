/* Local training: see local.c. */
#ifndef PN_SUPERNET_LOCAL_H
#define PN_SUPERNET_LOCAL_H

#include "supernet.h"

/* The share of the GPU's free memory that the activation store may take: it is on the host where it would take more. */
static const double pn_local_store_share = 0.5;

/* The type of the activation store: no wider than what is computed in. */
static inline pn_dtype pn_local_store_dtype(const pn_model *m, const pn_supernet_phase *phase) {
    return phase->store || m->params->dtype == PN_BF16 ? PN_BF16 : PN_F32;
}

pn_status pn_supernet_train_local(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                                  const char *state_dir, pn_supernet_result *out);

#endif
