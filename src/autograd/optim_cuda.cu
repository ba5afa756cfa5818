/* AdamW on the GPU. Work is cut into parts of PART elements of one row, a block each, whatever the GPU: sums of squares
 * per part are added in a fixed order, so a step gives the same bits every time. Limited by memory: a part goes through
 * as vectors of four, with which neighbouring threads touch neighbouring bytes in arrays of either width. */
#include "cuda/element.cuh"
#include "cuda/reduce.cuh"

#include <math.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "master.h"
#include "optim_gpu.h"
}

namespace {

const char name[] = "adamw/cuda";
enum { THREADS = 256, PART = 8192, WIDTH = 4, SUM_THREADS = 1024 };

struct part {
    int32_t row;
    int32_t at; /* PART elements each */
};

/* Of all gradients: pn_adamw_gpu_found's values, and what a step scales gradients by. */
enum { SCALE = PN_ADAMW_FOUND, SUMMARY };

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
    if (g)
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

__global__ void __launch_bounds__(SUM_THREADS)
    add_up(const double *sums, int64_t n, const float *loss, const pn_cuda_bad *bad, double *shared) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += SUM_THREADS) sum += sums[i];
    sum = pn_block_sum<SUM_THREADS>(sum);
    if (threadIdx.x) return;
    shared[PN_ADAMW_SQUARES] = sum;
    shared[PN_ADAMW_FAULTS] = (loss && !isfinite(*loss)) || *(const volatile int *)&bad->taken;
}

__global__ void summarise(const double *shared, double clip, double *summary) {
    const double norm = sqrt(shared[PN_ADAMW_SQUARES]);
    summary[PN_ADAMW_NORM] = norm;
    summary[PN_ADAMW_MADE] = isfinite(norm) && shared[PN_ADAMW_FAULTS] == 0;
    summary[SCALE] = clip > 0 && norm > clip ? clip / norm : 1.0;
}

struct rule {
    pn_adamw_rates r;
    float shrink, scale;
    __device__ void operator()(float &w, float g, float &m, float &v) const {
        const float gk = g * scale;
        m = r.beta1 * m + (1 - r.beta1) * gk;
        v = r.beta2 * v + (1 - r.beta2) * gk * gk;
        w = shrink * w - r.rate * m / (sqrtf(v) * r.root + r.epsilon);
    }
};

/* The masters of a row as floats, in vectors and single. */
struct whole {
    float *w;
    __device__ explicit whole(const pn_adamw_row &row) : w((float *)row.value) {}
    __device__ float4 load4(int64_t i) const { return *(const float4 *)(w + i); }
    __device__ float load(int64_t i) const { return w[i]; }
    __device__ void store4(int64_t i, const float4 &x) const { *(float4 *)(w + i) = x; }
    __device__ void store(int64_t i, float x) const { w[i] = x; }
};

struct halved {
    uint16_t *value, *low;
    __device__ explicit halved(const pn_adamw_row &row) : value((uint16_t *)row.value), low(row.low) {}
    __device__ static float join(uint16_t value, uint16_t low) {
        return __uint_as_float(pn_master_join(pn_master_halves{ value, low }));
    }
    __device__ static pn_master_halves split(float x) { return pn_master_split(__float_as_uint(x)); }
    __device__ float4 load4(int64_t i) const {
        const ushort4 v = *(const ushort4 *)(value + i), l = *(const ushort4 *)(low + i);
        return make_float4(join(v.x, l.x), join(v.y, l.y), join(v.z, l.z), join(v.w, l.w));
    }
    __device__ float load(int64_t i) const { return join(value[i], low[i]); }
    __device__ void store4(int64_t i, const float4 &x) const {
        const pn_master_halves a = split(x.x), b = split(x.y), c = split(x.z), d = split(x.w);
        *(ushort4 *)(value + i) = make_ushort4(a.value, b.value, c.value, d.value);
        *(ushort4 *)(low + i) = make_ushort4(a.low, b.low, c.low, d.low);
    }
    __device__ void store(int64_t i, float x) const {
        const pn_master_halves h = split(x);
        value[i] = h.value, low[i] = h.low;
    }
};

template <class MASTERS>
__device__ void update_part(const part &p, const pn_adamw_row &row, const rule &f, const MASTERS &masters) {
    const float *g = row.grad;
    float *m = row.moment[0], *v = row.moment[1];
    walk(
        p, row.n,
        [&](int64_t i) {
            float4 w4 = masters.load4(i);
            const float4 g4 = g ? *(const float4 *)(g + i) : float4{};
            float4 m4 = *(float4 *)(m + i), v4 = *(float4 *)(v + i);
            f(w4.x, g4.x, m4.x, v4.x), f(w4.y, g4.y, m4.y, v4.y);
            f(w4.z, g4.z, m4.z, v4.z), f(w4.w, g4.w, m4.w, v4.w);
            *(float4 *)(m + i) = m4, *(float4 *)(v + i) = v4;
            masters.store4(i, w4);
        },
        [&](int64_t i) {
            float w = masters.load(i);
            f(w, g ? g[i] : 0.0f, m[i], v[i]);
            masters.store(i, w);
        });
}

