#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "files.h"
#include "hdf5_io.h"

enum { CHUNK = 1 << 16 };

static hid_t stored_type(pn_dtype t) {
    switch (t) {
    case PN_F32: return H5T_IEEE_F32LE;
    case PN_F64: return H5T_IEEE_F64LE;
    case PN_I32: return H5T_STD_I32LE;
    case PN_I64: return H5T_STD_I64LE;
    default: PN_ASSERT(!"a dtype that run state uses");
    }
}

static hid_t memory_type(pn_dtype t) {
    switch (t) {
    case PN_F32: return H5T_NATIVE_FLOAT;
    case PN_F64: return H5T_NATIVE_DOUBLE;
    case PN_I32: return H5T_NATIVE_INT32;
    default: return H5T_NATIVE_INT64;
    }
}

/* Where an array's values are read from or written to: its own memory, or the buffer, which then goes between. */
static pn_status place_of(const pn_checkpoint_array *a, void **buffer, void **place) {
    const pn_tensor *t = a->tensor;
    *buffer = NULL;
    *place = t ? pn_data(t) : a->data;
    if (!t && !a->source) return PN_OK;
    if (t && t->dtype == a->dtype && pn_pool_kind_of(t->storage->pool) == PN_POOL_HOST) return PN_OK;
    *place = *buffer = malloc((size_t)a->n * pn_dtype_bytes(a->dtype) + 1);
    PN_CHECK(*buffer, PN_MEMORY, "out of memory");
    return PN_OK;
}

/* Through the buffer, which is there. */
static pn_status fetch(const pn_checkpoint_array *a, void *buffer) {
    return a->source ? a->source->read(a->of, a->index, buffer) : pn_tensor_read(a->tensor, buffer, a->dtype);
}
static pn_status give(const pn_checkpoint_array *a, const void *buffer) {
    return a->source ? a->source->write(a->of, a->index, buffer) : pn_tensor_write(a->tensor, buffer, a->dtype);
}

static pn_status write_array(hid_t dataset, const char *path, const pn_checkpoint_array *a) {
    void *buffer, *from;
    PN_TRY(place_of(a, &buffer, &from));
    pn_status s = buffer ? fetch(a, buffer) : PN_OK;
    if (!s) s = pn_h5_append(dataset, path, a->name, memory_type(a->dtype), 0, a->n, from);
    free(buffer);
    return s;
}

static pn_status read_array(hid_t dataset, const char *path, const pn_checkpoint_array *a) {
    void *buffer, *to;
    PN_TRY(place_of(a, &buffer, &to));
    pn_status s = pn_h5_read(dataset, path, a->name, memory_type(a->dtype), 0, a->n, to);
    if (!s && buffer) s = give(a, buffer);
    free(buffer);
    return s;
}

static pn_status write_arrays(const char *path, const pn_checkpoint_array *a, int n) {
    hid_t file = -1, dataset = -1;
    PN_TRY(pn_h5_create(path, &file));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; i++) {
        s = pn_h5_create_array(file, path, a[i].name, stored_type(a[i].dtype), CHUNK, &dataset);
        if (!s) s = write_array(dataset, path, &a[i]);
        pn_h5_close_dataset(&dataset);
    }
    pn_status closed = pn_h5_close_file(&file, path);
    if (!s) s = closed;
    return s ? s : pn_file_sync(path);
}

static pn_status read_arrays(const char *path, const pn_checkpoint_array *a, int n) {
    hid_t file = -1, dataset = -1;
    PN_TRY(pn_h5_open(path, &file));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; i++) {
        s = pn_h5_open_array(file, path, a[i].name, stored_type(a[i].dtype), a[i].n, &dataset);
        if (!s) s = read_array(dataset, path, &a[i]);
        pn_h5_close_dataset(&dataset);
    }
    pn_h5_close_file(&file, path);
    return s;
}

static pn_status write_manifest(const char *step_dir, const char *state, int64_t step, uint64_t fingerprint) {
    char path[PN_PATH_MAX], hash_text[32], fingerprint_text[32];
    uint64_t hash;
    int64_t size;
    PN_TRY(pn_file_hash(state, &hash, &size));
    snprintf(hash_text, sizeof hash_text, "%016" PRIx64, hash);
    snprintf(fingerprint_text, sizeof fingerprint_text, "%016" PRIx64, fingerprint);
    json_t *root = json_pack("{s:i, s:I, s:s, s:I, s:s}", "format", 1, "step", (json_int_t)step, "fingerprint",
                             fingerprint_text, "bytes", (json_int_t)size, "xxh3_64", hash_text);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    PN_CHECK(text, PN_MEMORY, "out of memory");
    pn_status s = pn_path_join(path, step_dir, "manifest.json");
    if (!s) s = pn_file_write(path, text, strlen(text));
    free(text);
    return s;
}

static pn_status newest(const char *dir, char *name, size_t n) {
    char path[PN_PATH_MAX];
    name[0] = '\0';
    PN_TRY(pn_path_join(path, dir, "latest"));
    if (!pn_file_exists(path)) return PN_OK;
    char *text;
    size_t len;
    PN_TRY(pn_file_read(path, 256, &text, &len));
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r')) text[--len] = '\0';
    bool good = len > 5 && len < n && !strncmp(text, "step-", 5) && strspn(text + 5, "0123456789") == len - 5;
    if (good) memcpy(name, text, len + 1);
    free(text);
    PN_CHECK(good, PN_FORMAT, "%s: names no step; remove %s to start over", path, dir);
    return PN_OK;
}

