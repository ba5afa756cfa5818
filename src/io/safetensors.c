#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "mapped_file.h"

struct pn_safetensors {
    char *path;
    pn_mapped_file map; /* {0} where the bytes are the caller's */
    const unsigned char *data;
    size_t n_bytes;
    json_t *header; /* owns names and metadata */
    json_t *metadata;
    pn_tensor_info *info;     /* [count], in the order of their data */
    pn_tensor_info **by_name; /* [count], sorted */
    int64_t count;
};

/* Every dtype the format names; bits because some are narrower than a byte. */
static const struct {
    const char *name;
    pn_dtype dtype;
    int bits;
} types[] = {
    { "F32", PN_F32, 32 },    { "BF16", PN_BF16, 16 },     { "F16", PN_F16, 16 },       { "F64", PN_F64, 64 },
    { "I64", PN_I64, 64 },    { "I32", PN_I32, 32 },       { "U8", PN_U8, 8 },          { "BOOL", PN_DTYPES, 8 },
    { "I8", PN_DTYPES, 8 },   { "I16", PN_DTYPES, 16 },    { "U16", PN_DTYPES, 16 },    { "U32", PN_DTYPES, 32 },
    { "U64", PN_DTYPES, 64 }, { "F8_E4M3", PN_DTYPES, 8 }, { "F8_E5M2", PN_DTYPES, 8 }, { "F8_E8M0", PN_DTYPES, 8 },
    { "C64", PN_DTYPES, 64 }, { "F4", PN_DTYPES, 4 },      { "F6_E2M3", PN_DTYPES, 6 }, { "F6_E3M2", PN_DTYPES, 6 },
};
enum { TYPES = sizeof types / sizeof *types };

const char *pn_safetensors_dtype_name(pn_dtype t) {
    for (int i = 0; i < TYPES; i++)
        if (types[i].dtype == t) return types[i].name;
    PN_ASSERT(!"a dtype");
}

static pn_status parse_shape(const char *path, const char *name, json_t *shape, pn_tensor_info *info) {
    PN_CHECK(json_is_array(shape), PN_FORMAT, "%s: tensor %.200s: shape is not a list", path, name);
    size_t rank = json_array_size(shape);
    PN_CHECK(rank <= PN_FILE_MAX_RANK, PN_FORMAT, "%s: tensor %.200s has %zu dimensions; at most %d are possible", path,
             name, rank, PN_FILE_MAX_RANK);
    info->rank = (int)rank;
    info->n_elems = 1;
    for (int i = 0; i < info->rank; i++) {
        json_t *d = json_array_get(shape, (size_t)i);
        PN_CHECK(json_is_integer(d) && json_integer_value(d) >= 0, PN_FORMAT,
                 "%s: tensor %.200s: dimension %d of its shape is not a count", path, name, i);
        info->shape[i] = json_integer_value(d);
        PN_CHECK(!__builtin_mul_overflow(info->n_elems, info->shape[i], &info->n_elems), PN_FORMAT,
                 "%s: tensor %.200s: its shape overflows 64 bits", path, name);
    }
    return PN_OK;
}

/* The bytes its shape and dtype ask for must be those its offsets span. An unknown dtype has no known size. */
static pn_status parse_type(const char *path, json_t *type, pn_tensor_info *info) {
    PN_CHECK(json_is_string(type), PN_FORMAT, "%s: tensor %.200s: dtype is not a string", path, info->name);
    info->type = json_string_value(type);
    info->dtype = PN_DTYPES;
    for (int i = 0; i < TYPES; i++) {
        if (strcmp(types[i].name, info->type) != 0) continue;
        info->dtype = types[i].dtype;
        int64_t bits;
        PN_CHECK(!__builtin_mul_overflow(info->n_elems, types[i].bits, &bits), PN_FORMAT,
                 "%s: tensor %.200s: its size overflows 64 bits", path, info->name);
        PN_CHECK(bits % 8 == 0, PN_FORMAT,
                 "%s: tensor %.200s: shape %s of %s takes %lld bits, which is no whole number of bytes", path,
                 info->name, pn_tensor_info_shape_text(info), info->type, (long long)bits);
        PN_CHECK((uint64_t)bits / 8 == info->n_bytes, PN_FORMAT,
                 "%s: tensor %.200s: shape %s of %s takes %lld bytes, its data_offsets span %zu", path, info->name,
                 pn_tensor_info_shape_text(info), info->type, (long long)(bits / 8), info->n_bytes);
    }
    return PN_OK;
}

