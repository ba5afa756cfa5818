/* Which part of a range of addresses is whose: the bookkeeping of a memory that grows at its end. It knows no memory.
 *
 * A request takes the smallest free part that holds it, the lowest of several, and leaves what is over; what is given
 * back joins the free parts beside it. Only where no part is large enough does the end move, by what the last part
 * lacks. Parts of one size are therefore as good as parts of another: what activations leave in backward becomes
 * gradients. The same requests in the same order, from an arena with nothing taken, give the same places.
 *
 * A search walks the free parts: meant for hundreds of parts, not for millions. */
#ifndef PN_TENSOR_ARENA_H
#define PN_TENSOR_ARENA_H

#include <stddef.h>

#include "status.h"

typedef struct pn_arena pn_arena;
typedef struct pn_arena_part pn_arena_part;

enum { PN_ARENA_GRAIN = 512 }; /* bytes: of every place and size */

pn_status pn_arena_create(pn_arena **out);
void pn_arena_destroy(pn_arena **a); /* NULL ok; with its parts */

/* n_bytes > 0, rounded up to the grain: *at is where they begin. */
pn_status pn_arena_take(pn_arena *a, size_t n_bytes, pn_arena_part **out, size_t *at);
void pn_arena_give(pn_arena *a, pn_arena_part *part);

/* Where it ends: the memory that it needs. */
size_t pn_arena_end(const pn_arena *a);
/* Moves the end back to that of the last part that is taken. */
void pn_arena_trim(pn_arena *a);

#endif
