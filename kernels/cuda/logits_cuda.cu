#include "logits.cuh"

extern "C" {
#include "fill_cuda.h"
}

namespace {

enum { THREADS = 256 };

__global__ void __launch_bounds__(THREADS) round_sums(const float *from, int64_t n, pn_bf16 *to, bool add) {
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step)
        pn_store(to + i, add ? pn_load(to + i) + from[i] : from[i]);
}

} // namespace

pn_logits_tile pn_logits_tile_of(const pn_logits *x, int64_t elements) {
    const int64_t rows = pn_logits_least(x->N > 0 ? x->N : 1, PN_LOGITS_MOST_ROWS);
    const int64_t cols = pn_logits_least(elements / rows / PN_LOGITS_PART * PN_LOGITS_PART, x->V);
    return { rows, cols, (cols + 7) / 8 * 8 };
}

pn_logits_work pn_logits_carve(const pn_logits *x, bool backward, int64_t elements, size_t bytes_per_row,
                               void *scratch) {
    pn_cuda_carve s = { (char *)scratch, 0 };
    pn_logits_work w = {};
    w.tile = pn_logits_tile_of(x, elements);
    w.workspace = s.take<char>(PN_MATMUL_WORKSPACE);
    w.number = s.take<float>(1);
    if (!backward) w.part = s.take<char>((int64_t)bytes_per_row * x->N);
    if (backward && x->type == PN_BF16) {
        w.dz = s.take<pn_bf16>(w.tile.rows * w.tile.row);
        w.dh_sum = s.take<float>(w.tile.rows * x->side[0].D);
    }
    w.n_bytes = s.n_bytes;
    return w;
}

pn_logits_work pn_logits_carve_tiles(const pn_logits *x, bool backward, size_t sum_bytes, void *scratch) {
    const size_t bytes_per_row = sum_bytes * (size_t)pn_logits_parts(x, PN_LOGITS_PART);
    pn_logits_work w = pn_logits_carve(x, backward, PN_LOGITS_TILE / x->sides, bytes_per_row, scratch);
    pn_cuda_carve s = { (char *)scratch, w.n_bytes };
    for (int i = 0; i < x->sides; i++) w.z[i] = s.take<float>(w.tile.rows * w.tile.row);
    if (x->type == PN_F32) w.dz = w.z[0];
    w.n_bytes = s.n_bytes;
    return w;
}

pn_status pn_logits_make(const pn_logits *x, int side, int64_t n0, int64_t n, int64_t v0, int64_t v,
                         const pn_logits_tile *tile, float *z, void *workspace) {
    const pn_logits_side *of = &x->side[side];
    const int64_t bytes = of->D * (int64_t)pn_dtype_bytes(x->type);
    pn_matmul p = {};
    p.name = x->name;
    p.m = n, p.n = v, p.k = of->D;
    p.a = (const char *)of->h + n0 * bytes, p.a_type = x->type;
    p.b = (const char *)of->W + v0 * bytes, p.b_type = x->type, p.b_turned = true;
    p.c = z, p.c_row = tile->row;
    PN_TRY(pn_cuda_fill(z, (size_t)(n * tile->row) * sizeof *z)); /* the padding of rows is read with them */
    return pn_cuda_matmul(&p, workspace);
}

/* In BF16 the sum over the vocabulary is made in F32 and rounded when it is whole. */
static pn_status add_dh(const pn_logits *x, int64_t n0, int64_t n, int64_t v0, int64_t v, pn_matmul p,
                        const pn_logits_gradients *g, void *workspace) {
    const int64_t D = x->side[0].D, bytes = D * (int64_t)pn_dtype_bytes(x->type);
    p.m = n, p.k = v;
    p.b = (const char *)x->side[0].W + v0 * bytes;
    p.c = x->type == PN_F32 ? (float *)g->dh + n0 * D : g->dh_sum;
    p.add = (x->type == PN_F32 && g->adds_dh) || v0 > 0;
    PN_TRY(pn_cuda_matmul(&p, workspace));
    if (x->type == PN_F32 || v0 + v < x->V || n * D == 0) return PN_OK;
    const unsigned blocks = (unsigned)pn_logits_least(pn_cuda_blocks(n * D, THREADS), 1 << 16);
    round_sums<<<blocks, THREADS, 0, pn_cuda_stream()>>>(g->dh_sum, n * D, (pn_bf16 *)g->dh + n0 * D, g->adds_dh);
    return pn_cuda_launched(x->name);
}

pn_status pn_logits_add_gradients(const pn_logits *x, int64_t n0, int64_t n, int64_t v0, int64_t v,
                                  const pn_logits_tile *tile, const void *dz, const pn_logits_gradients *g,
                                  void *workspace) {
    const int64_t D = x->side[0].D, bytes = D * (int64_t)pn_dtype_bytes(x->type);
    pn_matmul p = {};
    p.name = x->name;
    p.a = dz, p.a_type = x->type, p.a_row = tile->row;
    p.b_type = x->type;
    p.n = D;
    if (g->dh) PN_TRY(add_dh(x, n0, n, v0, v, p, g, workspace));
    if (!g->dW) return PN_OK;
    p.m = v, p.k = n;
    p.a_turned = true;
    p.b = (const char *)x->side[0].h + n0 * bytes;
    p.c = g->dW + v0 * D, p.add = g->adds_dW || n0 > 0;
    return pn_cuda_matmul(&p, workspace);
}
