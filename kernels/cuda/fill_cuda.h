/* compute-sanitizer's initcheck does not see what cuBLASLt and cuDNN write with the GPU's copy engine: all that reads
 * their results would be called wrong. With PN_CUDA_FILL=1 in the environment what they are about to write is filled
 * first, which initcheck sees: with NaN, so that what a library leaves unwritten shows in the results. */
#ifndef PN_KERNELS_CUDA_FILL_CUDA_H
#define PN_KERNELS_CUDA_FILL_CUDA_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor.h"

enum { PN_CUDA_FILL_BYTE = 0xff }; /* a NaN in F32 and in BF16 */

bool pn_cuda_fills(void);
/* Nothing unless pn_cuda_fills(). n_bytes may be 0, and t NULL. */
pn_status pn_cuda_fill(void *p, size_t n_bytes);
pn_status pn_cuda_fill_tensor(const pn_tensor *t);

#endif
