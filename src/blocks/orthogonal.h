/* Random orthogonal matrices. */
#ifndef PN_BLOCKS_ORTHOGONAL_H
#define PN_BLOCKS_ORTHOGONAL_H

#include "rng.h"
#include "tensor.h"

/* gain times a matrix [rows, cols] (F32 or F64) whose rows are orthonormal, or its columns when those are fewer:
 * uniform over all such. PN_MEMORY: it is computed in double. */
pn_status pn_orthogonal_fill(double gain, pn_rng *rng, pn_tensor *matrix);

#endif
