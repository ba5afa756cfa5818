/* Softmax over tiles of keys as they pass by (online softmax): a block has up to 64 rows, which are the query heads of
 * one key/value head at tokens of one chunk of a document, so that keys are read once for the whole group. Where that
 * gives few blocks and the keys are many (decoding), the keys are split among blocks too, and their results combined.
 */
#include "attention_cuda_tile.cuh"

namespace {

const char name[] = "attention/cuda-tiles";

/* Of one call: how its rows and keys are cut. */
struct cut {
    int warps;  /* of a block: 1 where 16 rows are all that a chunk has */
    int tiles;  /* of a chunk */
    int splits; /* of the keys of a document */
};

template <class T, int D, int WARPS> struct memory_of { /* of a block, in elements */
    typedef pn_attention_sizes<T, D> sizes;
    static constexpr int STREAM = sizes::STREAM, COLUMNS = sizes::COLUMNS;
    static constexpr int QUERIES = pn_attention_tile<T, 16 * WARPS, D>::size;
    static constexpr int KEYS = pn_attention_tile<T, STREAM, D>::size;
    static constexpr int VALUES = pn_attention_tile<T, STREAM, COLUMNS>::size;
    static constexpr size_t bytes = sizeof(T) * (size_t)(QUERIES + 2 * KEYS + 2 * VALUES) +
                                    sizeof(float) * (size_t)pn_attention_strips<T>(WARPS, STREAM);
};

/* What a block leaves: o and lse, or its share of them: parts [splits, tokens, heads, d], their lse in base 2. */
template <class T> struct result {
    T *o;
    float *lse, *part, *part_lse;
};

template <class T, int D, int WARPS, bool SPLIT>
__global__ void __launch_bounds__(32 * WARPS)
    attend(pn_attention_call c, const T *q, const T *k, const T *v, bool whole, int tiles, result<T> to) {
    typedef pn_attention_sizes<T, D> sizes;
    typedef pn_attention_products<T, WARPS> products;
    typedef memory_of<T, D, WARPS> in;
    constexpr int ROWS = 16 * WARPS, THREADS = 32 * WARPS, STREAM = sizes::STREAM, COLUMNS = sizes::COLUMNS;
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
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, column = threadIdx.x % 4 * 2;
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
        float s[STREAM / 8][4] = {};
        products::template by_rows<D>(s, queries, keys + step % 2 * in::KEYS);
        int j0 = key0 + step * STREAM;
        bool edge = j0 + STREAM > lowest + 1 || j0 < pn_attention_first(c, highest);
        float now[2] = { most[0], most[1] };
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[b][e] *= scale;
        if (edge)
#pragma unroll
            for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int j = j0 + 8 * b + column + e % 2;
                    if (j > position[e / 2] || j < first[e / 2]) s[b][e] = -INFINITY;
                }
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) now[e / 2] = fmaxf(now[e / 2], s[b][e]);
        float shrink[2], zero[2]; /* zero: what is 1 after the power; a row may have seen no key yet */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            now[i] = fmaxf(now[i], __shfl_xor_sync(~0u, now[i], 1));
            now[i] = fmaxf(now[i], __shfl_xor_sync(~0u, now[i], 2));
            zero[i] = now[i] == -INFINITY ? 0.0f : now[i];
            shrink[i] = pn_power_of_2(most[i] - zero[i]);
            most[i] = now[i];
            sum[i] *= shrink[i];
        }
#pragma unroll
        for (int b = 0; b < STREAM / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                s[b][e] = pn_power_of_2(s[b][e] - zero[e / 2]);
                sum[e / 2] += s[b][e];
            }
#pragma unroll
        for (int b = 0; b < COLUMNS / 8; b++)
#pragma unroll
            for (int e = 0; e < 4; e++) out[b][e] *= shrink[e / 2];
        products::template by_columns<COLUMNS>(out, s, values + step % 2 * in::VALUES, 0, strips);
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
        sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
        int r = row + 8 * i;
        if (row0 + r >= rows) continue;
        float scale_out = sum[i] > 0 ? 1 / sum[i] : 0.0f, log_sum = most[i] + log2f(sum[i]);
        int64_t head = first_head + (int64_t)((row0 + r) / c.group) * c.heads + (row0 + r) % c.group,
                all = (int64_t)c.tokens * c.heads;
        if (column == 0 && column0 == 0) {
            if (SPLIT)
                to.part_lse[blockIdx.z * all + head] = log_sum;
            else
                to.lse[head] = log_sum * PN_LN_2;
        }
        auto put = [&](auto *o) {
#pragma unroll
            for (int b = 0; b < COLUMNS / 8; b++)
                pn_attention_put(false, o, column0 + 8 * b + column, c.d, out[b][2 * i] * scale_out,
                                 out[b][2 * i + 1] * scale_out);
        };
        if (SPLIT)
            put(to.part + (blockIdx.z * all + head) * c.d);
        else
            put(to.o + head * c.d);
    }
}

