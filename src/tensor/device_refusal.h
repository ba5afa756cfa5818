/* Why a GPU cannot be used, as one sentence with the remedy: decided from what CUDA says, without CUDA, so that every
 * machine can be played (tests/unit/device_refusal.c). What is refused is PN_UNSUPPORTED. */
#ifndef PN_TENSOR_DEVICE_REFUSAL_H
#define PN_TENSOR_DEVICE_REFUSAL_H

#include "status.h"

/* Values of cudaError_t, which device_cuda.c compares with CUDA's own. */
enum {
    PN_CUDA_NO_MEMORY = 2,
    PN_CUDA_OLD_DRIVER = 35,   /* older than this build's CUDA */
    PN_CUDA_NEWER_DRIVER = 36, /* the call needs one */
    PN_CUDA_NO_DEVICE = 100,
    PN_CUDA_NO_CODE = 209,  /* for this GPU in this build */
    PN_CUDA_NEWER_PTX = 222 /* than the driver can translate */
};

/* What was found when looking for GPUs. */
typedef struct pn_gpu_search {
    int error;           /* of counting them */
    const char *words;   /* CUDA's for it */
    int driver, runtime; /* CUDA version each knows: 13000 is 13.0; driver 0: none is there */
    int n;
    const char *visible; /* CUDA_VISIBLE_DEVICES, NULL: not set */
} pn_gpu_search;

/* PN_OK: there is one. PN_DEVICE: an error that says nothing of the machine. */
pn_status pn_gpu_search_check(const pn_gpu_search *found);
/* Compute capability major.minor of the GPU with that name. */
pn_status pn_gpu_architecture_check(const char *name, int major, int minor);
/* ranks of one machine that share `gpus`: one for each, or one of their own that their launcher alone lets them see.
 * PN_USAGE: there are fewer. */
pn_status pn_gpu_ranks_check(int ranks, int gpus);

/* A call of CUDA that failed; never PN_OK. */
typedef struct pn_gpu_failure {
    int error;
    const char *words, *name; /* CUDA's: "out of memory", "cudaErrorMemoryAllocation" */
    int major, minor;         /* of the GPU; 0: not known yet */
    const char *archs;        /* what the build has code for, as CMAKE_CUDA_ARCHITECTURES says it */
} pn_gpu_failure;

/* PN_MEMORY; PN_UNSUPPORTED where this build's code does not run on this GPU or its driver; else PN_DEVICE. what: what
 * was tried. */
pn_status pn_gpu_failed(const pn_gpu_failure *f, const char *what);

#endif
