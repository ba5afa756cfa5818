#include "tensor_info.h"

#include <string.h>

const char *pn_tensor_info_shape_text(const pn_tensor_info *info) {
    static _Thread_local char buffers[4][192];
    static _Thread_local unsigned next;
    char *b = buffers[next++ % 4];
    size_t len = (size_t)snprintf(b, sizeof buffers[0], "[");
    for (int i = 0; i < info->rank; i++)
        len += (size_t)snprintf(b + len, sizeof buffers[0] - len, "%s%lld", i ? ", " : "", (long long)info->shape[i]);
    snprintf(b + len, sizeof buffers[0] - len, "]");
    return b;
}

pn_status pn_tensor_info_expect(const char *path, const pn_tensor_info *info, const pn_tensor *dst) {
    PN_CHECK(info->rank <= PN_MAX_RANK, PN_UNSUPPORTED, "%s: tensor %.200s has %d dimensions; at most %d are read",
             path, info->name, info->rank, PN_MAX_RANK);
    bool same = info->rank == dst->rank;
    for (int i = 0; same && i < info->rank; i++) same = info->shape[i] == dst->shape[i];
    PN_CHECK(same, PN_FORMAT,
             "%s: tensor %.200s has shape %s where %s is needed; is this the file its config describes?", path,
             info->name, pn_tensor_info_shape_text(info), pn_tensor_shape_text(dst));
    return PN_OK;
}

void pn_convert_unaligned(void *dst, pn_dtype dst_type, const void *src, pn_dtype src_type, int64_t n) {
    size_t from = pn_dtype_bytes(src_type), to = pn_dtype_bytes(dst_type);
    if (dst_type == src_type || (uintptr_t)src % from == 0) {
        pn_convert(dst, dst_type, src, src_type, n);
        return;
    }
    enum { PIECE = 1024 };
    double aligned[PIECE]; /* room for PIECE elements of the widest dtype, aligned for any */
    for (int64_t i = 0; i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        memcpy(aligned, (const char *)src + (size_t)i * from, (size_t)m * from);
        pn_convert((char *)dst + (size_t)i * to, dst_type, aligned, src_type, m);
    }
}
