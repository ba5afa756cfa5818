/* JSON files on top of jansson: loading with the place of an error, typed getters whose messages name file, key path,
 * what was expected and what stands there, and writing that is the same for the same tree.
 *
 * A key path is dotted: "rope_scaling.factor", "layers.3.kind" for the fourth element of a list; "" is the root itself.
 * Names that hold dots are out of its reach: use json_object_get. `file` is only for messages. Strings and sub-trees
 * are borrowed from the root. */
#ifndef PN_BASE_JSON_H
#define PN_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "status.h"

enum { PN_JSON_DEPTH = 64 };

/* PN_IO when the file cannot be read or is larger than `limit` bytes; PN_FORMAT with file:line:column for what is no
 * JSON, for duplicate keys, for NUL characters and for nesting deeper than PN_JSON_DEPTH. The caller owns *out
 * (json_decref). */
pn_status pn_json_load(const char *file, size_t limit, json_t **out);
/* The same from memory. */
pn_status pn_json_parse(const char *file, const char *text, size_t n_bytes, json_t **out);

/* PN_FORMAT when the key is missing, of another type, or out of range. A number may be written without a fraction; a
 * whole number may not be written with one. */
pn_status pn_json_get_i64(const json_t *root, const char *file, const char *path, int64_t min, int64_t max,
                          int64_t *out);
pn_status pn_json_get_f64(const json_t *root, const char *file, const char *path, double min, double max, double *out);
/* 16 hexadecimal digits, as pn_json_hex makes them: numbers of JSON do not hold every such value. */
pn_status pn_json_get_hex(const json_t *root, const char *file, const char *path, uint64_t *out);
pn_status pn_json_get_bool(const json_t *root, const char *file, const char *path, bool *out);
pn_status pn_json_get_str(const json_t *root, const char *file, const char *path, const char **out);
pn_status pn_json_get_object(const json_t *root, const char *file, const char *path, const json_t **out);
pn_status pn_json_get_array(const json_t *root, const char *file, const char *path, size_t min_n, size_t max_n,
                            const json_t **out);

/* The same for a key that may be missing or null: then *out is left as it was, so set the default before. */
pn_status pn_json_find_i64(const json_t *root, const char *file, const char *path, int64_t min, int64_t max,
                           int64_t *out);
pn_status pn_json_find_f64(const json_t *root, const char *file, const char *path, double min, double max, double *out);
pn_status pn_json_find_bool(const json_t *root, const char *file, const char *path, bool *out);
pn_status pn_json_find_str(const json_t *root, const char *file, const char *path, const char **out);
/* The value at a path, NULL when there is none. */
const json_t *pn_json_at(const json_t *root, const char *path);

/* The text for pn_json_get_hex; NULL: out of memory. */
json_t *pn_json_hex(uint64_t v);

/* Two spaces per level, keys in the order they were added, lists of plain values on one line, each number in the
 * shortest form that reads back the same, a newline at the end. Written aside and renamed. */
pn_status pn_json_write(const char *file, const json_t *root);
/* The same text; the caller frees *out. */
pn_status pn_json_text(const json_t *root, char **out);

#endif
