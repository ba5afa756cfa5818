#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_internal.h"
#include "json.h"

static const char format_name[] = "postnas-run-state";
static const pn_dtype dtypes[] = { PN_F32, PN_F64, PN_I32, PN_I64 };
enum { DTYPES = sizeof dtypes / sizeof *dtypes };
static const int64_t most = INT64_C(1) << 48; /* elements, bytes: what is added to them stays far from overflow */

void pn_state_file_name(char out[PN_STATE_FILE_NAME], int64_t rank, int64_t n) {
    snprintf(out, PN_STATE_FILE_NAME, "state-%" PRId64 "-of-%" PRId64 ".h5", rank, n);
}

/* ---- building ---- */

/* Room for one more after n, at sizes that double. */
static pn_status grow(void *list, int64_t n, size_t item_bytes) {
    if (n & (n - 1)) return PN_OK; /* no power of two, nor 0: there is room */
    void **items = list;
    void *fresh = realloc(*items, (n ? 2 * (size_t)n : 1) * item_bytes);
    PN_CHECK(fresh, PN_MEMORY, "out of memory");
    *items = fresh;
    return PN_OK;
}

pn_status pn_state_add_array(pn_state_manifest *m, const char *name, pn_dtype dtype, int64_t n) {
    PN_TRY(grow(&m->array, m->n_arrays, sizeof *m->array));
    char *copy = strdup(name);
    PN_CHECK(copy, PN_MEMORY, "out of memory");
    m->array[m->n_arrays++] = (pn_state_array){ .name = copy, .dtype = dtype, .n = n };
    return PN_OK;
}

static pn_status add_range(pn_state_array *a, const pn_state_range *r) {
    PN_TRY(grow(&a->range, a->n_ranges, sizeof *a->range));
    a->range[a->n_ranges++] = *r;
    return PN_OK;
}

pn_status pn_state_add_range(pn_state_manifest *m, pn_state_range r) {
    return add_range(&m->array[m->n_arrays - 1], &r);
}

pn_status pn_state_merge(pn_state_manifest *m, pn_state_manifest *part) {
    PN_ASSERT(part->n_files == 1);
    PN_TRY(grow(&m->file, m->n_files, sizeof *m->file));
    m->file[m->n_files] = part->file[0];
    for (int64_t i = 0; i < part->n_arrays; i++) {
        pn_state_array *a = &part->array[i];
        PN_TRY(grow(&m->array, m->n_arrays, sizeof *m->array));
        for (int64_t k = 0; k < a->n_ranges; k++) a->range[k].file = m->n_files;
        m->array[m->n_arrays++] = *a;
        *a = (pn_state_array){ 0 };
    }
    m->n_files++;
    pn_state_free(part);
    return PN_OK;
}

static void array_free(pn_state_array *a) {
    free(a->name);
    free(a->range);
    *a = (pn_state_array){ 0 };
}

void pn_state_free(pn_state_manifest *m) {
    for (int64_t i = 0; i < m->n_arrays; i++) array_free(&m->array[i]);
    free(m->array);
    free(m->file);
    *m = (pn_state_manifest){ 0 };
}

/* ---- completing ---- */

