/* Typed access to GGUF metadata. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_internal.h"

bool pn_gguf_has(const pn_gguf *f, const char *key) {
    return pn_gguf_value_find(f, key) != NULL;
}

static pn_status find(const pn_gguf *f, const char *key, const pn_gguf_value **out) {
    *out = pn_gguf_value_find(f, key);
    PN_CHECK(*out, PN_FORMAT, "%s: there is no key %.200s in its metadata", f->path, key);
    return PN_OK;
}

static pn_status wrong_kind(const pn_gguf *f, const pn_gguf_value *v, const char *wanted) {
    PN_FAIL(PN_FORMAT, "%s: key %.200s is of type %s%s; %s is needed", f->path, v->key,
            v->kind == PN_GGUF_ARRAY ? "array of " : "",
            pn_gguf_kind_name(v->kind == PN_GGUF_ARRAY ? v->element : v->kind), wanted);
}

/* false: not an integer, or beyond int64. */
static bool integer_at(pn_gguf_kind kind, const unsigned char *p, int64_t *out) {
    uint64_t u = pn_gguf_le(p, (int)pn_gguf_kind_bytes(kind));
    switch (kind) {
    case PN_GGUF_U8:
    case PN_GGUF_U16:
    case PN_GGUF_U32: *out = (int64_t)u; return true;
    case PN_GGUF_I8: *out = (int8_t)u; return true;
    case PN_GGUF_I16: *out = (int16_t)u; return true;
    case PN_GGUF_I32: *out = (int32_t)u; return true;
    case PN_GGUF_I64: *out = (int64_t)u; return true;
    case PN_GGUF_U64: *out = (int64_t)u; return u <= INT64_MAX;
    default: return false;
    }
}

static bool is_integer(pn_gguf_kind kind) {
    return kind != PN_GGUF_F32 && kind != PN_GGUF_F64 && kind != PN_GGUF_BOOL && pn_gguf_kind_bytes(kind);
}

pn_status pn_gguf_int(const pn_gguf *f, const char *key, int64_t lo, int64_t hi, int64_t *out) {
    const pn_gguf_value *v;
    PN_TRY(find(f, key, &v));
    if (!is_integer(v->kind)) return wrong_kind(f, v, "an integer");
    int64_t x;
    bool fits = integer_at(v->kind, v->data, &x);
    PN_CHECK(fits && lo <= x && x <= hi, PN_FORMAT, "%s: key %.200s is %lld; %lld to %lld are possible", f->path, key,
             (long long)x, (long long)lo, (long long)hi);
    *out = x;
    return PN_OK;
}

static double shortest_decimal(float x) {
    char text[32];
    for (int digits = 6; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) return strtod(text, NULL);
    }
    return (double)x;
}

pn_status pn_gguf_number(const pn_gguf *f, const char *key, double *out) {
    const pn_gguf_value *v;
    PN_TRY(find(f, key, &v));
    int64_t whole;
    double x;
    if (v->kind == PN_GGUF_F32) {
        float narrow;
        memcpy(&narrow, v->data, sizeof narrow);
        x = isfinite(narrow) ? shortest_decimal(narrow) : (double)narrow;
    } else if (v->kind == PN_GGUF_F64) {
        memcpy(&x, v->data, sizeof x);
    } else if (is_integer(v->kind)) {
        x = integer_at(v->kind, v->data, &whole) ? (double)whole : (double)pn_gguf_le(v->data, 8);
    } else {
        return wrong_kind(f, v, "a number");
    }
    PN_CHECK(isfinite(x), PN_FORMAT, "%s: key %.200s is not finite", f->path, key);
    *out = x;
    return PN_OK;
}

pn_status pn_gguf_bool(const pn_gguf *f, const char *key, bool *out) {
    const pn_gguf_value *v;
    PN_TRY(find(f, key, &v));
    if (v->kind != PN_GGUF_BOOL) return wrong_kind(f, v, "a bool");
    *out = v->data[0];
    return PN_OK;
}

pn_status pn_gguf_string(const pn_gguf *f, const char *key, const char **out) {
    const pn_gguf_value *v;
    PN_TRY(find(f, key, &v));
    if (v->kind != PN_GGUF_STRING) return wrong_kind(f, v, "a string");
    PN_CHECK(v->text, PN_FORMAT, "%s: key %.200s holds a NUL byte", f->path, key);
    *out = v->text;
    return PN_OK;
}

/* The lengths were checked on opening; read again, they may be others if the file has changed since. */
static bool list_strings(const pn_gguf *f, const pn_gguf_value *v, const char **text, uint32_t *n_bytes) {
    const unsigned char *p = v->data, *end = f->data + f->n_bytes;
    for (uint64_t i = 0; i < v->n; i++) {
        uint64_t length = end - p >= 8 ? pn_gguf_le(p, 8) : UINT64_MAX;
        if (length > UINT32_MAX || length > (uint64_t)(end - p) - 8) return false;
        text[i] = (const char *)p + 8;
        n_bytes[i] = (uint32_t)length;
        p += 8 + length;
    }
    return true;
}

pn_status pn_gguf_strings(const pn_gguf *f, const char *key, const char ***text, uint32_t **n_bytes, int64_t *n) {
    const pn_gguf_value *v;
    *text = NULL;
    *n_bytes = NULL;
    PN_TRY(find(f, key, &v));
    if (v->kind != PN_GGUF_ARRAY || v->element != PN_GGUF_STRING) return wrong_kind(f, v, "an array of strings");
    const char **strings = malloc(((size_t)v->n + 1) * sizeof *strings); /* n strings took 8 n bytes of the file */
    uint32_t *lengths = malloc(((size_t)v->n + 1) * sizeof *lengths);
    pn_status s = PN_OK;
    if (!strings || !lengths) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    if (!list_strings(f, v, strings, lengths))
        PN_FAIL_GOTO(s, PN_FORMAT, fail, "%s: key %.200s: the file changed while it was read", f->path, key);
    *text = strings;
    *n_bytes = lengths;
    *n = (int64_t)v->n;
    return PN_OK;
fail:
    free(strings);
    free(lengths);
    return s;
}

pn_status pn_gguf_ints(const pn_gguf *f, const char *key, int32_t **out, int64_t *n) {
    const pn_gguf_value *v;
    *out = NULL;
    PN_TRY(find(f, key, &v));
    if (v->kind != PN_GGUF_ARRAY || !is_integer(v->element)) return wrong_kind(f, v, "an array of integers");
    int32_t *list = malloc(((size_t)v->n + 1) * sizeof *list); /* at most 4 bytes for each byte of the file */
    PN_CHECK(list, PN_MEMORY, "out of memory");
    for (uint64_t i = 0; i < v->n; i++) {
        int64_t x;
        if (!integer_at(v->element, v->data + i * pn_gguf_kind_bytes(v->element), &x) || x != (int32_t)x) {
            free(list);
            PN_FAIL(PN_FORMAT, "%s: key %.200s: element %llu is beyond 32 bits", f->path, key, (unsigned long long)i);
        }
        list[i] = (int32_t)x;
    }
    *out = list;
    *n = (int64_t)v->n;
    return PN_OK;
}
