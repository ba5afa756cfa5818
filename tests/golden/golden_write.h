/* Writes and alters small safetensors files: what the golden tests need beyond the stored files. */
#ifndef PN_TESTS_GOLDEN_WRITE_H
#define PN_TESTS_GOLDEN_WRITE_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "tensor.h"

typedef struct golden_file {
    json_t *header;
    char *data;
    size_t n_data;
} golden_file;

static inline golden_file golden_load(const char *path) {
    golden_file g = { 0 };
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    uint64_t n;
    ck_assert_uint_eq(fread(&n, 1, 8, f), 8);
    char *text = malloc(n);
    ck_assert_uint_eq(fread(text, 1, n, f), n);
    g.header = json_loadb(text, n, 0, NULL);
    free(text);
    long begin = ftell(f);
    fseek(f, 0, SEEK_END);
    g.n_data = (size_t)(ftell(f) - begin);
    g.data = malloc(g.n_data + 1);
    fseek(f, begin, SEEK_SET);
    ck_assert_uint_eq(fread(g.data, 1, g.n_data, f), g.n_data);
    fclose(f);
    return g;
}

static inline void golden_free(golden_file *g) {
    json_decref(g->header);
    free(g->data);
    *g = (golden_file){ 0 };
}

static inline void golden_store(const golden_file *g, const char *path) {
    char *text = json_dumps(g->header, JSON_COMPACT);
    uint64_t n = strlen(text);
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "%s", path);
    fwrite(&n, 8, 1, f);
    fwrite(text, 1, n, f);
    fwrite(g->data, 1, g->n_data, f);
    ck_assert_int_eq(fclose(f), 0);
    free(text);
}

static inline golden_file golden_new(json_t *metadata) {
    golden_file g = { .header = json_object() };
    json_object_set_new(g.header, "__metadata__", metadata);
    return g;
}

/* Appends a tensor, as F32 or I64. */
static inline void golden_add(golden_file *g, const char *name, const pn_tensor *t) {
    pn_dtype type = t->dtype == PN_I32 || t->dtype == PN_I64 ? PN_I64 : PN_F32;
    size_t n = (size_t)pn_tensor_elems(t) * pn_dtype_bytes(type);
    g->data = realloc(g->data, g->n_data + n + 1);
    char *values = aligned_alloc(64, (n + 64) / 64 * 64); /* the data section packs without padding */
    pn_convert(values, type, pn_data(t), t->dtype, pn_tensor_elems(t));
    memcpy(g->data + g->n_data, values, n);
    free(values);
    json_t *shape = json_array();
    for (int i = 0; i < t->rank; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_object_set_new(g->header, name,
                        json_pack("{s:s, s:o, s:[I, I]}", "dtype", type == PN_I64 ? "I64" : "F32", "shape", shape,
                                  "data_offsets", (json_int_t)g->n_data, (json_int_t)(g->n_data + n)));
    g->n_data += n;
}

/* The F32 values of a tensor, to alter in place (they may be unaligned: use memcpy). */
static inline char *golden_values(const golden_file *g, const char *name) {
    const json_t *at = json_object_get(json_object_get(g->header, name), "data_offsets");
    ck_assert_msg(at != NULL, "no tensor %s", name);
    return g->data + json_integer_value(json_array_get(at, 0));
}

#endif
