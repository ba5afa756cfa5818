/* Taps that never leave the registers of those who use them (dynamic_conv_cuda_taps.cuh).
 *
 * Forward is then one product with w2. Backward makes the taps again and writes their gradients, for a run of tokens at
 * a time, from which cuBLASLt makes dw2 and dh. */
#include "cuda/channels.cuh"
#include "cuda/reduce.cuh"
#include "cuda/window.cuh"
#include "dynamic_conv_cuda_convolve.cuh"
#include "dynamic_conv_cuda_gradients.cuh"

extern "C" {
#include "cuda/matmul_cuda.h"
#include "cuda/tensor_map_cuda.h"
#include "dynamic_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "dynamic_conv/cuda-fused";

enum { VALUES, HIDDEN, W2, B2, STATE };
enum {
    WIDTH = PN_DCONV_WIDTH,
    TILE = PN_DCONV_TILE,
    BLOCKS = 132,            /* that run at once on an H100: sums are cut by it on any GPU */
    MOST_SHARED = 227 << 10, /* bytes that a block may have */
    MOST_TOKENS = 8192,      /* of a run of backward, and */
    MOST_TAPS = 104 << 20    /* numbers of one */
};

/* Blocks that share out the tokens of the same channels: as many as keep most of the GPU busy, the fewer the better,
 * since each begins with its rows of w2. */
int parts_of(int64_t columns, int64_t tiles) {
    int best = 1;
    double most = 0;
    for (int parts = 1; parts <= 16 && parts * PN_DCONV_GROUPS <= tiles; parts++) {
        const int64_t blocks = columns * parts, rounds = (blocks + BLOCKS - 1) / BLOCKS;
        const double busy = (double)blocks / (double)(rounds * BLOCKS);
        if (busy > most + 0.04) best = parts, most = busy;
    }
    return best;
}

int64_t tiles_of(int64_t tokens) {
    return (tokens + TILE - 1) / TILE;
}

pn_status call_of(const pn_op_call *c, pn_dconv_cuda *v, CUtensorMap *h) {
    PN_TRY(pn_window_docs(&((const pn_dynamic_conv_attr *)c->attr)->docs, &v->docs));
    v->c = pn_values<pn_bf16>(c->in[VALUES]);
    v->h = pn_values<pn_bf16>(c->in[HIDDEN]);
    v->w2 = pn_values<pn_bf16>(c->in[W2]);
    v->state = pn_values_or_null<pn_bf16>(c->in[STATE]);
    v->b2 = pn_f32(c->in[B2]);
    v->channels = c->in[VALUES]->shape[1];
    v->rank = c->in[HIDDEN]->shape[1];
    return pn_tensor_map(name, v->h, v->docs.tokens, v->rank, TILE, h);
}

/* Channels of a block: 48, or 32 where the rows of w2 are long; 0: they are too long for either. */
int block_channels(int64_t rank) {
    if (rank > 4096) return 0;
    const int steps = pn_dconv_steps(rank);
    if (pn_dconv_shared<48>{ steps }.bytes(true) <= MOST_SHARED) return 48;
    return pn_dconv_shared<32>{ steps }.bytes(true) <= MOST_SHARED ? 32 : 0;
}

template <class... P> pn_status allow(void (*kernel)(P...), int bytes) {
    return pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
}

template <int C> pn_status convolve_by(const pn_op_call *c, const pn_dconv_cuda &v, const CUtensorMap &h) {
    const int bytes = pn_dconv_shared<C>{ pn_dconv_steps(v.rank) }.bytes(false);
    const int64_t columns = (v.channels + C - 1) / C;
    const dim3 blocks((unsigned)columns, (unsigned)parts_of(columns, tiles_of(v.docs.tokens)));
    PN_TRY(allow(pn_dconv_convolve<C>, bytes));
    pn_dconv_convolve<C><<<blocks, PN_DCONV_THREADS, bytes, pn_cuda_stream()>>>(v, h, pn_values<pn_bf16>(c->out[0]));
    return pn_cuda_launched(name);
}

pn_status forward(const pn_op_call *c) {
    pn_dconv_cuda v;
    CUtensorMap h;
    PN_TRY(call_of(c, &v, &h));
    PN_TRY(block_channels(v.rank) == 48 ? convolve_by<48>(c, v, h) : convolve_by<32>(c, v, h));
    return pn_cuda_window_new_state(name, pn_window<pn_bf16>{ v.docs, v.c, v.state, v.channels, WIDTH },
                                    pn_values<pn_bf16>(c->out[1]));
}

/* Scratch of backward: the products' workspace, the taps' gradients, the sums of db2. */
struct layout {
    int64_t run, runs, columns, rows; /* tokens of a run; blocks across; rows of sums of a run */
    int parts;
    size_t dtaps, part, end;
};

layout layout_of(const pn_op_call *c) {
    const int64_t tokens = c->in[VALUES]->shape[0], channels = c->in[VALUES]->shape[1];
    const int each = block_channels(c->in[HIDDEN]->shape[1]);
    layout l = {};
    l.run = MOST_TAPS / (channels * WIDTH) / TILE * TILE;
    l.run = l.run < TILE ? TILE : l.run > MOST_TOKENS ? MOST_TOKENS : l.run;
    l.runs = (tokens + l.run - 1) / l.run;
    l.columns = (channels + each - 1) / each;
    l.parts = parts_of(l.columns, tiles_of(tokens < l.run ? tokens : l.run));
    l.rows = (int64_t)l.parts * PN_DCONV_GROUPS * 4;
    const int64_t stored = tokens < l.run ? tokens : l.run;
    l.dtaps = PN_MATMUL_WORKSPACE;
    l.part = l.dtaps + ((size_t)(stored * channels * WIDTH) * sizeof(pn_bf16) / 256 + 1) * 256;
    l.end = l.part + (size_t)(l.runs * l.rows * channels * WIDTH) * sizeof(float);
    return l;
}

template <int C>
pn_status add_by(const pn_dconv_cuda &v, const CUtensorMap &h, const pn_dconv_gradients &g, const layout &l) {
    const int bytes = pn_dconv_shared<C>{ pn_dconv_steps(v.rank) }.bytes(true);
    PN_TRY(allow(pn_dconv_add_gradients<C>, bytes));
    pn_dconv_add_gradients<C>
        <<<dim3((unsigned)l.columns, (unsigned)l.parts), PN_DCONV_THREADS, bytes, pn_cuda_stream()>>>(v, h, g);
    return pn_cuda_launched(name);
}

/* dh += dK w2 and dw2 += dK^T h, of n tokens from token0 on. */
pn_status add_products(const pn_op_call *c, const pn_dconv_cuda &v, const pn_bf16 *dtaps, int64_t token0, int64_t n) {
    pn_matmul m = {};
    m.name = name;
    m.a = dtaps;
    m.a_type = m.b_type = PN_BF16;
    if (c->din[HIDDEN]) {
        m.add = pn_op_adds(c, HIDDEN);
        m.m = n, m.n = v.rank, m.k = v.channels * WIDTH;
        m.b = v.w2;
        m.c = pn_values<pn_bf16>(c->din[HIDDEN]) + token0 * v.rank, m.c_type = PN_BF16;
        PN_TRY(pn_cuda_matmul(&m, c->scratch));
    }
    if (!c->din[W2]) return PN_OK;
    m.add = pn_op_adds(c, W2) || token0 > 0;
    m.m = v.channels * WIDTH, m.n = v.rank, m.k = n;
    m.a_turned = true;
    m.b = v.h + token0 * v.rank;
    m.c = pn_f32(c->din[W2]), m.c_type = PN_F32;
    return pn_cuda_matmul(&m, c->scratch);
}

pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    if (c->din[STATE]) return pn_dynamic_conv_cuda_backward(c); /* never in training */
    pn_dconv_cuda v;
    CUtensorMap h;
    PN_TRY(call_of(c, &v, &h));
    const layout l = layout_of(c);
    const bool products = c->din[HIDDEN] || c->din[W2];
    const int each = block_channels(v.rank);
    char *scratch = (char *)c->scratch;
    pn_dconv_gradients g = {};
    g.dv = pn_values<pn_bf16>(c->dout[0]);
    g.dc = pn_values_or_null<pn_bf16>(c->din[VALUES]);
    g.dtaps = products ? (pn_bf16 *)(scratch + l.dtaps) : NULL;
    g.adds = pn_op_adds(c, VALUES);
    PN_TRY(pn_cuda_zero_fresh(c, B2));
    for (int64_t run = 0; run < l.runs; run++) {
        const int64_t left = v.docs.tokens - run * l.run, n = left < l.run ? left : l.run;
        g.token0 = run * l.run;
        g.tiles = (int)tiles_of(n);
        if (c->din[B2]) g.part = (float *)(scratch + l.part) + run * l.rows * v.channels * WIDTH;
        PN_TRY(each == 48 ? add_by<48>(v, h, g, l) : add_by<32>(v, h, g, l));
        if (products) PN_TRY(add_products(c, v, g.dtaps, g.token0, n));
    }
    if (!c->din[B2]) return PN_OK;
    return pn_cuda_runs_sum(name, (const float *)(scratch + l.part), l.runs * l.rows, v.channels * WIDTH,
                            pn_add_to{ pn_f32(c->din[B2]) });
}

