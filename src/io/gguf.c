#include "gguf_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_NAME = 65535,    /* bytes, of keys and tensor names: the format's limit for keys */
    MAX_NESTING = 8,     /* arrays of arrays */
    MIN_KEY = 8 + 4 + 1, /* the least a key and a tensor take in the file: bound their number before allocating */
    MIN_TENSOR = 8 + 4 + 4 + 8,
    MAX_ALIGNMENT = 1 << 20,
    MAX_DIMS = 4 /* ggml's */
};

static const struct {
    const char *name;
    size_t n_bytes;
} kinds[PN_GGUF_KINDS] = {
    [PN_GGUF_U8] = { "uint8", 1 },    [PN_GGUF_I8] = { "int8", 1 },    [PN_GGUF_U16] = { "uint16", 2 },
    [PN_GGUF_I16] = { "int16", 2 },   [PN_GGUF_U32] = { "uint32", 4 }, [PN_GGUF_I32] = { "int32", 4 },
    [PN_GGUF_F32] = { "float32", 4 }, [PN_GGUF_BOOL] = { "bool", 1 },  [PN_GGUF_STRING] = { "string", 0 },
    [PN_GGUF_ARRAY] = { "array", 0 }, [PN_GGUF_U64] = { "uint64", 8 }, [PN_GGUF_I64] = { "int64", 8 },
    [PN_GGUF_F64] = { "float64", 8 },
};

size_t pn_gguf_kind_bytes(pn_gguf_kind kind) {
    return kinds[kind].n_bytes;
}
const char *pn_gguf_kind_name(pn_gguf_kind kind) {
    return kinds[kind].name;
}

/* ---- a cursor that never leaves the file ---- */

typedef struct cursor {
    const char *path;
    const unsigned char *data;
    size_t at, end;
} cursor;

static pn_status take(cursor *c, uint64_t n, const char *what, const unsigned char **out) {
    PN_CHECK(n <= c->end - c->at, PN_FORMAT, "%s: %s at byte %zu reaches past the end of the file; is it cut short?",
             c->path, what, c->at);
    *out = c->data + c->at;
    c->at += (size_t)n;
    return PN_OK;
}

static pn_status take_number(cursor *c, int n_bytes, const char *what, uint64_t *out) {
    const unsigned char *p;
    PN_TRY(take(c, (uint64_t)n_bytes, what, &p));
    *out = pn_gguf_le(p, n_bytes);
    return PN_OK;
}

static pn_status take_string(cursor *c, const char *what, const unsigned char **text, uint64_t *n_bytes) {
    PN_TRY(take_number(c, 8, what, n_bytes));
    return take(c, *n_bytes, what, text);
}

static char *copy_text(const unsigned char *text, size_t n) {
    char *s = malloc(n + 1);
    if (!s) return NULL;
    memcpy(s, text, n);
    s[n] = '\0';
    return s;
}

/* A key or tensor name, copied. */
static pn_status take_name(cursor *c, const char *what, char **out) {
    const unsigned char *text;
    uint64_t n;
    size_t at = c->at;
    PN_TRY(take_string(c, what, &text, &n));
    PN_CHECK(n > 0 && n <= MAX_NAME && !memchr(text, 0, (size_t)n), PN_FORMAT,
             "%s: %s at byte %zu has a name of %llu bytes or with a NUL in it; 1 to %d bytes of text are possible",
             c->path, what, at, (unsigned long long)n, MAX_NAME);
    PN_CHECK(*out = copy_text(text, (size_t)n), PN_MEMORY, "out of memory");
    return PN_OK;
}

static pn_status take_kind(cursor *c, const char *key, pn_gguf_kind *out) {
    uint64_t kind;
    PN_TRY(take_number(c, 4, "a value type", &kind));
    PN_CHECK(kind < PN_GGUF_KINDS, PN_FORMAT, "%s: key %.200s has a value of the unknown type %llu", c->path, key,
             (unsigned long long)kind);
    *out = (pn_gguf_kind)kind;
    return PN_OK;
}

/* ---- metadata ---- */

static pn_status take_bools(cursor *c, const char *key, uint64_t n, const unsigned char **out) {
    PN_TRY(take(c, n, key, out));
    for (uint64_t i = 0; i < n; i++)
        PN_CHECK((*out)[i] <= 1, PN_FORMAT, "%s: key %.200s holds a bool that is neither 0 nor 1", c->path, key);
    return PN_OK;
}

