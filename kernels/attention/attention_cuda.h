/* What the CUDA implementations of attention ask of one another. */
#ifndef PN_KERNELS_ATTENTION_CUDA_H
#define PN_KERNELS_ATTENTION_CUDA_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether backward has anything to add; where not, gradients that hold nothing yet become zeros. */
bool pn_attention_has_gradient(const pn_op_call *c);
pn_status pn_attention_no_gradient(const pn_op_call *c);

/* Tiles of tokens: heads of up to 256 channels. Memory in proportion to the tokens, the same bits every time. */
bool pn_attention_tiles_take(const pn_op_call *c);
size_t pn_attention_tiles_scratch(const pn_op_call *c, bool backward);
pn_status pn_attention_tiles_forward(const pn_op_call *c);
pn_status pn_attention_tiles_backward(const pn_op_call *c);

/* to += from, n elements of BF16, both at a multiple of 16 bytes. name: the implementation's, for messages. */
pn_status pn_attention_add(const char *name, void *to, const void *from, int64_t n);

extern const pn_op_impl pn_attention_cuda_rows; /* heads of any width */
extern const pn_op_impl pn_attention_cudnn;     /* where this build knows cuDNN */

#ifdef __cplusplus
}
#endif

#endif
