/* swa's `window_size: auto`: the window whose keys and values, in bf16, take the bytes that the recurrent state of the
 * linear block beside it takes in F32 (blocks.md 2.4), so that both cost a decoder the same. */
#ifndef PN_BLOCKS_SWA_H
#define PN_BLOCKS_SWA_H

#include "block.h"

/* The most keys of which state_bytes hold k and v. PN_USAGE when not even one. */
pn_status pn_swa_auto_window(const pn_dims *dims, double state_bytes, size_t activation_bytes, int64_t *window);

/* If *spec is a swa whose window is auto: sets it by the first of `blocks` that is a linear block. PN_USAGE when none
 * is. Leaves every other spec as it is. */
pn_status pn_swa_settle(pn_block_spec *spec, const pn_block_spec *blocks, int n_blocks, const pn_dims *dims);

#endif
