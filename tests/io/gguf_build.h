/* GGUF files made by hand: keys first, then tensors, then gguf_write. Nothing is checked: hostile files are made so. */
#ifndef PN_TESTS_GGUF_BUILD_H
#define PN_TESTS_GGUF_BUILD_H

#include "io_fixture.h"

enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

typedef struct gguf_bytes {
    unsigned char *p;
    size_t n, cap;
} gguf_bytes;

typedef struct gguf_build {
    gguf_bytes keys, tensors, data;
    uint64_t n_keys, n_tensors, alignment;
    uint32_t version;
} gguf_build;

static inline void add_bytes(gguf_bytes *b, const void *bytes, size_t n) {
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n);
        b->p = realloc(b->p, b->cap);
        ck_assert_ptr_nonnull(b->p);
    }
    if (n) memcpy(b->p + b->n, bytes, n);
    b->n += n;
}
static inline void add_u32(gguf_bytes *b, uint32_t x) {
    add_bytes(b, &x, 4);
}
static inline void add_u64(gguf_bytes *b, uint64_t x) {
    add_bytes(b, &x, 8);
}
static inline void add_string(gguf_bytes *b, const char *s) {
    add_u64(b, strlen(s));
    add_bytes(b, s, strlen(s));
}

static inline void add_key(gguf_build *g, const char *key, uint32_t type, const void *value, size_t n) {
    add_string(&g->keys, key);
    add_u32(&g->keys, type);
    add_bytes(&g->keys, value, n);
    g->n_keys++;
}
static inline void add_key_u32(gguf_build *g, const char *key, uint32_t x) {
    add_key(g, key, GGUF_U32, &x, 4);
}
static inline void add_key_f32(gguf_build *g, const char *key, float x) {
    add_key(g, key, GGUF_F32, &x, 4);
}
static inline void add_key_bool(gguf_build *g, const char *key, bool x) {
    add_key(g, key, GGUF_BOOL, &(uint8_t){ x }, 1);
}
static inline void add_key_string(gguf_build *g, const char *key, const char *s) {
    add_key(g, key, GGUF_STRING, NULL, 0);
    add_string(&g->keys, s);
}
static inline void add_key_array(gguf_build *g, const char *key, uint32_t type, uint64_t n, const void *values,
                                 size_t bytes) {
    add_key(g, key, GGUF_ARRAY, NULL, 0);
    add_u32(&g->keys, type);
    add_u64(&g->keys, n);
    add_bytes(&g->keys, values, bytes);
}
static inline void add_key_strings(gguf_build *g, const char *key, const char *const *strings, uint64_t n) {
    add_key_array(g, key, GGUF_STRING, n, NULL, 0);
    for (uint64_t i = 0; i < n; i++) add_string(&g->keys, strings[i]);
}

/* dims as the file has them: fastest first. */
static inline void add_tensor_row(gguf_build *g, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                                  uint64_t offset) {
    add_string(&g->tensors, name);
    add_u32(&g->tensors, rank);
    for (uint32_t i = 0; i < rank; i++) add_u64(&g->tensors, dims[i]);
    add_u32(&g->tensors, type);
    add_u64(&g->tensors, offset);
    g->n_tensors++;
}
static inline void pad(gguf_bytes *b, uint64_t alignment) {
    while (b->n % alignment) add_bytes(b, "", 1);
}
static inline void add_tensor(gguf_build *g, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                              const void *bytes, size_t n) {
    pad(&g->data, g->alignment ? g->alignment : 32);
    add_tensor_row(g, name, rank, dims, type, g->data.n);
    add_bytes(&g->data, bytes, n);
}

/* Writes the file and starts anew. cut: bytes to leave out at its end. */
static inline void gguf_write_cut(gguf_build *g, const char *path, size_t cut) {
    gguf_bytes all = { 0 };
    add_bytes(&all, "GGUF", 4);
    add_u32(&all, g->version ? g->version : 3);
    add_u64(&all, g->n_tensors);
    add_u64(&all, g->n_keys);
    add_bytes(&all, g->keys.p, g->keys.n);
    add_bytes(&all, g->tensors.p, g->tensors.n);
    if (g->data.n) pad(&all, g->alignment ? g->alignment : 32);
    add_bytes(&all, g->data.p, g->data.n);
    write_bytes(path, all.p, all.n - cut);
    free(all.p);
    free(g->keys.p);
    free(g->tensors.p);
    free(g->data.p);
    memset(g, 0, sizeof *g);
}
static inline void gguf_write(gguf_build *g, const char *path) {
    gguf_write_cut(g, path, 0);
}

#endif
