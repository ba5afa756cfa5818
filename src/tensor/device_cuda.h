/* What the CUDA sources of other rooms need of the device: its stream, and how a launch reports. */
#ifndef PN_TENSOR_DEVICE_CUDA_H
#define PN_TENSOR_DEVICE_CUDA_H

#include <stdbool.h>

#include <cuda_runtime_api.h>

#include "status.h"

/* Valid once the device is open: whoever holds a tensor on the GPU may call these. */
cudaStream_t pn_cuda_stream(void);
int pn_cuda_multiprocessors(void);
size_t pn_cuda_shared_most(void); /* bytes of shared memory that a block may have */

/* After a kernel's launch. kernel: "silu/cuda", a literal. PN_DEVICE when it could not start. */
pn_status pn_cuda_launched(const char *kernel);
/* PN_OK for cudaSuccess; else PN_DEVICE, or PN_MEMORY, with what was tried and CUDA's own words. */
pn_status pn_cuda_status(cudaError_t error, const char *what);

/* A function of the driver, as of that CUDA version (12000 is 12.0), by its name: the program is not linked with the
 * driver, which machines without a GPU lack. *function is a pointer to it, of n_bytes. */
pn_status pn_cuda_driver(const char *name, int version, void *function, size_t n_bytes);
/* Memory that was given back, and is kept for who asks next, goes back to the system. Waits for the GPU. */
pn_status pn_cuda_give_back(void);

/* A kernel that meets an input outside the contract (an id outside its table, a negative weight) leaves it alone and
 * writes what it saw here, the first one to come; the host makes PN_USAGE of it at the next synchronisation. Memory of
 * the host that the GPU can write. */
typedef struct pn_cuda_bad {
    int taken; /* 0: none so far */
    bool weight;
    double value;           /* the id or the weight */
    long long at, low, end; /* its position; ids are low .. end - 1 */
    const char *what;       /* "embedding: token id", or the op's name for a weight: a literal of the host */
} pn_cuda_bad;
pn_cuda_bad *pn_cuda_bad_slot(void); /* the address as the GPU sees it */

#endif
