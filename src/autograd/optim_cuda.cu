/* AdamW on the GPU. Work is cut into parts of PART elements of one row, a block each, whatever the GPU: sums of squares
 * per part are added in a fixed order, so a step gives the same bits every time. Limited by memory: a part goes through
 * as vectors of four. */
#include "cuda/element.cuh"
#include "cuda/reduce.cuh"

#include <math.h>
#include <stdlib.h>

extern "C" {
#include "optim_gpu.h"
}

namespace {

const char name[] = "adamw/cuda";
enum { THREADS = 256, PART = 8192, WIDTH = 4, SUM_THREADS = 1024 };

struct part {
    int32_t row;
    int32_t at; /* PART elements each */
};

struct summary { /* of all gradients, made by the GPU */
    double norm;
    float scale;
    int finite;
};

/* f(whole vectors of four elements from i on) over the part of this block, then f of single ones. */
template <class V, class E> __device__ void walk(const part &p, int64_t n, V vectors, E element) {
    const int64_t begin = (int64_t)p.at * PART, end = begin + PART < n ? begin + PART : n;
    const int64_t whole = begin + (end - begin) / WIDTH * WIDTH;
    for (int64_t i = begin + (int64_t)threadIdx.x * WIDTH; i < whole; i += THREADS * WIDTH) vectors(i);
    for (int64_t i = whole + threadIdx.x; i < end; i += THREADS) element(i);
}

__global__ void __launch_bounds__(THREADS) sum_squares(const part *parts, const pn_adamw_row *rows, double *sums) {
    const part p = parts[blockIdx.x];
    const float *g = rows[p.row].grad;
    double sum = 0;
    auto add = [&](float x) { sum += (double)x * (double)x; };
    walk(
        p, rows[p.row].n,
        [&](int64_t i) {
            const float4 x = *(const float4 *)(g + i);
            add(x.x), add(x.y), add(x.z), add(x.w);
        },
        [&](int64_t i) { add(g[i]); });
    sum = pn_block_sum<THREADS>(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(SUM_THREADS) summarise(const double *sums, int64_t n, double clip, summary *out) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += SUM_THREADS) sum += sums[i];
    sum = pn_block_sum<SUM_THREADS>(sum);
    if (threadIdx.x) return;
    const double norm = sqrt(sum);
    out->norm = norm;
    out->finite = isfinite(norm);
    out->scale = (float)(clip > 0 && norm > clip ? clip / norm : 1.0);
}

struct rule {
    pn_adamw_rates r;
    float shrink, scale;
    __device__ void operator()(float &w, float &g, float &m, float &v) const {
        const float gk = g * scale;
        m = r.beta1 * m + (1 - r.beta1) * gk;
        v = r.beta2 * v + (1 - r.beta2) * gk * gk;
        w = shrink * w - r.rate * m / (sqrtf(v) * r.root + r.epsilon);
        g = 0;
    }
};

struct alignas(8) narrow4 {
    pn_bf16 x[WIDTH];
};
__device__ narrow4 rounded(const float4 &w) {
    narrow4 y;
    pn_store(&y.x[0], w.x), pn_store(&y.x[1], w.y), pn_store(&y.x[2], w.z), pn_store(&y.x[3], w.w);
    return y;
}

__global__ void __launch_bounds__(THREADS)
    update(const part *parts, const pn_adamw_row *rows, const summary *all, pn_adamw_rates rates) {
    if (!all->finite) return;
    const part p = parts[blockIdx.x];
    const pn_adamw_row row = rows[p.row];
    const rule f = { rates, row.decay ? rates.shrink : 1.0f, all->scale };
    float *w = row.master, *g = row.grad, *m = row.moment[0], *v = row.moment[1];
    pn_bf16 *y = (pn_bf16 *)row.narrow;
    walk(
        p, row.n,
        [&](int64_t i) {
            float4 w4 = *(float4 *)(w + i), g4 = *(float4 *)(g + i), m4 = *(float4 *)(m + i), v4 = *(float4 *)(v + i);
            f(w4.x, g4.x, m4.x, v4.x), f(w4.y, g4.y, m4.y, v4.y);
            f(w4.z, g4.z, m4.z, v4.z), f(w4.w, g4.w, m4.w, v4.w);
            *(float4 *)(w + i) = w4, *(float4 *)(g + i) = g4, *(float4 *)(m + i) = m4, *(float4 *)(v + i) = v4;
            if (y) *(narrow4 *)(y + i) = rounded(w4);
        },
        [&](int64_t i) {
            f(w[i], g[i], m[i], v[i]);
            if (y) pn_store(y + i, w[i]);
        });
}

__global__ void __launch_bounds__(THREADS) copy(const part *parts, const pn_adamw_row *rows, bool to_masters) {
    const part p = parts[blockIdx.x];
    float *w = rows[p.row].master;
    pn_bf16 *y = (pn_bf16 *)rows[p.row].narrow;
    if (!y) return;
    auto one = [&](int64_t i) {
        if (to_masters)
            w[i] = pn_load(y + i);
        else
            pn_store(y + i, w[i]);
    };
    walk(
        p, rows[p.row].n, [&](int64_t i) { one(i), one(i + 1), one(i + 2), one(i + 3); }, one);
}

} // namespace