/* Removes the steps that `latest` no longer names, and what a process that died left half-written. */
static pn_status tidy(const char *dir, const char *latest) {
    DIR *d = opendir(dir);
    PN_CHECK(d, PN_IO, "%s: cannot read this directory: %s", dir, strerror(errno));
    pn_status s = PN_OK;
    for (struct dirent *e; !s && (e = readdir(d));) {
        char path[PN_PATH_MAX];
        if (strncmp(e->d_name, "step-", 5) || !strcmp(e->d_name, latest)) continue;
        s = pn_path_join(path, dir, e->d_name);
        if (!s) s = pn_remove_tree(path);
    }
    closedir(d);
    return s;
}

pn_status pn_checkpoint_save(const char *dir, int64_t step, uint64_t fingerprint, const pn_checkpoint_array *arrays,
                             int n) {
    char name[64], before[64], path[PN_PATH_MAX], state[PN_PATH_MAX];
    PN_TRY(pn_make_directories(dir));
    PN_TRY(newest(dir, before, sizeof before));
    snprintf(name, sizeof name, "step-%" PRId64, step);
    PN_TRY(pn_path_join(path, dir, name));
    if (!strcmp(before, name)) return PN_OK; /* the same job at the same step: the state that is there is this one */
    if (pn_is_directory(path)) PN_TRY(pn_remove_tree(path)); /* left over: never became the latest */
    pn_directory_writer w;
    PN_TRY(pn_directory_writer_open(path, &w));
    pn_status s = pn_path_join(state, w.temporary, "state.h5");
    if (!s) s = write_arrays(state, arrays, n);
    if (!s) s = write_manifest(w.temporary, state, step, fingerprint);
    if (s) {
        pn_directory_writer_abort(&w);
        return s;
    }
    PN_TRY(pn_directory_writer_commit(&w));
    PN_TRY(pn_path_join(path, dir, "latest"));
    PN_TRY(pn_file_write(path, name, strlen(name)));
    return tidy(dir, name);
}

/* A step's manifest; that it is of this job has been checked. */
typedef struct manifest {
    int64_t step, n_bytes;
    uint64_t hash;
} manifest;

static pn_status read_manifest(const char *step_dir, const char *dir, uint64_t fingerprint, manifest *out) {
    char path[PN_PATH_MAX], want[32];
    char *text;
    size_t len;
    PN_TRY(pn_path_join(path, step_dir, "manifest.json"));
    PN_TRY(pn_file_read(path, 1 << 16, &text, &len));
    json_error_t e;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    free(text);
    json_int_t number = -1, n_bytes = -1;
    const char *hash = NULL, *job = NULL;
    bool good = root &&
                !json_unpack(root, "{s:I, s:s, s:I, s:s}", "step", &number, "fingerprint", &job, "bytes", &n_bytes,
                             "xxh3_64", &hash) &&
                number >= 0 && strlen(hash) == 16;
    snprintf(want, sizeof want, "%016" PRIx64, fingerprint);
    bool ours = good && !strcmp(want, job);
    if (good) *out = (manifest){ number, n_bytes, strtoull(hash, NULL, 16) };
    json_decref(root);
    PN_CHECK(good, PN_FORMAT, "%s: not a manifest of run state; remove %s to start over", path, dir);
    PN_CHECK(ours, PN_USAGE,
             "%s holds the state of a run with other settings; use another output directory, or remove this one", dir);
    return PN_OK;
}

/* The directory of the newest step and its manifest; step -1 when there is none. */
static pn_status find(const char *dir, uint64_t fingerprint, char *step_dir, manifest *m) {
    char name[64];
    m->step = -1;
    PN_TRY(newest(dir, name, sizeof name));
    if (!name[0]) return PN_OK;
    PN_TRY(pn_path_join(step_dir, dir, name));
    PN_CHECK(pn_is_directory(step_dir), PN_FORMAT, "%s: named by %s/latest, but not there; remove %s to start over",
             step_dir, dir, dir);
    return read_manifest(step_dir, dir, fingerprint, m);
}

pn_status pn_checkpoint_step(const char *dir, uint64_t fingerprint, int64_t *step) {
    char step_dir[PN_PATH_MAX];
    manifest m;
    PN_TRY(find(dir, fingerprint, step_dir, &m));
    *step = m.step;
    return PN_OK;
}

pn_status pn_checkpoint_load(const char *dir, uint64_t fingerprint, const pn_checkpoint_array *arrays, int n,
                             int64_t *step) {
    char step_dir[PN_PATH_MAX], state[PN_PATH_MAX];
    manifest m;
    *step = -1;
    PN_TRY(find(dir, fingerprint, step_dir, &m));
    if (m.step < 0) return PN_OK;
    uint64_t hash;
    int64_t n_bytes;
    PN_TRY(pn_path_join(state, step_dir, "state.h5"));
    PN_TRY(pn_file_hash(state, &hash, &n_bytes));
    PN_CHECK(n_bytes == m.n_bytes && hash == m.hash, PN_FORMAT,
             "%s: changed or cut short since it was written; remove %s to start over", state, dir);
    PN_TRY(read_arrays(state, arrays, n));
    *step = m.step;
    return PN_OK;
}
