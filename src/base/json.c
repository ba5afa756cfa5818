#include "json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "files.h"

static bool too_deep(const json_t *v, int depth) {
    if (!json_is_object(v) && !json_is_array(v)) return false;
    if (depth >= PN_JSON_DEPTH) return true;
    const char *key;
    json_t *item;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) {
        if (too_deep(item, depth + 1)) return true;
    }
    json_array_foreach(v, i, item) {
        if (too_deep(item, depth + 1)) return true;
    }
    return false;
}

pn_status pn_json_parse(const char *file, const char *text, size_t n_bytes, json_t **out) {
    json_error_t e;
    json_t *root = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &e);
    PN_CHECK(root, PN_FORMAT, "%s:%d:%d: not valid JSON: %s", file, e.line > 0 ? e.line : 1,
             e.column > 0 ? e.column : 1, e.text);
    if (too_deep(root, 0)) {
        json_decref(root);
        PN_FAIL(PN_FORMAT, "%s: nested deeper than %d levels", file, PN_JSON_DEPTH);
    }
    *out = root;
    return PN_OK;
}

pn_status pn_json_load(const char *file, size_t limit, json_t **out) {
    char *text;
    size_t n_bytes;
    PN_TRY(pn_file_read(file, limit, &text, &n_bytes));
    pn_status s = pn_json_parse(file, text, n_bytes, out);
    free(text);
    return s;
}

/* ---- getters ---- */

static const json_t *child(const json_t *at, const char *piece, size_t len) {
    if (json_is_array(at)) {
        size_t index = 0;
        if (!len) return NULL;
        for (size_t i = 0; i < len; i++) {
            if (piece[i] < '0' || piece[i] > '9' || index > json_array_size(at)) return NULL;
            index = 10 * index + (size_t)(piece[i] - '0');
        }
        return json_array_get(at, index);
    }
    char key[256];
    if (len >= sizeof key) return NULL;
    memcpy(key, piece, len);
    key[len] = '\0';
    return json_object_get(at, key);
}

const json_t *pn_json_at(const json_t *root, const char *path) {
    while (root && *path) {
        size_t len = strcspn(path, ".");
        root = child(root, path, len);
        path += len;
        if (*path == '.') path++;
    }
    return root;
}

/* Shortest, and a real when read again: "3.0". */
static const char *real_text(double x, char *buffer, size_t n) {
    pn_double_text(x, buffer, n - 2);
    if (!strpbrk(buffer, ".e")) strcat(buffer, ".0");
    return buffer;
}

static const char *describe(const json_t *v, char *buffer, size_t n) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: snprintf(buffer, n, "an object"); break;
    case JSON_ARRAY: snprintf(buffer, n, "a list of %zu", json_array_size(v)); break;
    case JSON_STRING: snprintf(buffer, n, "the text \"%.60s\"", json_string_value(v)); break;
    case JSON_INTEGER: snprintf(buffer, n, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: {
        char text[40];
        snprintf(buffer, n, "%s", real_text(json_real_value(v), text, sizeof text));
        break;
    }
    case JSON_TRUE: snprintf(buffer, n, "true"); break;
    case JSON_FALSE: snprintf(buffer, n, "false"); break;
    case JSON_NULL: snprintf(buffer, n, "null"); break;
    }
    return buffer;
}

static pn_status refuse(const json_t *v, const char *file, const char *path, const char *expected) {
    char given[128];
    const char *name = *path ? path : "the top level";
    if (!v) PN_FAIL(PN_FORMAT, "%s: %s is missing; it must be %s", file, name, expected);
    PN_FAIL(PN_FORMAT, "%s: %s must be %s, but is %s", file, name, expected, describe(v, given, sizeof given));
}

static pn_status as_i64(const json_t *v, const char *file, const char *path, int64_t min, int64_t max, int64_t *out) {
    if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max) {
        *out = json_integer_value(v);
        return PN_OK;
    }
    char expected[96] = "a whole number";
    if (min != INT64_MIN || max != INT64_MAX)
        snprintf(expected, sizeof expected, "a whole number in %lld .. %lld", (long long)min, (long long)max);
    return refuse(v, file, path, expected);
}

static pn_status as_f64(const json_t *v, const char *file, const char *path, double min, double max, double *out) {
    double x = json_number_value(v);
    if (json_is_number(v) && x >= min && x <= max) {
        *out = x;
        return PN_OK;
    }
    char expected[128], lo[32], hi[32];
    snprintf(expected, sizeof expected, "a number in %s .. %s", pn_double_text(min, lo, sizeof lo),
             pn_double_text(max, hi, sizeof hi));
    return refuse(v, file, path, expected);
}

static pn_status as_bool(const json_t *v, const char *file, const char *path, bool *out) {
    if (!json_is_boolean(v)) return refuse(v, file, path, "true or false");
    *out = json_is_true(v);
    return PN_OK;
}

static pn_status as_str(const json_t *v, const char *file, const char *path, const char **out) {
    if (!json_is_string(v)) return refuse(v, file, path, "text");
    *out = json_string_value(v);
    return PN_OK;
}

pn_status pn_json_get_i64(const json_t *root, const char *file, const char *path, int64_t min, int64_t max,
                          int64_t *out) {
    return as_i64(pn_json_at(root, path), file, path, min, max, out);
}

pn_status pn_json_get_f64(const json_t *root, const char *file, const char *path, double min, double max, double *out) {
    return as_f64(pn_json_at(root, path), file, path, min, max, out);
}

