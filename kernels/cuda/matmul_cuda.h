/* Dense products on the GPU by cuBLASLt: F32 by F32 to F32 in F32 throughout (no TF32: the limits of blocks.md 13 for
 * fp32 hold), and BF16 by BF16 to BF16 or F32 with sums in F32 and one rounding at the end.
 *
 * What cuBLASLt chose for a product is kept: a plan per shape, types, layout and alignment, found once, so that a
 * steady step asks nothing and the same product always runs the same way, bit for bit. The library is loaded by the
 * first product: it is half a gigabyte, which a command that stays on the CPU must not map, nor a machine without a GPU
 * have.
 */
#ifndef PN_KERNELS_CUDA_MATMUL_CUDA_H
#define PN_KERNELS_CUDA_MATMUL_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"
#include "tensor.h"

enum { PN_MATMUL_WORKSPACE = 32 << 20 }; /* bytes: what cuBLAS recommends for Hopper */

typedef struct pn_matmul { /* what is left 0 means: F32, tight rows, one product, nothing added */
    const char *name;      /* the implementation's, for messages; a literal */
    int64_t m, n, k;
    const void *a, *b; /* a [m, k], or [k, m] when turned; b [k, n], or [n, k] when turned; all row-major */
    void *c;           /* [m, n] */
    pn_dtype a_type, b_type, c_type; /* a and b alike, F32 or BF16; c as they are, or F32 */
    bool a_turned, b_turned;
    bool add;                       /* c += the product; never with a bias */
    const void *bias;               /* [n] of c's type, added to every row; NULL: none */
    int64_t a_row, b_row, c_row;    /* elements from one row to the next; 0: rows are tight */
    int64_t batch;                  /* this many products of one shape; 0: one */
    int64_t a_step, b_step, c_step; /* elements from one product's matrix to the next's; 0: the same a, or b, for all */
} pn_matmul;

/* c = a b + bias, or c += a b. m, n and k may be 0; with a bias k is not. workspace: PN_MATMUL_WORKSPACE bytes of the
 * GPU. PN_DEVICE: cuBLASLt is missing or failed. */
pn_status pn_cuda_matmul(const pn_matmul *p, void *workspace);

#endif
