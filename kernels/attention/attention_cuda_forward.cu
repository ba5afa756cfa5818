/* Softmax over tiles of keys as they pass by (online softmax): a block has up to 64 rows, which are the query heads of
 * one key/value head at tokens of one chunk of a document, so that keys are read once for the whole group. Where that
 * gives few blocks and the keys are many (decoding), the keys are split among blocks too, and their results combined.
 */
#include "attention_cuda_tile.cuh"
#include "cuda/reduce.cuh"

namespace {

const char name[] = "attention/cuda-tiles";

/* Of one call: how its rows and keys are cut. */
struct cut {
    bool spread; /* a chunk has 16 rows at most: the warps of a block share them, and each takes its part of a tile's
                    keys */
    int tiles;   /* of rows, of a chunk */
    int splits;  /* of the keys of a document */
};

template <class T, int D, bool SPREAD> struct block_of {
    typedef pn_attention_sizes<T, D> sizes;
    static constexpr int WARPS = sizes::WARPS, THREADS = 32 * WARPS, ROWS = SPREAD ? 16 : 16 * WARPS;
    static constexpr int STREAM = sizes::STREAM, COLUMNS = sizes::COLUMNS;
    static constexpr int SEEN = SPREAD ? STREAM / WARPS : STREAM; /* keys of a tile that a warp takes */
    /* Memory, in elements. */
    static constexpr int QUERIES = pn_attention_tile<T, ROWS, D>::size;
    static constexpr int KEYS = pn_attention_tile<T, STREAM, D>::size;
    static constexpr int VALUES = pn_attention_tile<T, STREAM, COLUMNS>::size;
    static constexpr size_t bytes = sizeof(T) * (size_t)(QUERIES + 2 * KEYS + 2 * VALUES) +
                                    sizeof(float) * (size_t)pn_attention_strips<T>(WARPS, SEEN);
    /* Of what the warps of a spread block leave to one another, in the same memory: a row's length, in floats. */
    static constexpr int LEFT = COLUMNS + 4;
    static_assert(!SPREAD || sizeof(float) * (size_t)(WARPS * 16 * (LEFT + 2)) <= bytes, "room for it");
};

/* What a block leaves: o and lse, or its share of them: parts [splits, tokens, heads, d], their lse in base 2. */
template <class T> struct result {
    T *o;
    float *lse, *part, *part_lse;
};

template <class T, int D, bool SPREAD, bool SPLIT>
__global__ void __launch_bounds__(block_of<T, D, SPREAD>::THREADS)
    attend(pn_attention_call c, const T *q, const T *k, const T *v, bool whole, int tiles, result<T> to) {
    typedef pn_attention_sizes<T, D> sizes;
    typedef block_of<T, D, SPREAD> in;
    typedef pn_attention_products<T, in::ROWS, !SPREAD> products;
    constexpr int ROWS = in::ROWS, THREADS = in::THREADS, STREAM = in::STREAM, COLUMNS = in::COLUMNS;
    constexpr int WARPS = in::WARPS, SEEN = in::SEEN;
    extern __shared__ __align__(PN_ATTENTION_ALIGNMENT) unsigned char memory[];
    T *queries = (T *)memory, *keys = queries + in::QUERIES, *values = keys + 2 * in::KEYS;
    float *strips = (float *)(values + 2 * in::VALUES);

    /* The last chunks of a document have the most keys: they come first. */
    int chunk = c.chunks - 1 - (int)blockIdx.x / tiles, row0 = (int)blockIdx.x % tiles * ROWS;
    int kv = (int)blockIdx.y / sizes::PARTS, column0 = (int)blockIdx.y % sizes::PARTS * COLUMNS;
    pn_attention_part x = pn_attention_part_at(c, c.chunk_doc[chunk]);
    int64_t token0 = c.chunk_begin[chunk];
    int begin = (int)(token0 - x.query0), rows = min(PN_CHUNK, x.queries - begin) * c.group;
    if (row0 >= rows) return;
    int position0 = x.keys - x.queries + begin;
    int lowest = position0 + row0 / c.group, highest = position0 + (min(row0 + ROWS, rows) - 1) / c.group;
    int key0 = pn_attention_first(c, lowest) / STREAM * STREAM, steps = (highest - key0) / STREAM + 1;
    int step = SPLIT ? (int)((int64_t)steps * blockIdx.z / gridDim.z) : 0;
    if (SPLIT) steps = (int)((int64_t)steps * (blockIdx.z + 1) / gridDim.z);

    auto load = [&](int at) {
        const int j = key0 + at * STREAM;
        const int64_t key = ((x.key0 + j) * c.kv_heads + kv) * c.d;
        const pn_attention_lines lines = { key, (int64_t)c.kv_heads * c.d, 0, 0, 1, highest + 1 - j };
        pn_attention_load<STREAM, D, THREADS>(keys + at % 2 * in::KEYS, k, c.d, whole, lines);
        pn_attention_load<STREAM, COLUMNS, THREADS>(values + at % 2 * in::VALUES, v + column0, c.d - column0, whole,
                                                    lines);
        pn_copies_commit();
    };
    const int64_t first_head = token0 * c.heads + kv * c.group; /* of the chunk's rows */
    if (step < steps) {
        pn_attention_load<ROWS, D, THREADS>(
            queries, q, c.d, whole, { first_head * c.d, (int64_t)c.heads * c.d, c.d, row0, c.group, rows - row0 });
        load(step);
    }

    /* Of this thread: rows `row` and row + 8, of every 8 columns the two from `column` on. */
    const int warp = (int)threadIdx.x / 32, warp_row = SPREAD ? 0 : 16 * warp, warp_key = SPREAD ? SEEN * warp : 0;
    const int row = warp_row + (int)threadIdx.x % 32 / 4, column = (int)threadIdx.x % 4 * 2;
    const float scale = c.scale * PN_LOG2_E;
    int position[2], first[2];
    float most[2], sum[2] = {}, out[COLUMNS / 8][4] = {};
    for (int i = 0; i < 2; i++) {
        position[i] = position0 + min(row0 + row + 8 * i, rows - 1) / c.group;
        first[i] = pn_attention_first(c, position[i]);
        most[i] = -INFINITY;
    }
    for (; step < steps; step++) {
        pn_attention_arrive(); /* and nobody reads the keys of the step before */
        if (step + 1 < steps) load(step + 1);
        float s[SEEN / 8][4] = {};
        products::template by_rows<D>(s, queries, warp_row, keys + step % 2 * in::KEYS, warp_key);
        int j0 = key0 + step * STREAM;
        bool edge = j0 + STREAM > lowest + 1 || j0 < pn_attention_first(c, highest);
        float now[2] = { most[0], most[1] };
        if (edge)
#pragma unroll
            for (int b = 0; b < SEEN / 8; b++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int j = j0 + warp_key + 8 * b + column + e % 2;
                    if (j > position[e / 2] || j < first[e / 2]) s[b][e] = -INFINITY;
                }
#pragma unroll
        for (int b = 0; b < SEEN / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) now[e / 2] = fmaxf(now[e / 2], s[b][e]);
        float shrink[2], zero[2]; /* zero: what is 1 after the power; a row may have seen no key yet */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            now[i] = fmaxf(now[i], __shfl_xor_sync(~0u, now[i], 1));
            now[i] = fmaxf(now[i], __shfl_xor_sync(~0u, now[i], 2));
            zero[i] = now[i] == -INFINITY ? 0.0f : now[i] * scale;
            shrink[i] = pn_power_of_2(fmaf(most[i], scale, -zero[i]));
            most[i] = now[i];
            sum[i] *= shrink[i];
        }
#pragma unroll
        for (int b = 0; b < SEEN / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[b][e] = pn_power_of_2(fmaf(s[b][e], scale, -zero[e / 2]));
                sum[e / 2] += s[b][e];
            }
        if (__any_sync(~0u, shrink[0] < 1 || shrink[1] < 1)) /* seldom, once the largest have been seen */
#pragma unroll
            for (int b = 0; b < COLUMNS / 8; b++)
#pragma unroll
                for (int e = 0; e < 4; e++) out[b][e] *= shrink[e / 2];
        products::template by_columns<COLUMNS>(out, s, values + step % 2 * in::VALUES, warp_key, 0, strips);
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
        sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
    }
    const int64_t all = (int64_t)c.tokens * c.heads;
    auto head_of = [&](int r) { return first_head + (int64_t)((row0 + r) / c.group) * c.heads + (row0 + r) % c.group; };
    auto put_lse = [&](int r, float log_sum) {
        if (SPLIT)
            to.part_lse[blockIdx.z * all + head_of(r)] = log_sum;
        else
            to.lse[head_of(r)] = log_sum * PN_LN_2;
    };
    auto put = [&](int r, int at, float first_value, float second_value) {
        if (SPLIT)
            pn_attention_put(false, to.part + (blockIdx.z * all + head_of(r)) * c.d, at, c.d, first_value,
                             second_value);
        else
            pn_attention_put(false, to.o + head_of(r) * c.d, at, c.d, first_value, second_value);
    };
    if (!SPREAD) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = row + 8 * i;
            if (row0 + r >= rows) continue;
            const float part = sum[i] > 0 ? 1 / sum[i] : 0.0f;
            if (column == 0 && column0 == 0) put_lse(r, most[i] * scale + log2f(sum[i]));
#pragma unroll
            for (int b = 0; b < COLUMNS / 8; b++)
                put(r, column0 + 8 * b + column, out[b][2 * i] * part, out[b][2 * i + 1] * part);
        }
        return;
    }
    /* What the warps have of each row becomes one, in the order of their keys. */
    float *left = (float *)memory, *left_most = left + WARPS * 16 * in::LEFT, *left_sum = left_most + WARPS * 16;
    pn_copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = 16 * warp + row + 8 * i;
        left_most[r] = most[i] * scale;
        left_sum[r] = sum[i];