__global__ void __launch_bounds__(THREADS)
    update(const part *parts, const pn_adamw_row *rows, const double *summary, pn_adamw_rates rates) {
    if (summary[PN_ADAMW_MADE] == 0) return;
    const part p = parts[blockIdx.x];
    const pn_adamw_row row = rows[p.row];
    const rule f = { rates, row.decay ? rates.shrink : 1.0f, (float)summary[SCALE] };
    if (row.low)
        update_part(p, row, f, halved(row));
    else
        update_part(p, row, f, whole(row));
}

} // namespace

struct pn_adamw_gpu {
    int64_t n_parts;
    part *part_of;     /* the tables on the host too: which row a sum belongs to, */
    pn_adamw_row *row; /* and rows as they are to be on the GPU */
    int n_rows;
    bool changed; /* since they were copied there */
    pn_storage *rows, *parts, *sums;
    pn_tensor *shared, *summary, *found; /* found: the first values of summary */
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
    g->row = (pn_adamw_row *)malloc(((size_t)n + 1) * sizeof *g->row);
    PN_CHECK(g->row, PN_MEMORY, "out of memory");
    memcpy(g->row, rows, (size_t)n * sizeof *rows);
    g->n_rows = n;
    g->changed = true;
    PN_TRY(table(pool, NULL, (size_t)n * sizeof *rows, &g->rows));
    PN_TRY(table(pool, g->part_of, (size_t)g->n_parts * sizeof *g->part_of, &g->parts));
    PN_TRY(table(pool, NULL, (size_t)g->n_parts * sizeof(double), &g->sums));
    const int64_t values = SUMMARY, shared = PN_ADAMW_SHARED;
    PN_TRY(pn_tensor_zeros(pool, PN_F64, 1, &shared, &g->shared));
    PN_TRY(pn_tensor_zeros(pool, PN_F64, 1, &values, &g->summary));
    PN_TRY(pn_tensor_rows(g->summary, 0, PN_ADAMW_FOUND, &g->found));
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
    pn_tensor_release(&g->shared);
    pn_tensor_release(&g->found);
    pn_tensor_release(&g->summary);
    free(g->part_of);
    free(g->row);
    free(g);
    *gp = NULL;
}

extern "C" void pn_adamw_gpu_gradient(pn_adamw_gpu *g, int row, const float *grad) {
    g->changed = g->changed || g->row[row].grad != grad;
    g->row[row].grad = grad;
}

extern "C" pn_tensor *pn_adamw_gpu_shared(pn_adamw_gpu *g) {
    return g->shared;
}

extern "C" pn_status pn_adamw_gpu_norm(pn_adamw_gpu *g, const float *loss) {
    if (g->changed) PN_TRY(pn_storage_write(g->rows, 0, g->row, (size_t)g->n_rows * sizeof *g->row));
    g->changed = false;
    const part *parts = (const part *)g->parts->data;
    const pn_adamw_row *rows = (const pn_adamw_row *)g->rows->data;
    double *sums = (double *)g->sums->data;
    const unsigned blocks = (unsigned)g->n_parts;
    if (blocks) {
        sum_squares<<<blocks, THREADS, 0, pn_cuda_stream()>>>(parts, rows, sums);
        PN_TRY(pn_cuda_launched(name));
    }
    add_up<<<1, SUM_THREADS, 0, pn_cuda_stream()>>>(sums, g->n_parts, loss, pn_cuda_bad_slot(), pn_f64(g->shared));
    return pn_cuda_launched(name);
}

extern "C" pn_status pn_adamw_gpu_step(pn_adamw_gpu *g, const pn_adamw_rates *rates) {
    const part *parts = (const part *)g->parts->data;
    const pn_adamw_row *rows = (const pn_adamw_row *)g->rows->data;
    double *summary = pn_f64(g->summary);
    const unsigned blocks = (unsigned)g->n_parts;
    summarise<<<1, 1, 0, pn_cuda_stream()>>>(pn_f64(g->shared), rates->clip, summary);
    PN_TRY(pn_cuda_launched(name));
    if (blocks) {
        update<<<blocks, THREADS, 0, pn_cuda_stream()>>>(parts, rows, summary, *rates);
        PN_TRY(pn_cuda_launched(name));
    }
    return PN_OK;
}

extern "C" const pn_tensor *pn_adamw_gpu_found(const pn_adamw_gpu *g) {
    return g->found;
}

extern "C" pn_status pn_adamw_gpu_row(const pn_adamw_gpu *g, int *row) {
    double *sum = (double *)malloc((size_t)(g->n_parts + 1) * sizeof *sum);
    PN_CHECK(sum, PN_MEMORY, "out of memory");
    pn_status s = pn_storage_read(sum, g->sums, 0, (size_t)g->n_parts * sizeof *sum);
    *row = -1;
    for (int64_t k = 0; k < g->n_parts && !s && *row < 0; k++)
        if (!isfinite(sum[k])) *row = g->part_of[k].row;
    free(sum);
    return s;
}
