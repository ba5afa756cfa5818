/* The GPU: memory, copies, events, and what it is.
 *
 * A process uses one GPU (the first that CUDA_VISIBLE_DEVICES lets it see, or the one it chose), from one thread. All
 * work goes to one stream, in the order in which it was asked for; memory that is given back is taken again by what
 * follows on that stream, so nobody waits for it. Functions return before the GPU is done, except pn_device_download,
 * pn_event_wait and pn_device_sync: there a kernel that failed, or met an input outside its contract (PN_USAGE), is
 * reported.
 *
 * Two files implement this header and the build takes one: device_cuda.c, or device_nocuda.c where nvcc is missing. In
 * the latter pn_device_open always fails, so nothing else is ever called.
 *
 * A kernel that fails is reported by the next call that looks; with PN_CUDA_SYNC=1 in the environment every launch is
 * waited for, and the message names the right kernel. With PN_CUDA_GRAPHS=0 nothing is recorded and launched as a whole
 * (pn_graph): every kernel is launched by itself, with the same results. With PN_CUDA_SHARED=99 no implementation is
 * chosen whose blocks need more than 99 KB of shared memory: what GPUs that have less would run is run on one that has
 * more. */
#ifndef PN_TENSOR_DEVICE_H
#define PN_TENSOR_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

typedef struct pn_device_info {
    char name[128];
    int major, minor;               /* compute capability */
    int multiprocessors, clock_mhz; /* the highest */
    size_t memory_bytes, free_bytes;
    int driver, runtime; /* CUDA version each knows: 13000 is 13.0 */
} pn_device_info;

/* How many GPUs this process may choose from. PN_UNSUPPORTED when there is none. */
pn_status pn_device_count(int *n);
/* Which GPU it will be: process `local` of `n` on this machine takes the local-th, or the only one where its launcher
 * lets it see no other. Before the first pn_device_open. PN_USAGE: there are fewer GPUs than processes. */
pn_status pn_device_choose(int local, int n);
/* Opens the GPU at the first call. PN_UNSUPPORTED, with what is missing and the remedy: a build without CUDA, no GPU, a
 * driver older than this build's CUDA, an architecture it has no code for. PN_DEVICE: anything else. */
pn_status pn_device_open(void);
pn_status pn_device_describe(pn_device_info *out);

/* NULL when the GPU's memory is exhausted. */
void *pn_device_alloc(size_t n_bytes);
void pn_device_free(void *p); /* NULL ok */

/* From the host: src may be changed at once. */
pn_status pn_device_upload(void *dst, const void *src, size_t n_bytes);
/* The same bytes whenever this is asked for: unlike an upload it can be recorded (pn_graph). What was recorded is kept
 * for as long as the program runs: PN_UNSUPPORTED past 64 KiB of different bytes. */
pn_status pn_device_upload_constant(void *dst, const void *src, size_t n_bytes);
/* To the host: waits for everything that was asked for before. */
pn_status pn_device_download(void *dst, const void *src, size_t n_bytes);
/* To pinned memory of the host, which nobody touches until an event after it was waited for. */
pn_status pn_device_send(void *pinned, const void *src, size_t n_bytes);
pn_status pn_device_pin(size_t n_bytes, void **out);
void pn_device_unpin(void *pinned);                                   /* NULL ok; waits for what is being sent there */
pn_status pn_device_copy(void *dst, const void *src, size_t n_bytes); /* both on the GPU, not overlapping */
pn_status pn_device_fill(void *dst, int byte, size_t n_bytes);
pn_status pn_device_sync(void);

/* Work that is recorded once and launched as a whole, as often as wanted: a CUDA graph. What is asked for between begin
 * and end does not run. It cannot wait for the GPU, copy from or to the host, or take or give back memory: where that
 * is tried, pn_graph_end fails. A graph works on the addresses that it was recorded with; whoever launches it sees to
 * it that they hold what they should. */
typedef struct pn_graph pn_graph;
/* Whether graphs are to be used: not where the environment says PN_CUDA_GRAPHS=0 or PN_CUDA_SYNC=1, nor without a GPU
 * that is open. */
bool pn_graphs_wanted(void);
bool pn_graph_recording(void);
pn_status pn_graph_begin(void);
/* out NULL: what was recorded is forgotten. PN_UNSUPPORTED: something in it cannot be recorded. */
pn_status pn_graph_end(pn_graph **out);
/* While recording: what follows a branch runs after what came before the first one since the last join, and beside what
 * the others ask for; after a join comes what needs them. At other times everything runs in the order it is asked for.
 */
pn_status pn_graph_branch(void);
pn_status pn_graph_join(void);
pn_status pn_graph_launch(const pn_graph *g);
void pn_graph_destroy(pn_graph **g); /* launches that were asked for still run */

/* Points in the stream: an event is recorded when the GPU comes to it. */
typedef struct pn_event pn_event;
pn_status pn_event_create(pn_event **out);
void pn_event_destroy(pn_event **e);
pn_status pn_event_record(pn_event *e);
/* Waits until the GPU came to the point where it was recorded last; at once when it never was. */
pn_status pn_event_wait(pn_event *e);
/* Waits for `end`. PN_DEVICE when either was never recorded. */
pn_status pn_event_seconds(pn_event *begin, pn_event *end, double *seconds);

#endif
