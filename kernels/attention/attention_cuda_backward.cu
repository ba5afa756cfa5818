/* Gradients from the saved lse: p = exp(scale q k - lse) again, tile by tile, with delta = <do, o>
 *
 *     ds = p (<do, v> - delta)     dq += scale ds k     dk += scale ds^T q     dv += p^T do
 *
 * in two kernels, each of which owns the rows it adds to: dq has queries and passes over keys, dk and dv have keys and
 * pass over the queries, of all heads of the group and of every document, that see them. */
#include "attention_cuda_tile.cuh"

namespace {

const char name[] = "attention/cuda-tiles";

template <class T> struct operands {
    const T *q, *k, *v, *d_o;
    const float *lse;
    float *delta;
    bool whole;
    bool adds[3]; /* to dq, dk, dv; else they are written */
};

/* Of a block, in elements: two tiles that stay, and in each of STAGES two that pass by. */
template <class T, int D> struct memory_of {
    typedef pn_attention_sizes<T, D> sizes;
    static constexpr int STREAM = sizes::STREAM;
    static constexpr int OWN = pn_attention_tile<T, sizes::ROWS, D>::size;
    static constexpr int PASSING = pn_attention_tile<T, STREAM, D>::size;
    static constexpr int STAGES = sizeof(T) == 2 && D > 128 ? 1 : 2;
    static constexpr size_t bytes =
        sizeof(T) * (size_t)(2 * OWN + 2 * STAGES * PASSING) +
        sizeof(float) * (size_t)(pn_attention_strips<T>(sizes::WARPS, STREAM) + 3 * STAGES * STREAM);
};

template <class T, int D>
__global__ void __launch_bounds__(pn_attention_sizes<T, D>::THREADS)
    add_dq(pn_attention_call c, operands<T> x, int tiles, T *dq) {
    typedef pn_attention_sizes<T, D> sizes;
    typedef pn_attention_products<T, sizes::WARPS> products;
    typedef memory_of<T, D> in;
    constexpr int ROWS = sizes::ROWS, THREADS = sizes::THREADS, STREAM = sizes::STREAM, COLUMNS = sizes::COLUMNS;
    constexpr int STAGES = in::STAGES;
    extern __shared__ __align__(PN_ATTENTION_ALIGNMENT) unsigned char memory[];
    T *queries = (T *)memory, *grads = queries + in::OWN, *keys = grads + in::OWN;
    T *values = keys + STAGES * in::PASSING;
    float *strips = (float *)(values + STAGES * in::PASSING);

    /* As in the forward pass. */
    int chunk = c.chunks - 1 - (int)blockIdx.x / tiles, row0 = (int)blockIdx.x % tiles * ROWS;
    int kv = (int)blockIdx.y / sizes::PARTS, column0 = (int)blockIdx.y % sizes::PARTS * COLUMNS;
    pn_attention_part part = pn_attention_part_at(c, c.chunk_doc[chunk]);
    int64_t token0 = c.chunk_begin[chunk];
    int begin = (int)(token0 - part.query0), rows = min(PN_CHUNK, part.queries - begin) * c.group;
    if (row0 >= rows) return;
    int position0 = part.keys - part.queries + begin;
    int lowest = position0 + row0 / c.group, highest = position0 + (min(row0 + ROWS, rows) - 1) / c.group;
    int key0 = pn_attention_first(c, lowest) / STREAM * STREAM, steps = (highest - key0) / STREAM + 1;

    auto load = [&](int at) {
        const int j = key0 + at * STREAM;
        const int64_t key = ((part.key0 + j) * c.kv_heads + kv) * c.d;
        const pn_attention_lines lines = { key, (int64_t)c.kv_heads * c.d, 0, 0, 1, highest + 1 - j };
        pn_attention_load<STREAM, D, THREADS>(keys + at % STAGES * in::PASSING, x.k, c.d, x.whole, lines);
        pn_attention_load<STREAM, D, THREADS>(values + at % STAGES * in::PASSING, x.v, c.d, x.whole, lines);
        pn_copies_commit();
    };
    const int64_t first_head = token0 * c.heads + kv * c.group; /* of the chunk's rows */
    auto head_of = [&](int r) { return first_head + (int64_t)((row0 + r) / c.group) * c.heads + (row0 + r) % c.group; };
    const pn_attention_lines own = { first_head * c.d, (int64_t)c.heads * c.d, c.d, row0, c.group, rows - row0 };
    pn_attention_load<ROWS, D, THREADS>(queries, x.q, c.d, x.whole, own);
    pn_attention_load<ROWS, D, THREADS>(grads, x.d_o, c.d, x.whole, own);
    load(0);

    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    const float scale = c.scale * PN_LOG2_E;
    int position[2], first[2];
    float lse[2], delta[2], out[COLUMNS / 8][4] = {};
    for (int i = 0; i < 2; i++) {
        int r = min(row0 + row + 8 * i, rows - 1);
        int64_t head = head_of(r - row0);
        position[i] = position0 + r / c.group;
        first[i] = pn_attention_first(c, position[i]);
        lse[i] = x.lse[head] * PN_LOG2_E;
        delta[i] = x.delta[head];
    }
    for (int step = 0; step < steps; step++) {
        pn_attention_arrive(); /* and nobody reads the keys of the step before */
        if (STAGES > 1 && step + 1 < steps) load(step + 1);
        const T *these = keys + step % STAGES * in::PASSING;
        float s[STREAM / 8][4] = {}, ds[STREAM / 8][4] = {};
        products::template by_rows<D>(s, queries, these);
        products::template by_rows<D>(ds, grads, values + step % STAGES * in::PASSING);
        int j0 = key0 + step * STREAM;
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[b][e] = pn_power_of_2(fmaf(s[b][e], scale, -lse[e / 2]));
        if (j0 + STREAM > lowest + 1 || j0 < pn_attention_first(c, highest))
#pragma unroll
            for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int j = j0 + 8 * b + column + e % 2;
                    if (j > position[e / 2] || j < first[e / 2]) s[b][e] = 0;
                }
        float sum[2] = {}; /* of p dp */
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) sum[e / 2] = fmaf(s[b][e], ds[b][e], sum[e / 2]);
        /* Where these are all keys, that is delta before o was rounded, which shows where few keys are seen. */
        if (steps == 1)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
                delta[i] = sum[i] + __shfl_xor_sync(~0u, sum[i], 2);
            }
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) ds[b][e] = s[b][e] * (ds[b][e] - delta[e / 2]);
        products::template by_columns<D>(out, ds, these, column0, strips);
        if (STAGES == 1 && step + 1 < steps) {
            __syncthreads();
            load(step + 1);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int r = row + 8 * i;
        if (row0 + r >= rows) continue;
        T *to = dq + head_of(r) * c.d;
        if (steps == 1 && column == 0) x.delta[head_of(r)] = delta[i]; /* for dk and dv, which come after */
#pragma unroll
        for (int b = 0; b < COLUMNS / 8; b++)
            pn_attention_put(x.adds[0], to, column0 + 8 * b + column, c.d, __fmul_rn(c.scale, out[b][2 * i]),
                             __fmul_rn(c.scale, out[b][2 * i + 1]));
    }
}

