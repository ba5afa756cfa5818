/* Taps that never leave the registers of those who use them (dynamic_conv_cuda_taps.cuh).
 *
 * Forward is then one product with w2. Backward makes the taps again for the gradient of the values and for p = dv
 * silu'(y), all that it writes; from p and the values come dh and dw2, one product each. */
#include "cuda/channels.cuh"
#include "cuda/window.cuh"
#include "dynamic_conv_cuda_convolve.cuh"
#include "dynamic_conv_cuda_gradients.cuh"
#include "dynamic_conv_cuda_products.cuh"

extern "C" {
#include "cuda/tensor_map_cuda.h"
#include "dynamic_conv_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "dynamic_conv/cuda-fused";

enum { VALUES, HIDDEN, W2, B2, STATE };
enum {
    WIDTH = PN_DCONV_WIDTH,
    TILE = PN_DCONV_TILE,
    CLUSTER = PN_DCONV_CLUSTER,
    BLOCKS = 132,           /* that run at once on an H100 */
    MOST_SHARED = 227 << 10 /* bytes that a block may have */
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

/* n pieces, as many to a block, in whole clusters. */
unsigned blocks_of(int64_t n, int each) {
    return pn_cuda_blocks(n, each * CLUSTER) * CLUSTER;
}

/* Channels of a block: 48, or 32 where the rows of w2 are long; 0: they are too long for either. */
int block_channels(int64_t rank) {
    if (rank > 4096) return 0;
    const int steps = pn_dconv_steps(rank);
    if (pn_dconv_shared<48>{ steps }.bytes(true) <= MOST_SHARED) return 48;
    return pn_dconv_shared<32>{ steps }.bytes(true) <= MOST_SHARED ? 32 : 0;
}

/* Clusters along x. */
template <class... P, class... A>
pn_status launch(void (*kernel)(P...), dim3 blocks, int threads, int shared_bytes, const A &...arguments) {
    PN_TRY(
        pn_cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes), name));
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = CLUSTER, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks;
    config.blockDim = dim3((unsigned)threads);
    config.dynamicSmemBytes = (size_t)shared_bytes;
    config.stream = pn_cuda_stream();
    config.attrs = &attribute, config.numAttrs = 1;
    PN_TRY(pn_cuda_status(cudaLaunchKernelEx(&config, kernel, arguments...), name));
    return pn_cuda_launched(name);
}

typedef struct call {
    pn_dconv_cuda v;
    pn_dconv_maps maps;
    const pn_bf16 *c, *h;
    int each; /* channels of a block */
} call;

pn_status call_of(const pn_op_call *c, call *k) {
    PN_TRY(pn_window_docs(&((const pn_dynamic_conv_attr *)c->attr)->docs, &k->v.docs));
    k->c = pn_values<pn_bf16>(c->in[VALUES]);
    k->h = pn_values<pn_bf16>(c->in[HIDDEN]);
    k->v.w2 = pn_values<pn_bf16>(c->in[W2]);
    k->v.state = pn_values_or_null<pn_bf16>(c->in[STATE]);
    k->v.b2 = pn_f32(c->in[B2]);
    k->v.channels = c->in[VALUES]->shape[1];
    k->v.rank = c->in[HIDDEN]->shape[1];
    k->each = block_channels(k->v.rank);
    for (int odd = 0; odd < 2; odd++) {
        const int64_t tokens = k->v.docs.tokens, first = odd && tokens > 1; /* nothing looks at a second of one */
        const int64_t rows = tokens > 1 ? (tokens + !odd) / 2 : 1;
        const pn_tensor_pieces h = { rows, k->v.rank, 2 * k->v.rank, 8, PN_DCONV_STEP, false };
        const pn_tensor_pieces of_c = { rows,    k->v.channels, 2 * k->v.channels, pn_dconv_shared<48>::value_rows,
                                        k->each, true };
        PN_TRY(pn_tensor_map_of(name, k->h + first * k->v.rank, &h, &k->maps.h[odd]));
        PN_TRY(pn_tensor_map_of(name, k->c + first * k->v.channels, &of_c, &k->maps.c[odd]));
    }
    /* Columns, pairs of tokens in eight neighbouring ones, the first or second of each, runs of 16 tokens. */
    const int64_t tokens = k->v.docs.tokens, rank = k->v.rank;
    const pn_tensor_view share = { { rank, 8, 2, tokens < 16 ? 1 : tokens / 16 },
                                   { 1, 2 * rank, rank, 16 * rank },
                                   { PN_DCONV_STEP, 8, 2, TILE / CLUSTER / 16 } };
    return pn_tensor_map_of_view(name, k->h, &share, &k->maps.share);
}

template <int C, class G, class... P> pn_status walk_by(void (*kernel)(P...), const call &k, bool backward, G out) {
    const int bytes = pn_dconv_shared<C>{ pn_dconv_steps(k.v.rank) }.bytes(backward);
    const unsigned columns = blocks_of(k.v.channels, C);
    const unsigned parts = (unsigned)parts_of(columns, tiles_of(k.v.docs.tokens));
    return launch(kernel, dim3(columns, parts), PN_DCONV_THREADS, bytes, k.v, k.maps, out);
}

pn_status forward(const pn_op_call *c) {
    call k;
    PN_TRY(call_of(c, &k));
    pn_bf16 *out = pn_values<pn_bf16>(c->out[0]);
    PN_TRY(k.each == 48 ? walk_by<48>(pn_dconv_convolve<48>, k, false, out)
                        : walk_by<32>(pn_dconv_convolve<32>, k, false, out));
    return pn_cuda_window_new_state(name, pn_window<pn_bf16>{ k.v.docs, k.c, k.v.state, k.v.channels, WIDTH },
                                    pn_values<pn_bf16>(c->out[1]));
}

