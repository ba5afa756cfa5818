/* What the GPU can do: bench_machine.h of PN_CUDA. bench_gpu_nocuda.c where nvcc is missing; nothing calls it there. */
#ifndef PN_CLI_BENCH_GPU_H
#define PN_CLI_BENCH_GPU_H

#include "op.h"

typedef struct pn_gpu_ceilings {
    double product; /* flops per second */
    double copy;    /* bytes per second, read and written */
    int clock_mhz;  /* meanwhile; 0: not known */
} pn_gpu_ceilings;

enum { PN_GPU_SIDE = 8192, PN_GPU_COPY_BYTES = 1 << 30 };

/* memory: pn_gpu_bench_bytes(type) on the GPU, filled with finite values. A product of square matrices of PN_GPU_SIDE
 * in `type` by cuBLASLt, and a copy of PN_GPU_COPY_BYTES. */
size_t pn_gpu_bench_bytes(pn_dtype type);
pn_status pn_gpu_measure(void *memory, pn_dtype type, pn_gpu_ceilings *out);

#endif