static int by_name(const void *a, const void *b) {
    const pn_state_array *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_offset(const void *a, const void *b) {
    const pn_state_range *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The arrays are sorted: those of one name become one. */
static pn_status join(pn_state_manifest *m, const char *path) {
    int64_t n = 0;
    for (int64_t i = 0; i < m->n_arrays; i++) {
        pn_state_array *a = &m->array[i], *last = n ? &m->array[n - 1] : NULL;
        if (!last || strcmp(last->name, a->name)) {
            if (n++ != i) {
                m->array[n - 1] = *a;
                *a = (pn_state_array){ 0 };
            }
            continue;
        }
        PN_CHECK(last->dtype == a->dtype && last->n == a->n, PN_FORMAT,
                 "%s: array %s is %s of %lld elements in one place and %s of %lld in another", path, a->name,
                 pn_dtype_name(last->dtype), (long long)last->n, pn_dtype_name(a->dtype), (long long)a->n);
        for (int64_t k = 0; k < a->n_ranges; k++) PN_TRY(add_range(last, &a->range[k]));
        array_free(a);
    }
    m->n_arrays = n;
    return PN_OK;
}

static pn_status check_tiles(const pn_state_array *a, const char *path) {
    int64_t end = 0;
    for (int64_t k = 0; k < a->n_ranges; k++) {
        const pn_state_range *r = &a->range[k];
        PN_CHECK(r->offset == end, PN_FORMAT, "%s: array %s: elements %lld to %lld are there %s", path, a->name,
                 (long long)(r->offset < end ? r->offset : end), (long long)(r->offset < end ? end : r->offset),
                 r->offset < end ? "twice" : "not at all");
        end += r->n;
    }
    PN_CHECK(end == a->n, PN_FORMAT, "%s: array %s: elements %lld to %lld are there not at all", path, a->name,
             (long long)end, (long long)a->n);
    return PN_OK;
}

pn_status pn_state_complete(pn_state_manifest *m, const char *path) {
    if (m->n_arrays) qsort(m->array, (size_t)m->n_arrays, sizeof *m->array, by_name);
    PN_TRY(join(m, path));
    int64_t *length = calloc((size_t)m->n_files + 1, sizeof *length); /* of the array's dataset in a file, so far */
    PN_CHECK(length, PN_MEMORY, "out of memory");
    pn_status s = PN_OK;
    for (int64_t i = 0; i < m->n_arrays && !s; i++) {
        pn_state_array *a = &m->array[i];
        if (a->n_ranges) qsort(a->range, (size_t)a->n_ranges, sizeof *a->range, by_offset);
        s = check_tiles(a, path);
        for (int64_t k = 0; k < a->n_ranges && !s; k++) {
            pn_state_range *r = &a->range[k];
            r->at = length[r->file];
            length[r->file] += r->n;
        }
        for (int64_t k = 0; k < a->n_ranges; k++) length[a->range[k].file] = 0;
    }
    free(length);
    return s;
}

const pn_state_array *pn_state_find(const pn_state_manifest *m, const char *name) {
    const pn_state_array key = { .name = (char *)(uintptr_t)name };
    return m->n_arrays ? bsearch(&key, m->array, (size_t)m->n_arrays, sizeof key, by_name) : NULL;
}

/* ---- writing ---- */

static json_t *array_json(const pn_state_array *a) {
    json_t *ranges = json_array();
    for (int64_t k = 0; k < a->n_ranges; k++) {
        const pn_state_range *r = &a->range[k];
        json_array_append_new(ranges, json_pack("[I, I, I, o]", (json_int_t)r->file, (json_int_t)r->offset,
                                                (json_int_t)r->n, pn_json_hex(r->hash)));
    }
    const bool all = json_array_size(ranges) == (size_t)a->n_ranges;
    json_t *row = json_pack("{s:s, s:s, s:I, s:o}", "name", a->name, "dtype", pn_dtype_name(a->dtype), "n",
                            (json_int_t)a->n, "ranges", ranges);
    if (all) return row;
    json_decref(row);
    return NULL;
}

pn_status pn_state_text(const pn_state_manifest *m, char **out) {
    json_t *files = json_array(), *arrays = json_array();
    for (int64_t i = 0; i < m->n_files; i++)
        json_array_append_new(files, json_pack("{s:I, s:o}", "n_bytes", (json_int_t)m->file[i].n_bytes, "xxh3_64",
                                               pn_json_hex(m->file[i].hash)));
    for (int64_t i = 0; i < m->n_arrays; i++) json_array_append_new(arrays, array_json(&m->array[i]));
    const bool all = json_array_size(files) == (size_t)m->n_files && json_array_size(arrays) == (size_t)m->n_arrays;
    json_t *root =
        json_pack("{s:s, s:i, s:I, s:o, s:o, s:o}", "format", format_name, "version", PN_STATE_VERSION, "step",
                  (json_int_t)m->step, "fingerprint", pn_json_hex(m->fingerprint), "files", files, "arrays", arrays);
    pn_status s = PN_OK;
    if (!root || !all)
        s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory, or the name of an array is not UTF-8");
    if (!s) s = pn_json_text(root, out);
    json_decref(root);
    return s;
}

/* ---- reading ---- */

static pn_status read_file(const json_t *root, const char *path, pn_state_manifest *m, size_t i) {
    char key[64];
    snprintf(key, sizeof key, "files.%zu.n_bytes", i);
    PN_TRY(pn_json_get_i64(root, path, key, 0, most, &m->file[i].n_bytes));
    snprintf(key, sizeof key, "files.%zu.xxh3_64", i);
    return pn_json_get_hex(root, path, key, &m->file[i].hash);
}

static pn_status read_range(const json_t *root, const char *path, const pn_state_manifest *m, size_t i, size_t k,
                            pn_state_range *r) {
    char key[96];
    const pn_state_array *a = &m->array[i];
    snprintf(key, sizeof key, "arrays.%zu.ranges.%zu.0", i, k);
    char *last = key + strlen(key) - 1;
    PN_TRY(pn_json_get_i64(root, path, key, 0, m->n_files - 1, &r->file));
    *last = '1';
    PN_TRY(pn_json_get_i64(root, path, key, 0, a->n - 1, &r->offset));
    *last = '2';
    PN_TRY(pn_json_get_i64(root, path, key, 1, a->n - r->offset, &r->n));
    *last = '3';
    PN_TRY(pn_json_get_hex(root, path, key, &r->hash));
    /* Nothing is compressed: this bounds what a reader allocates. */
    PN_CHECK(r->n <= m->file[r->file].n_bytes / (int64_t)pn_dtype_bytes(a->dtype), PN_FORMAT,
             "%s: arrays.%zu.ranges.%zu: more than its file can hold", path, i, k);
    return PN_OK;
}

/* As HDF5 would split it: parts that lead somewhere else are in no name that was written. */
static bool good_name(const char *name) {
    const size_t n = strlen(name);
    if (!n || n >= PN_STATE_NAME_MAX) return false;
    for (const char *p = name;; p++) {
        const size_t part = strcspn(p, "/");
        if (!part || (part <= 2 && strspn(p, ".") >= part)) return false;
        p += part;
        if (!*p) return true;
    }
}

static pn_status read_array(const json_t *root, const char *path, pn_state_manifest *m, size_t i) {
    char key[64];
    const char *name, *dtype;
    const json_t *ranges;
    int64_t n;
    snprintf(key, sizeof key, "arrays.%zu.name", i);
    PN_TRY(pn_json_get_str(root, path, key, &name));
    PN_CHECK(good_name(name), PN_FORMAT, "%s: %s: \"%.40s\" names no array", path, key, name);
    snprintf(key, sizeof key, "arrays.%zu.dtype", i);
    PN_TRY(pn_json_get_str(root, path, key, &dtype));
    int t = 0;
    while (t < DTYPES && strcmp(dtype, pn_dtype_name(dtypes[t]))) t++;
    PN_CHECK(t < DTYPES, PN_FORMAT, "%s: %s is \"%.40s\", expected f32, f64, i32 or i64", path, key, dtype);
    snprintf(key, sizeof key, "arrays.%zu.n", i);
    PN_TRY(pn_json_get_i64(root, path, key, 0, most, &n));
    PN_TRY(pn_state_add_array(m, name, dtypes[t], n));
    snprintf(key, sizeof key, "arrays.%zu.ranges", i);
    PN_TRY(pn_json_get_array(root, path, key, 0, SIZE_MAX, &ranges));
    for (size_t k = 0; k < json_array_size(ranges); k++) {
        pn_state_range r = { 0 };
        PN_CHECK(json_array_size(json_array_get(ranges, k)) == 4, PN_FORMAT,
                 "%s: %s.%zu is not a list of file, offset, length and hash", path, key, k);
        PN_TRY(read_range(root, path, m, i, k, &r));
        PN_TRY(pn_state_add_range(m, r));
    }
    return PN_OK;
}

static pn_status read_all(const json_t *root, const char *path, pn_state_manifest *m) {
    const json_t *files, *arrays;
    int64_t version;
    const bool first = json_integer_value(json_object_get(root, "format")) == 1; /* the version that had no name */
    PN_CHECK(!first, PN_UNSUPPORTED, "%s: state of an earlier version of postnas, which this one does not read", path);
    const char *format = json_string_value(json_object_get(root, "format"));
    PN_CHECK(format && !strcmp(format, format_name), PN_FORMAT, "%s: not a manifest of run state", path);
    PN_TRY(pn_json_get_i64(root, path, "version", 1, INT32_MAX, &version));
    PN_CHECK(version == PN_STATE_VERSION, PN_UNSUPPORTED, "%s: state of version %lld; this program reads version %d",
             path, (long long)version, PN_STATE_VERSION);
    PN_TRY(pn_json_get_i64(root, path, "step", 0, most, &m->step));
    PN_TRY(pn_json_get_hex(root, path, "fingerprint", &m->fingerprint));
    PN_TRY(pn_json_get_array(root, path, "files", 1, PN_STATE_FILES_MAX, &files));
    PN_TRY(pn_json_get_array(root, path, "arrays", 0, SIZE_MAX, &arrays));
    m->n_files = (int64_t)json_array_size(files);
    m->file = calloc((size_t)m->n_files, sizeof *m->file);
    PN_CHECK(m->file, PN_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < json_array_size(files); i++) PN_TRY(read_file(root, path, m, i));
    for (size_t i = 0; i < json_array_size(arrays); i++) PN_TRY(read_array(root, path, m, i));
    return PN_OK;
}

pn_status pn_state_parse(const char *path, const char *text, size_t n_bytes, pn_state_manifest *out) {
    *out = (pn_state_manifest){ 0 };
    json_t *root;
    PN_TRY(pn_json_parse(path, text, n_bytes, &root));
    pn_status s = read_all(root, path, out);
    json_decref(root);
    if (s) pn_state_free(out);
    return s;
}