/* n values of one kind; *first is where the first starts. */
static pn_status take_values(cursor *c, const char *key, pn_gguf_kind kind, uint64_t n, int depth,
                             const unsigned char **first) {
    char what[220];
    snprintf(what, sizeof what, "key %.200s", key);
    *first = c->data + c->at;
    if (kind == PN_GGUF_BOOL) return take_bools(c, key, n, first);
    if (kinds[kind].n_bytes) {
        uint64_t bytes;
        PN_CHECK(!__builtin_mul_overflow(n, (uint64_t)kinds[kind].n_bytes, &bytes), PN_FORMAT,
                 "%s: key %.200s claims %llu values", c->path, key, (unsigned long long)n);
        return take(c, bytes, what, first);
    }
    /* Each string or array takes at least 8 bytes, so a false n ends at the end of the file. */
    for (uint64_t i = 0; i < n; i++) {
        const unsigned char *inner;
        if (kind == PN_GGUF_STRING) {
            uint64_t n_bytes;
            PN_TRY(take_string(c, what, &inner, &n_bytes));
            PN_CHECK(n_bytes <= UINT32_MAX, PN_FORMAT, "%s: key %.200s holds a string of 4 GiB or more", c->path, key);
        } else {
            pn_gguf_kind element;
            uint64_t length;
            PN_CHECK(depth < MAX_NESTING, PN_FORMAT, "%s: key %.200s nests arrays more than %d deep", c->path, key,
                     MAX_NESTING);
            PN_TRY(take_kind(c, key, &element));
            PN_TRY(take_number(c, 8, what, &length));
            PN_TRY(take_values(c, key, element, length, depth + 1, &inner));
        }
    }
    return PN_OK;
}

static pn_status take_value(cursor *c, pn_gguf_value *v) {
    PN_TRY(take_name(c, "a key", &v->key));
    PN_TRY(take_kind(c, v->key, &v->kind));
    if (v->kind == PN_GGUF_ARRAY) {
        PN_TRY(take_kind(c, v->key, &v->element));
        PN_TRY(take_number(c, 8, v->key, &v->n));
        return take_values(c, v->key, v->element, v->n, 1, &v->data);
    }
    PN_TRY(take_values(c, v->key, v->kind, 1, 0, &v->data));
    if (v->kind == PN_GGUF_STRING) {
        const unsigned char *text = v->data + 8;
        size_t n = (size_t)(c->data + c->at - text); /* not read again: a file may change */
        if (memchr(text, 0, n)) return PN_OK;
        PN_CHECK(v->text = copy_text(text, n), PN_MEMORY, "out of memory");
    }
    return PN_OK;
}

static int in_key_order(const void *a, const void *b) {
    return strcmp(((const pn_gguf_value *)a)->key, ((const pn_gguf_value *)b)->key);
}

static int key_against(const void *key, const void *value) {
    return strcmp(key, ((const pn_gguf_value *)value)->key);
}

const pn_gguf_value *pn_gguf_value_find(const pn_gguf *f, const char *key) {
    return bsearch(key, f->value, (size_t)f->n_values, sizeof *f->value, key_against);
}

static pn_status take_metadata(pn_gguf *f, cursor *c, uint64_t n) {
    PN_CHECK(n <= (c->end - c->at) / MIN_KEY, PN_FORMAT, "%s: it claims %llu keys, more than fit in it", f->path,
             (unsigned long long)n);
    PN_CHECK(f->value = calloc((size_t)n + 1, sizeof *f->value), PN_MEMORY, "out of memory");
    for (uint64_t i = 0; i < n; i++) PN_TRY(take_value(c, &f->value[f->n_values++]));
    qsort(f->value, (size_t)f->n_values, sizeof *f->value, in_key_order);
    for (int64_t i = 1; i < f->n_values; i++)
        PN_CHECK(strcmp(f->value[i - 1].key, f->value[i].key) != 0, PN_FORMAT, "%s: key %.200s is there twice", f->path,
                 f->value[i].key);
    return PN_OK;
}

/* ---- tensors ---- */