pn_status pn_json_get_hex(const json_t *root, const char *file, const char *path, uint64_t *out) {
    const json_t *v = pn_json_at(root, path);
    const char *text = json_string_value(v);
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return refuse(v, file, path, "16 hexadecimal digits");
    *out = strtoull(text, NULL, 16);
    return PN_OK;
}

pn_status pn_json_get_bool(const json_t *root, const char *file, const char *path, bool *out) {
    return as_bool(pn_json_at(root, path), file, path, out);
}

pn_status pn_json_get_str(const json_t *root, const char *file, const char *path, const char **out) {
    return as_str(pn_json_at(root, path), file, path, out);
}

pn_status pn_json_get_object(const json_t *root, const char *file, const char *path, const json_t **out) {
    const json_t *v = pn_json_at(root, path);
    if (!json_is_object(v)) return refuse(v, file, path, "an object");
    *out = v;
    return PN_OK;
}

pn_status pn_json_get_array(const json_t *root, const char *file, const char *path, size_t min_n, size_t max_n,
                            const json_t **out) {
    const json_t *v = pn_json_at(root, path);
    if (json_is_array(v) && json_array_size(v) >= min_n && json_array_size(v) <= max_n) {
        *out = v;
        return PN_OK;
    }
    char expected[96] = "a list";
    if (min_n == max_n)
        snprintf(expected, sizeof expected, "a list of %zu", min_n);
    else if (min_n || max_n != SIZE_MAX)
        snprintf(expected, sizeof expected, "a list of %zu .. %zu", min_n, max_n);
    return refuse(v, file, path, expected);
}

static bool absent(const json_t *v) {
    return !v || json_is_null(v);
}

pn_status pn_json_find_i64(const json_t *root, const char *file, const char *path, int64_t min, int64_t max,
                           int64_t *out) {
    const json_t *v = pn_json_at(root, path);
    return absent(v) ? PN_OK : as_i64(v, file, path, min, max, out);
}

pn_status pn_json_find_f64(const json_t *root, const char *file, const char *path, double min, double max,
                           double *out) {
    const json_t *v = pn_json_at(root, path);
    return absent(v) ? PN_OK : as_f64(v, file, path, min, max, out);
}

pn_status pn_json_find_bool(const json_t *root, const char *file, const char *path, bool *out) {
    const json_t *v = pn_json_at(root, path);
    return absent(v) ? PN_OK : as_bool(v, file, path, out);
}

pn_status pn_json_find_str(const json_t *root, const char *file, const char *path, const char **out) {
    const json_t *v = pn_json_at(root, path);
    return absent(v) ? PN_OK : as_str(v, file, path, out);
}

/* ---- writing ---- */

json_t *pn_json_hex(uint64_t v) {
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, v);
    return json_string(text);
}

static bool plain_list(const json_t *v) {
    size_t i;
    json_t *item;
    json_array_foreach(v, i, item) {
        if (json_is_object(item) || json_is_array(item)) return false;
    }
    return true;
}

static pn_status write_value(pn_buf *b, const json_t *v, int depth) {
    PN_CHECK(depth <= PN_JSON_DEPTH, PN_FORMAT, "JSON nested deeper than %d levels", PN_JSON_DEPTH);
    const char *key;
    json_t *item;
    size_t i, n = 0;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        pn_buf_char(b, '{');
        json_object_foreach((json_t *)(uintptr_t)v, key, item) {
            pn_buf_printf(b, "%s\n%*s", n++ ? "," : "", 2 * depth + 2, "");
            pn_buf_json_string(b, key);
            pn_buf_text(b, ": ");
            PN_TRY(write_value(b, item, depth + 1));
        }
        if (n) pn_buf_printf(b, "\n%*s", 2 * depth, "");
        pn_buf_char(b, '}');
        break;
    case JSON_ARRAY: {
        bool plain = plain_list(v);
        pn_buf_char(b, '[');
        json_array_foreach(v, i, item) {
            if (plain)
                pn_buf_text(b, i ? ", " : "");
            else
                pn_buf_printf(b, "%s\n%*s", i ? "," : "", 2 * depth + 2, "");
            PN_TRY(write_value(b, item, depth + 1));
        }
        if (!plain) pn_buf_printf(b, "\n%*s", 2 * depth, "");
        pn_buf_char(b, ']');
        break;
    }
    case JSON_STRING: pn_buf_json_string(b, json_string_value(v)); break;
    case JSON_INTEGER: pn_buf_printf(b, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: {
        char text[40];
        pn_buf_text(b, real_text(json_real_value(v), text, sizeof text));
        break;
    }
    case JSON_TRUE: pn_buf_text(b, "true"); break;
    case JSON_FALSE: pn_buf_text(b, "false"); break;
    case JSON_NULL: pn_buf_text(b, "null"); break;
    }
    return PN_OK;
}

pn_status pn_json_text(const json_t *root, char **out) {
    pn_buf b = { 0 };
    pn_status s = write_value(&b, root, 0);
    pn_buf_char(&b, '\n');
    if (!s) s = pn_buf_status(&b);
    if (s) {
        pn_buf_free(&b);
        return s;
    }
    *out = b.data;
    return PN_OK;
}

pn_status pn_json_write(const char *file, const json_t *root) {
    char *text;
    PN_TRY(pn_json_text(root, &text));
    pn_status s = pn_file_write(file, text, strlen(text));
    free(text);
    PN_TRY(s);
    return PN_OK;
}
