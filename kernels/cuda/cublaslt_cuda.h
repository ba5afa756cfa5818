/* The functions of cuBLASLt that are used, loaded when first asked for. */
#ifndef PN_KERNELS_CUDA_CUBLASLT_CUDA_H
#define PN_KERNELS_CUDA_CUBLASLT_CUDA_H

#include <cublasLt.h>

#include "status.h"

#define PN_CUBLASLT_MAP(X)                                                                                             \
    X(Create)                                                                                                          \
    X(GetStatusString)                                                                                                 \
    X(Matmul)                                                                                                          \
    X(MatmulAlgoGetHeuristic)                                                                                          \
    X(MatmulDescCreate)                                                                                                \
    X(MatmulDescDestroy)                                                                                               \
    X(MatmulDescSetAttribute)                                                                                          \
    X(MatmulPreferenceCreate)                                                                                          \
    X(MatmulPreferenceDestroy)                                                                                         \
    X(MatmulPreferenceSetAttribute)                                                                                    \
    X(MatrixLayoutCreate)                                                                                              \
    X(MatrixLayoutDestroy)                                                                                             \
    X(MatrixLayoutSetAttribute)

typedef struct pn_cublaslt {
    cublasLtHandle_t handle;
#define X(function) __typeof__(&cublasLt##function) function;
    PN_CUBLASLT_MAP(X)
#undef X
} pn_cublaslt;

/* Borrowed, for as long as the program runs. PN_DEVICE when the library cannot be loaded. */
pn_status pn_cublaslt_open(const pn_cublaslt **out);
/* PN_OK for success; else PN_DEVICE with cuBLAS's word for it. */
pn_status pn_cublaslt_status(cublasStatus_t status, const char *name, const char *what);

#endif