/* Its data pointer stays an offset until the place of the data is known. */
static pn_status take_tensor(cursor *c, pn_gguf_tensor *t, uint64_t *offset) {
    PN_TRY(take_name(c, "a tensor", &t->name));
    pn_tensor_info *info = &t->info;
    info->name = t->name;
    uint64_t rank, id;
    PN_TRY(take_number(c, 4, "a tensor's rank", &rank));
    PN_CHECK(rank <= MAX_DIMS, PN_FORMAT, "%s: tensor %.200s has %llu dimensions; at most %d are possible", c->path,
             t->name, (unsigned long long)rank, MAX_DIMS);
    info->rank = (int)rank;
    info->n_elems = 1;
    for (int i = info->rank - 1; i >= 0; i--) {
        uint64_t d;
        PN_TRY(take_number(c, 8, "a tensor's dimension", &d));
        PN_CHECK(d <= INT64_MAX && !__builtin_mul_overflow(info->n_elems, (int64_t)d, &info->n_elems), PN_FORMAT,
                 "%s: tensor %.200s: its shape overflows 64 bits", c->path, t->name);
        info->shape[i] = (int64_t)d;
    }
    PN_TRY(take_number(c, 4, "a tensor's type", &id));
    PN_TRY(take_number(c, 8, "a tensor's offset", offset));
    t->type_id = (uint32_t)id;
    t->type = pn_gguf_type_of(t->type_id);
    info->type = t->type ? t->type->name : "an unknown type";
    info->dtype = t->type ? t->type->dtype : PN_DTYPES;
    if (!t->type) return PN_OK;
    int64_t row = info->rank ? info->shape[info->rank - 1] : 1, bytes;
    PN_CHECK(row % t->type->block_elems == 0, PN_FORMAT,
             "%s: tensor %.200s: rows of %lld values are not made of %s blocks of %d", c->path, t->name, (long long)row,
             info->type, t->type->block_elems);
    PN_CHECK(!__builtin_mul_overflow(info->n_elems / t->type->block_elems, (int64_t)t->type->block_bytes, &bytes),
             PN_FORMAT, "%s: tensor %.200s: its size overflows 64 bits", c->path, t->name);
    info->n_bytes = (size_t)bytes;
    return PN_OK;
}

static int in_name_order(const void *a, const void *b) {
    return strcmp((*(pn_gguf_tensor *const *)a)->name, (*(pn_gguf_tensor *const *)b)->name);
}

