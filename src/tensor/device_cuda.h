/* What the CUDA sources of other rooms need of the device: its stream, and how a launch reports. */
#ifndef PN_TENSOR_DEVICE_CUDA_H
#define PN_TENSOR_DEVICE_CUDA_H

#include <cuda_runtime_api.h>

#include "status.h"

/* Valid once the device is open: whoever holds a tensor on the GPU may call these. */
cudaStream_t pn_cuda_stream(void);
int pn_cuda_multiprocessors(void);

/* After a kernel's launch. kernel: "silu/cuda", a literal. PN_DEVICE when it could not start. */
pn_status pn_cuda_launched(const char *kernel);
/* PN_OK for cudaSuccess; else PN_DEVICE, or PN_MEMORY, with what was tried and CUDA's own words. */
pn_status pn_cuda_status(cudaError_t error, const char *what);

/* A kernel that meets an id outside its table may not touch the table: it writes what it saw here (the first one wins),
 * and the host makes PN_USAGE of it at the next synchronisation. Host memory that the GPU can write. */
typedef struct pn_cuda_bad_id {
    int taken; /* 0: none so far */
    int id;
    long long at, end; /* position; ids are 0 .. end - 1 */
    const char *what;  /* "embedding: token id": a literal of the host */
} pn_cuda_bad_id;
pn_cuda_bad_id *pn_cuda_bad_id_slot(void); /* the address as the GPU sees it */

#endif