#pragma unroll
        for (int b = 0; b < COLUMNS / 8; b++)
            *(float2 *)(left + r * in::LEFT + 8 * b + column) = make_float2(out[b][2 * i], out[b][2 * i + 1]);
    }
    __syncthreads();
    constexpr int EACH = THREADS / 16; /* threads of a row */
    const int r = (int)threadIdx.x / EACH;
    if (row0 + r >= rows) return;
    float top = -INFINITY, total = 0, weight[WARPS];
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, left_most[16 * w + r]);
    for (int w = 0; w < WARPS; w++) {
        weight[w] = pn_power_of_2(left_most[16 * w + r] - (top == -INFINITY ? 0.0f : top));
        total = fmaf(weight[w], left_sum[16 * w + r], total);
    }
    if (threadIdx.x % EACH == 0 && column0 == 0) put_lse(r, top + log2f(total));
    for (int at = (int)threadIdx.x % EACH * 2; at < COLUMNS; at += 2 * EACH) {
        float2 o = make_float2(0, 0);
        for (int w = 0; w < WARPS; w++) {
            const float2 x = *(const float2 *)(left + (16 * w + r) * in::LEFT + at);
            o.x = fmaf(weight[w], x.x, o.x);
            o.y = fmaf(weight[w], x.y, o.y);
        }
        const float part = total > 0 ? 1 / total : 0.0f;
        put(r, column0 + at, o.x * part, o.y * part);
    }
}

