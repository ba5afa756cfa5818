#ifndef PN_KERNELS_LINEAR_PAIR_CUDA_H
#define PN_KERNELS_LINEAR_PAIR_CUDA_H

#include "op.h"

extern const pn_op_impl pn_linear_pair_cuda_narrow; /* few outputs, BF16: linear_pair_cuda_narrow.cu */

#endif
