/* Tables (staged_cuda.h) of work that is recorded once and launched often (pn_graph, device.h).
 *
 * Kernels find documents, positions and cache rows in small tables, made of arrays of the host. A table of recorded
 * work stays where it is, and is made again from its arrays before every launch: so one recording serves every step of
 * decoding. Which tables there are is learnt while the work runs once as usual. They must all be made of arrays that
 * were named before; of others nobody could tell when they change.
 *
 * Not for several recordings at once. */
#ifndef PN_KERNELS_CUDA_RECORDED_H
#define PN_KERNELS_CUDA_RECORDED_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_recorded pn_recorded;

pn_status pn_recorded_create(pn_recorded **out);
void pn_recorded_destroy(pn_recorded **r);

/* An array of the host, borrowed, that stays where it is. Its values may change between launches, or else are `fixed`:
 * what is launched, and over how many blocks, depends on them. */
pn_status pn_recorded_name(pn_recorded *r, const int64_t *at, int64_t n, bool fixed);

/* What was learnt before. */
void pn_recorded_forget(pn_recorded *r);
/* The work, or one more part of it, runs as usual, until NULL ends it. */
void pn_recorded_learn(pn_recorded *r);
/* Finds room for the tables, and remembers what is fixed. PN_UNSUPPORTED: one of them is of arrays without a name. */
pn_status pn_recorded_settle(pn_recorded *r);
/* The work is recorded, until NULL ends it. */
void pn_recorded_use(pn_recorded *r);

/* Whether what is fixed has changed, so that the work must be recorded again. */
bool pn_recorded_stale(const pn_recorded *r);
/* Before a launch: the tables as their arrays are now. */
pn_status pn_recorded_refresh(pn_recorded *r);

#endif