/* A warp to a head of a token. A share that saw no key has lse minus infinity. */
template <class T> __global__ void __launch_bounds__(128) combine(int64_t heads, int d, int splits, result<T> to) {
    int64_t head = (int64_t)blockIdx.x * 4 + threadIdx.x / 32;
    if (head >= heads) return;
    float most = -INFINITY, sum = 0;
    for (int s = 0; s < splits; s++) most = fmaxf(most, to.part_lse[s * heads + head]);
    for (int s = 0; s < splits; s++) sum += pn_power_of_2(to.part_lse[s * heads + head] - most);
    for (int i = threadIdx.x % 32; i < d; i += 32) {
        float o = 0;
        for (int s = 0; s < splits; s++)
            o = fmaf(pn_power_of_2(to.part_lse[s * heads + head] - most), to.part[(s * heads + head) * d + i], o);
        pn_store(to.o + head * d + i, o / sum);
    }
    if (threadIdx.x % 32 == 0) to.lse[head] = (most + log2f(sum)) * PN_LN_2;
}

/* By the shape alone: sums must not depend on the GPU, nor the launch on how many keys a document has today. */
cut cut_of(const pn_op_call *c) {
    const pn_attention_attr *a = (const pn_attention_attr *)c->attr;
    enum { BLOCKS = 512, NARROW_BLOCKS = 2048, KEYS = 256, MOST = 128 };
    int64_t group = a->heads / a->kv_heads, tokens = 0, chunks = 0;
    for (int64_t i = 0; i < a->docs.n; i++) {
        int64_t n = a->docs.offset[i + 1] - a->docs.offset[i];
        tokens = n > tokens ? n : tokens;
    }
    tokens = tokens < PN_CHUNK ? tokens : PN_CHUNK;
    chunks = pn_docs_chunks(&a->docs, a->docs.n);
    const int most_warps = pn_attention_warps(c->dtype, a->head_dim);
    cut x = { .warps = tokens * group <= 16 ? 1 : most_warps, .splits = 1 };
    x.tiles = (int)((tokens * group + 16 * x.warps - 1) / (16 * x.warps));
    if (!a->key_start || chunks == 0) return x;
    int64_t blocks = chunks * x.tiles * a->kv_heads, keys = c->in[1]->shape[0] / a->docs.n;
    int64_t splits = (x.warps == 1 ? NARROW_BLOCKS : BLOCKS) / blocks;
    splits = splits < keys / KEYS ? splits : keys / KEYS;
    x.splits = (int)(splits < 1 ? 1 : splits < MOST ? splits : MOST);
    return x;
}

template <class T, int D, int WARPS>
pn_status launch(const pn_attention_call *a, const pn_op_call *c, const cut *x, const result<T> *to) {
    const T *q = pn_values<T>(c->in[0]), *k = pn_values<T>(c->in[1]), *v = pn_values<T>(c->in[2]);
    bool whole = pn_attention_whole((size_t)a->d * sizeof(T), q, k, v);
    dim3 grid((unsigned)(a->chunks * x->tiles), (unsigned)(a->kv_heads * pn_attention_sizes<T, D>::PARTS),
              (unsigned)x->splits);
    constexpr size_t bytes = memory_of<T, D, WARPS>::bytes;
    auto kernel = x->splits > 1 ? attend<T, D, WARPS, true> : attend<T, D, WARPS, false>;
    PN_TRY(pn_attention_allow((const void *)kernel, bytes));
    kernel<<<grid, 32 * WARPS, bytes, pn_cuda_stream()>>>(*a, q, k, v, whole, x->tiles, *to);
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
        return x.warps == 1 ? launch<T, D, 1>(&a, c, &x, &to)
                            : launch<T, D, pn_attention_sizes<T, D>::WARPS>(&a, c, &x, &to);
    }));
    if (x.splits == 1) return PN_OK;
    combine<<<pn_cuda_blocks(heads, 4), 128, 0, pn_cuda_stream()>>>(heads, a.d, x.splits, to);
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
