/* Gradient of the chunkwise form in float, for any shape: the mathematics of gated_linear_cpu_backward.c.
 *
 *     scores    per chunk and head      A, low(dO V^T), Qin = scale e^L q, Kout = e^{L_C - L} k, e^{L_C}
 *     sweep     chunks in reverse       G <- diag(e^{L_C}) G + Qin^T dO, kept for every chunk
 *     values    per chunk and head      dV = A^T dO + Kout G
 *     keys      per chunk and head      dQ, dK, dg from dO S^T, V G^T and sums within the chunk
 *
 * A decay between two tokens is the product of the decays passed, which a running sum picks up one by one: exact for
 * any of them, and one code for scalar gates and vector gates. Every head leaves its own gradients; those of heads that
 * share an input are added last. */
#include "gated_linear_cuda.cuh"

#include "cuda/map.cuh"

namespace {

enum { C = PN_GLIN_CHUNK, TILE = C * C, THREADS = 256, STEP = 16, ROW = C + 4 };

const char name[] = "gated_linear/cuda";

template <class T> struct operands {
    const T *q, *k, *v, *dO, *S;     /* dO NULL: zero */
    const float *g, *dS_T;           /* NULL: no decay; zero */
    float *A, *dA;                   /* [chunks, heads, 64, 64] */
    float *Qin, *Kout;               /* [chunks, heads, 64, dk] */
    float *through;                  /* [chunks, heads, dk] */
    float *G;                        /* [chunks, heads, dk, dv] at the chunk's end */
    float *part_q, *part_k, *part_v; /* [tokens, heads, dk or dv] */
    float *part_g;                   /* [tokens, heads, dk], or [tokens, heads, tiles of dk] for scalar gates */
    float *dS0;                      /* NULL: not wanted */
    bool dS0_add;                    /* or written */
};

__device__ float decay_at(const pn_glin_sizes &s, const float *g, int64_t t, int head, int channel) {
    return g ? expf(g[s.g_at(t, head) + channel * s.g_step]) : 1.0f;
}

/* ---- a tile [64, 64] of a product: four rows and four columns per thread ---- */

struct product_memory {
    float a[STEP][ROW], b[STEP][ROW];
};
__device__ __forceinline__ int tile_row() {
    return (int)threadIdx.x / 16 * 4;
}
__device__ __forceinline__ int tile_column() {
    return (int)threadIdx.x % 16 * 4;
}

/* y += a b over x < inner; a(row, x) and b(x, column) are 0 outside the matrices. ALONG: elements that are neighbours
 * in memory differ in x. */
template <bool A_ALONG, bool B_ALONG, class A, class B>
__device__ void product(float y[4][4], int inner, product_memory *m, A a, B b) {
    const int row = tile_row(), column = tile_column();
    for (int first = 0; first < inner; first += STEP) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < STEP * C; i += THREADS) {
            const int ax = A_ALONG ? i % STEP : i / C, ay = A_ALONG ? i / STEP : i % C;
            const int bx = B_ALONG ? i % STEP : i / C, by = B_ALONG ? i / STEP : i % C;
            m->a[ax][ay] = first + ax < inner ? a(ay, first + ax) : 0.0f;
            m->b[bx][by] = first + bx < inner ? b(first + bx, by) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int x = 0; x < STEP; x++) {
            const float4 u = *(const float4 *)&m->a[x][row], w = *(const float4 *)&m->b[x][column];
            const float left[4] = { u.x, u.y, u.z, u.w }, right[4] = { w.x, w.y, w.z, w.w };
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int c = 0; c < 4; c++) y[r][c] += left[r] * right[c];
        }
    }
}
template <class PUT> __device__ void put_tile(const float y[4][4], PUT put) {
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) put(tile_row() + r, tile_column() + c, y[r][c]);
}

/* ---- scores ---- */

enum { SCORE_CHANNELS = 32, LANE_CHANNELS = 8, SCORE_ROW = SCORE_CHANNELS + 4 };

struct scores_memory {
    alignas(16) float q[C][SCORE_ROW], k[C][SCORE_ROW], decay[C][SCORE_ROW];
    float A[C][C + 1];
};

