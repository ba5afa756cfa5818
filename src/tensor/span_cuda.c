#include "span.h"

#include <cuda.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "device_cuda.h"

/* Of the driver, which a program for machines without a GPU is not linked with. */
static struct {
    __typeof__(&cuMemAddressReserve) reserve;
    __typeof__(&cuMemAddressFree) free_addresses;
    __typeof__(&cuMemCreate) create;
    __typeof__(&cuMemRelease) release;
    __typeof__(&cuMemMap) map;
    __typeof__(&cuMemUnmap) unmap;
    __typeof__(&cuMemSetAccess) set_access;
} driver;

struct pn_span {
    CUdeviceptr base;
    size_t reserved, n_bytes; /* addresses, and memory */
    CUmemAllocationProp kind;
};

static pn_status find_driver(void) {
    if (driver.set_access) return PN_OK;
#define FIND(member, name) PN_TRY(pn_cuda_driver(name, 10020, &driver.member, sizeof driver.member))
    FIND(reserve, "cuMemAddressReserve");
    FIND(free_addresses, "cuMemAddressFree");
    FIND(create, "cuMemCreate");
    FIND(release, "cuMemRelease");
    FIND(map, "cuMemMap");
    FIND(unmap, "cuMemUnmap");
    FIND(set_access, "cuMemSetAccess");
#undef FIND
    return PN_OK;
}

static pn_status check(CUresult result, const char *what) {
    PN_CHECK(result != CUDA_ERROR_OUT_OF_MEMORY, PN_MEMORY, "%s: the GPU's memory is exhausted", what);
    PN_CHECK(result == CUDA_SUCCESS, PN_DEVICE, "%s: driver error %d", what, (int)result);
    return PN_OK;
}

pn_status pn_span_create(pn_span **out) {
    pn_device_info gpu;
    int index;
    PN_TRY(find_driver());
    PN_TRY(pn_device_describe(&gpu));
    PN_TRY(pn_cuda_status(cudaGetDevice(&index), "asking for the GPU's number"));
    pn_span *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    s->reserved = pn_span_rounded(gpu.memory_bytes);
    s->kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    s->kind.location = (CUmemLocation){ .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = index };
    const pn_status status =
        check(driver.reserve(&s->base, s->reserved, PN_SPAN_CHUNK, 0, 0), "addresses for the GPU's memory");
    if (status) {
        free(s);
        return status;
    }
    *out = s;
    return PN_OK;
}

void *pn_span_address(const pn_span *s) {
    return (void *)(uintptr_t)s->base;
}

/* A chunk behind what there is. */
static pn_status add(pn_span *s) {
    const CUmemAccessDesc both = { .location = s->kind.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE };
    const CUdeviceptr at = s->base + s->n_bytes;
    CUmemGenericAllocationHandle chunk;
    CUresult made = driver.create(&chunk, PN_SPAN_CHUNK, &s->kind, 0);
    if (made == CUDA_ERROR_OUT_OF_MEMORY) { /* what others gave back may be kept for them */
        PN_TRY(pn_cuda_give_back());
        made = driver.create(&chunk, PN_SPAN_CHUNK, &s->kind, 0);
    }
    PN_TRY(check(made, "memory of the GPU"));
    pn_status status = check(driver.map(at, PN_SPAN_CHUNK, 0, chunk, 0), "mapping memory of the GPU");
    if (!status) {
        status = check(driver.set_access(at, PN_SPAN_CHUNK, &both, 1), "opening memory of the GPU");
        if (status) (void)driver.unmap(at, PN_SPAN_CHUNK);
    }
    (void)driver.release(chunk); /* mapped, it stays until it is unmapped */
    if (!status) s->n_bytes += PN_SPAN_CHUNK;
    return status;
}

pn_status pn_span_resize(pn_span *s, size_t n_bytes) {
    const size_t wanted = pn_span_rounded(n_bytes);
    PN_CHECK(wanted <= s->reserved, PN_MEMORY, "the GPU's memory is exhausted");
    if (wanted < s->n_bytes) PN_TRY(pn_device_sync()); /* nothing may use what goes */
    while (s->n_bytes > wanted) {
        PN_TRY(
            check(driver.unmap(s->base + s->n_bytes - PN_SPAN_CHUNK, PN_SPAN_CHUNK), "giving memory of the GPU back"));
        s->n_bytes -= PN_SPAN_CHUNK;
    }
    PN_CHECK(s->n_bytes == wanted || !pn_graph_recording(), PN_UNSUPPORTED, "taking memory cannot be recorded");
    while (s->n_bytes < wanted) PN_TRY(add(s));
    return PN_OK;
}

void pn_span_destroy(pn_span **sp) {
    pn_span *s = sp ? *sp : NULL;
    if (!s) return;
    if (!pn_span_resize(s, 0)) (void)driver.free_addresses(s->base, s->reserved);
    free(s);
    *sp = NULL;
}