size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    const size_t any = c->wants[STATE] ? pn_dynamic_conv_cuda_scratch(c, true) : 0, own = layout_of(c).end;
    return any > own ? any : own;
}

/* Whether the GPU at hand has the kernels. */
bool have_kernels(void) {
    static int have = -1; /* not asked yet */
    cudaFuncAttributes a;
    if (have < 0) {
        have =
            cudaFuncGetAttributes(&a, pn_dconv_convolve<48>) == cudaSuccess && a.maxThreadsPerBlock >= PN_DCONV_THREADS;
        (void)cudaGetLastError();
    }
    return have;
}

/* Storage begins at a multiple of 64 bytes. */
bool aligned(const pn_tensor *t) {
    return !t || (size_t)t->offset * pn_dtype_bytes(t->dtype) % 16 == 0;
}

bool takes(const pn_op_call *c) {
    const int64_t tokens = c->in[VALUES]->shape[0], channels = c->in[VALUES]->shape[1];
    const int64_t rank = c->in[HIDDEN]->shape[1];
    for (int i = 0; i < c->n_in; i++)
        if (!aligned(c->in[i])) return false;
    return c->dtype == PN_BF16 && ((const pn_dynamic_conv_attr *)c->attr)->width == WIDTH && channels % 8 == 0 &&
           rank % 8 == 0 && tokens > 0 && block_channels(rank) && have_kernels();
}

} // namespace

extern "C" const pn_op_impl pn_dynamic_conv_cuda_fused = { .name = name,
                                                           .bf16 = true,
                                                           .fresh = true,
                                                           .takes = takes,
                                                           .scratch_bytes = scratch_bytes,
                                                           .forward = forward,
                                                           .backward = backward };