/* Adds what 32 channels give A, one row per four lanes: w, a query, decays on its way back from key to key. */
__device__ void add_scores(scores_memory *m) {
    const int lane = (int)threadIdx.x % 32, part = lane % 4, warp = (int)threadIdx.x / 32, i = 8 * warp + lane / 4;
    const int channel = LANE_CHANNELS * part;
    float w[LANE_CHANNELS];
#pragma unroll
    for (int x = 0; x < LANE_CHANNELS; x++) w[x] = m->q[i][channel + x];
    for (int j = 8 * warp + 7; j >= 0; j--) {
        float sum = 0;
        if (j <= i) {
#pragma unroll
            for (int x = 0; x < LANE_CHANNELS; x++) {
                sum += w[x] * m->k[j][channel + x];
                w[x] *= m->decay[j][channel + x];
            }
        }
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (part == 0 && j <= i) m->A[i][j] += sum;
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) scores(const pn_glin_sizes s, const operands<T> x) {
    __shared__ union memory {
        scores_memory s;
        product_memory p;
        __device__ memory() {}
    } m;
    const pn_glin_place p = pn_glin_place_of(s, blockIdx.x);
    if (p.n == 0) return;
    const int id = (int)threadIdx.x;
    const int64_t tokens_at = (int64_t)blockIdx.x * C * s.dk;
    for (int i = id; i < C * (C + 1); i += THREADS) (&m.s.A[0][0])[i] = 0;
    for (int first = 0; first < s.dk; first += SCORE_CHANNELS) {
        __syncthreads();
        for (int i = id; i < C * SCORE_CHANNELS; i += THREADS) {
            const int t = i / SCORE_CHANNELS, c = i % SCORE_CHANNELS, channel = first + c;
            const bool in = t < p.n && channel < s.dk;
            m.s.q[t][c] = in ? s.scale * pn_load(x.q + s.q_at(p.first + t, p.head) + channel) : 0.0f;
            m.s.k[t][c] = in ? pn_load(x.k + s.k_at(p.first + t, p.head) + channel) : 0.0f;
            m.s.decay[t][c] = in ? decay_at(s, x.g, p.first + t, p.head, channel) : 1.0f;
        }
        __syncthreads();
        add_scores(&m.s);
        const int c = id % SCORE_CHANNELS, channel = first + c;
        if (id < 2 * SCORE_CHANNELS && channel < s.dk) {
            float passed = 1;
            if (id < SCORE_CHANNELS) { /* queries, forward in time */
                for (int t = 0; t < C; t++) {
                    passed *= m.s.decay[t][c];
                    x.Qin[tokens_at + (int64_t)t * s.dk + channel] = passed * m.s.q[t][c];
                }
                x.through[(int64_t)blockIdx.x * s.dk + channel] = passed;
            } else { /* keys, backward */
                for (int t = C - 1; t >= 0; t--) {
                    x.Kout[tokens_at + (int64_t)t * s.dk + channel] = passed * m.s.k[t][c];
                    passed *= m.s.decay[t][c];
                }
            }
        }
    }
    __syncthreads();
    float *A = x.A + (int64_t)blockIdx.x * TILE, *dA = x.dA + (int64_t)blockIdx.x * TILE;
    for (int i = id; i < TILE; i += THREADS) A[i] = m.s.A[i / C][i % C];
    float y[4][4] = {};
    if (x.dO)
        product<true, true>(
            y, s.dv, &m.p,
            [&](int i, int c) { return i < p.n ? pn_load(x.dO + s.o_at(p.first + i, p.head) + c) : 0.0f; },
            [&](int c, int j) { return j < p.n ? pn_load(x.v + s.v_at(p.first + j, p.head) + c) : 0.0f; });
    put_tile(y, [&](int i, int j, float value) { dA[i * C + j] = j <= i ? value : 0.0f; });
}

/* ---- the gradient of the states: a tile of one per block ---- */

template <class T> __global__ void __launch_bounds__(THREADS) sweep(const pn_glin_sizes s, const operands<T> x) {
    __shared__ product_memory m;
    const int down = (s.dk + C - 1) / C, across = (s.dv + C - 1) / C;
    const int first_row = (int)(blockIdx.x % down) * C, first_column = (int)(blockIdx.x / down % across) * C;
    const int head = (int)(blockIdx.x / down / across % s.heads);
    const int64_t doc = blockIdx.x / down / across / s.heads, end = s.docs.offset[doc + 1];
    float G[4][4] = {};
    auto each = [&](auto f) {
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int row = first_row + tile_row() + r, column = first_column + tile_column() + c;
                if (row < s.dk && column < s.dv) f(row, column, G[r][c]);
            }
    };
    const int64_t state = s.state_at(doc, head);
    if (x.dS_T) each([&](int r, int c, float &value) { value = x.dS_T[state + (int64_t)r * s.dv + c]; });
    for (int64_t chunk = s.docs.first_chunk[doc + 1] - 1; chunk >= s.docs.first_chunk[doc]; chunk--) {
        const int64_t block = chunk * s.heads + head, first = s.docs.chunk_begin[chunk];
        const int n = end - first < C ? (int)(end - first) : (int)C;
        float *to = x.G + block * s.size();
        each([&](int r, int c, float &value) {
            to[(int64_t)r * s.dv + c] = value;
            value *= x.through[block * s.dk + r];
        });
        const float *Qin = x.Qin + block * C * s.dk;
        if (x.dO)
            product<false, false>(
                G, n, &m,
                [&](int r, int i) { return first_row + r < s.dk ? Qin[(int64_t)i * s.dk + first_row + r] : 0.0f; },
                [&](int i, int c) {
                    const int column = first_column + c;
                    return column < s.dv ? pn_load(x.dO + s.o_at(first + i, head) + column) : 0.0f;
                });
    }
    if (x.dS0)
        each([&](int r, int c, float &value) {
            float *to = x.dS0 + state + (int64_t)r * s.dv + c;
            *to = x.dS0_add ? __fadd_rn(*to, value) : value;
        });
}

