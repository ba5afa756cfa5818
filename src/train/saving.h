/* The state of a run as a trainer keeps it: read at the start, then written beside the steps. */
#ifndef PN_TRAIN_SAVING_H
#define PN_TRAIN_SAVING_H

#include "checkpoint_background.h"

typedef struct pn_saving {
    const char *name;             /* of the run, for messages */
    pn_checkpoint_writer *writer; /* NULL: nothing is saved */
    const pn_checkpoint_array *arrays;
    int n;
    bool first; /* of the ranks: warns */
} pn_saving;

/* Reads the newest state that is whole into the arrays; *step stays as it is when there is none. Borrows all of it.
 * read_only: nothing will be saved. where->dir NULL: there is no state. */
pn_status pn_saving_open(const char *name, const pn_checkpoint_place *where, const pn_checkpoint_array *arrays, int n,
                         bool read_only, pn_saving *out, int64_t *step);
/* Saves the arrays as they are now, in the background. What the disk does not take is a warning: what was saved before
 * is still there, and the next may fit. last: waits until it is on disk, and then it has to be: PN_IO. */
pn_status pn_saving_save(pn_saving *s, int64_t step, bool last);
/* Between steps: tells early what became of a save. With many ranks, all of them call it. */
pn_status pn_saving_advance(pn_saving *s);
void pn_saving_close(pn_saving *s); /* waits; a zeroed one is fine */

#endif
