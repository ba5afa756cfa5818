/* What every CUDA source of an op starts with. The sources are C as far as it goes: C++ gives them templates, for
 * kernels that differ in a formula. The contract, the call and the device keep C names. */
#ifndef PN_KERNELS_CUDA_OP_CUDA_CUH
#define PN_KERNELS_CUDA_OP_CUDA_CUH

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cuda_runtime.h>

extern "C" {
#include "device_cuda.h"
#include "op.h"
}

/* PN_CUDA_OP(silu, &impl): the list silu_cuda that ops.def names. */
#define PN_CUDA_OP(op, ...)                                                                                            \
    extern "C" {                                                                                                       \
    extern const pn_op_impl *const op##_cuda[];                                                                        \
    const pn_op_impl *const op##_cuda[] = { __VA_ARGS__, NULL };                                                       \
    }

/* Blocks for n pieces of work, `each` to a block: at least 1. */
static inline unsigned pn_cuda_blocks(int64_t n, int64_t each) {
    return (unsigned)(n > each ? (n + each - 1) / each : 1);
}

#endif