/* ---- gradients of values ---- */

template <class T> __global__ void __launch_bounds__(THREADS) values(const pn_glin_sizes s, const operands<T> x) {
    __shared__ product_memory m;
    const int across = (s.dv + C - 1) / C, first_column = (int)(blockIdx.x % across) * C;
    const int64_t block = blockIdx.x / across;
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const float *A = x.A + block * TILE, *Kout = x.Kout + block * C * s.dk, *G = x.G + block * s.size();
    float y[4][4] = {};
    if (x.dO)
        product<false, false>(
            y, p.n, &m, [&](int j, int i) { return A[i * C + j]; },
            [&](int i, int c) {
                const int column = first_column + c;
                return column < s.dv ? pn_load(x.dO + s.o_at(p.first + i, p.head) + column) : 0.0f;
            });
    product<true, false>(
        y, s.dk, &m, [&](int j, int r) { return Kout[(int64_t)j * s.dk + r]; },
        [&](int r, int c) { return first_column + c < s.dv ? G[(int64_t)r * s.dv + first_column + c] : 0.0f; });
    put_tile(y, [&](int j, int c, float value) {
        const int column = first_column + c;
        if (j < p.n && column < s.dv) x.part_v[s.o_at(p.first + j, p.head) + column] = value;
    });
}

/* ---- gradients of queries, keys and gates: 64 channels per block ---- */

struct keys_memory {
    product_memory p;
    alignas(16) float q[C][C], k[C][C], decay[C][C]; /* [token, channel] */
    alignas(16) float dA[C][C];
    float R[C][C];  /* dO S^T, then what moves the decays at a token */
    float X[C][C];  /* V G^T, then what a token leaves at the chunk's end */
    float carry[C]; /* e^{L_C} times the sums of the rows of S * G */
};

/* Four rows i .. i + 3 of one channel: dQ into out, and Q dQ but for the pairs (i, i), which no decay is between,
 * into m->R. */
