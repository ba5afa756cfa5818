#include "fill_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "device.h"

bool pn_cuda_fills(void) {
    static enum { UNSET, NO, YES } fills;
    if (!fills) {
        const char *wish = getenv("PN_CUDA_FILL");
        fills = wish && !strcmp(wish, "1") ? YES : NO;
    }
    return fills == YES;
}

pn_status pn_cuda_fill(void *p, size_t n_bytes) {
    if (pn_cuda_fills()) PN_TRY(pn_device_fill(p, PN_CUDA_FILL_BYTE, n_bytes));
    return PN_OK;
}

pn_status pn_cuda_fill_tensor(const pn_tensor *t) {
    if (t) PN_TRY(pn_cuda_fill(pn_data(t), pn_tensor_bytes(t)));
    return PN_OK;
}
