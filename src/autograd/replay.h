/* Work on a tape that is done again and again on the same memory, as decoding is, and steps of training: on the GPU it
 * runs once as usual, then it is recorded, and from then on launched as one CUDA graph (device.h), which the processor
 * asks for at once instead of kernel by kernel. Elsewhere, and where it cannot be recorded, it just runs: the results
 * are the same.
 *
 * The work is a function of one context that gives the same work every time. What differs from time to time comes from
 * tensors that stay where they are, or from named arrays of the host (recorded.h). Between two runs the tape is left
 * alone: tensors that the recording made are where every launch leaves its results. */
#ifndef PN_AUTOGRAD_REPLAY_H
#define PN_AUTOGRAD_REPLAY_H

#include "tape.h"

typedef struct pn_replay pn_replay;
typedef pn_status (*pn_replay_work)(void *ctx);

/* Borrows the tape. */
pn_status pn_replay_create(pn_tape *t, pn_replay **out);
void pn_replay_destroy(pn_replay **r);

/* pn_recorded_name; nothing where graphs are not wanted. */
pn_status pn_replay_name(pn_replay *r, const int64_t *at, int64_t n, bool fixed);

/* Does the work, of which the tape must not record anything. Where it is launched, `work` itself is not called.
 * `addresses` says where the tensors are that are not the tape's, and all else that the work depends on and is neither
 * in the context nor named: when it is another than last time, recording begins anew. The work may be called twice
 * where its recording fails, so it starts from the state that it finds the first time. */
pn_status pn_replay_run(pn_replay *r, uint64_t addresses, pn_replay_work work, void *ctx);

/* Work in two parts, with something between them that is not recorded: forward and backward. Each part is a graph of
 * its own; both are recorded before either is launched. The tape may record, and is reset before the first part;
 * between the two runs, then, its memory is free. So where every launch leaves its results is the pool's to hand out to
 * others (pn_tensor_again), and nothing of it may be in use when a launch begins. */
typedef struct pn_replay_parts {
    pn_replay_work first, second;
    /* After a recording, whose results were not computed: takes them from where they are, for the caller's use after
     * every launch, and leaves what both parts have changed outside the tape's memory as it was before them. */
    pn_replay_work recorded;
    /* As it was before them, after a recording that failed. */
    void (*undo)(void *ctx);
    void *ctx;
} pn_replay_parts;

/* *launched: as a graph; else the first part has run, and left its results where it always does. */
pn_status pn_replay_first(pn_replay *r, uint64_t addresses, const pn_replay_parts *parts, bool *launched);
/* The second part of what pn_replay_first began, in the same way. */
pn_status pn_replay_second(pn_replay *r);

/* How many runs were launches of a graph so far, and how often one was recorded. */
int64_t pn_replay_launches(const pn_replay *r);
int pn_replay_recordings(const pn_replay *r);

#endif
