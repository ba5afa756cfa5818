/* Scalar activation functions of the CPU backend, in single precision. */
#ifndef PN_KERNELS_CPU_ACTIVATION_H
#define PN_KERNELS_CPU_ACTIVATION_H

#include <math.h>

static inline float pn_act_exp(float x) {
    return expf(x);
}
static inline float pn_act_sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}
static inline float pn_act_softplus(float x) {
    return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
}

#endif
