/* Bytes into, out of and between storages of every kind. */
#include "pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "device.h"

static bool on_device(const pn_storage *s) {
    return pn_pool_kind_of(s->pool) == PN_POOL_DEVICE;
}

static char *address(const pn_storage *s, size_t at, size_t n_bytes) {
    PN_ASSERT(at <= s->n_bytes && n_bytes <= s->n_bytes - at);
    return (char *)s->data + at;
}

/* A step clears as much memory as its activations take: all threads do. */
static void fill_host(char *at, int64_t n, int byte) {
    enum { RUN = 1 << 16 };
#pragma omp parallel for schedule(static) if (n > 4 * RUN)
    for (int64_t i = 0; i < n; i += RUN) memset(at + i, byte, (size_t)(n - i < RUN ? n - i : RUN));
}

pn_status pn_storage_fill(pn_storage *s, size_t at, size_t n_bytes, int byte) {
    if (!s->data) return PN_OK;
    if (on_device(s)) return pn_device_fill(address(s, at, n_bytes), byte, n_bytes);
    fill_host(address(s, at, n_bytes), (int64_t)n_bytes, byte);
    return PN_OK;
}

pn_status pn_storage_write(pn_storage *s, size_t at, const void *src, size_t n_bytes) {
    if (!s->data) return PN_OK;
    if (on_device(s)) return pn_device_upload(address(s, at, n_bytes), src, n_bytes);
    memcpy(address(s, at, n_bytes), src, n_bytes);
    return PN_OK;
}

pn_status pn_storage_read(void *dst, const pn_storage *s, size_t at, size_t n_bytes) {
    if (!s->data) return PN_OK;
    if (on_device(s)) return pn_device_download(dst, address(s, at, n_bytes), n_bytes);
    memcpy(dst, address(s, at, n_bytes), n_bytes);
    return PN_OK;
}

pn_status pn_storage_copy(pn_storage *dst, size_t dst_at, const pn_storage *src, size_t src_at, size_t n_bytes) {
    if (!dst->data || !src->data) return PN_OK;
    char *to = address(dst, dst_at, n_bytes);
    const char *from = address(src, src_at, n_bytes);
    if (to == from) return PN_OK;
    if (on_device(dst)) return on_device(src) ? pn_device_copy(to, from, n_bytes) : pn_device_upload(to, from, n_bytes);
    if (on_device(src)) return pn_device_download(to, from, n_bytes);
    memmove(to, from, n_bytes);
    return PN_OK;
}
