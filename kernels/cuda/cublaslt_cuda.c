#include "cublaslt_cuda.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
#define LIBRARY    "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

static pn_cublaslt lib;
static bool open;

static pn_status find(void *handle, const char *name, void *function) {
    void *at = dlsym(handle, name);
    PN_CHECK(at, PN_DEVICE, "%s has no %s: it does not belong to this build's CUDA", LIBRARY, name);
    memcpy(function, &at, sizeof at);
    return PN_OK;
}

static pn_status load(void) {
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    PN_CHECK(handle, PN_DEVICE,
             "%s, which multiplies matrices on the GPU, cannot be loaded: %s; install cuBLAS or name "
             "its folder in LD_LIBRARY_PATH",
             LIBRARY, dlerror());
#define X(function) PN_TRY(find(handle, "cublasLt" #function, &lib.function));
    PN_CUBLASLT_MAP(X)
#undef X
    PN_TRY(pn_cublaslt_status(lib.Create(&lib.handle), LIBRARY, "cannot start"));
    return PN_OK;
}

pn_status pn_cublaslt_open(const pn_cublaslt **out) {
    if (!open) PN_TRY(load());
    open = true;
    *out = &lib;
    return PN_OK;
}

pn_status pn_cublaslt_status(cublasStatus_t status, const char *name, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) return PN_OK;
    PN_FAIL(PN_DEVICE, "%s: %s: %s", name, what, lib.GetStatusString(status));
}
