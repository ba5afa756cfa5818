#include "copy_rows.h"

#include <string.h>

pn_status pn_tensor_copy_rows(pn_tensor *to, const int64_t *to_row, const pn_tensor *from, const int64_t *from_row,
                              int64_t n) {
    PN_ASSERT(to->rank == 2 && from->rank == 2 && to->shape[1] == from->shape[1] && to->dtype == from->dtype);
    const size_t row = (size_t)to->shape[1] * pn_dtype_bytes(to->dtype);
    if (!to->storage->data || !from->storage->data || n == 0 || row == 0) return PN_OK;
    char *y = pn_data(to);
    const char *x = pn_data(from);
    if (pn_pool_kind_of(to->storage->pool) == PN_POOL_DEVICE) return pn_cuda_copy_rows(y, to_row, x, from_row, n, row);
    for (int64_t i = 0; i < n; i++)
        memcpy(y + (size_t)to_row[i] * row, x + (size_t)(from_row ? from_row[i] : i) * row, row);
    return PN_OK;
}