/* Tiles of p and c, `rows` tokens and `columns` channels each. */
pn_status product_maps(const call &k, const pn_bf16 *p, int rows, int columns, pn_dconv_product_maps *m) {
    const pn_tensor_pieces of_p = { k.v.docs.tokens, k.v.channels, 0, rows, columns, false };
    const pn_tensor_pieces of_c = { k.v.docs.tokens, k.v.channels, 0, rows + PN_DCONV_BACK, columns, false };
    PN_TRY(pn_tensor_map_of(name, p, &of_p, &m->p));
    return pn_tensor_map_of(name, k.c, &of_c, &m->c);
}

pn_status add_hidden(const pn_op_call *c, const call &k, const pn_bf16 *p) {
    pn_dconv_product_maps m;
    PN_TRY(product_maps(k, p, PN_DCONV_HIDDEN_TOKENS, PN_DCONV_HIDDEN_SLAB, &m));
    const int64_t rank = k.v.rank, pieces = rank / PN_DCONV_PIECE;
    m.whole = rank % PN_DCONV_PIECE == 0;
    if (m.whole) { /* columns of a piece, channels, pieces, taps */
        const pn_tensor_view w2 = { { PN_DCONV_PIECE, k.v.channels, pieces, WIDTH },
                                    { 1, WIDTH * rank, PN_DCONV_PIECE, rank },
                                    { PN_DCONV_PIECE, PN_DCONV_HIDDEN_CHANNELS,
                                      PN_DCONV_HIDDEN_COLUMNS / PN_DCONV_PIECE, WIDTH / CLUSTER } };
        PN_TRY(pn_tensor_map_of_view(name, k.v.w2, &w2, &m.right));
    } else /* a row is all taps of a channel */
        PN_TRY(pn_tensor_map(name, k.v.w2, k.v.channels, WIDTH * rank, PN_DCONV_HIDDEN_CHANNELS, &m.right));
    return launch(
        pn_dconv_add_hidden,
        dim3(blocks_of(k.v.docs.tokens, PN_DCONV_HIDDEN_TOKENS), pn_cuda_blocks(k.v.rank, PN_DCONV_HIDDEN_COLUMNS)),
        PN_DCONV_THREADS, pn_dconv_hidden_shared::bytes, m, k.v.docs, k.v.channels, k.v.rank,
        pn_values<pn_bf16>(c->din[HIDDEN]), pn_op_adds(c, HIDDEN));
}

pn_status add_weights(const pn_op_call *c, const call &k, const pn_bf16 *p) {
    pn_dconv_product_maps m;
    PN_TRY(product_maps(k, p, TILE, PN_DCONV_PIECE, &m));
    const int64_t rank = k.v.rank, tokens = k.v.docs.tokens;
    m.whole = rank % PN_DCONV_PIECE == 0;
    if (m.whole) { /* columns of a piece, tokens, pieces */
        const pn_tensor_view h = { { PN_DCONV_PIECE, tokens, rank / PN_DCONV_PIECE, 1 },
                                   { 1, rank, PN_DCONV_PIECE, rank * tokens },
                                   { PN_DCONV_PIECE, TILE / CLUSTER, PN_DCONV_WEIGHT_COLUMNS / PN_DCONV_PIECE, 1 } };
        PN_TRY(pn_tensor_map_of_view(name, k.h, &h, &m.right));
    } else
        PN_TRY(pn_tensor_map(name, k.h, tokens, rank, TILE / CLUSTER, &m.right));
    const pn_dconv_weights to = { pn_f32_or_null(c->din[W2]), pn_f32_or_null(c->din[B2]), pn_op_adds(c, W2),
                                  pn_op_adds(c, B2) };
    return launch(
        pn_dconv_add_weights,
        dim3(blocks_of(k.v.channels, PN_DCONV_WEIGHT_CHANNELS), pn_cuda_blocks(k.v.rank, PN_DCONV_WEIGHT_COLUMNS)),
        PN_DCONV_WEIGHT_THREADS, pn_dconv_weight_shared::bytes, m, k.v.docs, k.v.channels, k.v.rank, to);
}

/* Scratch: p. */
pn_status backward(const pn_op_call *c) {
    if (!c->dout[0] || !pn_op_has_din(c)) return PN_OK;
    if (c->in[STATE]) return pn_dynamic_conv_cuda_backward(c); /* never in training */
    call k;
    PN_TRY(call_of(c, &k));
    const bool weights = c->din[W2] || c->din[B2];
    pn_dconv_gradients g = {};
    g.dv = pn_values<pn_bf16>(c->dout[0]);
    g.dc = pn_values_or_null<pn_bf16>(c->din[VALUES]);
    g.p = c->din[HIDDEN] || weights ? (pn_bf16 *)c->scratch : NULL;
    g.adds = pn_op_adds(c, VALUES);
    PN_TRY(k.each == 48 ? walk_by<48>(pn_dconv_add_gradients<48>, k, true, g)
                        : walk_by<32>(pn_dconv_add_gradients<32>, k, true, g));
    if (c->din[HIDDEN]) PN_TRY(add_hidden(c, k, g.p));
    return weights ? add_weights(c, k, g.p) : PN_OK;
}

size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (!backward_pass) return 0;
    return c->in[STATE] ? pn_dynamic_conv_cuda_scratch(c, true) : pn_tensor_bytes(c->in[VALUES]);
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
