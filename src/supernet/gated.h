/* Gated training: see gated.c. */
#ifndef PN_SUPERNET_GATED_H
#define PN_SUPERNET_GATED_H

#include "supernet.h"

pn_status pn_supernet_train_gated(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                                  const char *state_dir, pn_supernet_result *out);

#endif
