/* Angles are counted in turns, as binary fractions of 64 bits: whole turns fall out of the integer product of position
 * and frequency, so that nothing is lost at any position (2^-33 of a turn at position 2^20), and what is left is turned
 * into cos and sin in float. A block has a few tokens: their cos and sin are made once for all heads. */
#include "cuda/channels.cuh"

#include "rope.h"

extern "C" {
#include "cuda/staged_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "rope/cuda";

enum { THREADS = 256, ANGLES = 512 }; /* angles of a block: tokens times pairs */

struct shape {
    int tokens, heads, half;
    int per_block; /* tokens */
    int span;      /* pairs of a head that a block has; blocks along y share a head out */
};

/* turns[i] = theta^(-i/half) / 2 pi, less whole turns. */
__global__ void __launch_bounds__(THREADS) frequencies(uint64_t *turns, int half, double theta) {
    int i = (int)blockIdx.x * THREADS + (int)threadIdx.x;
    if (i >= half) return;
    double f = pow(theta, -(double)i / half) * 0.15915494309189533577;
    turns[i] = (uint64_t)((f - floor(f)) * 0x1p64);
}

__device__ void angle(const shape &s, const pn_cuda_docs &docs, const uint64_t *turns, int token, int pair,
                      float direction, float *cosine, float *sine) {
    int doc = docs.doc[token];
    uint64_t position = (uint64_t)((int64_t)docs.past[doc] + token - docs.offset[doc]);
    int32_t turn = (int32_t)(position * turns[pair] >> 32); /* of 2^32; as a signed number the nearer way round */
    sincospif((float)turn * 0x1p-31f, sine, cosine);
    *sine *= direction;
}

/* V: pairs that a thread turns at a time. */
template <class T, int V, bool ADD>
__global__ void __launch_bounds__(THREADS)
    rotate(shape s, pn_cuda_docs docs, const uint64_t *turns, float direction, const T *x, T *y) {
    alignas(16) __shared__ float cosine[ANGLES], sine[ANGLES];
    const int token0 = (int)blockIdx.x * s.per_block, pair0 = (int)blockIdx.y * s.span;
    const int tokens = min(s.per_block, s.tokens - token0), pairs = min(s.span, s.half - pair0);
    for (int i = (int)threadIdx.x; i < tokens * pairs; i += THREADS)
        angle(s, docs, turns, token0 + i / pairs, pair0 + i % pairs, direction, cosine + i, sine + i);
    __syncthreads();
    const int across = pairs / V, rows = THREADS / across, i = (int)threadIdx.x % across * V;
    if ((int)threadIdx.x >= rows * across) return;
    for (int row = (int)threadIdx.x / across; row < tokens * s.heads; row += rows) {
        const float *c = cosine + row / s.heads * pairs + i, *n = sine + row / s.heads * pairs + i;
        const int64_t at = ((int64_t)token0 * s.heads + row) * 2 * s.half + pair0 + i;
        const pn_channels<T, V> lo = pn_channels_at<T, V>(x + at), hi = pn_channels_at<T, V>(x + at + s.half);
        pn_channels<T, V> to_lo, to_hi;
        if (ADD) to_lo = pn_channels_at<T, V>(y + at), to_hi = pn_channels_at<T, V>(y + at + s.half);
        float y_lo[V], y_hi[V];
#pragma unroll
        for (int k = 0; k < V; k++) {
            y_lo[k] = lo[k] * c[k] - hi[k] * n[k];
            y_hi[k] = hi[k] * c[k] + lo[k] * n[k];
            if (ADD) y_lo[k] = __fadd_rn(to_lo[k], y_lo[k]), y_hi[k] = __fadd_rn(to_hi[k], y_hi[k]);
        }
        pn_channels_put<T, V>(y + at, y_lo);
        pn_channels_put<T, V>(y + at + s.half, y_hi);
    }
}

template <class T, bool ADD>
pn_status launch(const pn_op_call *c, float direction, const pn_tensor *from, pn_tensor *to) {
    const pn_rope_attr *a = (const pn_rope_attr *)c->attr;
    const T *x = pn_values<T>(from);
    T *y = pn_values<T>(to);
    uint64_t *turns = (uint64_t *)c->scratch;
    pn_cuda_docs docs;
    PN_TRY(pn_cuda_docs_stage(&a->docs, &docs));
    if (docs.tokens == 0) return PN_OK;
    const int half = a->head_dim / 2, span = half < THREADS ? half : THREADS;
    const shape s = { (int)docs.tokens, a->heads, half, ANGLES / span, span };
    frequencies<<<pn_cuda_blocks(s.half, THREADS), THREADS, 0, pn_cuda_stream()>>>(turns, s.half, a->theta);
    PN_TRY(pn_cuda_launched(name));
    dim3 blocks(pn_cuda_blocks(s.tokens, s.per_block), pn_cuda_blocks(s.half, s.span));
    constexpr int V = pn_vector<T>::n;
    if (s.half % V == 0 && ((uintptr_t)x | (uintptr_t)y) % 16 == 0)
        rotate<T, V, ADD><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, docs, turns, direction, x, y);
    else
        rotate<T, 1, ADD><<<blocks, THREADS, 0, pn_cuda_stream()>>>(s, docs, turns, direction, x, y);
    return pn_cuda_launched(name);
}

} // namespace

static pn_status forward(const pn_op_call *c) {
    if (c->dtype == PN_BF16) return launch<pn_bf16, false>(c, 1, c->in[0], c->out[0]);
    return launch<float, false>(c, 1, c->in[0], c->out[0]);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !c->din[0]) return PN_OK;
    if (!pn_op_adds(c, 0)) {
        if (c->dtype == PN_BF16) return launch<pn_bf16, false>(c, -1, c->dout[0], c->din[0]);
        return launch<float, false>(c, -1, c->dout[0], c->din[0]);
    }
    if (c->dtype == PN_BF16) return launch<pn_bf16, true>(c, -1, c->dout[0], c->din[0]);
    return launch<float, true>(c, -1, c->dout[0], c->din[0]);
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    (void)backward_pass;
    return (size_t)((const pn_rope_attr *)c->attr)->head_dim / 2 * sizeof(uint64_t);
}

static const pn_op_impl impl = {
    .name = name, .bf16 = true, .fresh = true, .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
PN_CUDA_OP(rope, &impl)
