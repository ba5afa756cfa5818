#include "tensor_map_cuda.h"

#include <string.h>

#include "device_cuda.h"

enum { COLS = 64 };

pn_status pn_tensor_map_of(const char *name, const void *matrix, const pn_tensor_pieces *p, CUtensorMap *out) {
    static __typeof__(&cuTensorMapEncodeTiled) encode;
    void *address;
    const cuuint64_t size[] = { (cuuint64_t)p->cols, (cuuint64_t)p->rows };
    const cuuint64_t row_bytes[] = { 2 * (cuuint64_t)(p->row ? p->row : p->cols) };
    const cuuint32_t box[] = { (cuuint32_t)p->box_cols, (cuuint32_t)p->box_rows }, step[] = { 1, 1 };
    memcpy(&address, &matrix, sizeof address);
    if (!encode) PN_TRY(pn_cuda_driver("cuTensorMapEncodeTiled", 12000, &encode, sizeof encode));
    CUresult result =
        encode(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, address, size, row_bytes, box, step,
               CU_TENSOR_MAP_INTERLEAVE_NONE, p->plain ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    PN_CHECK(result == CUDA_SUCCESS, PN_DEVICE, "%s: the driver makes no tensor map of %lld x %lld (error %d)", name,
             (long long)p->rows, (long long)p->cols, (int)result);
    return PN_OK;
}

pn_status pn_tensor_map(const char *name, const void *matrix, int64_t rows, int64_t cols, int box_rows,
                        CUtensorMap *out) {
    const pn_tensor_pieces p = { .rows = rows, .cols = cols, .box_rows = box_rows, .box_cols = COLS };
    return pn_tensor_map_of(name, matrix, &p, out);
}
