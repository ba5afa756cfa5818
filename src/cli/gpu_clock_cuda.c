#include "gpu_clock.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "log.h"

/* What is used of nvml.h, which comes with few installations of CUDA. */
typedef struct nvml_device *nvml_device;
enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1 };

static struct {
    bool tried;
    nvml_device device; /* NULL: NVML cannot be asked */
    int (*clock)(nvml_device device, int type, unsigned *mhz);
} nvml;

static bool find(void *library, const char *name, void *function) {
    void *at = dlsym(library, name);
    memcpy(function, &at, sizeof at);
    return at != NULL;
}

/* NVML counts all GPUs, CUDA those that it may see: the slot of the bus is what both know. */
static const char *open_device(void) {
    int (*init)(void), (*by_slot)(const char *slot, nvml_device *device), index;
    char slot[32];
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return dlerror();
    if (!find(library, "nvmlInit_v2", &init) || !find(library, "nvmlDeviceGetHandleByPciBusId_v2", &by_slot) ||
        !find(library, "nvmlDeviceGetClockInfo", &nvml.clock))
        return "libnvidia-ml.so.1 lacks a function";
    if (cudaGetDevice(&index) != cudaSuccess || cudaDeviceGetPCIBusId(slot, sizeof slot, index) != cudaSuccess)
        return "CUDA does not say where the GPU is";
    if (init() != NVML_SUCCESS || by_slot(slot, &nvml.device) != NVML_SUCCESS) {
        nvml.device = NULL;
        return "NVML does not know the GPU";
    }
    return NULL;
}

int pn_gpu_clock_mhz(void) {
    unsigned mhz;
    if (!nvml.tried) {
        nvml.tried = true;
        const char *why = open_device();
        if (why) pn_debug("bench", "the GPU's clock: %s", why);
    }
    return nvml.device && nvml.clock(nvml.device, NVML_CLOCK_SM, &mhz) == NVML_SUCCESS ? (int)mhz : 0;
}