enum { MOST_SPLITS = 128, COMBINE = 128 }; /* a thread to a split */

/* A block to a head of a token. A share that saw no key has lse minus infinity. */
template <class T> __global__ void __launch_bounds__(COMBINE) combine(int64_t heads, int d, int splits, result<T> to) {
    __shared__ float weight[MOST_SPLITS], sums[COMBINE / 32][256];
    const int64_t head = blockIdx.x;
    const int s = (int)threadIdx.x, warp = s / 32, lane = s % 32;
    const float lse = s < splits ? to.part_lse[s * heads + head] : -INFINITY;
    const float most = pn_block_max<COMBINE>(lse), own = pn_power_of_2(lse - most);
    const float sum = pn_block_sum<COMBINE>(own);
    weight[s] = own;
    __syncthreads();
    for (int i = lane; i < d; i += 32) {
        float o = 0;
#pragma unroll 8
        for (int k = warp; k < splits; k += COMBINE / 32) o = fmaf(weight[k], to.part[(k * heads + head) * d + i], o);
        sums[warp][i] = o;
    }
    __syncthreads();
    for (int i = s; i < d; i += COMBINE) {
        float o = 0;
        for (int w = 0; w < COMBINE / 32; w++) o += sums[w][i];
        pn_store(to.o + head * d + i, o / sum);
    }
    if (s == 0) to.lse[head] = (most + log2f(sum)) * PN_LN_2;
}

