/* A few values on their way from tensors to the host, which goes on asking for work meanwhile: they are sent in the
 * order of the GPU's work and read when they have long arrived. Those of tensors on the host are there at once. */
#ifndef PN_TENSOR_READBACK_H
#define PN_TENSOR_READBACK_H

#include "tensor.h"

enum { PN_READBACK_VALUES = 8 }; /* at the most */

typedef struct pn_readback pn_readback;

pn_status pn_readback_create(pn_pool_kind kind, pn_readback **out);
void pn_readback_destroy(pn_readback **r); /* waits for what is on its way */

/* Sends the values of t, on a pool of that kind, as they are when the GPU comes to this point. NULL: one 0. */
pn_status pn_readback_add(pn_readback *r, const pn_tensor *t);
/* Waits for everything that was added since the last time; values in the order they were added. A kernel that failed,
 * or met an input outside its contract, is reported (device.h). */
pn_status pn_readback_wait(pn_readback *r, double *values);

#endif
