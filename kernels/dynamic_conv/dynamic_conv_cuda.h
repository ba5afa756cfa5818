/* The CUDA implementations, best first, and what they share. */
#ifndef PN_KERNELS_DYNAMIC_CONV_CUDA_H
#define PN_KERNELS_DYNAMIC_CONV_CUDA_H

#include "dynamic_conv.h"

/* BF16, a window of 4, compute capability 9.0a: taps stay in registers. */
extern const pn_op_impl pn_dynamic_conv_cuda_fused;

/* Any call. */
pn_status pn_dynamic_conv_cuda_backward(const pn_op_call *c);
size_t pn_dynamic_conv_cuda_scratch(const pn_op_call *c, bool backward);

#endif
