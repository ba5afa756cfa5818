/* A job's state written beside its work: a save takes a copy and returns, a thread writes the copy.
 *
 * The copy takes as many bytes of host memory as the state has, from the first save until the writer is closed: 12 for
 * every weight that trains here (F32 master and two moments); values on the GPU are read to it, at the speed of plain
 * copies. Where that memory is not to be had the save is written before it returns.
 *
 * One thread of each rank calls these functions, all ranks in the same order. The thread that writes only writes: what
 * ranks tell each other, and with it the end of a save, waits for the next call of advance, save or finish. A single
 * process needs none: its save ends by itself. HDF5 is shared with that thread call by call (hdf5_io.h). */
#ifndef PN_IO_CHECKPOINT_BACKGROUND_H
#define PN_IO_CHECKPOINT_BACKGROUND_H

#include "checkpoint.h"

typedef struct pn_checkpoint_writer pn_checkpoint_writer;

/* Borrows what `where` points to. Removes what processes that died left half-written. */
pn_status pn_checkpoint_writer_open(const pn_checkpoint_place *where, pn_checkpoint_writer **out);
/* Waits for the save before. Where that one failed its failure is returned, once, and nothing is saved; to tell the two
 * apart, finish first. */
pn_status pn_checkpoint_writer_save(pn_checkpoint_writer *w, int64_t step, const pn_checkpoint_array *arrays, int n);
/* For every now and then, between steps: ends the save before where all ranks have written their parts, and returns its
 * failure, once. Waits for no disk; while a save goes on, for the answers of the other ranks. */
pn_status pn_checkpoint_writer_advance(pn_checkpoint_writer *w);
/* Waits until what was saved is on disk; its failure (those of pn_checkpoint_write), once. */
pn_status pn_checkpoint_writer_finish(pn_checkpoint_writer *w);
/* Waits for the thread. A failure that nobody asked for is a warning, and so is a save of many ranks that was not
 * finished, as the others may be gone. NULL ok. */
void pn_checkpoint_writer_close(pn_checkpoint_writer **w);

#endif
