/* The sliding window of a causal convolution over packed documents (cpu/window.h has the same for the CPU).
 *
 * Position s of a document is row s of its tokens; positions -W .. -1 are its state, [documents, C, W], oldest first,
 * or zeros. With taps K_s and the gradient p_s of the sum at position s, the gradient of position s is
 * sum_w p_{s'} K_{s'}[w], s' = s + W-1 - w, over the s' that are in the document. */
#ifndef PN_KERNELS_CUDA_WINDOW_CUH
#define PN_KERNELS_CUDA_WINDOW_CUH

#include "element.cuh"

extern "C" {
#include "staged_cuda.h"
}

enum { PN_WINDOW_THREADS = 256 };

template <class T> struct pn_window {
    pn_cuda_docs docs;
    const T *x, *state; /* state may be NULL */
    int64_t channels;
    int width;

    __device__ float at(int64_t doc, int64_t s, int64_t channel) const {
        if (s >= 0) return pn_load(x + (docs.offset[doc] + s) * channels + channel);
        return state ? pn_load(state + (doc * channels + channel) * width + width + s) : 0;
    }
};

/* Documents do not need their past here. */
static inline pn_status pn_window_docs(const pn_docs *docs, pn_cuda_docs *out) {
    const pn_docs of = pn_docs_without_past(docs);
    return pn_cuda_docs_stage(&of, out);
}

/* Element i of a state [documents, C, W]. */
struct pn_window_element {
    int64_t doc, channel, s;
    __device__ pn_window_element(int64_t i, int64_t channels, int width)
        : doc(i / width / channels), channel(i / width % channels), s(i % width - width) {}
};

/* The state after these tokens, also of a document shorter than W. */
template <class T> __global__ void __launch_bounds__(PN_WINDOW_THREADS) pn_window_new_state(pn_window<T> w, T *state) {
    const int64_t i = (int64_t)blockIdx.x * PN_WINDOW_THREADS + threadIdx.x;
    if (i >= w.docs.n * w.channels * w.width) return;
    const pn_window_element e(i, w.channels, w.width);
    const int64_t length = w.docs.offset[e.doc + 1] - w.docs.offset[e.doc];
    pn_store(state + i, w.at(e.doc, length + e.s, e.channel));
}

template <class T> pn_status pn_cuda_window_new_state(const char *name, const pn_window<T> &w, T *state) {
    const int64_t n = w.docs.n * w.channels * w.width;
    if (n == 0) return PN_OK;
    pn_window_new_state<T><<<pn_cuda_blocks(n, PN_WINDOW_THREADS), PN_WINDOW_THREADS, 0, pn_cuda_stream()>>>(w, state);
    return pn_cuda_launched(name);
}

/* p(token, channel), tap(token, channel, w) */
template <class P, class TAP>
__device__ float pn_window_gradient(const pn_cuda_docs &docs, int width, int64_t doc, int64_t s, int64_t channel, P p,
                                    TAP tap) {
    const int64_t begin = docs.offset[doc], length = docs.offset[doc + 1] - begin;
    float sum = 0;
    for (int w = width - 1; w >= 0; w--) {
        const int64_t from = s + width - 1 - w;
        if (from >= 0 && from < length) sum += p(begin + from, channel) * tap(begin + from, channel, w);
    }
    return sum;
}

/* dx of n tokens from `token0` on += their gradients. */
template <class T, class P, class TAP>
__global__ void __launch_bounds__(PN_WINDOW_THREADS)
    pn_window_add_dx(pn_cuda_docs docs, int64_t channels, int width, int64_t token0, int64_t n, P p, TAP tap, T *dx) {
    const int64_t i = (int64_t)blockIdx.x * PN_WINDOW_THREADS + threadIdx.x;
    if (i >= n * channels) return;
    const int64_t token = token0 + i / channels, channel = i % channels, doc = docs.doc[token];
    T *to = dx + token * channels + channel;
    pn_store(to,
             __fadd_rn(pn_load(to), pn_window_gradient(docs, width, doc, token - docs.offset[doc], channel, p, tap)));
}

/* dstate of the documents that begin within n tokens from `token0` on. */
template <class T, class P, class TAP>
__global__ void __launch_bounds__(PN_WINDOW_THREADS)
    pn_window_add_dstate(pn_cuda_docs docs, int64_t channels, int width, int64_t token0, int64_t n, P p, TAP tap,
                         T *dstate) {
    const int64_t i = (int64_t)blockIdx.x * PN_WINDOW_THREADS + threadIdx.x;
    if (i >= docs.n * channels * width) return;
    const pn_window_element e(i, channels, width);
    const int64_t begin = docs.offset[e.doc];
    if (begin < token0 || begin >= token0 + n) return;
    pn_store(dstate + i,
             __fadd_rn(pn_load(dstate + i), pn_window_gradient(docs, width, e.doc, e.s, e.channel, p, tap)));
}

/* dx, dstate: NULL where not wanted. */
template <class T, class P, class TAP>
pn_status pn_cuda_window_gradients(const char *name, const pn_cuda_docs &docs, int64_t channels, int width,
                                   int64_t token0, int64_t n, P p, TAP tap, T *dx, T *dstate) {
    const int64_t elements = n * channels, states = docs.n * channels * width;
    if (dx && elements) {
        pn_window_add_dx<<<pn_cuda_blocks(elements, PN_WINDOW_THREADS), PN_WINDOW_THREADS, 0, pn_cuda_stream()>>>(
            docs, channels, width, token0, n, p, tap, dx);
        PN_TRY(pn_cuda_launched(name));
    }
    if (dstate && states) {
        pn_window_add_dstate<<<pn_cuda_blocks(states, PN_WINDOW_THREADS), PN_WINDOW_THREADS, 0, pn_cuda_stream()>>>(
            docs, channels, width, token0, n, p, tap, dstate);
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

#endif
