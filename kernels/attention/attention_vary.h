/* Whether the gradients of softmax attention on a GPU may differ in their last bits from run to run, which is faster:
 * cuDNN then sums dq in the order in which its blocks come. One choice for the process. */
#ifndef PN_KERNELS_ATTENTION_VARY_H
#define PN_KERNELS_ATTENTION_VARY_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Training says what its configuration allows (train_options.h: deterministic). */
void pn_attention_vary(bool allowed);
/* What was said last; before that whether PN_CUDA_VARY=1 is in the environment, which is for benches. */
bool pn_attention_varies(void);

#ifdef __cplusplus
}
#endif

#endif