/* By the shape alone: sums must not depend on the GPU, nor the launch on how many keys a document has today. */
cut cut_of(const pn_op_call *c) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    enum { BLOCKS = 512, SPREAD_BLOCKS = 2048, KEYS = 256 };
    int64_t group = a->heads / a->kv_heads, tokens = pn_docs_longest(&a->docs);
    int64_t chunks = pn_docs_chunks(&a->docs, a->docs.n);
    tokens = tokens < PN_CHUNK ? tokens : PN_CHUNK;
    cut x = { .spread = tokens * group <= 16, .splits = 1 };
    int64_t rows = x.spread ? 16 : 16 * pn_attention_warps(c->dtype, a->head_dim);
    x.tiles = (int)((tokens * group + rows - 1) / rows);
    if (!a->key_start || chunks == 0) return x;
    int64_t blocks = chunks * x.tiles * a->kv_heads, keys = c->in[1]->shape[0] / a->docs.n;
    int64_t splits = (x.spread ? SPREAD_BLOCKS : BLOCKS) / blocks;
    splits = splits < keys / KEYS ? splits : keys / KEYS;
    x.splits = (int)(splits < 1 ? 1 : splits < MOST_SPLITS ? splits : MOST_SPLITS);
    return x;
}

template <class T, int D, bool SPREAD>
pn_status launch(const pn_attention_call *a, const pn_op_call *c, const cut *x, const result<T> *to) {
    const T *q = pn_values<T>(c->in[0]), *k = pn_values<T>(c->in[1]), *v = pn_values<T>(c->in[2]);
    bool whole = pn_attention_whole((size_t)a->d * sizeof(T), q, k, v);
    dim3 grid((unsigned)(a->chunks * x->tiles), (unsigned)(a->kv_heads * pn_attention_sizes<T, D>::PARTS),
              (unsigned)x->splits);
    constexpr size_t bytes = block_of<T, D, SPREAD>::bytes;
    auto kernel = x->splits > 1 ? attend<T, D, SPREAD, true> : attend<T, D, SPREAD, false>;
    PN_TRY(pn_attention_allow((const void *)kernel, bytes));
    kernel<<<grid, block_of<T, D, SPREAD>::THREADS, bytes, pn_cuda_stream()>>>(*a, q, k, v, whole, x->tiles, *to);
    PN_TRY(pn_cuda_launched(name));
    return PN_OK;
}

template <class T> pn_status forward(const pn_op_call *c) {
    pn_attention_call a;
    PN_TRY(pn_attention_call_of(c, &a));
    if (a.tokens == 0) return PN_OK;
    cut x = cut_of(c);
    int64_t heads = (int64_t)a.tokens * a.heads;
    result<T> to = { pn_values<T>(c->out[0]), pn_f32(c->out[1]), (float *)c->scratch, NULL };
    to.part_lse = x.splits > 1 ? to.part + x.splits * heads * a.d : NULL;
    PN_TRY(pn_attention_for_width(a.d, [&](auto width) {
        constexpr int D = decltype(width)::value;
        return x.spread ? launch<T, D, true>(&a, c, &x, &to) : launch<T, D, false>(&a, c, &x, &to);
    }));
    if (x.splits == 1) return PN_OK;
    combine<<<(unsigned)heads, COMBINE, 0, pn_cuda_stream()>>>(heads, a.d, x.splits, to);
    return pn_cuda_launched(name);
}

} // namespace

size_t pn_attention_tiles_forward_bytes(const pn_op_call *c) {
    cut x = cut_of(c);
    if (x.splits == 1) return 0;
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    return sizeof(float) * (size_t)(x.splits * c->in[0]->shape[0] * a->heads * (a->head_dim + 1));
}

pn_status pn_attention_tiles_forward(const pn_op_call *c) {
    return c->dtype == PN_BF16 ? forward<pn_bf16>(c) : forward<float>(c);
}
