/* GGUF tensors by name, dequantised. */
#include <stdlib.h>
#include <string.h>

#include "gguf_internal.h"

const char *pn_gguf_path(const pn_gguf *f) {
    return f->path;
}

int64_t pn_gguf_count(const pn_gguf *f) {
    return f->n_tensors;
}

const pn_tensor_info *pn_gguf_info(const pn_gguf *f, int64_t i) {
    PN_ASSERT(0 <= i && i < f->n_tensors);
    return &f->tensor[i].info;
}

static int name_against(const void *name, const void *t) {
    return strcmp(name, (*(pn_gguf_tensor *const *)t)->name);
}

const pn_tensor_info *pn_gguf_find(const pn_gguf *f, const char *name) {
    pn_gguf_tensor **hit = bsearch(name, f->by_name, (size_t)f->n_tensors, sizeof(pn_gguf_tensor *), name_against);
    return hit ? &(*hit)->info : NULL;
}

/* Whole blocks, a piece at a time, so that another dtype than f32 costs no second copy of the tensor. */
static void dequantise(const pn_gguf_type *type, const uint8_t *blocks, int64_t n_blocks, pn_tensor *dst) {
    enum { PIECE = 16 * PN_GGUF_MAX_BLOCK };
    int64_t per_piece = PIECE / type->block_elems, pieces = (n_blocks + per_piece - 1) / per_piece;
    size_t to = pn_dtype_bytes(dst->dtype);
    char *out = pn_data(dst);
#pragma omp parallel for schedule(static) if (pieces > 64)
    for (int64_t p = 0; p < pieces; p++) {
        int64_t first = p * per_piece, n = n_blocks - first < per_piece ? n_blocks - first : per_piece;
        float values[PIECE];
        char *at = out + (size_t)(first * type->block_elems) * to;
        type->to_f32(blocks + first * type->block_bytes, n, dst->dtype == PN_F32 ? (float *)(void *)at : values);
        if (dst->dtype != PN_F32) pn_convert(at, dst->dtype, values, PN_F32, n * type->block_elems);
    }
}

pn_status pn_gguf_read_info(const pn_gguf *f, const pn_tensor_info *info, pn_tensor *dst) {
    const pn_gguf_tensor *t = (const pn_gguf_tensor *)(const void *)info;
    PN_TRY(pn_tensor_info_expect(f->path, info, dst));
    PN_CHECK(t->type, PN_UNSUPPORTED, "%s: tensor %.200s has the unknown type %u", f->path, info->name, t->type_id);
    if (info->dtype != PN_DTYPES) {
        pn_convert_unaligned(pn_data(dst), dst->dtype, info->data, info->dtype, info->n_elems);
        return PN_OK;
    }
    PN_CHECK(t->type->to_f32, PN_UNSUPPORTED,
             "%s: tensor %.200s is quantised as %s; postnas reads Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and Q2_K to Q6_K",
             f->path, info->name, info->type);
    dequantise(t->type, info->data, info->n_elems / t->type->block_elems, dst);
    return PN_OK;
}

pn_status pn_gguf_read(const pn_gguf *f, const char *name, pn_tensor *dst) {
    const pn_tensor_info *info = pn_gguf_find(f, name);
    PN_CHECK(info, PN_FORMAT, "%s: there is no tensor %.200s in it", f->path, name);
    return pn_gguf_read_info(f, info, dst);
}
