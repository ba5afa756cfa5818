/* Local training: see local.c. */
#ifndef PN_SUPERNET_LOCAL_H
#define PN_SUPERNET_LOCAL_H

#include "supernet.h"

/* The share of the GPU's free memory that the activation store may take: it is on the host where it would take more. */
static const double pn_local_store_share = 0.5;

pn_status pn_supernet_train_local(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                                  const char *state_dir, pn_supernet_result *out);

#endif
