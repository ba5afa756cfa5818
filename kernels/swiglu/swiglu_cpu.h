/* SwiGLU on floats, for ops that have it inside. Threads share out spans. */
#ifndef PN_KERNELS_SWIGLU_CPU_H
#define PN_KERNELS_SWIGLU_CPU_H

#include <stdint.h>

/* y = silu(gate) * up, n elements. */
void pn_swiglu_of(float *y, const float *gate, const float *up, int64_t n);
/* dgate and dup += what dy makes of them; NULL: not wanted. h: silu(gate) * up is written there; it may be dy; NULL: it
 * is not. up is read for dgate and h only. */
void pn_swiglu_gradients(float *dgate, float *dup, float *h, const float *gate, const float *up, const float *dy,
                         int64_t n);

#endif