/* Rows of queries as they pass by: row r of a tile is head (head0 + r) % group at query token0 + (head0 + r) / group.
 */
struct passing_rows {
    int token0, head0;
    __device__ int token(int r, int group) const { return token0 + (head0 + r) / group; }
    __device__ int head(int r, int group) const { return (head0 + r) % group; }
    __device__ passing_rows after(int n, int group) const { return { token(n, group), head(n, group) }; }
};

/* dk, dv: NULL where not wanted. */
template <class T, int D>
__global__ void __launch_bounds__(pn_attention_sizes<T, D>::THREADS)
    add_dk_dv(pn_attention_call c, operands<T> x, T *dk, T *dv) {
    typedef pn_attention_sizes<T, D> sizes;
    typedef pn_attention_products<T, sizes::WARPS> products;
    typedef memory_of<T, D> in;
    constexpr int ROWS = sizes::ROWS, THREADS = sizes::THREADS, N = sizes::STREAM, COLUMNS = sizes::COLUMNS;
    constexpr int STAGES = in::STAGES;
    extern __shared__ __align__(PN_ATTENTION_ALIGNMENT) unsigned char memory[];
    T *keys = (T *)memory, *values = keys + in::OWN, *queries = values + in::OWN,
      *grads = queries + STAGES * in::PASSING;
    float *lse = (float *)(grads + STAGES * in::PASSING), *delta = lse + STAGES * N, *strips = delta + 2 * STAGES * N;
    int *position = (int *)(delta + STAGES * N);

    /* The block's rows of k and v, and the documents that may see them. */
    const int kv = (int)blockIdx.y / sizes::PARTS, column0 = (int)blockIdx.y % sizes::PARTS * COLUMNS;
    int64_t key0 = (int64_t)blockIdx.x * ROWS, key_end = c.key_rows;
    int doc = 0, doc_end = c.docs;
    if (!c.key_start) {
        constexpr int each = PN_CHUNK / ROWS;
        doc = c.chunk_doc[blockIdx.x / each];
        doc_end = doc + 1;
        key0 = c.chunk_begin[blockIdx.x / each] + (int)blockIdx.x % each * ROWS;
        key_end = c.offset[doc_end];
        if (key0 >= key_end) return;
    }
    const pn_attention_lines own = { (key0 * c.kv_heads + kv) * c.d,         (int64_t)c.kv_heads * c.d, 0, 0, 1,
                                     (int)min(key_end - key0, (int64_t)ROWS) };
    pn_attention_load<ROWS, D, THREADS>(keys, x.k, c.d, x.whole, own);
    pn_attention_load<ROWS, D, THREADS>(values, x.v, c.d, x.whole, own);
    pn_copies_commit();

    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
    const float scale = c.scale * PN_LOG2_E;
    float out_k[COLUMNS / 8][4] = {}, out_v[COLUMNS / 8][4] = {};
    for (; doc < doc_end; doc++) {
        /* Queries begin .. end of the document see one of the keys j0 .. j0 + ROWS - 1, which may reach past its own.
         */
        const pn_attention_part part = pn_attention_part_at(c, doc);
        const int j0 = (int)(key0 - part.key0), shift = part.keys - part.queries;
        const int begin = max(max(j0, 0) - shift, 0);
        const int64_t last = c.window ? (int64_t)j0 + ROWS + c.window - 1 - shift : part.queries;
        const int end = (int)min((int64_t)part.queries, last);
        if (j0 + ROWS <= 0 || j0 >= part.keys || begin >= end) continue;
        const int64_t rows = (int64_t)(end - begin) * c.group;

        auto load = [&](passing_rows from, int buffer) {
            const int64_t token = part.query0 + from.token0;
            const int n = (int)min((int64_t)N, (int64_t)(end - from.token0) * c.group - from.head0);
            const pn_attention_lines lines = {
                (token * c.heads + kv * c.group) * c.d, (int64_t)c.heads * c.d, c.d, from.head0, c.group, n
            };
            pn_attention_load<N, D, THREADS>(queries + buffer * in::PASSING, x.q, c.d, x.whole, lines);
            pn_attention_load<N, D, THREADS>(grads + buffer * in::PASSING, x.d_o, c.d, x.whole, lines);
            pn_copies_commit();
            for (int r = threadIdx.x; r < N; r += THREADS) {
                const int i = from.token(r, c.group);
                const int64_t head = (part.query0 + i) * c.heads + kv * c.group + from.head(r, c.group);
                position[buffer * N + r] = r < n ? shift + i : -1; /* -1 sees nothing */
                lse[buffer * N + r] = r < n ? x.lse[head] * PN_LOG2_E : 0.0f;
                delta[buffer * N + r] = r < n ? x.delta[head] : 0.0f;
            }
        };
        passing_rows at = { begin, 0 };
        int buffer = 0;
        __syncthreads(); /* the document before may still be read */
        load(at, buffer);
        for (int64_t done = 0; done < rows; done += N, buffer = (buffer + 1) % STAGES) {
            pn_attention_arrive(); /* and nobody reads the rows of the step before */
            const int lowest = shift + at.token0, highest = shift + at.token(N - 1, c.group);
            const bool edge =
                done + N > rows || j0 < 0 || j0 + ROWS > lowest + 1 || j0 < pn_attention_first(c, highest);
            at = at.after(N, c.group);
            if (STAGES > 1 && done + N < rows) load(at, buffer ^ 1);
            const T *q = queries + buffer * in::PASSING, *d_o = grads + buffer * in::PASSING;
            float p[N / 8][4] = {}, ds[N / 8][4] = {};
            products::template by_rows<D>(p, keys, q);
            products::template by_rows<D>(ds, values, d_o);
#pragma unroll
            for (int b = 0; b < N / 8; b++) {
                const float2 base = *(const float2 *)(lse + buffer * N + 8 * b + column);
                const float2 mean = *(const float2 *)(delta + buffer * N + 8 * b + column);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    p[b][e] = pn_power_of_2(fmaf(p[b][e], scale, e % 2 ? -base.y : -base.x));
                    ds[b][e] = p[b][e] * (ds[b][e] - (e % 2 ? mean.y : mean.x));
                }
            }
            if (edge) /* keys of no document may be anything: their gradients are 0 all the same */
#pragma unroll
                for (int b = 0; b < N / 8; b++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const int stands = position[buffer * N + 8 * b + column + e % 2], j = j0 + row + e / 2 * 8;
                        if (j < 0 || j > stands || j < pn_attention_first(c, stands)) p[b][e] = ds[b][e] = 0;
                    }
            products::template by_columns<D>(out_v, p, d_o, column0, strips);
            products::template by_columns<D>(out_k, ds, q, column0, strips);
            if (STAGES == 1 && done + N < rows) {
                __syncthreads();
                load(at, buffer);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t key = key0 + row + 8 * i;
        if (key >= key_end) continue;
        int64_t to = (key * c.kv_heads + kv) * c.d;
#pragma unroll
        for (int b = 0; b < COLUMNS / 8; b++) {
            int at = column0 + 8 * b + column;
            if (dk)
                pn_attention_put(x.adds[1], dk + to, at, c.d, __fmul_rn(c.scale, out_k[b][2 * i]),
                                 __fmul_rn(c.scale, out_k[b][2 * i + 1]));
            if (dv) pn_attention_put(x.adds[2], dv + to, at, c.d, out_v[b][2 * i], out_v[b][2 * i + 1]);
        }
    }
}

/* 16 threads to a head of a token. */
template <class T>
__global__ void __launch_bounds__(256) dots(int64_t heads, int d, const T *o, const T *d_o, float *y) {
    int64_t head = (int64_t)blockIdx.x * 16 + threadIdx.x / 16;
    if (head >= heads) return;
    float sum = 0;
    for (int i = threadIdx.x % 16; i < d; i += 16) sum += pn_load(o + head * d + i) * pn_load(d_o + head * d + i);
    for (int n = 8; n > 0; n /= 2) sum += __shfl_xor_sync(0xffffu << (threadIdx.x & 16), sum, n);
    if (threadIdx.x % 16 == 0) y[head] = sum;
}

template <class T, int D> pn_status launch(const pn_attention_call *a, const pn_op_call *c, const operands<T> *x) {
    typedef pn_attention_sizes<T, D> sizes;
    constexpr size_t bytes = memory_of<T, D>::bytes;
    T *dq = pn_values_or_null<T>(c->din[0]), *dk = pn_values_or_null<T>(c->din[1]),
      *dv = pn_values_or_null<T>(c->din[2]);
    const unsigned heads = (unsigned)(a->kv_heads * sizes::PARTS);
    constexpr int each = PN_CHUNK / sizes::ROWS;
    if (dq) {
        PN_TRY(pn_attention_allow((const void *)add_dq<T, D>, bytes));
        int tiles = each * a->group;
        add_dq<T, D><<<dim3((unsigned)(a->chunks * tiles), heads), sizes::THREADS, bytes, pn_cuda_stream()>>>(
            *a, *x, tiles, dq);
        PN_TRY(pn_cuda_launched(name));
    }
    if (!dk && !dv) return PN_OK;
    PN_TRY(pn_attention_allow((const void *)add_dk_dv<T, D>, bytes));
    unsigned blocks = a->key_start ? pn_cuda_blocks(a->key_rows, sizes::ROWS) : (unsigned)(a->chunks * each);
    add_dk_dv<T, D><<<dim3(blocks, heads), sizes::THREADS, bytes, pn_cuda_stream()>>>(*a, *x, dk, dv);
    return pn_cuda_launched(name);
}

template <class T> pn_status backward(const pn_op_call *c) {
    pn_attention_call a;
    PN_TRY(pn_attention_call_of(c, &a));
    const T *o = pn_values<T>(c->out[0]);
    operands<T> x = { pn_values<T>(c->in[0]),   pn_values<T>(c->in[1]), pn_values<T>(c->in[2]),
                      pn_values<T>(c->dout[0]), pn_f32(c->out[1]),      (float *)c->scratch };
    for (int i = 0; i < 3; i++) x.adds[i] = pn_op_adds(c, i);
    x.whole = pn_attention_whole((size_t)a.d * sizeof(T), x.q, x.k, x.v, x.d_o);
    int64_t heads = (int64_t)a.tokens * a.heads;
    dots<<<pn_cuda_blocks(heads, 16), 256, 0, pn_cuda_stream()>>>(heads, a.d, o, x.d_o, x.delta);
    PN_TRY(pn_cuda_launched(name));
    return pn_attention_for_width(a.d, [&](auto width) { return launch<T, decltype(width)::value>(&a, c, &x); });
}

} // namespace

size_t pn_attention_delta_bytes(const pn_op_call *c) {
    return sizeof(float) * (size_t)(c->in[0]->shape[0] * ((const pn_attention_attr *)c->attr)->heads);
}

/* Of the largest kernel: the forward pass needs less. */
size_t pn_attention_tiles_shared_bytes(const pn_op_call *c) {
    size_t bytes = 0;
    pn_status s = pn_attention_for_width(((const pn_attention_attr *)c->attr)->head_dim, [&](auto width) {
        constexpr int D = decltype(width)::value;
        bytes = c->dtype == PN_BF16 ? memory_of<pn_bf16, D>::bytes : memory_of<float, D>::bytes;
        return PN_OK;
    });
    PN_ASSERT(!s);
    return bytes;
}

pn_status pn_attention_tiles_backward(const pn_op_call *c) {
    if (!pn_attention_has_gradient(c)) return pn_attention_no_gradient(c);
    return c->dtype == PN_BF16 ? backward<pn_bf16>(c) : backward<float>(c);
}
