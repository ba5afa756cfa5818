/* Backward for every width and both types, in float (blocks.md 8.4). Simple before fast: five kernels over one product
 * of tiles. With A and P without beta, X = (I + A beta)^-1 and dR the gradient of R = V - e^L K S:
 *
 *     system, per chunk     A = (K K^T) E below the diagonal,  P = scale (Q K^T) E,  X
 *     sweep, in reverse     de = beta (e^{L_C - L} K G + P^T dO)    dR = X^T de = dV
 *                           G = e^{L_C} G + scale (e^L Q)^T dO - (e^L K)^T dR
 *     scores, per chunk     dP = scale beta_j E_ij <dO_i, e_j>    dA = -beta_j E_ij <dR_i, e_j> below the diagonal
 *     keys, per chunk       dQ = scale e^L dO S^T + dP K
 *                           dK = -e^L dR S^T + dA K + dA^T K + dP^T Q + beta e^{L_C - L} e G^T
 *     gates, per chunk      dbeta_j = the part of <k_j, dk_j> that beta_j multiplies, without it
 *
 * A token's log decay multiplies what passes it, from a token j before to a token m from it on: dg_i is the sum of
 * beta_j (P dP + A dA)_mj over m >= i > j, of what tokens from i on read of S, of what tokens before i write to G, and
 * of e^{L_C} <S, G>. The first is a sum of differences of row and column sums, kept in double. */
#include "gated_delta_cuda.h"

#include "cuda/element.cuh"
#include "cuda/reduce.cuh"

namespace {

enum { C = PN_CHUNK, THREADS = 256, COLUMNS = 32, DEPTH = 32, ROWS = C * COLUMNS / THREADS };

struct token_sums {
    double inside[C]; /* row sum - column sum */
    float beta[C];    /* column sum, for dbeta */
};
struct key_sums {              /* over 32 columns of keys */
    double state;              /* <S, G> */
    float reads[C], writes[C]; /* dL of reading S; of writing to G, without beta */
};

struct work {           /* z: chunk * v_heads + head */
    double *L;          /* [z][64] */
    token_sums *tokens; /* [z] */
    key_sums *keys;     /* [z][dk / 32] */
    float *X, *P, *A;   /* [z][64][64]; P and A become dP and dA */
    float *G;           /* [z][dk][dv] at the chunk's end */
    float *dR;          /* as v */
    size_t bytes;
};

int key_tiles(int dk) {
    return (dk + COLUMNS - 1) / COLUMNS;
}

work work_at(void *scratch, int64_t tokens, int64_t chunks, int v_heads, int dk, int dv) {
    const size_t z = (size_t)(chunks * v_heads), tile = C * C, size = (size_t)dk * (size_t)dv;
    work w = {};
    auto take = [&](auto *&p, size_t n) {
        p = (std::remove_reference_t<decltype(p)>)((char *)scratch + w.bytes);
        w.bytes += n * sizeof *p;
    };
    take(w.L, z * C);
    take(w.tokens, z);
    take(w.keys, z * (size_t)key_tiles(dk));
    take(w.X, z * tile);
    take(w.P, z * tile);
    take(w.A, z * tile);
    take(w.G, z * size);
    take(w.dR, (size_t)(tokens * v_heads) * (size_t)dv);
    return w;
}

struct call {
    pn_gated_delta_cuda c;
    pn_gated_delta_cuda_grads d;
    work w;
};

struct place {
    int64_t chunk, first; /* its first token */
    int n;                /* tokens; 0: there is no such chunk */
};
__device__ place find_chunk(const pn_gated_delta_cuda &c, int64_t chunk) {
    if (chunk >= c.chunk[c.docs]) return { chunk, 0, 0 };
    const int first = c.chunk_begin[chunk], left = c.offset[c.chunk_doc[chunk] + 1] - first;
    return { chunk, first, left < C ? left : (int)C };
}

/* ---- the product of tiles ---- */

struct slabs {
    alignas(16) float left[C][DEPTH + 4]; /* + 4: rows stay aligned, and spread over the banks */
    float right[DEPTH][COLUMNS + 1];
};

/* y += a [64, depth] b [depth, 32]: this thread's ROWS rows and column of it. a(row, k), b(k, column): elements, zero
 * outside. LEFT_TURNED, RIGHT_TURNED: neighbours in memory are neighbours in a row of a^T, of b^T. Every thread of the
 * block comes; what b and a read may be written again after it. */
template <bool LEFT_TURNED, bool RIGHT_TURNED, class LEFT, class RIGHT>
__device__ void add_product(float y[ROWS], int depth, slabs *m, LEFT a, RIGHT b) {
    const int id = (int)threadIdx.x, row = id / COLUMNS * ROWS, column = id % COLUMNS;
    for (int from = 0; from < depth; from += DEPTH) {
        __syncthreads();
        for (int i = id; i < C * DEPTH; i += THREADS) {
            int r = LEFT_TURNED ? i % C : i / DEPTH, k = LEFT_TURNED ? i / C : i % DEPTH;
            m->left[r][k] = from + k < depth ? a(r, from + k) : 0.0f;
        }
        for (int i = id; i < DEPTH * COLUMNS; i += THREADS) {
            int k = RIGHT_TURNED ? i % DEPTH : i / COLUMNS, x = RIGHT_TURNED ? i / DEPTH : i % COLUMNS;
            m->right[k][x] = from + k < depth ? b(from + k, x) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k += 4) {
            const float b0 = m->right[k][column], b1 = m->right[k + 1][column];
            const float b2 = m->right[k + 2][column], b3 = m->right[k + 3][column];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float4 l = *(const float4 *)&m->left[row + r][k];
                y[r] += l.x * b0 + l.y * b1 + l.z * b2 + l.w * b3;
            }
        }
    }
}

