#include "bench_gpu.h"

size_t pn_gpu_bench_bytes(pn_dtype type) {
    (void)type;
    return 0;
}

pn_status pn_gpu_measure(void *memory, pn_dtype type, pn_gpu_ceilings *out) {
    (void)memory, (void)type, (void)out;
    PN_FAIL(PN_UNSUPPORTED, "this build of postnas has no CUDA");
}