__device__ void query_gradients(keys_memory *m, int i, int c, float out[4]) {
    float sum[4], own[4] = {};
#pragma unroll
    for (int r = 0; r < 4; r++) sum[r] = m->R[i + r][c];
    for (int j = 0; j < i + 4; j++) {
        const float decay = m->decay[j][c], k = m->k[j][c];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            if (j > i + r) continue;
            sum[r] *= decay;
            if (j < i + r)
                sum[r] += m->dA[i + r][j] * k;
            else
                own[r] = m->dA[j][j] * k;
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
        out[r] = sum[r] + own[r];
        m->R[i + r][c] = m->q[i + r][c] * sum[r];
    }
}
/* Likewise for keys j .. j + 3: K dK of pairs is taken from m->R, that through the chunk's end goes to m->X. */
__device__ void key_gradients(keys_memory *m, int j, int c, float out[4]) {
    float sum[4] = {}, left[4] = { 1, 1, 1, 1 };
    for (int i = C - 1; i > j; i--) {
        const float decay = m->decay[i][c], q = m->q[i][c];
#pragma unroll
        for (int r = 0; r < 4; r++) {
            if (i <= j + r) continue;
            sum[r] = (sum[r] + m->dA[i][j + r] * q) * decay;
            left[r] *= decay;
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
        const float k = m->k[j + r][c], kept = left[r] * m->X[j + r][c];
        out[r] = sum[r] + kept + m->dA[j + r][j + r] * m->q[j + r][c];
        m->R[j + r][c] -= k * sum[r];
        m->X[j + r][c] = k * kept;
    }
}
/* dg of one channel: from the chunk's end what has moved since, from its start what was left behind. In m->R. */
__device__ void gate_gradients(keys_memory *m, int c) {
    float sum = 0, left = m->carry[c];
    for (int i = C - 1; i >= 0; i--) m->R[i][c] = sum += m->R[i][c];
    for (int i = 0; i < C; i++) {
        m->R[i][c] += left;
        left += m->X[i][c];
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) keys(const pn_glin_sizes s, const operands<T> x) {
    extern __shared__ __align__(16) unsigned char memory[];
    keys_memory *m = (keys_memory *)memory;
    const int tiles = (s.dk + C - 1) / C, tile = (int)(blockIdx.x % tiles), first_channel = tile * C;
    const int64_t block = blockIdx.x / tiles, state = block * s.size();
    const pn_glin_place p = pn_glin_place_of(s, block);
    if (p.n == 0) return;
    const int id = (int)threadIdx.x, lane = id % 32, c = id % C, channel = first_channel + c;
    const bool there = channel < s.dk;

    for (int t = id / C; t < C; t += THREADS / C) {
        const bool in = t < p.n && there;
        m->q[t][c] = in ? s.scale * pn_load(x.q + s.q_at(p.first + t, p.head) + channel) : 0.0f;
        m->k[t][c] = in ? pn_load(x.k + s.k_at(p.first + t, p.head) + channel) : 0.0f;
        m->decay[t][c] = in ? decay_at(s, x.g, p.first + t, p.head, channel) : 1.0f;
        m->dA[t][c] = x.dA[block * TILE + t * C + c];
    }
    float y[4][4] = {}, w[4][4] = {};
    if (x.dO)
        product<true, true>(
            y, s.dv, &m->p,
            [&](int i, int e) { return i < p.n ? pn_load(x.dO + s.o_at(p.first + i, p.head) + e) : 0.0f; },
            [&](int e, int r) {
                const int row = first_channel + r;
                return row < s.dk ? pn_load(x.S + state + (int64_t)row * s.dv + e) : 0.0f;
            });
    put_tile(y, [&](int i, int r, float value) { m->R[i][r] = value; });
    product<true, true>(
        w, s.dv, &m->p, [&](int j, int e) { return j < p.n ? pn_load(x.v + s.v_at(p.first + j, p.head) + e) : 0.0f; },
        [&](int e, int r) {
            const int row = first_channel + r;
            return row < s.dk ? x.G[state + (int64_t)row * s.dv + e] : 0.0f;
        });
    put_tile(w, [&](int j, int r, float value) { m->X[j][r] = value; });
    for (int r = id / 32; r < C; r += THREADS / 32) {
        const int row = first_channel + r;
        float sum = 0;
        for (int e = lane; row < s.dk && e < s.dv; e += 32)
            sum += pn_load(x.S + state + (int64_t)row * s.dv + e) * x.G[state + (int64_t)row * s.dv + e];
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
        if (lane == 0) m->carry[r] = row < s.dk ? x.through[block * s.dk + row] * sum : 0.0f;
    }
    __syncthreads();
    for (int i = id / C * 4; i < C; i += THREADS / C * 4) {
        float out[4];
        query_gradients(m, i, c, out);
        for (int r = 0; r < 4 && there && i + r < p.n; r++)
            x.part_q[((p.first + i + r) * s.heads + p.head) * s.dk + channel] = s.scale * out[r];
        key_gradients(m, i, c, out);
        for (int r = 0; r < 4 && there && i + r < p.n; r++)
            x.part_k[((p.first + i + r) * s.heads + p.head) * s.dk + channel] = out[r];
    }
    if (!x.part_g) return;
    __syncthreads();
    if (id < C) gate_gradients(m, c);
    __syncthreads();
    if (s.vector()) {
        for (int t = id / C; t < p.n; t += THREADS / C)
            if (there) x.part_g[((p.first + t) * s.heads + p.head) * s.dk + channel] = m->R[t][c];
        return;
    }
    for (int t = id / 32; t < p.n; t += THREADS / 32) {
        float sum = m->R[t][lane] + m->R[t][lane + 32]; /* zeros where there is no channel */
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
        if (lane == 0) x.part_g[((p.first + t) * s.heads + p.head) * tiles + tile] = sum;
    }
}

/* ---- the call ---- */

struct layout { /* floats of scratch */
    int64_t A, dA, Qin, Kout, through, G, part_q, part_k, part_v, part_g, end;
};
int tiles_of(int64_t width) {
    return (int)((width + C - 1) / C);
}
layout layout_of(const pn_op_call *c) {
    const pn_gated_linear_attr *a = (const pn_gated_linear_attr *)c->attr;
    int64_t tokens = c->in[0]->shape[0], chunks = pn_docs_chunks(&a->docs, a->docs.n) * a->heads,
            rows = tokens * a->heads;
    bool vector = c->in[3] && a->vector_gate;
    layout l = {};
    int64_t at = 0;
    auto take = [&](int64_t n) {
        int64_t here = at;
        at += (n + 3) / 4 * 4;
        return here;
    };
    l.A = take(chunks * TILE);
    l.dA = take(chunks * TILE);
    l.Qin = take(chunks * C * a->dk);
    l.Kout = take(chunks * C * a->dk);
    l.through = take(chunks * a->dk);
    l.G = take(chunks * a->dk * a->dv);
    l.part_q = take(rows * a->dk);
    l.part_k = take(rows * a->dk);
    l.part_v = take(rows * a->dv);
    l.part_g = take(rows * (vector ? a->dk : tiles_of(a->dk)));
    l.end = at;
    return l;
}

/* What heads give input i, of which `share` share each of its own. */
template <class Y>
pn_status add_shared(const pn_op_call *c, int i, const float *part, int64_t rows, int share, int width) {
    if (!c->din[i] || rows == 0) return PN_OK;
    pn_glin_add_shared<<<pn_map_grid(rows * width), 256, 0, pn_cuda_stream()>>>(
        part, rows, share, width, pn_op_adds(c, i), pn_values<Y>(c->din[i]));
    return pn_cuda_launched(name);
}

template <class T> pn_status backward(const pn_op_call *c) {
    pn_glin_sizes s;
    PN_TRY(pn_glin_sizes_of(c, &s));
    layout l = layout_of(c);
    float *f = (float *)c->scratch;
    operands<T> x = { pn_values<T>(c->in[0]),
                      pn_values<T>(c->in[1]),
                      pn_values<T>(c->in[2]),
                      pn_values_or_null<T>(c->dout[0]),
                      pn_values<T>(c->out[2]),
                      pn_f32_or_null(c->in[3]),
                      pn_f32_or_null(c->dout[1]),
                      f + l.A,
                      f + l.dA,
                      f + l.Qin,
                      f + l.Kout,
                      f + l.through,
                      f + l.G,
                      f + l.part_q,
                      f + l.part_k,
                      f + l.part_v,
                      c->din[3] ? f + l.part_g : nullptr,
                      pn_f32_or_null(c->din[4]),
                      pn_op_adds(c, 4) };
    int64_t blocks = s.docs.chunks * s.heads, down = tiles_of(s.dk), across = tiles_of(s.dv);
    cudaStream_t stream = pn_cuda_stream();
    if (blocks) {
        scores<<<(unsigned)blocks, THREADS, 0, stream>>>(s, x);
        PN_TRY(pn_cuda_launched(name));
    }
    if (s.docs.n) { /* an empty document too hands its gradient on */
        sweep<<<(unsigned)(s.docs.n * s.heads * down * across), THREADS, 0, stream>>>(s, x);
        PN_TRY(pn_cuda_launched(name));
    }
    if (blocks == 0) return PN_OK;
    if (c->din[2]) {
        values<<<(unsigned)(blocks * across), THREADS, 0, stream>>>(s, x);
        PN_TRY(pn_cuda_launched(name));
    }
    if (c->din[0] || c->din[1] || c->din[3]) {
        PN_TRY(pn_cuda_status(
            cudaFuncSetAttribute(keys<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(keys_memory)),
            name));
        keys<<<(unsigned)(blocks * down), THREADS, sizeof(keys_memory), stream>>>(s, x);
        PN_TRY(pn_cuda_launched(name));
    }
    int64_t tokens = s.docs.tokens;
    PN_TRY(add_shared<T>(c, 0, x.part_q, tokens * (s.heads / s.q_share), s.q_share, s.dk));
    PN_TRY(add_shared<T>(c, 1, x.part_k, tokens * (s.heads / s.k_share), s.k_share, s.dk));
    PN_TRY(add_shared<T>(c, 2, x.part_v, tokens * (s.heads / s.v_share), s.v_share, s.dv));
    const int parts = s.vector() ? s.g_share : s.g_share * (int)down, width = s.vector() ? s.dk : 1;
    return add_shared<float>(c, 3, x.part_g, tokens * (s.heads / s.g_share), parts, width);
}

} // namespace

size_t pn_glin_cuda_backward_scratch(const pn_op_call *c) {
    return sizeof(float) * (size_t)layout_of(c).end;
}

pn_status pn_glin_cuda_backward(const pn_op_call *c) {
    if (!pn_op_has_din(c)) return PN_OK;
    return c->dtype == PN_BF16 ? backward<pn_bf16>(c) : backward<float>(c);
}