/* Rows of a chunk in a tensor [tokens, ld], from a head's first channel on. p NULL: zeros. */
template <class T> struct rows {
    const T *p;
    int64_t ld;
    int n, width;
    __device__ rows(const void *of, const place &at, int64_t row, int64_t channel, int columns)
        : p(of ? (const T *)of + at.first * row + channel : nullptr), ld(row), n(at.n), width(columns) {}
    __device__ float operator()(int i, int x) const { return p && i < n && x < width ? pn_load(p + i * ld + x) : 0.0f; }
};

/* e^{L_i - L_j}; j <= i. */
__device__ float decay(const double *L, int i, int j) {
    return expf((float)(L[i] - L[j]));
}

/* *to += x, or where it is fresh = x. */
template <class T> __device__ void add_to(T *to, bool fresh, float x) {
    pn_store(to, fresh ? x : pn_load(to) + x);
}

/* ---- the kernels ---- */

template <class T> __global__ void __launch_bounds__(THREADS) general_system(const call x) {
    __shared__ slabs m;
    __shared__ double L[C];
    __shared__ float A[C][C], X[C][C];
    const pn_gated_delta_cuda &c = x.c;
    const int head = (int)(blockIdx.x % c.v_heads), qk_head = head / (c.v_heads / c.heads), id = (int)threadIdx.x;
    const int64_t z = blockIdx.x;
    const place at = find_chunk(c, z / c.v_heads);
    if (at.n == 0) return;
    const int row = id / COLUMNS * ROWS, column = id % COLUMNS;
    const rows<T> Q(c.q, at, (int64_t)c.heads * c.dk, (int64_t)qk_head * c.dk, c.dk);
    const rows<T> K(c.k, at, (int64_t)c.heads * c.dk, (int64_t)qk_head * c.dk, c.dk);
    const rows<float> g(c.g, at, c.v_heads, head, 1), beta(c.beta, at, c.v_heads, head, 1);
    if (id < C) L[id] = g(id, 0);
    __syncthreads();
    if (id == 0)
        for (int i = 1; i < C; i++) L[i] += L[i - 1];
    __syncthreads();
    if (id < C) x.w.L[z * C + id] = L[id];

    for (int j0 = 0; j0 < C; j0 += COLUMNS) {
        float kk[ROWS] = {}, qk[ROWS] = {};
        auto right = [&](int k, int j) { return K(j0 + j, k); };
        add_product<false, true>(kk, c.dk, &m, K, right);
        add_product<false, true>(qk, c.dk, &m, Q, right);
        const int j = j0 + column;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int i = row + r;
            const float E = j <= i ? decay(L, i, j) : 0.0f, a = j < i ? E * kk[r] : 0.0f;
            A[i][j] = a * beta(j, 0);
            x.w.A[(z * C + i) * C + j] = a;
            x.w.P[(z * C + i) * C + j] = c.scale * E * qk[r];
        }
    }
    __syncthreads();
    if (id < C) /* column id of the inverse, by substitution */
        for (int i = 0; i < C; i++) {
            float sum = i == id ? 1.0f : 0.0f;
            for (int k = 0; k < i; k++) sum -= A[i][k] * X[k][id];
            X[i][id] = sum;
        }
    __syncthreads();
    for (int i = id; i < C * C; i += THREADS) x.w.X[z * C * C + i] = X[i / C][i % C];
}

