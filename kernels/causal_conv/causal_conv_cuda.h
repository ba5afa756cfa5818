/* The CUDA implementations, best first. */
#ifndef PN_KERNELS_CAUSAL_CONV_CUDA_H
#define PN_KERNELS_CAUSAL_CONV_CUDA_H

#include "causal_conv.h"

/* A window of 4 and channels in whole vectors of 16 bytes: one pass over the inputs each way. */
extern const pn_op_impl pn_causal_conv_cuda_four;

#endif
