/* Work on a tape that is done again and again on the same memory, as decoding is: on the GPU it runs once as usual,
 * then it is recorded, and from then on launched as one CUDA graph (device.h), which the processor asks for at once
 * instead of kernel by kernel. Elsewhere, and where it cannot be recorded, it just runs: the results are the same.
 *
 * The work is a function of one context that gives the same work every time. What differs from time to time comes from
 * tensors that stay where they are, or from named arrays of the host (recorded.h). Between two runs the tape is left
 * alone: tensors that the recording made are where every launch leaves its results. */
#ifndef PN_AUTOGRAD_REPLAY_H
#define PN_AUTOGRAD_REPLAY_H

#include "tape.h"

typedef struct pn_replay pn_replay;
typedef pn_status (*pn_replay_work)(void *ctx);

/* Borrows the tape, which must not record. */
pn_status pn_replay_create(pn_tape *t, pn_replay **out);
void pn_replay_destroy(pn_replay **r);

/* pn_recorded_name; nothing where graphs are not wanted. */
pn_status pn_replay_name(pn_replay *r, const int64_t *at, int64_t n, bool fixed);

/* Does the work. Where it is launched, `work` itself is not called. `addresses` says where the tensors are that are not
 * the tape's, and all else that the work depends on and is neither in the context nor named: when it is another than
 * last time, recording begins anew. The work may be called twice where its recording fails, so it starts from the state
 * that it finds the first time. */
pn_status pn_replay_run(pn_replay *r, uint64_t addresses, pn_replay_work work, void *ctx);

/* How many runs were launches of a graph so far, and how often one was recorded. */
int64_t pn_replay_launches(const pn_replay *r);
int pn_replay_recordings(const pn_replay *r);

#endif