/* Shared memory of the sweep, before G [dk][COLUMNS + 1]. */
struct sweep_shared {
    slabs m;
    float in[C], out[C], beta[C]; /* e^L, e^{L_C - L} */
    float dO[C][COLUMNS + 1], dR[C][COLUMNS + 1];
    float G[1][COLUMNS + 1];
};

template <class T> __global__ void __launch_bounds__(THREADS) general_sweep(const call x) {
    extern __shared__ __align__(16) unsigned char memory[];
    sweep_shared &s = *(sweep_shared *)memory;
    const pn_gated_delta_cuda &c = x.c;
    const int tiles = (c.dv + COLUMNS - 1) / COLUMNS, first_column = (int)(blockIdx.x % tiles) * COLUMNS;
    const int head = (int)(blockIdx.x / tiles % c.v_heads), qk_head = head / (c.v_heads / c.heads);
    const int64_t doc = blockIdx.x / tiles / c.v_heads, size = (int64_t)c.dk * c.dv;
    const int id = (int)threadIdx.x, row = id / COLUMNS * ROWS, lane = id % COLUMNS, column = first_column + lane;
    const int64_t state = (doc * c.v_heads + head) * size + column;

    /* f(row, the element of G that this thread alone writes), and where it is in a state */
    auto own = [&](auto f) {
        if (column < c.dv)
            for (int i0 = 0; i0 < c.dk; i0 += C)
                for (int i = i0 + row; i < i0 + row + ROWS && i < c.dk; i++) f(&s.G[i][lane], (int64_t)i * c.dv);
    };
    for (int i = id; i < c.dk * (COLUMNS + 1); i += THREADS) s.G[0][i] = 0;
    __syncthreads();
    if (x.d.dS_T) own([&](float *G, int64_t at) { *G = x.d.dS_T[state + at]; });

    for (int64_t chunk = c.chunk[doc + 1] - 1; chunk >= c.chunk[doc]; chunk--) {
        const place at = find_chunk(c, chunk);
        const int64_t z = chunk * c.v_heads + head;
        const rows<T> Q(c.q, at, (int64_t)c.heads * c.dk, (int64_t)qk_head * c.dk, c.dk);
        const rows<T> K(c.k, at, (int64_t)c.heads * c.dk, (int64_t)qk_head * c.dk, c.dk);
        const rows<T> dO(x.d.dO, at, (int64_t)c.v_heads * c.dv, (int64_t)head * c.dv + first_column,
                         c.dv - first_column);
        const rows<float> beta(c.beta, at, c.v_heads, head, 1);
        const float *X = x.w.X + z * C * C, *P = x.w.P + z * C * C;
        const double *L = x.w.L + z * C;
        own([&](const float *G, int64_t to) { x.w.G[z * size + column + to] = *G; });
        if (id < C) {
            s.in[id] = expf((float)L[id]);
            s.out[id] = expf((float)(L[C - 1] - L[id]));
            s.beta[id] = beta(id, 0);
        }
        for (int i = id; i < C * COLUMNS; i += THREADS) s.dO[i / COLUMNS][i % COLUMNS] = dO(i / COLUMNS, i % COLUMNS);

        float y[ROWS] = {};
        add_product<false, false>(y, c.dk, &s.m, K, [&](int k, int v) { return s.G[k][v]; });
#pragma unroll
        for (int r = 0; r < ROWS; r++) y[r] *= s.out[row + r];
        add_product<true, false>(
            y, C, &s.m, [&](int j, int i) { return P[i * C + j]; }, [&](int i, int v) { return s.dO[i][v]; });
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            s.dR[row + r][lane] = s.beta[row + r] * y[r];
            y[r] = 0;
        }
        add_product<true, false>(
            y, C, &s.m, [&](int j, int i) { return X[i * C + j]; }, [&](int i, int v) { return s.dR[i][v]; });
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            s.dR[row + r][lane] = y[r];
            if (row + r >= at.n || column >= c.dv) continue;
            const int64_t to = ((at.first + row + r) * c.v_heads + head) * c.dv + column;
            x.w.dR[to] = y[r];
            if (x.d.dv) add_to((T *)x.d.dv + to, x.d.fresh & PN_FRESH_DV, y[r]);
        }
        for (int i0 = 0; i0 < c.dk; i0 += C) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) y[r] = i0 + row + r < c.dk ? s.in[C - 1] * s.G[i0 + row + r][lane] : 0.0f;
            add_product<true, false>(
                y, C, &s.m, [&](int i, int j) { return c.scale * s.in[j] * Q(j, i0 + i); },
                [&](int j, int v) { return s.dO[j][v]; });
            add_product<true, false>(
                y, C, &s.m, [&](int i, int j) { return -s.in[j] * K(j, i0 + i); },
                [&](int j, int v) { return s.dR[j][v]; });
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (i0 + row + r < c.dk) s.G[i0 + row + r][lane] = y[r];
        }
    }
    if (x.d.dS0) own([&](const float *G, int64_t to) { add_to(x.d.dS0 + state + to, x.d.fresh & PN_FRESH_DS0, *G); });
}

