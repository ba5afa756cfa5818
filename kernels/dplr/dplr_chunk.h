/* What forward and backward of the chunkwise form share (see dplr_cpu.c). */
#ifndef PN_KERNELS_DPLR_CHUNK_H
#define PN_KERNELS_DPLR_CHUNK_H

#include "dplr.h"

/* Sizes and strides of a call. */
typedef struct pn_dplr_dims {
    int64_t heads, dk, dv, size; /* size = dk dv */
    int64_t ldk, ldv;            /* elements from token to token in q, k, a, b, g; in v, o */
    float scale;
} pn_dplr_dims;

pn_dplr_dims pn_dplr_dims_of(const pn_op_call *c);

extern const pn_op_impl pn_dplr_cpu_step; /* decoding: dplr_cpu_step.c */

#endif
