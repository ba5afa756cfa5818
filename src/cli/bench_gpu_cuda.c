#include "bench_gpu.h"

#include "cuda/matmul_cuda.h"
#include "device.h"
#include "gpu_clock.h"

static size_t matrix_bytes(pn_dtype type) {
    return (size_t)PN_GPU_SIDE * PN_GPU_SIDE * pn_dtype_bytes(type);
}

/* Three matrices and the product's workspace, or the two ends of the copy: one after the other in the same memory. */
size_t pn_gpu_bench_bytes(pn_dtype type) {
    size_t product = 3 * matrix_bytes(type) + PN_MATMUL_WORKSPACE, copy = 2 * (size_t)PN_GPU_COPY_BYTES;
    return product > copy ? product : copy;
}

static pn_status product(void *memory, pn_dtype type) {
    char *a = memory, *b = a + matrix_bytes(type), *c = b + matrix_bytes(type);
    const pn_matmul p = { .name = "bench",
                          .m = PN_GPU_SIDE,
                          .n = PN_GPU_SIDE,
                          .k = PN_GPU_SIDE,
                          .a = a,
                          .b = b,
                          .c = c,
                          .a_type = type,
                          .b_type = type,
                          .c_type = type,
                          .b_turned = true };
    return pn_cuda_matmul(&p, c + matrix_bytes(type));
}

static pn_status copy(void *memory) {
    return pn_device_copy((char *)memory + PN_GPU_COPY_BYTES, memory, PN_GPU_COPY_BYTES);
}

pn_status pn_gpu_measure(void *memory, pn_dtype type, pn_gpu_ceilings *out) {
    pn_event *at[3] = { NULL };
    pn_status s = PN_OK;
    double products, copies;
    int mhz;
    for (int i = 0; i < 3; i++) PN_TRY_GOTO(s, pn_event_create(&at[i]), done);
    PN_TRY_GOTO(s, product(memory, type), done); /* makes its plan */
    PN_TRY_GOTO(s, pn_event_record(at[0]), done);
    PN_TRY_GOTO(s, product(memory, type), done);
    PN_TRY_GOTO(s, pn_event_record(at[1]), done);
    PN_TRY_GOTO(s, copy(memory), done);
    PN_TRY_GOTO(s, pn_event_record(at[2]), done);
    mhz = pn_gpu_clock_mhz(); /* all was asked for and takes milliseconds */
    PN_TRY_GOTO(s, pn_event_seconds(at[0], at[1], &products), done);
    PN_TRY_GOTO(s, pn_event_seconds(at[1], at[2], &copies), done);
    *out = (pn_gpu_ceilings){ .product = 2.0 * PN_GPU_SIDE * PN_GPU_SIDE * PN_GPU_SIDE / products,
                              .copy = 2.0 * PN_GPU_COPY_BYTES / copies,
                              .clock_mhz = mhz };
done:
    for (int i = 0; i < 3; i++) pn_event_destroy(&at[i]);
    return s;
}