template <class T> __global__ void __launch_bounds__(THREADS) general_scores(const call x) {
    __shared__ slabs m;
    __shared__ double L[C];
    __shared__ float Y[C][C + 1], beta[C];
    const pn_gated_delta_cuda &c = x.c;
    const int head = (int)(blockIdx.x % c.v_heads), id = (int)threadIdx.x;
    const int64_t z = blockIdx.x, ldv = (int64_t)c.v_heads * c.dv, channel = (int64_t)head * c.dv;
    const place at = find_chunk(c, z / c.v_heads);
    if (at.n == 0) return;
    const int row = id / COLUMNS * ROWS, column = id % COLUMNS;
    const rows<T> dO(x.d.dO, at, ldv, channel, c.dv), e(c.e, at, ldv, channel, c.dv);
    const rows<float> dR(x.w.dR, at, ldv, channel, c.dv), steps(c.beta, at, c.v_heads, head, 1);
    if (id < C) {
        L[id] = x.w.L[z * C + id];
        beta[id] = steps(id, 0);
    }
    for (int j0 = 0; j0 < C; j0 += COLUMNS) {
        float p[ROWS] = {}, a[ROWS] = {};
        auto right = [&](int k, int j) { return e(j0 + j, k); };
        add_product<false, true>(p, c.dv, &m, dO, right);
        add_product<false, true>(a, c.dv, &m, dR, right);
        const int j = j0 + column;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int i = row + r;
            const float E = j <= i ? decay(L, i, j) : 0.0f, factor = beta[j] * E;
            float *P = x.w.P + (z * C + i) * C + j, *A = x.w.A + (z * C + i) * C + j;
            Y[i][j] = *P * p[r] - *A * a[r];
            *P = c.scale * factor * p[r];
            *A = j < i ? -factor * a[r] : 0.0f;
        }
    }
    __syncthreads();
    if (id >= C) return;
    double to_row = 0, to_column = 0;
    for (int j = 0; j < id; j++) to_row += (double)(beta[j] * Y[id][j]);
    for (int i = id + 1; i < C; i++) to_column += (double)Y[i][id];
    x.w.tokens[z].inside[id] = to_row - (double)beta[id] * to_column;
    x.w.tokens[z].beta[id] = (float)(to_column + (double)Y[id][id]);
}

