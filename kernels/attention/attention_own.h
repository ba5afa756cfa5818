/* On a GPU cuDNN computes softmax attention where it can; the log says where this program's own kernels do instead, and
 * why: nobody should have to guess which of the two was fast or slow. */
#ifndef PN_KERNELS_ATTENTION_OWN_H
#define PN_KERNELS_ATTENTION_OWN_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why cuDNN is not asked for a plan of a call; NULL: it is. built: this build knows cuDNN. A literal. */
const char *pn_attention_own_reason(const pn_op_call *c, bool built);
/* Tells the log that own kernels run a call, once for every reason (a literal) and choice of heads, width and window:
 * lengths change from step to step. */
void pn_attention_own_say(const pn_op_call *c, const char *reason);

#ifdef __cplusplus
}
#endif

#endif
