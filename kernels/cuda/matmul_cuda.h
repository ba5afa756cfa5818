/* Dense products on the GPU by cuBLASLt, in F32 throughout (no TF32: the limits of blocks.md 13 for fp32 hold).
 *
 * What cuBLASLt chose for a product is kept: a plan per shape, layout and alignment, found once, so that a steady step
 * asks nothing and the same product always runs the same way, bit for bit. The library is loaded by the first product:
 * it is half a gigabyte, which a command that stays on the CPU must not map, nor a machine without a GPU have. */
#ifndef PN_KERNELS_CUDA_MATMUL_CUDA_H
#define PN_KERNELS_CUDA_MATMUL_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

enum { PN_MATMUL_WORKSPACE = 32 << 20 }; /* bytes: what cuBLAS recommends for Hopper */

typedef struct pn_matmul {
    const char *name; /* the implementation's, for messages; a literal */
    int64_t m, n, k;
    const float *a, *b; /* a [m, k], or [k, m] when turned; b [k, n], or [n, k] when turned; all row-major */
    bool a_turned, b_turned;
    const float *bias; /* [n], added to every row; NULL: none */
    float *c;          /* [m, n] */
    bool add;          /* c += the product; never with a bias */
} pn_matmul;

/* c = a b + bias, or c += a b. m and n may be 0; k is 0 only where c += nothing. workspace: PN_MATMUL_WORKSPACE bytes
 * of the GPU. PN_DEVICE: cuBLASLt is missing or failed. */
pn_status pn_cuda_matmul(const pn_matmul *p, void *workspace);

#endif