static pn_status parse_tensor(const pn_safetensors *f, const unsigned char *data, size_t data_bytes, const char *name,
                              json_t *entry, pn_tensor_info *info) {
    info->name = name;
    PN_CHECK(json_is_object(entry), PN_FORMAT, "%s: tensor %.200s: its header entry is not an object", f->path, name);
    PN_TRY(parse_shape(f->path, name, json_object_get(entry, "shape"), info));
    json_t *offsets = json_object_get(entry, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    PN_CHECK(json_array_size(offsets) == 2 && json_is_integer(begin) && json_is_integer(end), PN_FORMAT,
             "%s: tensor %.200s: data_offsets is not a pair of integers", f->path, name);
    json_int_t b = json_integer_value(begin), e = json_integer_value(end);
    PN_CHECK(0 <= b && b <= e && (uint64_t)e <= data_bytes, PN_FORMAT,
             "%s: tensor %.200s: data_offsets [%lld, %lld] lie outside the file's %zu bytes of data; is it cut short?",
             f->path, name, (long long)b, (long long)e, data_bytes);
    info->data = data + b;
    info->n_bytes = (size_t)(e - b);
    return parse_type(f->path, json_object_get(entry, "dtype"), info);
}

static int in_data_order(const void *a, const void *b) {
    const pn_tensor_info *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes < y->n_bytes ? -1 : 1; /* empty tensors come before what follows */
    return strcmp(x->name, y->name);
}

static int in_name_order(const void *a, const void *b) {
    return strcmp((*(pn_tensor_info *const *)a)->name, (*(pn_tensor_info *const *)b)->name);
}

static pn_status check_tiling(const pn_safetensors *f, const unsigned char *data, size_t data_bytes) {
    const unsigned char *at = data;
    for (int64_t i = 0; i < f->count; i++) {
        const pn_tensor_info *t = &f->info[i];
        PN_CHECK(t->data == at, PN_FORMAT, "%s: tensor %.200s %s at byte %zu of the data", f->path, t->name,
                 (const unsigned char *)t->data < at ? "overlaps another tensor" : "leaves a gap before it",
                 (size_t)((const unsigned char *)t->data - data));
        at += t->n_bytes;
    }
    PN_CHECK((size_t)(at - data) == data_bytes, PN_FORMAT, "%s: %zu bytes after the last tensor belong to none",
             f->path, data_bytes - (size_t)(at - data));
    return PN_OK;
}

static pn_status parse_metadata(pn_safetensors *f, json_t *metadata) {
    PN_CHECK(json_is_object(metadata), PN_FORMAT, "%s: __metadata__ is not an object", f->path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
        PN_CHECK(json_is_string(value), PN_FORMAT, "%s: __metadata__ key %.200s is not a string", f->path, key);
    f->metadata = metadata;
    return PN_OK;
}

static pn_status parse(pn_safetensors *f) {
    size_t n = f->n_bytes;
    PN_CHECK(n >= 8, PN_FORMAT, "%s: %zu bytes are too few for a safetensors file", f->path, n);
    uint64_t header_bytes = 0;
    for (int i = 0; i < 8; i++) header_bytes |= (uint64_t)f->data[i] << (8 * i);
    PN_CHECK(header_bytes <= PN_SAFETENSORS_MAX_HEADER, PN_FORMAT,
             "%s: a header of %llu bytes is beyond the format's limit of %d; is this a safetensors file?", f->path,
             (unsigned long long)header_bytes, PN_SAFETENSORS_MAX_HEADER);
    PN_CHECK(header_bytes <= n - 8, PN_FORMAT,
             "%s: a header of %llu bytes does not fit the file's %zu; is it cut short?", f->path,
             (unsigned long long)header_bytes, n);
    const char *text = (const char *)f->data + 8;
    PN_TRY(pn_json_parse(f->path, text, (size_t)header_bytes, &f->header));
    PN_CHECK(json_is_object(f->header), PN_FORMAT, "%s: the header is not a JSON object", f->path);

    size_t entries = json_object_size(f->header);
    f->info = calloc(entries + 1, sizeof *f->info);
    f->by_name = calloc(entries + 1, sizeof *f->by_name);
    PN_CHECK(f->info && f->by_name, PN_MEMORY, "out of memory");
    const unsigned char *data = f->data + 8 + header_bytes;
    size_t data_bytes = n - 8 - (size_t)header_bytes;
    const char *name;
    json_t *entry;
    json_object_foreach(f->header, name, entry) {
        if (!strcmp(name, "__metadata__"))
            PN_TRY(parse_metadata(f, entry));
        else
            PN_TRY(parse_tensor(f, data, data_bytes, name, entry, &f->info[f->count++]));
    }
    qsort(f->info, (size_t)f->count, sizeof *f->info, in_data_order);
    for (int64_t i = 0; i < f->count; i++) f->by_name[i] = &f->info[i];
    qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, in_name_order);
    return check_tiling(f, data, data_bytes);
}

/* Takes over the mapping, also on failure. */
static pn_status open_bytes(const char *path, pn_mapped_file map, const void *data, size_t n_bytes,
                            pn_safetensors **out) {
    pn_status s;
    pn_safetensors *f = calloc(1, sizeof *f);
    if (!f) {
        pn_mapped_file_close(&map);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    *f = (pn_safetensors){ .path = strdup(path), .map = map, .data = data, .n_bytes = n_bytes };
    if (!f->path) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, parse(f), fail);
    *out = f;
    return PN_OK;
fail:
    pn_safetensors_close(&f);
    return s;
}

pn_status pn_safetensors_open(const char *path, pn_safetensors **out) {
    *out = NULL;
    pn_mapped_file map;
    PN_TRY(pn_mapped_file_open(path, &map));
    return open_bytes(path, map, map.data, map.n_bytes, out);
}

pn_status pn_safetensors_parse(const char *name, const void *data, size_t n_bytes, pn_safetensors **out) {
    *out = NULL;
    return open_bytes(name, (pn_mapped_file){ 0 }, data, n_bytes, out);
}

void pn_safetensors_close(pn_safetensors **f) {
    if (!f || !*f) return;
    free((*f)->info);
    free((*f)->by_name);
    json_decref((*f)->header);
    pn_mapped_file_close(&(*f)->map);
    free((*f)->path);
    free(*f);
    *f = NULL;
}

int64_t pn_safetensors_count(const pn_safetensors *f) {
    return f->count;
}

const pn_tensor_info *pn_safetensors_info(const pn_safetensors *f, int64_t i) {
    PN_ASSERT(0 <= i && i < f->count);
    return &f->info[i];
}

static int name_against(const void *name, const void *entry) {
    return strcmp(name, (*(pn_tensor_info *const *)entry)->name);
}

const pn_tensor_info *pn_safetensors_find(const pn_safetensors *f, const char *name) {
    pn_tensor_info **hit = bsearch(name, f->by_name, (size_t)f->count, sizeof *f->by_name, name_against);
    return hit ? *hit : NULL;
}

const char *pn_safetensors_metadata(const pn_safetensors *f, const char *key) {
    return json_string_value(json_object_get(f->metadata, key));
}

const char *pn_safetensors_path(const pn_safetensors *f) {
    return f->path;
}

pn_status pn_safetensors_read_info(const pn_safetensors *f, const pn_tensor_info *info, pn_tensor *dst) {
    PN_TRY(pn_tensor_info_expect(f->path, info, dst));
    PN_CHECK(info->dtype != PN_DTYPES, PN_UNSUPPORTED,
             "%s: tensor %.200s has dtype %.40s; postnas reads F64, F32, F16, BF16, I64, I32 and U8", f->path,
             info->name, info->type);
    pn_convert_unaligned(pn_data(dst), dst->dtype, info->data, info->dtype, info->n_elems);
    return PN_OK;
}

pn_status pn_safetensors_read(const pn_safetensors *f, const char *name, pn_tensor *dst) {
    const pn_tensor_info *info = pn_safetensors_find(f, name);
    PN_CHECK(info, PN_FORMAT, "%s: there is no tensor %.200s in it", f->path, name);
    return pn_safetensors_read_info(f, info, dst);
}
