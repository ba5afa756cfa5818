/* Gates that no weight decides: RetNet's decays, the step size of a delta rule without b_proj. */
#ifndef PN_BLOCKS_FIXED_GATES_H
#define PN_BLOCKS_FIXED_GATES_H

#include "tape.h"

/* [tokens, heads], wide (op.h), owned by its current scope: value(h) in column h of every row. */
pn_status pn_fixed_gates(pn_tape *t, int64_t tokens, int64_t heads, double (*value)(int64_t head), pn_tensor **out);

#endif
