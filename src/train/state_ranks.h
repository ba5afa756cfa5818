/* The ranks of a run as those of its checkpoints: they agree over the control channel. */
#ifndef PN_TRAIN_STATE_RANKS_H
#define PN_TRAIN_STATE_RANKS_H

#include "checkpoint.h"
#include "control.h"

/* Borrows the channel, and belongs to its thread. What takes long meanwhile (reading, writing, waiting for a disk) is
 * the caller's to announce with pn_control_busy. */
pn_checkpoint_ranks pn_state_ranks(pn_control *c);

#endif
