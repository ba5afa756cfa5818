/* What this machine can do, measured in the same run as what is compared with it. On the CPU: OpenBLAS's sgemm on
 * 2048 x 2048 matrices and the triad a = b + s c on arrays beyond the caches, with the same threads. On the GPU: a
 * product of cuBLASLt on 8192 x 8192 matrices in the compute type, and a copy.
 *
 * Several measurements are taken over a run and the best of each counts: the most that the machine can do. One thread
 * is timed by its own processor time, so that time slices of others do not count; several threads by the clock on the
 * wall, and so is the GPU, waited for before the clock is read. */
#ifndef PN_CLI_BENCH_MACHINE_H
#define PN_CLI_BENCH_MACHINE_H

#include <jansson.h>

#include "op.h"
#include "timing.h"

typedef struct pn_clock_seen { /* MHz */
    int least, most, n;        /* n: how often it was seen; 0: the driver does not say */
    double sum;
} pn_clock_seen;

typedef struct pn_machine {
    pn_backend backend;
    pn_dtype type;         /* what is computed in */
    double (*clock)(void); /* seconds */
    double sample;         /* seconds: shorter runs are timed several together (timing.h) */
    int threads;
    double gemm;   /* flops per second, the best so far */
    double stream; /* bytes per second, likewise */
    int64_t stream_bytes;
    float *buffer; /* CPU: the triad's arrays, then the matrices; owned */
    void *gpu;     /* GPU: memory for its measurements; owned */
    /* GPU */
    char name[128];
    int limit_mhz;     /* its clock at the highest */
    pn_clock_seen mhz; /* while it was measured */
} pn_machine;

/* PN_CPU in F32, or PN_CUDA. Takes its memory and measures. Free it either way. PN_UNSUPPORTED: there is no GPU. */
pn_status pn_machine_open(pn_machine *m, pn_backend backend, pn_dtype type);
pn_status pn_machine_measure(pn_machine *m); /* once more */
void pn_machine_free(pn_machine *m);

/* The least time of a cost: as many flops as the product does, as many bytes as the stream moves, whichever takes
 * longer. */
double pn_machine_floor(const pn_machine *m, const pn_op_cost *cost);
bool pn_machine_bound_by_flops(const pn_machine *m, const pn_op_cost *cost);

/* The line that heads a table, and the same as JSON (the caller owns it). */
void pn_machine_print(const pn_machine *m, FILE *out);
json_t *pn_machine_json(const pn_machine *m);

#endif