/* Of 32 columns of a query/key head, and all its value heads. */
template <class T> __global__ void __launch_bounds__(THREADS) general_keys(const call x, int tiles) {
    __shared__ slabs m;
    __shared__ double L[C];
    const pn_gated_delta_cuda &c = x.c;
    const int tile = (int)(blockIdx.x % tiles), first_column = tile * COLUMNS, group = c.v_heads / c.heads;
    const int qk_head = (int)(blockIdx.x / tiles % c.heads), id = (int)threadIdx.x;
    const place at = find_chunk(c, blockIdx.x / tiles / c.heads);
    if (at.n == 0) return;
    const int row = id / COLUMNS * ROWS, lane = id % COLUMNS, columns = c.dk - first_column;
    const int64_t ldk = (int64_t)c.heads * c.dk, ldv = (int64_t)c.v_heads * c.dv, size = (int64_t)c.dk * c.dv;
    const int64_t key = (int64_t)qk_head * c.dk + first_column;
    const rows<T> Q(c.q, at, ldk, key, columns), K(c.k, at, ldk, key, columns);

    float dq[ROWS] = {}, dk[ROWS] = {};
    for (int head = qk_head * group; head < (qk_head + 1) * group; head++) {
        const int64_t z = at.chunk * c.v_heads + head, channel = (int64_t)head * c.dv;
        const int64_t state = z * size + (int64_t)first_column * c.dv;
        const rows<T> dO(x.d.dO, at, ldv, channel, c.dv), e(c.e, at, ldv, channel, c.dv);
        const rows<float> dR(x.w.dR, at, ldv, channel, c.dv), beta(c.beta, at, c.v_heads, head, 1);
        const float *dP = x.w.P + z * C * C, *dA = x.w.A + z * C * C;
        auto S = [&](int v, int i) { return i < columns ? pn_load((const T *)c.states + state + i * c.dv + v) : 0.0f; };
        auto G = [&](int v, int i) { return i < columns ? x.w.G[state + i * c.dv + v] : 0.0f; };
        double state_sum = 0;
        for (int64_t i = id; i < (int64_t)COLUMNS * c.dv; i += THREADS)
            state_sum += (double)(S((int)(i % c.dv), (int)(i / c.dv)) * G((int)(i % c.dv), (int)(i / c.dv)));
        state_sum = pn_block_sum<THREADS>(state_sum);
        if (id < C) L[id] = x.w.L[z * C + id];

        float from_q[ROWS] = {}, from_k[ROWS] = {}, to_end[ROWS] = {};
        add_product<false, true>(from_q, c.dv, &m, dO, S);
        add_product<false, true>(from_k, c.dv, &m, dR, S);
        add_product<false, true>(to_end, c.dv, &m, e, G);
        key_sums *sums = x.w.keys + z * tiles + tile;
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int i = row + r;
            const float in = expf((float)L[i]), k = K(i, lane);
            from_q[r] *= c.scale * in;
            from_k[r] *= -in;
            to_end[r] *= expf((float)(L[C - 1] - L[i]));
            float reads = from_q[r] * Q(i, lane) + from_k[r] * k, writes = to_end[r] * k;
#pragma unroll
            for (int step = 16; step > 0; step /= 2) {
                reads += __shfl_xor_sync(~0u, reads, step);
                writes += __shfl_xor_sync(~0u, writes, step);
            }
            if (lane == 0) sums->reads[i] = reads, sums->writes[i] = writes;
            dq[r] += from_q[r];
            dk[r] += from_k[r] + beta(i, 0) * to_end[r];
        }
        if (id == 0) sums->state = state_sum;
        auto right_q = [&](int i, int v) { return Q(i, v); };
        auto right_k = [&](int i, int v) { return K(i, v); };
        add_product<false, false>(
            dq, C, &m, [&](int i, int j) { return dP[i * C + j]; }, right_k);
        add_product<false, false>(
            dk, C, &m, [&](int i, int j) { return dA[i * C + j]; }, right_k);
        add_product<true, false>(
            dk, C, &m, [&](int j, int i) { return dA[i * C + j]; }, right_k);
        add_product<true, false>(
            dk, C, &m, [&](int j, int i) { return dP[i * C + j]; }, right_q);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (row + r >= at.n || lane >= columns) continue;
        const int64_t to = (at.first + row + r) * ldk + key + lane;
        if (x.d.dq) add_to((T *)x.d.dq + to, x.d.fresh & PN_FRESH_DQ, dq[r]);
        if (x.d.dk) add_to((T *)x.d.dk + to, x.d.fresh & PN_FRESH_DK, dk[r]);
    }
}

