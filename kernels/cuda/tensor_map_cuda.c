#include "tensor_map_cuda.h"

#include <string.h>

#include "device_cuda.h"

enum { COLS = 64, DIMS = 4 };

static pn_status make(const char *name, const void *first, int rank, const int64_t *size, const int64_t *step,
                      const int *box, bool plain, CUtensorMap *out) {
    static __typeof__(&cuTensorMapEncodeTiled) encode;
    void *address;
    cuuint64_t sizes[DIMS], bytes[DIMS];
    cuuint32_t boxes[DIMS], each[DIMS];
    for (int i = 0; i < rank; i++) {
        sizes[i] = (cuuint64_t)size[i], boxes[i] = (cuuint32_t)box[i], each[i] = 1;
        if (i > 0) bytes[i - 1] = 2 * (cuuint64_t)step[i];
    }
    memcpy(&address, &first, sizeof address);
    if (!encode) PN_TRY(pn_cuda_driver("cuTensorMapEncodeTiled", 12000, &encode, sizeof encode));
    const CUtensorMapSwizzle swizzle = plain                ? CU_TENSOR_MAP_SWIZZLE_NONE
                                       : box[0] == COLS / 2 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                            : CU_TENSOR_MAP_SWIZZLE_128B;
    CUresult result = encode(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, (cuuint32_t)rank, address, sizes, bytes, boxes,
                             each, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    PN_CHECK(result == CUDA_SUCCESS, PN_DEVICE, "%s: the driver makes no tensor map of %lld x %lld (error %d)", name,
             (long long)size[1], (long long)size[0], (int)result);
    return PN_OK;
}

pn_status pn_tensor_map_of(const char *name, const void *matrix, const pn_tensor_pieces *p, CUtensorMap *out) {
    const int64_t size[] = { p->cols, p->rows }, step[] = { 1, p->row ? p->row : p->cols };
    const int box[] = { p->box_cols, p->box_rows };
    return make(name, matrix, 2, size, step, box, p->plain, out);
}

pn_status pn_tensor_map_of_view(const char *name, const void *first, const pn_tensor_view *v, CUtensorMap *out) {
    return make(name, first, DIMS, v->size, v->step, v->box, false, out);
}

pn_status pn_tensor_map(const char *name, const void *matrix, int64_t rows, int64_t cols, int box_rows,
                        CUtensorMap *out) {
    const pn_tensor_pieces p = { .rows = rows, .cols = cols, .box_rows = box_rows, .box_cols = COLS };
    return pn_tensor_map_of(name, matrix, &p, out);
}
