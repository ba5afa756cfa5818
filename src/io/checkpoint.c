#include "checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>
#include <xxhash.h>

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

/* xxh3-64 and size of a file, read in pieces. */
static pn_status hash_file(const char *path, uint64_t *hash, int64_t *size) {
    FILE *f = fopen(path, "rbe");
    PN_CHECK(f, PN_IO, "%s: cannot open the run state", path);
    XXH3_state_t *h = XXH3_createState();
    char *buffer = malloc(1 << 20);
    *size = 0;
    pn_status s = h && buffer ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) XXH3_64bits_reset(h);
    for (size_t n; !s && (n = fread(buffer, 1, 1 << 20, f)) > 0; *size += (int64_t)n) XXH3_64bits_update(h, buffer, n);
    if (!s && ferror(f)) s = pn_fail_at(__FILE__, __LINE__, PN_IO, "%s: cannot read the run state", path);
    if (!s) *hash = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    free(buffer);
    fclose(f);
    return s;
}

static pn_status write_arrays(const char *path, const pn_checkpoint_array *a, int n) {
    hid_t file = -1, dataset = -1;
    PN_TRY(pn_h5_create(path, &file));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; i++) {
        s = pn_h5_create_array(file, path, a[i].name, stored_type(a[i].dtype), CHUNK, &dataset);
        if (!s) s = pn_h5_append(dataset, path, a[i].name, memory_type(a[i].dtype), 0, a[i].n, a[i].data);
        pn_h5_close_dataset(&dataset);
    }
    pn_status closed = pn_h5_close_file(&file, path);
    return s ? s : closed;
}

static pn_status read_arrays(const char *path, const pn_checkpoint_array *a, int n) {
    hid_t file = -1, dataset = -1;
    PN_TRY(pn_h5_open(path, &file));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; i++) {
        s = pn_h5_open_array(file, path, a[i].name, stored_type(a[i].dtype), a[i].n, &dataset);
        if (!s) s = pn_h5_read(dataset, path, a[i].name, memory_type(a[i].dtype), 0, a[i].n, a[i].data);
        pn_h5_close_dataset(&dataset);
    }
    pn_h5_close_file(&file, path);
    return s;
}

static pn_status write_manifest(const char *step_dir, const char *state, int64_t step, uint64_t fingerprint) {
    char path[PN_PATH_MAX], hash_text[32], fingerprint_text[32];
    uint64_t hash;
    int64_t size;
    PN_TRY(hash_file(state, &hash, &size));
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
    if (before[0]) {
        PN_TRY(pn_path_join(path, dir, before));
        PN_TRY(pn_remove_tree(path));
    }
    return PN_OK;
}

static pn_status check_manifest(const char *step_dir, const char *dir, uint64_t fingerprint, int64_t *step) {
    char path[PN_PATH_MAX], state[PN_PATH_MAX], want[32];
    char *text;
    size_t len;
    PN_TRY(pn_path_join(path, step_dir, "manifest.json"));
    PN_TRY(pn_path_join(state, step_dir, "state.h5"));
    PN_TRY(pn_file_read(path, 1 << 16, &text, &len));
    json_error_t e;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
    free(text);
    json_int_t number = -1, bytes = -1;
    const char *hash_text = NULL, *job = NULL;
    char hash_copy[32] = "", job_copy[32] = "";
    if (root && !json_unpack(root, "{s:I, s:s, s:I, s:s}", "step", &number, "fingerprint", &job, "bytes", &bytes,
                             "xxh3_64", &hash_text)) {
        snprintf(hash_copy, sizeof hash_copy, "%s", hash_text);
        snprintf(job_copy, sizeof job_copy, "%s", job);
    }
    json_decref(root);
    PN_CHECK(hash_copy[0] && number >= 0, PN_FORMAT, "%s: not a manifest of run state; remove %s to start over", path,
             dir);
    snprintf(want, sizeof want, "%016" PRIx64, fingerprint);
    PN_CHECK(!strcmp(want, job_copy), PN_USAGE,
             "%s holds the state of a run with other settings; use another output directory, or remove this one", dir);
    uint64_t hash;
    int64_t size;
    PN_TRY(hash_file(state, &hash, &size));
    snprintf(want, sizeof want, "%016" PRIx64, hash);
    PN_CHECK(size == bytes && !strcmp(want, hash_copy), PN_FORMAT,
             "%s: changed or cut short since it was written; remove %s to start over", state, dir);
    *step = number;
    return PN_OK;
}

pn_status pn_checkpoint_load(const char *dir, uint64_t fingerprint, const pn_checkpoint_array *arrays, int n,
                             int64_t *step) {
    char name[64], step_dir[PN_PATH_MAX], state[PN_PATH_MAX];
    *step = -1;
    PN_TRY(newest(dir, name, sizeof name));
    if (!name[0]) return PN_OK;
    PN_TRY(pn_path_join(step_dir, dir, name));
    PN_CHECK(pn_is_directory(step_dir), PN_FORMAT, "%s: named by %s/latest, but not there; remove %s to start over",
             step_dir, dir, dir);
    int64_t found;
    PN_TRY(check_manifest(step_dir, dir, fingerprint, &found));
    PN_TRY(pn_path_join(state, step_dir, "state.h5"));
    PN_TRY(read_arrays(state, arrays, n));
    *step = found;
    return PN_OK;
}