struct pn_adamw_gpu {
    int64_t n_parts;
    part *part_of; /* the table on the host too: which row a sum belongs to */
    pn_storage *rows, *parts, *sums, *all;
};

static int64_t parts_of(int64_t n) {
    return (n + PART - 1) / PART;
}

static pn_status table(pn_pool *pool, const void *values, size_t n_bytes, pn_storage **out) {
    PN_TRY(pn_storage_create(pool, n_bytes ? n_bytes : 1, out));
    return values ? pn_storage_write(*out, 0, values, n_bytes) : PN_OK;
}

static pn_status fill(pn_adamw_gpu *g, pn_pool *pool, const pn_adamw_row *rows, int n) {
    for (int i = 0; i < n; i++) g->n_parts += parts_of(rows[i].n);
    g->part_of = (part *)calloc((size_t)g->n_parts + 1, sizeof *g->part_of);
    PN_CHECK(g->part_of, PN_MEMORY, "out of memory");
    int64_t k = 0;
    for (int i = 0; i < n; i++)
        for (int64_t at = 0; at < parts_of(rows[i].n); at++) g->part_of[k++] = part{ i, (int32_t)at };
    PN_TRY(table(pool, rows, (size_t)n * sizeof *rows, &g->rows));
    PN_TRY(table(pool, g->part_of, (size_t)g->n_parts * sizeof *g->part_of, &g->parts));
    PN_TRY(table(pool, NULL, (size_t)g->n_parts * sizeof(double), &g->sums));
    PN_TRY(table(pool, NULL, sizeof(summary), &g->all));
    return PN_OK;
}

extern "C" pn_status pn_adamw_gpu_create(pn_pool *pool, const pn_adamw_row *rows, int n, pn_adamw_gpu **out) {
    pn_adamw_gpu *g = (pn_adamw_gpu *)calloc(1, sizeof *g);
    PN_CHECK(g, PN_MEMORY, "out of memory");
    pn_status s = fill(g, pool, rows, n);
    if (s) {
        pn_adamw_gpu_destroy(&g);
        return s;
    }
    *out = g;
    return PN_OK;
}

extern "C" void pn_adamw_gpu_destroy(pn_adamw_gpu **gp) {
    pn_adamw_gpu *g = gp ? *gp : NULL;
    if (!g) return;
    pn_storage_release(&g->rows);
    pn_storage_release(&g->parts);
    pn_storage_release(&g->sums);
    pn_storage_release(&g->all);
    free(g->part_of);
    free(g);
    *gp = NULL;
}

/* The row of the first sum that is not finite. */
static pn_status find_row(const pn_adamw_gpu *g, int *row) {
    double *sum = (double *)malloc((size_t)g->n_parts * sizeof *sum);
    PN_CHECK(sum, PN_MEMORY, "out of memory");
    pn_status s = pn_storage_read(sum, g->sums, 0, (size_t)g->n_parts * sizeof *sum);
    *row = -1;
    for (int64_t k = 0; k < g->n_parts && !s && *row < 0; k++)
        if (!isfinite(sum[k])) *row = g->part_of[k].row;
    free(sum);
    return s;
}

extern "C" pn_status pn_adamw_gpu_step(pn_adamw_gpu *g, const pn_adamw_rates *rates, double *norm, int *row) {
    const part *parts = (const part *)g->parts->data;
    const pn_adamw_row *rows = (const pn_adamw_row *)g->rows->data;
    summary *all = (summary *)g->all->data, seen;
    double *sums = (double *)g->sums->data;
    const unsigned blocks = (unsigned)g->n_parts;
    *norm = 0;
    if (!blocks) return PN_OK;
    sum_squares<<<blocks, THREADS, 0, pn_cuda_stream()>>>(parts, rows, sums);
    PN_TRY(pn_cuda_launched(name));
    summarise<<<1, SUM_THREADS, 0, pn_cuda_stream()>>>(sums, g->n_parts, rates->clip, all);
    PN_TRY(pn_cuda_launched(name));
    update<<<blocks, THREADS, 0, pn_cuda_stream()>>>(parts, rows, all, *rates);
    PN_TRY(pn_cuda_launched(name));
    PN_TRY(pn_storage_read(&seen, g->all, 0, sizeof seen));
    *norm = seen.norm;
    return seen.finite ? PN_OK : find_row(g, row);
}

extern "C" pn_status pn_adamw_gpu_copy(pn_adamw_gpu *g, bool to_masters) {
    if (!g->n_parts) return PN_OK;
    copy<<<(unsigned)g->n_parts, THREADS, 0, pn_cuda_stream()>>>((const part *)g->parts->data,
                                                                 (const pn_adamw_row *)g->rows->data, to_masters);
    return pn_cuda_launched(name);
}
