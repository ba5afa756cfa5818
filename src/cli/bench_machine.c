#include "bench_machine.h"

#include <stdlib.h>
#include <string.h>

#include "bench_gpu.h"
#include "clock.h"
#include "cpu/gemm.h"
#include "device.h"
#include "machine.h"
#include "threads.h"

enum { SIDE = 2048, MATRICES = 3 * SIDE * SIDE, GPU_PATTERN = 1 << 22 };

/* A run on the GPU is asked for in microseconds, waiting for it takes ten: samples are long enough for that. */
static const double gpu_sample = 4e-3;

static double triad(double (*now)(void), float *a, const float *b, const float *c, int64_t n) {
    double began = now();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) a[i] = b[i] + 1.5f * c[i];
    return now() - began;
}

static pn_status open_cpu(pn_machine *m) {
    m->clock = pn_timing_clock();
    m->threads = pn_threads();
    m->stream_bytes = pn_bytes_beyond_caches();
    int64_t n = m->stream_bytes / (int64_t)sizeof(float) / 3 * 3;
    m->buffer = aligned_alloc(64, ((size_t)(n + MATRICES) * sizeof(float) + 63) / 64 * 64);
    PN_CHECK(m->buffer, PN_MEMORY, "bench: no memory for the %.1f GB of the stream measurement",
             (double)m->stream_bytes / 1e9);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n + MATRICES; i++) m->buffer[i] = (float)(i * 7919 % 2003) / 2003.0f - 0.5f;
    return PN_OK;
}

static void measure_cpu(pn_machine *m, double *gemm, double *stream) {
    int64_t n = m->stream_bytes / (int64_t)sizeof(float) / 3;
    float *x = m->buffer, *a = x + 3 * n, *b = a + SIDE * SIDE, *c = b + SIDE * SIDE;
    *stream = 3.0 * (double)n * sizeof(float) / triad(m->clock, x, x + n, x + 2 * n, n);
    double began = m->clock();
    pn_sgemm(false, false, SIDE, SIDE, SIDE, a, SIDE, b, SIDE, 0, c, SIDE);
    *gemm = 2.0 * SIDE * SIDE * SIDE / (m->clock() - began);
}

/* Work that failed shows where its results are read, or at the next call. */
static double gpu_clock(void) {
    (void)pn_device_sync();
    return pn_seconds();
}

/* Values that differ: products of zeros run faster. */
static pn_status fill_gpu(pn_machine *m, size_t n_bytes) {
    const size_t pattern_bytes = GPU_PATTERN * pn_dtype_bytes(m->type);
    float *values = malloc(GPU_PATTERN * sizeof *values);
    void *pattern = malloc(pattern_bytes);
    pn_status s = PN_OK;
    if (!values || !pattern) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int64_t i = 0; i < GPU_PATTERN; i++) values[i] = (float)(i * 7919 % 4003) / 4003.0f - 0.5f;
    pn_convert(pattern, m->type, values, PN_F32, GPU_PATTERN);
    for (size_t at = 0; at < n_bytes && !s; at += pattern_bytes)
        s = pn_device_upload((char *)m->gpu + at, pattern, n_bytes - at < pattern_bytes ? n_bytes - at : pattern_bytes);
done:
    free(values);
    free(pattern);
    return s;
}

static pn_status open_gpu(pn_machine *m) {
    pn_device_info gpu;
    PN_TRY(pn_device_describe(&gpu));
    m->clock = gpu_clock;
    m->sample = gpu_sample;
    m->threads = pn_threads();
    snprintf(m->name, sizeof m->name, "%s", gpu.name);
    m->limit_mhz = gpu.clock_mhz;
    size_t n_bytes = pn_gpu_bench_bytes(m->type);
    m->gpu = pn_device_alloc(n_bytes);
    PN_CHECK(m->gpu, PN_MEMORY, "bench: no %.1f GB on the GPU to measure it with", (double)n_bytes / 1e9);
    return fill_gpu(m, n_bytes);
}

pn_status pn_machine_open(pn_machine *m, pn_backend backend, pn_dtype type) {
    *m = (pn_machine){ .backend = backend, .type = type };
    if (backend == PN_CUDA)
        PN_TRY(open_gpu(m));
    else
        PN_TRY(open_cpu(m));
    for (int i = 0; i < 2; i++) { /* the first finds cold caches and a slow clock */
        m->mhz = (pn_clock_seen){ 0 };
        PN_TRY(pn_machine_measure(m));
    }
    return PN_OK;
}

