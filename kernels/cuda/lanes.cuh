/* Neighbouring elements, W at once: 8 or 16 bytes of memory to a thread where W and the type make that, floats in
 * registers. An address of W elements is a multiple of their size, or of 16 bytes where that is smaller. */
#ifndef PN_KERNELS_CUDA_LANES_CUH
#define PN_KERNELS_CUDA_LANES_CUH

#include "element.cuh"
#include "fresh.cuh"

/* f<T>(c) for the type T of a tensor. */
#define PN_CUDA_TYPED(tensor, f, c) ((tensor)->dtype == PN_BF16 ? f<pn_bf16>(c) : f<float>(c))

/* As they lie in memory. */
template <class T, int W> struct alignas(W * sizeof(T) < 16 ? W * sizeof(T) : 16) pn_piece { T x[W]; };

template <int W> struct pn_lanes { float x[W]; };

/* A word is moved whole: left to itself the compiler takes a piece apart that is used at once. */
template <class WORD, class TO, class FROM> __device__ void pn_move_words(TO *to, const FROM *from) {
#pragma unroll
    for (size_t at = 0; at < sizeof(TO); at += sizeof(WORD)) {
        WORD word = *(const WORD *)((const char *)from + at);
        *(WORD *)((char *)to + at) = word;
    }
}
template <class P> __device__ void pn_move_piece(P *to, const P *from) {
    if constexpr (sizeof(P) % sizeof(uint4) == 0)
        pn_move_words<uint4>(to, from);
    else if constexpr (sizeof(P) == sizeof(uint2))
        pn_move_words<uint2>(to, from);
    else
        *to = *from;
}
template <int W, class T> __device__ pn_piece<T, W> pn_piece_at(const T *from) {
    pn_piece<T, W> piece;
    pn_move_piece(&piece, (const pn_piece<T, W> *)from);
    return piece;
}

template <class T, int W> __device__ pn_lanes<W> pn_piece_lanes(const pn_piece<T, W> &piece) {
    pn_lanes<W> v;
#pragma unroll
    for (int k = 0; k < W; k++) v.x[k] = pn_load(&piece.x[k]);
    return v;
}
/* BF16 by pairs: to round one alone is an instruction of a sixteenth of the rate. */
template <class T, int W> __device__ pn_piece<T, W> pn_lanes_piece(const pn_lanes<W> &v) {
    pn_piece<T, W> piece;
    if constexpr (sizeof(T) == 2 && W % 2 == 0) {
#pragma unroll
        for (int k = 0; k < W; k += 2) {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(v.x[k], v.x[k + 1]);
            piece.x[k] = pair.x, piece.x[k + 1] = pair.y;
        }
    } else {
#pragma unroll
        for (int k = 0; k < W; k++) pn_store(&piece.x[k], v.x[k]);
    }
    return piece;
}

template <int W, class T> __device__ pn_lanes<W> pn_lanes_at(const T *from) {
    return pn_piece_lanes(pn_piece_at<W>(from));
}
template <int W, class T> __device__ void pn_lanes_put(T *to, const pn_lanes<W> &v) {
    pn_piece<T, W> piece = pn_lanes_piece<T>(v);
    pn_move_piece((pn_piece<T, W> *)to, &piece);
}
/* A gradient of type T: what is added is rounded first, so that it has the same bits when it is made apart (recompute).
 */
template <class T, int W> __device__ pn_lanes<W> pn_lanes_sum(pn_lanes<W> old, const pn_lanes<W> &v) {
    pn_lanes<W> rounded = pn_piece_lanes(pn_lanes_piece<T>(v));
#pragma unroll
    for (int k = 0; k < W; k++) old.x[k] = __fadd_rn(old.x[k], rounded.x[k]);
    return old;
}
template <int W, class T> __device__ void pn_lanes_add(T *to, const pn_lanes<W> &v) {
    pn_lanes_put(to, pn_lanes_sum<T>(pn_lanes_at<W>(to), v));
}

/* Where the gradient of an input goes; to is NULL when it is not wanted. */
template <class T> struct pn_gradient {
    T *to;
    bool fresh; /* it holds nothing yet and is written, every element of it (op.h) */
    template <int W> __device__ void put(int64_t i, const pn_lanes<W> &v) const {
        if (fresh)
            pn_lanes_put(to + i, v);
        else
            pn_lanes_add(to + i, v);
    }
};
template <class T> pn_gradient<T> pn_cuda_gradient(const pn_op_call *c, int input) {
    return { pn_values_or_null<T>(c->din[input]), !pn_op_adds(c, input) };
}

/* Whether W elements can be moved at each of these addresses; NULL is none. */
template <int W, class... T> bool pn_cuda_in_pieces(const T *...at) {
    return (((uintptr_t)at % alignof(pn_piece<T, W>) == 0) && ...);
}

#endif
