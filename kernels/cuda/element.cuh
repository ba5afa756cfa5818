/* Elements of the two types that a call may compute in: F32 and BF16. Kernels are templates on them, work in float, and
 * round once, at the end. */
#ifndef PN_KERNELS_CUDA_ELEMENT_CUH
#define PN_KERNELS_CUDA_ELEMENT_CUH

#include <cuda_bf16.h>

#include "op_cuda.cuh"

typedef __nv_bfloat16 pn_bf16;

__device__ static inline float pn_load(const float *p) {
    return *p;
}
__device__ static inline float pn_load(const pn_bf16 *p) {
    return __bfloat162float(*p);
}
__device__ static inline void pn_store(float *p, float x) {
    *p = x;
}
/* To the nearest, ties to even. */
__device__ static inline void pn_store(pn_bf16 *p, float x) {
    *p = __float2bfloat16_rn(x);
}

/* To six digits, 0 where the exponential is infinite: for what is rounded to the three of BF16. */
__device__ static inline float pn_quick_sigmoid(float x) {
    float e, y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(-1.44269504f * x));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(1 + e));
    return y;
}

/* 16 bytes, which a thread reads or writes at once where the address allows. */
template <class T> struct alignas(16) pn_vector {
    enum { n = 16 / sizeof(T) };
    T x[n];
};

template <class T> struct pn_dtype_of;
template <> struct pn_dtype_of<float> { static constexpr pn_dtype value = PN_F32; };
template <> struct pn_dtype_of<pn_bf16> { static constexpr pn_dtype value = PN_BF16; };

/* A tensor's values as T, which is its type. */
template <class T> T *pn_values(const pn_tensor *t) {
    PN_ASSERT(t->dtype == pn_dtype_of<T>::value);
    return (T *)pn_data(t);
}
template <class T> T *pn_values_or_null(const pn_tensor *t) {
    return t ? pn_values<T>(t) : NULL;
}

#endif
