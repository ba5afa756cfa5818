/* Inside of pn_weights: a sorted list of tensors, each with the file that reads it. */
#ifndef PN_IO_WEIGHTS_INTERNAL_H
#define PN_IO_WEIGHTS_INTERNAL_H

#include "weights.h"

typedef struct pn_weights_entry pn_weights_entry;
struct pn_weights_entry {
    pn_tensor_info info;          /* its name is the Hugging Face one; borrowed from the source */
    const void *file;             /* what read takes: an open reader, borrowed */
    const pn_tensor_info *stored; /* the tensor as that reader knows it */
    int64_t group;                /* for read: rows that belong together; 0 where it needs none */
    pn_status (*read)(const pn_weights_entry *e, pn_tensor *dst);
};

struct pn_weights {
    char *path;
    pn_weights_entry *entry; /* [count], sorted by name */
    char **renamed;          /* [count]: names given to entries, owned; NULL: none */
    int64_t count;
    void *source; /* owns every file and string the entries borrow */
    void (*close_source)(void *source);
};

/* Sorts the entries. */
void pn_weights_sort(pn_weights *w);

#endif
