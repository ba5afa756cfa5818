/* The recurrence token by token, forward and in reverse, at the speed of its arithmetic; decoding, at that of memory.
 *
 * A block takes 64 columns of one head's state: four warps compute, 16 columns each and all rows in registers, and four
 * copy what the next few tokens bring into shared memory, as floats and with the decays made. A warp's lane has 4
 * columns and every eighth group of 4 rows, so a sum over rows is one inside the lane and three shuffles. */
#include "dplr_cuda.cuh"

namespace {

const char name[] = "dplr/cuda";

enum { COLUMNS = 64, WARPS = 4, THREADS = 2 * 32 * WARPS, COPIERS = 32 * WARPS, ROW_LANES = 8 };

/* FORWARD and REVERSE go through documents; ANSWERS goes through chunks, each from its saved state. */
enum walk { FORWARD, ANSWERS, REVERSE };

/* What one token brings to a block; Rows: of a lane. Forward, a is that of the next token: what the state answers to it
 * is summed while the state is made. */
template <int Rows> struct brought {
    float q[ROW_LANES * Rows], k[ROW_LANES * Rows], a[ROW_LANES * Rows], b[ROW_LANES * Rows];
    float decay[ROW_LANES * Rows];
    float v[COLUMNS];  /* in reverse: do */
    float dv[COLUMNS]; /* in reverse: what is there already */
};

struct place { /* of a block: its tokens, head and columns */
    int unit, head, column, begin, end;
};

template <class T, walk Walk> __device__ place place_of(const pn_dplr_cuda<T> &c) {
    const int tiles = (c.dv + COLUMNS - 1) / COLUMNS;
    place p;
    p.unit = (int)(blockIdx.x / tiles / c.heads);
    p.head = (int)(blockIdx.x / tiles % c.heads);
    p.column = (int)(blockIdx.x % tiles) * COLUMNS;
    if (Walk == ANSWERS) {
        int last = c.docs.offset[c.docs.chunk_doc[p.unit] + 1];
        p.begin = c.docs.chunk_begin[p.unit];
        p.end = last - p.begin < PN_CHUNK ? last : p.begin + PN_CHUNK;
    } else {
        p.begin = c.docs.offset[p.unit];
        p.end = c.docs.offset[p.unit + 1];
    }
    return p;
}

template <walk Walk, bool Whole, class T, int Rows>
__device__ void bring(const pn_dplr_cuda<T> &c, const place &p, int first, int n, brought<Rows> *to, int id) {
    constexpr int step = Whole ? 4 : 1, pieces = ROW_LANES * Rows / step, column_pieces = COLUMNS / step;
    auto put = [](float *x, float4 y) {
        if (Whole)
            *(float4 *)x = y;
        else
            *x = y.x;
    };
#pragma unroll 2
    for (int i = id; i < n * pieces; i += COPIERS) {
        const int t = i / pieces, row = i % pieces * step, there = row < c.dk ? step : 0;
        const int64_t token = Walk == REVERSE ? first - t : first + t, at = (token * c.heads + p.head) * c.dk + row;
        const float4 g = pn_get4<Whole>(c.g + at, there);
        put(to[t].k + row, pn_get4<Whole>(c.k + at, there));
        const bool here = Walk == REVERSE, next = token + 1 < p.end;
        put(to[t].a + row, pn_get4<Whole>(c.a + at + (here ? 0 : c.heads * c.dk), here || next ? there : 0));
        put(to[t].b + row, pn_get4<Whole>(c.b + at, there));
        if (Walk != ANSWERS) {
            float4 q = pn_get4<Whole>(c.q + at, there);
            put(to[t].q + row, make_float4(c.scale * q.x, c.scale * q.y, c.scale * q.z, c.scale * q.w));
        }
        if (Whole)
            put(to[t].decay + row, make_float4(expf(g.x), expf(g.y), expf(g.z), expf(g.w)));
        else
            to[t].decay[row] = expf(g.x);
    }
    for (int i = id; i < n * column_pieces; i += COPIERS) {
        const int t = i / column_pieces, x = i % column_pieces * step, there = p.column + x < c.dv ? step : 0;
        const int64_t token = Walk == REVERSE ? first - t : first + t;
        const int64_t at = (token * c.heads + p.head) * c.dv + p.column + x;
        if (Walk != REVERSE) {
            put(to[t].v + x, pn_get4<Whole>(c.v + at, there));
        } else {
            put(to[t].v + x, pn_get4<Whole>(c.dout + at, c.dout ? there : 0));
            put(to[t].dv + x, pn_get4<Whole>(c.d_v + at, c.d_v ? there : 0));
        }
    }
}

/* Sums over the eight lanes that share columns; every lane gets all four. */
__device__ __forceinline__ void sum_rows(float x[4]) {
#pragma unroll
    for (int d = 1; d < ROW_LANES; d *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] += __shfl_xor_sync(~0u, x[i], d);
}
/* The same, but a pair of lanes gets one of them: number (lane & 7) / 2. */
__device__ __forceinline__ float sum_rows_one(const float x[4], int lane) {
    const bool upper = lane & 4, odd = lane & 2;
    float a = upper ? x[2] : x[0], b = upper ? x[3] : x[1];
    a += __shfl_xor_sync(~0u, upper ? x[0] : x[2], 4);
    b += __shfl_xor_sync(~0u, upper ? x[1] : x[3], 4);
    float y = odd ? b : a;
    y += __shfl_xor_sync(~0u, odd ? a : b, 2);
    return y + __shfl_xor_sync(~0u, y, 1);
}

__device__ __forceinline__ void take4(float x[4], const float *from) {
    const float4 y = *(const float4 *)from;
    x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
}
__device__ __forceinline__ float4 four(const float x[4]) {
    return make_float4(x[0], x[1], x[2], x[3]);
}

/* The answers of S to a, for all lanes; a: this lane's first row of it. */
template <bool Whole, class T, int Rows>
__device__ __forceinline__ void first_answers(const T *a, int rows, const float S[Rows][4], float p[4]) {
#pragma unroll
    for (int x = 0; x < 4; x++) p[x] = 0;
#pragma unroll
    for (int i = 0; i < Rows; i += 4) {
        const int left = rows - ROW_LANES * i;
        const float4 y = pn_get4<Whole>(a + ROW_LANES * i, left);
        const float from[4] = { y.x, y.y, y.z, y.w };
#pragma unroll
        for (int y = 0; y < 4; y++)
#pragma unroll
            for (int x = 0; x < 4; x++) p[x] += from[y] * S[i + y][x];
    }
    sum_rows(p);
}

/* One token of a forward walk, from its answers p: S becomes the state after it; this lane's part of o, and of the
 * answers to the next token. */
template <bool Output, int Rows>
__device__ __forceinline__ void forward_token(const brought<Rows> &t, int row, const float v[4], const float p[4],
                                              float S[Rows][4], float next[4], float o[4]) {
#pragma unroll
    for (int x = 0; x < 4; x++) next[x] = o[x] = 0;
#pragma unroll
    for (int i = 0; i < Rows; i += 4) {
        float b[4], k[4], e[4], a[4], q[4];
        take4(b, t.b + row + ROW_LANES * i);
        take4(k, t.k + row + ROW_LANES * i);
        take4(e, t.decay + row + ROW_LANES * i);
        take4(a, t.a + row + ROW_LANES * i);
        if (Output) take4(q, t.q + row + ROW_LANES * i);
#pragma unroll
        for (int y = 0; y < 4; y++)
#pragma unroll
            for (int x = 0; x < 4; x++) {
                S[i + y][x] = e[y] * S[i + y][x] + (b[y] * p[x] + k[y] * v[x]);
                next[x] += a[y] * S[i + y][x];
                if (Output) o[x] += q[y] * S[i + y][x];
            }
    }
}

/* One token in reverse: G, the gradient of the state after it, becomes that of the state before; sum: of dv. */
template <int Rows>
__device__ __forceinline__ void reverse_token(const brought<Rows> &t, int row, const float dout[4], float G[Rows][4],
                                              float dp[4], float sum[4]) {
#pragma unroll
    for (int x = 0; x < 4; x++) dp[x] = sum[x] = 0;
#pragma unroll
    for (int i = 0; i < Rows; i += 4) {
        float q[4], b[4], k[4];
        take4(q, t.q + row + ROW_LANES * i);
        take4(b, t.b + row + ROW_LANES * i);
        take4(k, t.k + row + ROW_LANES * i);
#pragma unroll
        for (int y = 0; y < 4; y++)
#pragma unroll
            for (int x = 0; x < 4; x++) {
                G[i + y][x] += q[y] * dout[x];
                dp[x] += b[y] * G[i + y][x];
                sum[x] += k[y] * G[i + y][x];
            }
    }
    sum_rows(dp);
#pragma unroll
    for (int i = 0; i < Rows; i += 4) {
        float a[4], e[4];
        take4(a, t.a + row + ROW_LANES * i);
        take4(e, t.decay + row + ROW_LANES * i);
#pragma unroll
        for (int y = 0; y < 4; y++)
#pragma unroll
            for (int x = 0; x < 4; x++) G[i + y][x] = e[y] * G[i + y][x] + a[y] * dp[x];
    }
}

template <walk Walk, bool Whole, int Rows, class T>
__global__ void __launch_bounds__(THREADS, Rows <= 8    ? 3
                                           : Rows <= 16 ? 2
                                                        : 1) walk_registers(const pn_dplr_cuda<T> c) {
    constexpr int group = 96 / Rows; /* tokens brought at once */
    __shared__ brought<Rows> buffer[2][group];
    const int id = (int)threadIdx.x, warp = __shfl_sync(~0u, id / 32, 0), lane = id % 32;
    const place p = place_of<T, Walk>(c);
    if (Walk == ANSWERS && p.begin == p.end) return;
    const int n = p.end - p.begin, first = Walk == REVERSE ? p.end - 1 : p.begin;
    const bool copies = warp >= WARPS;
    auto size_of = [&](int done) { return n - done < group ? n - done : group; };

    const int row = 4 * (lane % ROW_LANES), mine = 16 * warp + lane / ROW_LANES * 4, column = p.column + mine;
    const int there = c.dv - column; /* columns that exist from this lane's on */
    const int64_t size = (int64_t)c.dk * c.dv, state = ((int64_t)p.unit * c.heads + p.head) * size;
    auto row_at = [&](int i) { return ROW_LANES * (i & ~3) + row + (i & 3); };
    float S[Rows][4];
#pragma unroll
    for (int i = 0; i < Rows; i++) {
        const int64_t at = state + (int64_t)row_at(i) * c.dv + column;
        const int in = !copies && row_at(i) < c.dk ? there : 0;
        float4 x;
        if (Walk == ANSWERS)
            x = pn_get4<Whole>(c.states + at, in);
        else if (Walk == FORWARD)
            x = pn_get4<Whole>(c.S0 + at, c.S0 ? in : 0);
        else
            x = pn_get4<Whole>(c.dS_T + at, c.dS_T ? in : 0);
        S[i][0] = x.x, S[i][1] = x.y, S[i][2] = x.z, S[i][3] = x.w;
    }
    auto keep = [&](T *to, int chunk) {
        to += (((int64_t)chunk * c.heads + p.head) * c.dk + row) * c.dv + column;
#pragma unroll
        for (int i = 0; i < Rows; i++) { /* one address that moves on: all of them would fill registers in between */
            pn_put4<Whole>(to, four(S[i]), row_at(i) < c.dk ? there : 0);
            to += i % 4 == 3 ? (4 * ROW_LANES - 3) * c.dv : c.dv;
        }
    };
    const int first_chunk = Walk == ANSWERS ? 0 : c.docs.first_chunk[p.unit];
    const int one = lane % ROW_LANES / 2; /* the column whose sum this lane gets, of its four */
    const bool writes_one = lane % 2 == 0 && one < there, writes_four = lane % ROW_LANES == 0;

    float answer[4];
    if (Walk != REVERSE && n > 0 && !copies) {
        const T *a = c.a + ((int64_t)p.begin * c.heads + p.head) * c.dk + row;
        first_answers<Whole, T, Rows>(a, c.dk - row, S, answer);
    }
    /* Those that copy are a group ahead of those that compute; all meet at the one barrier. */
    for (int done = -group, fill = 0;; done += group, fill ^= 1) {
        const int next = done + group;
        if (copies) {
            if (next < n)
                bring<Walk, Whole>(c, p, Walk == REVERSE ? first - next : first + next, size_of(next), buffer[fill],
                                   id - COPIERS);
        } else if (done >= 0) {
            for (int i = 0, some = size_of(done); i < some; i++) {
                const brought<Rows> &t = buffer[!fill][i];
                const int at = Walk == REVERSE ? n - 1 - (done + i) : done + i; /* among the walk's tokens */
                const int64_t value = ((int64_t)(p.begin + at) * c.heads + p.head) * c.dv + column;
                float v[4], sum[4];
                take4(v, t.v + mine);
                if constexpr (Walk == REVERSE) {
                    if (at == n - 1 || at % PN_CHUNK == PN_CHUNK - 1) keep(c.G, first_chunk + at / PN_CHUNK);
                    reverse_token<Rows>(t, row, v, S, answer, sum);
                    if (writes_four) pn_put4<Whole>(c.dp + value, four(answer), there);
                    if (c.d_v) {
                        const float d = sum_rows_one(sum, lane);
                        if (writes_one) pn_store(c.d_v + value + one, __fadd_rn(t.dv[mine + one], d));
                    }
                } else {
                    if (Walk == FORWARD && c.states && at % PN_CHUNK == 0) keep(c.states, first_chunk + at / PN_CHUNK);
                    if (Walk == ANSWERS && writes_four) pn_put4<Whole>(c.p + value, four(answer), there);
                    float next[4];
                    forward_token<Walk == FORWARD, Rows>(t, row, v, answer, S, next, sum);
                    sum_rows(next);
#pragma unroll
                    for (int x = 0; x < 4; x++) answer[x] = next[x];
                    if (Walk == FORWARD) {
                        const float o = sum_rows_one(sum, lane);
                        if (writes_one) pn_store(c.o + value + one, o);
                    }
                }
            }
        }
        if (next >= n) break;
        __syncthreads();
    }
    if (copies) return;
    float *to = Walk == FORWARD ? c.S_T : Walk == REVERSE ? c.dS0 : nullptr;
    if (!to) return;
#pragma unroll
    for (int i = 0; i < Rows; i++) {
        const int64_t at = state + (int64_t)row_at(i) * c.dv + column;
        const int in = row_at(i) < c.dk ? there : 0;
        float4 x = four(S[i]);
        if (Walk == REVERSE) {
            const float4 y = pn_get4<Whole>(to + at, in);
            x = make_float4(__fadd_rn(y.x, x.x), __fadd_rn(y.y, x.y), __fadd_rn(y.z, x.z), __fadd_rn(y.w, x.w));
        }
        pn_put4<Whole>(to + at, x, in);
    }
}

/* Heads with more rows than registers: a column per thread, its state in memory. */
template <walk Walk, class T> __global__ void __launch_bounds__(COLUMNS) walk_memory(const pn_dplr_cuda<T> c) {
    const place p = place_of<T, Walk>(c);
    if (Walk == ANSWERS && p.begin == p.end) return;
    const int x = p.column + (int)threadIdx.x, dv = c.dv, dk = c.dk;
    if (x >= dv) return;
    const int64_t size = (int64_t)dk * dv, state = ((int64_t)p.unit * c.heads + p.head) * size + x;
    float *S = (Walk == FORWARD ? c.S_T : c.memory) + state;
    for (int i = 0; i < dk; i++) {
        const int64_t at = state + (int64_t)i * dv;
        S[(int64_t)i * dv] = Walk == ANSWERS   ? pn_load(c.states + at)
                             : Walk == FORWARD ? (c.S0 ? c.S0[at] : 0.0f)
                                               : (c.dS_T ? c.dS_T[at] : 0.0f);
    }
    const int n = p.end - p.begin, first_chunk = Walk == ANSWERS ? 0 : c.docs.first_chunk[p.unit];
    auto keep = [&](T *to, int chunk) {
        to += ((int64_t)chunk * c.heads + p.head) * size + x;
        for (int i = 0; i < dk; i++) pn_store(to + (int64_t)i * dv, S[(int64_t)i * dv]);
    };
    for (int done = 0; done < n; done++) {
        const int at = Walk == REVERSE ? n - 1 - done : done;
        const int64_t token = (int64_t)(p.begin + at) * c.heads + p.head, value = token * dv + x;
        const T *q = c.q + token * dk, *k = c.k + token * dk, *a = c.a + token * dk, *b = c.b + token * dk;
        const float *g = c.g + token * dk;
        float answer = 0, sum = 0;
        if (Walk == REVERSE) {
            const float dout = c.dout ? c.scale * pn_load(c.dout + value) : 0.0f;
            if (at == n - 1 || at % PN_CHUNK == PN_CHUNK - 1) keep(c.G, first_chunk + at / PN_CHUNK);
            for (int i = 0; i < dk; i++) {
                const float G = S[(int64_t)i * dv] += pn_load(q + i) * dout;
                answer += pn_load(b + i) * G;
                sum += pn_load(k + i) * G;
            }
            for (int i = 0; i < dk; i++) S[(int64_t)i * dv] = expf(g[i]) * S[(int64_t)i * dv] + pn_load(a + i) * answer;
            pn_store(c.dp + value, answer);
            if (c.d_v) pn_store(c.d_v + value, __fadd_rn(pn_load(c.d_v + value), sum));
        } else {
            const float v = pn_load(c.v + value);
            if (Walk == FORWARD && c.states && at % PN_CHUNK == 0) keep(c.states, first_chunk + at / PN_CHUNK);
            for (int i = 0; i < dk; i++) answer += pn_load(a + i) * S[(int64_t)i * dv];
            for (int i = 0; i < dk; i++) {
                const float y = expf(g[i]) * S[(int64_t)i * dv] + (pn_load(b + i) * answer + pn_load(k + i) * v);
                S[(int64_t)i * dv] = y;
                if (Walk == FORWARD) sum += pn_load(q + i) * y;
            }
            if (Walk == FORWARD)
                pn_store(c.o + value, c.scale * sum);
            else
                pn_store(c.p + value, answer);
        }
    }
    if (Walk == REVERSE && c.dS0)
        for (int i = 0; i < dk; i++)
            c.dS0[state + (int64_t)i * dv] = __fadd_rn(c.dS0[state + (int64_t)i * dv], S[(int64_t)i * dv]);
}

template <walk Walk, int Rows, class T> void start(const pn_dplr_cuda<T> &c, unsigned blocks) {
    if (c.dk % 4 == 0 && c.dv % 4 == 0)
        walk_registers<Walk, true, Rows><<<blocks, THREADS, 0, pn_cuda_stream()>>>(c);
    else
        walk_registers<Walk, false, Rows><<<blocks, THREADS, 0, pn_cuda_stream()>>>(c);
}
template <walk Walk, class T> pn_status run(const pn_dplr_cuda<T> *c) {
    const int64_t units = Walk == ANSWERS ? c->docs.chunks : c->docs.n;
    const int64_t blocks = units * c->heads * ((c->dv + COLUMNS - 1) / COLUMNS);
    if (blocks == 0) return PN_OK;
    PN_CHECK(blocks <= INT32_MAX, PN_UNSUPPORTED, "%s: %lld heads in one pass; use fewer documents per step", name,
             (long long)blocks);
    if (c->dk <= 8 * ROW_LANES)
        start<Walk, 8>(*c, (unsigned)blocks);
    else if (c->dk <= 16 * ROW_LANES)
        start<Walk, 16>(*c, (unsigned)blocks);
    else if (c->dk <= PN_DPLR_CUDA_ROWS)
        start<Walk, PN_DPLR_CUDA_ROWS / (int)ROW_LANES>(*c, (unsigned)blocks);
    else
        walk_memory<Walk><<<(unsigned)blocks, COLUMNS, 0, pn_cuda_stream()>>>(*c);
    return pn_cuda_launched(name);
}

} // namespace

template <class T> pn_status pn_dplr_cuda_forward(const pn_dplr_cuda<T> *c) {
    return run<FORWARD>(c);
}
template <class T> pn_status pn_dplr_cuda_answers(const pn_dplr_cuda<T> *c) {
    return run<ANSWERS>(c);
}
template <class T> pn_status pn_dplr_cuda_reverse(const pn_dplr_cuda<T> *c) {
    return run<REVERSE>(c);
}
template pn_status pn_dplr_cuda_forward(const pn_dplr_cuda<float> *c);
template pn_status pn_dplr_cuda_forward(const pn_dplr_cuda<pn_bf16> *c);
template pn_status pn_dplr_cuda_answers(const pn_dplr_cuda<float> *c);
template pn_status pn_dplr_cuda_answers(const pn_dplr_cuda<pn_bf16> *c);
template pn_status pn_dplr_cuda_reverse(const pn_dplr_cuda<float> *c);
template pn_status pn_dplr_cuda_reverse(const pn_dplr_cuda<pn_bf16> *c);
