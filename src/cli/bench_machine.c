#include "bench_machine.h"

#include <stdlib.h>

#include "cpu/gemm.h"
#include "machine.h"
#include "threads.h"
#include "timing.h"

enum { SIDE = 2048, MATRICES = 3 * SIDE * SIDE };

static double triad(double (*now)(void), float *a, const float *b, const float *c, int64_t n) {
    double began = now();
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < n; i++) a[i] = b[i] + 1.5f * c[i];
    return now() - began;
}

pn_status pn_machine_open(pn_machine *m) {
    *m = (pn_machine){ .clock = pn_timing_clock(), .threads = pn_threads(), .stream_bytes = pn_bytes_beyond_caches() };
    int64_t n = m->stream_bytes / (int64_t)sizeof(float) / 3 * 3;
    m->buffer = aligned_alloc(64, ((size_t)(n + MATRICES) * sizeof(float) + 63) / 64 * 64);
    PN_CHECK(m->buffer, PN_MEMORY, "bench: no memory for the %.1f GB of the stream measurement",
             (double)m->stream_bytes / 1e9);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n + MATRICES; i++) m->buffer[i] = (float)(i * 7919 % 2003) / 2003.0f - 0.5f;
    pn_machine_measure(m);
    pn_machine_measure(m); /* the first has found cold caches, sleeping threads and a slow clock */
    return PN_OK;
}

void pn_machine_measure(pn_machine *m) {
    int64_t n = m->stream_bytes / (int64_t)sizeof(float) / 3;
    float *x = m->buffer, *a = x + 3 * n, *b = a + SIDE * SIDE, *c = b + SIDE * SIDE;
    double stream = 3.0 * (double)n * sizeof(float) / triad(m->clock, x, x + n, x + 2 * n, n);
    double began = m->clock();
    pn_sgemm(false, false, SIDE, SIDE, SIDE, a, SIDE, b, SIDE, 0, c, SIDE);
    double sgemm = 2.0 * SIDE * SIDE * SIDE / (m->clock() - began);
    if (stream > m->stream) m->stream = stream;
    if (sgemm > m->sgemm) m->sgemm = sgemm;
}

void pn_machine_free(pn_machine *m) {
    free(m->buffer);
    m->buffer = NULL;
}

double pn_machine_floor(const pn_machine *m, const pn_op_cost *cost) {
    double flops = cost->flops / m->sgemm, bytes = cost->bytes / m->stream;
    return flops > bytes ? flops : bytes;
}

bool pn_machine_bound_by_flops(const pn_machine *m, const pn_op_cost *cost) {
    return cost->flops / m->sgemm > cost->bytes / m->stream;
}

void pn_machine_print(const pn_machine *m, FILE *out) {
    fprintf(out, "%d thread%s, %s; sgemm %d^3 %.1f GFLOP/s (%s); triad over %.0f MB %.1f GB/s\n", m->threads,
            m->threads == 1 ? "" : "s", m->threads == 1 ? "its processor time" : "wall time", (int)SIDE, m->sgemm / 1e9,
            openblas_get_corename(), (double)m->stream_bytes / 1e6, m->stream / 1e9);
}

json_t *pn_machine_json(const pn_machine *m) {
    return json_pack("{s:i, s:s, s:f, s:f, s:s}", "threads", m->threads, "clock", pn_timing_clock_name(),
                     "sgemm_gflops", m->sgemm / 1e9, "stream_gbytes", m->stream / 1e9, "blas_core",
                     openblas_get_corename());
}
