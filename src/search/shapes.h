/* Shapes of a block: what one entry of `shape.candidates` stands for.
 *
 *     - { type: jet, num_heads: 12, head_dim: [96, 128], expand_v: [1, 2] }         every combination: 4 shapes
 *     - { type: jet, num_heads: [6, 12, 24], head_dim: [96, 128], state: 294912 }   those of that many state values
 *
 * Every option of the block takes a value or a list of values. `state` keeps the combinations whose recurrent state has
 * exactly so many values (d_k x d_v x heads); where expand_v is left out and the block has it, it is solved for. */
#ifndef PN_SEARCH_SHAPES_H
#define PN_SEARCH_SHAPES_H

#include "config.h"
#include "supernet.h"

enum { PN_SHAPE_OPTIONS = 24 }; /* options a block may have */

typedef struct pn_shape_entry {
    const pn_block_type *type;
    int64_t init;                           /* pn_start */
    int64_t state;                          /* 0: any */
    char where[128];                        /* of the entry, for messages */
    pn_string_list value[PN_SHAPE_OPTIONS]; /* by row of type->options; n = 0: the default */
} pn_shape_entry;

typedef struct pn_shape { /* a value */
    pn_block_spec spec;
    int64_t init; /* pn_start */
} pn_shape;

extern const pn_option pn_shape_entry_keys[]; /* beside the options of the block */

/* Reads "section.i". Types must be linear blocks. PN_USAGE for anything else. */
pn_status pn_shape_entry_read(pn_config *file, const char *section, pn_shape_entry *out);
/* Appends the entry's shapes, resolved, to a list of at most `room`, without those it has already. PN_USAGE when a
 * combination does not fit the model (without `state`), when none does, or when there is no room. */
pn_status pn_shapes_expand(const pn_shape_entry *e, const pn_dims *dims, pn_shape *list, int room, int *n);

/* "gla", or "gla head_dim 16 expand_v 2": the options in which shape i differs from another of its type in the list. */
const char *pn_shape_text(const pn_shape *list, int n, int i, char *buffer, size_t size);

#endif