static void note_clock(pn_clock_seen *seen, int mhz) {
    if (!mhz) return;
    if (!seen->n || mhz < seen->least) seen->least = mhz;
    if (mhz > seen->most) seen->most = mhz;
    seen->sum += mhz;
    seen->n++;
}
static double mean_mhz(const pn_machine *m) {
    return m->mhz.n ? m->mhz.sum / m->mhz.n : m->limit_mhz;
}

/* "NVIDIA H100 80GB HBM3, 1755 MHz while measuring (1740 .. 1980)" */
static const char *gpu_text(const pn_machine *m, char *text, size_t n) {
    if (m->mhz.n)
        snprintf(text, n, "%s, %.0f MHz while measuring (%d .. %d)", m->name, mean_mhz(m), m->mhz.least, m->mhz.most);
    else
        snprintf(text, n, "%s, %d MHz at its maximum", m->name, m->limit_mhz);
    return text;
}

pn_status pn_machine_measure(pn_machine *m) {
    double gemm, stream;
    if (m->backend == PN_CUDA) {
        pn_gpu_ceilings can;
        PN_TRY(pn_gpu_measure(m->gpu, m->type, &can));
        gemm = can.product;
        stream = can.copy;
        note_clock(&m->mhz, can.clock_mhz);
    } else {
        measure_cpu(m, &gemm, &stream);
    }
    if (stream > m->stream) m->stream = stream;
    if (gemm > m->gemm) m->gemm = gemm;
    return PN_OK;
}

void pn_machine_free(pn_machine *m) {
    free(m->buffer);
    m->buffer = NULL;
    if (m->gpu) pn_device_free(m->gpu);
    m->gpu = NULL;
}

double pn_machine_floor(const pn_machine *m, const pn_op_cost *cost) {
    double flops = cost->flops / m->gemm, bytes = cost->bytes / m->stream;
    return flops > bytes ? flops : bytes;
}

bool pn_machine_bound_by_flops(const pn_machine *m, const pn_op_cost *cost) {
    return cost->flops / m->gemm > cost->bytes / m->stream;
}

void pn_machine_print(const pn_machine *m, FILE *out) {
    char gpu[256];
    if (m->backend == PN_CUDA)
        fprintf(out, "%s; %s product %d^3 %.1f TFLOP/s; copy of %.1f GB %.2f TB/s\n", gpu_text(m, gpu, sizeof gpu),
                pn_dtype_name(m->type), (int)PN_GPU_SIDE, m->gemm / 1e12, (double)PN_GPU_COPY_BYTES / 1e9,
                m->stream / 1e12);
    else
        fprintf(out, "%d thread%s, %s; sgemm %d^3 %.1f GFLOP/s (%s); triad over %.0f MB %.1f GB/s\n", m->threads,
                m->threads == 1 ? "" : "s", m->threads == 1 ? "its processor time" : "wall time", (int)SIDE,
                m->gemm / 1e9, openblas_get_corename(), (double)m->stream_bytes / 1e6, m->stream / 1e9);
}

json_t *pn_machine_json(const pn_machine *m) {
    char gpu[256];
    if (m->backend == PN_CUDA)
        return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:s, s:i, s:i, s:i}", "gpu", gpu_text(m, gpu, sizeof gpu),
                         "dtype", pn_dtype_name(m->type), "clock", "wall time", "gemm_gflops", m->gemm / 1e9,
                         "stream_gbytes", m->stream / 1e9, "clock_mhz", mean_mhz(m), "clock_mhz_is",
                         m->mhz.n ? "measured" : "maximum", "clock_min_mhz", m->mhz.least, "clock_max_mhz", m->mhz.most,
                         "clock_limit_mhz", m->limit_mhz);
    return json_pack("{s:i, s:s, s:f, s:f, s:s}", "threads", m->threads, "clock", pn_timing_clock_name(),
                     "sgemm_gflops", m->gemm / 1e9, "stream_gbytes", m->stream / 1e9, "blas_core",
                     openblas_get_corename());
}
