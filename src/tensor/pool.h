/* The memory of a step: a pool that keeps what it is given back and hands it out again, so that a steady step takes
 * nothing from the system.
 *
 * Activations die at very different times (an op's output lives until its last consumer or until backward has used it),
 * so a strict stack would keep what nothing needs. On the host the pool keeps freed blocks by size class. On the GPU,
 * where memory is what decides how fast one trains, blocks of a megabyte and more are parts of one arena (arena.h) over
 * addresses that lie next to each other (span.h): freed ones join, and serve any size.
 *
 * A counting pool (PN_POOL_COUNTING) hands out storage without memory behind it: the `plan` backend walks a step with
 * it and reads the peak. A device pool (PN_POOL_DEVICE) holds memory of the GPU (device.h), which the host may not
 * touch except through the functions at the end. With PN_CUDA_ARENA=0 in the environment device pools have size classes
 * too, and every block is CUDA's own: its tools then see who writes past the end of one. Not thread-safe: a pool
 * belongs to one thread. */
#ifndef PN_TENSOR_POOL_H
#define PN_TENSOR_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "status.h"

typedef struct pn_pool pn_pool;

typedef enum pn_pool_kind { PN_POOL_HOST, PN_POOL_COUNTING, PN_POOL_DEVICE } pn_pool_kind;

typedef struct pn_storage {
    void *data; /* 64-byte aligned; NULL in a counting pool; an address of the GPU in a device pool */
    size_t n_bytes;
    int refs;
    pn_pool *pool;              /* where it returns to */
    struct pn_arena_part *part; /* of the pool's arena; NULL: a block of its own */
    bool again;                 /* pn_storage_again: nothing returns */
} pn_storage;

/* A device pool opens the GPU: PN_UNSUPPORTED where there is none. A counting one counts what a host pool would take.
 */
pn_status pn_pool_create(pn_pool_kind kind, pn_pool **out);
/* A counting pool that counts what a pool of that kind would take. */
pn_status pn_pool_create_counting(pn_pool_kind of, pn_pool **out);
/* For what stays, weights and optimizers: nothing is rounded up to a size class, and nothing kept of what comes back.
 */
pn_status pn_pool_create_exact(pn_pool_kind kind, pn_pool **out);
/* The pool itself goes when the last storage taken from it has come back. */
void pn_pool_destroy(pn_pool **pool);

pn_status pn_storage_create(pn_pool *pool, size_t n_bytes, pn_storage **out);
void pn_storage_release(pn_storage **s);
/* The same memory once more, when the pool may have handed it out to others since: for work that is launched again on
 * what it once had (replay.h). It is there for as long as nothing was given back (pn_pool_given_back); that nobody else
 * uses it meanwhile is the caller's to see to. */
pn_status pn_storage_again(const pn_storage *s, pn_storage **out);

size_t pn_pool_live_bytes(const pn_pool *pool);
size_t pn_pool_peak_bytes(const pn_pool *pool);
void pn_pool_reset_peak(pn_pool *pool);
/* Bytes taken from the system, or that would have been: those of live storages, of cached blocks and of the arena. It
 * stays still in a steady step. */
size_t pn_pool_system_bytes(const pn_pool *pool);
/* Gives cached blocks back to the system, and what the arena has behind its last live part. */
void pn_pool_trim(pn_pool *pool);
/* How often something went back so far: while it stays, addresses that were ever handed out are still the pool's. */
size_t pn_pool_given_back(const pn_pool *pool);
pn_pool_kind pn_pool_kind_of(const pn_pool *pool);

/* Bytes into, out of, within and between storages of any kind, at byte offsets. Where a counting pool is involved they
 * do nothing. A read waits for the GPU; what else concerns it is only asked for (device.h). */
pn_status pn_storage_fill(pn_storage *s, size_t at, size_t n_bytes, int byte);
pn_status pn_storage_write(pn_storage *s, size_t at, const void *src, size_t n_bytes);
pn_status pn_storage_read(void *dst, const pn_storage *s, size_t at, size_t n_bytes);
/* The two ranges are the same one or do not overlap. */
pn_status pn_storage_copy(pn_storage *dst, size_t dst_at, const pn_storage *src, size_t src_at, size_t n_bytes);

#endif