__global__ void __launch_bounds__(C) general_gates(const call x, int tiles) {
    __shared__ double from[C], before[C]; /* dL of what token i reads or takes part in; of what it writes to G */
    const pn_gated_delta_cuda &c = x.c;
    const int64_t z = blockIdx.x;
    const int head = (int)(z % c.v_heads), i = (int)threadIdx.x;
    const place at = find_chunk(c, z / c.v_heads);
    if (at.n == 0) return;
    const int64_t gate = (at.first + i) * c.v_heads + head;
    double reads = x.w.tokens[z].inside[i], writes = 0, state = 0;
    for (int tile = 0; tile < tiles; tile++) {
        const key_sums &s = x.w.keys[z * tiles + tile];
        reads += (double)s.reads[i];
        writes += (double)s.writes[i];
        state += s.state;
    }
    from[i] = reads;
    before[i] = i < at.n ? (double)c.beta[gate] * writes : 0;
    __syncthreads();
    if (i >= at.n) return;
    if (x.d.dbeta)
        add_to(x.d.dbeta + gate, x.d.fresh & PN_FRESH_DBETA, (float)((double)x.w.tokens[z].beta[i] + writes));
    if (!x.d.dg) return;
    double sum = exp(x.w.L[z * C + C - 1]) * state;
    for (int j = 0; j < i; j++) sum += before[j];
    for (int m = i; m < at.n; m++) sum += from[m];
    add_to(x.d.dg + gate, x.d.fresh & PN_FRESH_DG, (float)sum);
}

template <class T> cudaError_t backward(const call *x, cudaStream_t stream) {
    const pn_gated_delta_cuda &c = x->c;
    const int64_t z = c.chunks * c.v_heads, columns = (c.dv + COLUMNS - 1) / COLUMNS;
    const int tiles = key_tiles(c.dk);
    const int bytes = (int)(offsetof(sweep_shared, G) + sizeof(float) * (COLUMNS + 1) * (size_t)c.dk);
    cudaError_t status = cudaFuncSetAttribute(general_sweep<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (status != cudaSuccess) return status;
    if (z > 0) general_system<T><<<(unsigned)z, THREADS, 0, stream>>>(*x);
    if (c.docs > 0) general_sweep<T><<<(unsigned)(c.docs * c.v_heads * columns), THREADS, (size_t)bytes, stream>>>(*x);
    if (z > 0) {
        general_scores<T><<<(unsigned)z, THREADS, 0, stream>>>(*x);
        general_keys<T><<<(unsigned)(c.chunks * c.heads * tiles), THREADS, 0, stream>>>(*x, tiles);
        general_gates<<<(unsigned)z, C, 0, stream>>>(*x, tiles);
    }
    return cudaGetLastError();
}

} // namespace

size_t pn_gated_delta_cuda_general_scratch(int64_t tokens, int64_t chunks, int v_heads, int dk, int dv) {
    return work_at(NULL, tokens, chunks, v_heads, dk, dv).bytes;
}

cudaError_t pn_gated_delta_cuda_general_backward(const pn_gated_delta_cuda *c, const pn_gated_delta_cuda_grads *d,
                                                 cudaStream_t stream) {
    call x = { *c, *d, work_at(c->scratch, c->tokens, c->chunks, c->v_heads, c->dk, c->dv) };
    return c->f32 ? backward<float>(&x, stream) : backward<pn_bf16>(&x, stream);
}