static int in_data_order(const void *a, const void *b) {
    const pn_tensor_info *x = &(*(pn_gguf_tensor *const *)a)->info, *y = &(*(pn_gguf_tensor *const *)b)->info;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* No two tensors share bytes. Gaps are allowed: they are how alignment shows. Uses by_name as scratch. */
static pn_status check_overlaps(pn_gguf *f) {
    qsort(f->by_name, (size_t)f->n_tensors, sizeof *f->by_name, in_data_order);
    for (int64_t i = 1; i < f->n_tensors; i++) {
        const pn_tensor_info *a = &f->by_name[i - 1]->info, *b = &f->by_name[i]->info;
        PN_CHECK((size_t)((const char *)b->data - (const char *)a->data) >= a->n_bytes, PN_FORMAT,
                 "%s: tensors %.200s and %.200s overlap", f->path, a->name, b->name);
    }
    return PN_OK;
}

static pn_status place_tensors(pn_gguf *f, const uint64_t *offsets, size_t header_bytes, int64_t alignment) {
    size_t start = (header_bytes + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    size_t data_bytes = start <= f->n_bytes ? f->n_bytes - start : 0;
    for (int64_t i = 0; i < f->n_tensors; i++) {
        pn_tensor_info *info = &f->tensor[i].info;
        PN_CHECK(offsets[i] % (uint64_t)alignment == 0, PN_FORMAT,
                 "%s: tensor %.200s: offset %llu is not a multiple of the alignment %lld", f->path, info->name,
                 (unsigned long long)offsets[i], (long long)alignment);
        PN_CHECK(
            offsets[i] <= data_bytes && info->n_bytes <= data_bytes - offsets[i], PN_FORMAT,
            "%s: tensor %.200s: %zu bytes at offset %llu lie outside the file's %zu bytes of data; is it cut short?",
            f->path, info->name, info->n_bytes, (unsigned long long)offsets[i], data_bytes);
        info->data = f->data + (data_bytes ? start + offsets[i] : 0);
        f->by_name[i] = &f->tensor[i];
    }
    PN_TRY(check_overlaps(f));
    qsort(f->by_name, (size_t)f->n_tensors, sizeof *f->by_name, in_name_order);
    for (int64_t i = 1; i < f->n_tensors; i++)
        PN_CHECK(strcmp(f->by_name[i - 1]->name, f->by_name[i]->name) != 0, PN_FORMAT,
                 "%s: tensor %.200s is there twice", f->path, f->by_name[i]->name);
    return PN_OK;
}

static pn_status take_tensors(pn_gguf *f, cursor *c, uint64_t n) {
    int64_t alignment = 32;
    if (pn_gguf_has(f, "general.alignment")) PN_TRY(pn_gguf_int(f, "general.alignment", 1, MAX_ALIGNMENT, &alignment));
    PN_CHECK((alignment & (alignment - 1)) == 0, PN_FORMAT, "%s: general.alignment is %lld, not a power of two",
             f->path, (long long)alignment);
    PN_CHECK(n <= (c->end - c->at) / MIN_TENSOR, PN_FORMAT, "%s: it claims %llu tensors, more than fit in it", f->path,
             (unsigned long long)n);
    f->tensor = calloc((size_t)n + 1, sizeof *f->tensor);
    f->by_name = calloc((size_t)n + 1, sizeof(pn_gguf_tensor *));
    uint64_t *offsets = calloc((size_t)n + 1, sizeof *offsets);
    pn_status s = PN_OK;
    if (!f->tensor || !f->by_name || !offsets) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (uint64_t i = 0; i < n; i++) {
        f->n_tensors++;
        PN_TRY_GOTO(s, take_tensor(c, &f->tensor[i], &offsets[i]), done);
    }
    s = place_tensors(f, offsets, c->at, alignment);
done:
    free(offsets);
    return s;
}

/* ---- the file ---- */

static pn_status parse(pn_gguf *f) {
    cursor c = { .path = f->path, .data = f->data, .end = f->n_bytes };
    PN_CHECK(c.end >= 24 && !memcmp(c.data, "GGUF", 4), PN_FORMAT, "%s: this is not a GGUF file", f->path);
    c.at = 4;
    uint64_t version, n_tensors, n_keys;
    PN_TRY(take_number(&c, 4, "the version", &version));
    PN_CHECK((version & 0xffff) != 0, PN_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian ones are read",
             f->path);
    PN_CHECK(version == 2 || version == 3, PN_UNSUPPORTED,
             "%s: GGUF version %llu; versions 2 and 3 are read, older files can be converted by llama.cpp's tools",
             f->path, (unsigned long long)version);
    PN_TRY(take_number(&c, 8, "the number of tensors", &n_tensors));
    PN_TRY(take_number(&c, 8, "the number of keys", &n_keys));
    PN_TRY(take_metadata(f, &c, n_keys));
    return take_tensors(f, &c, n_tensors);
}

/* Takes over the mapping, also on failure. */
static pn_status open_bytes(const char *path, pn_mapped_file map, const void *data, size_t n_bytes, pn_gguf **out) {
    pn_status s;
    pn_gguf *f = calloc(1, sizeof *f);
    if (!f) {
        pn_mapped_file_close(&map);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    *f = (pn_gguf){ .path = strdup(path), .map = map, .data = data, .n_bytes = n_bytes };
    if (!f->path) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, parse(f), fail);
    *out = f;
    return PN_OK;
fail:
    pn_gguf_close(&f);
    return s;
}

pn_status pn_gguf_open(const char *path, pn_gguf **out) {
    *out = NULL;
    pn_mapped_file map;
    PN_TRY(pn_mapped_file_open(path, &map));
    return open_bytes(path, map, map.data, map.n_bytes, out);
}

pn_status pn_gguf_parse(const char *name, const void *data, size_t n_bytes, pn_gguf **out) {
    *out = NULL;
    return open_bytes(name, (pn_mapped_file){ 0 }, data, n_bytes, out);
}

void pn_gguf_close(pn_gguf **f) {
    if (!f || !*f) return;
    for (int64_t i = 0; i < (*f)->n_values; i++) {
        free((*f)->value[i].key);
        free((*f)->value[i].text);
    }
    for (int64_t i = 0; i < (*f)->n_tensors; i++) free((*f)->tensor[i].name);
    free((*f)->value);
    free((*f)->tensor);
    free((*f)->by_name);
    pn_mapped_file_close(&(*f)->map);
    free((*f)->path);
    free(*f);
    *f = NULL;
}
