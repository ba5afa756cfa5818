#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "checkpoint_internal.h"
#include "log.h"

static const size_t manifest_limit = (size_t)1 << 28; /* 100 bytes for each piece of 2 million million elements */

static pn_status step_path(const char *dir, int64_t step, char *out) {
    char name[PN_STATE_STEP_NAME];
    pn_state_step_name(name, step);
    return pn_path_join(out, dir, name);
}

static pn_status file_path(const char *dir, const pn_state_manifest *m, int64_t file, char *out) {
    char step[PN_PATH_MAX], name[PN_STATE_FILE_NAME];
    PN_TRY(step_path(dir, m->step, step));
    pn_state_file_name(name, file, m->n_files);
    return pn_path_join(out, step, name);
}

/* ---- a step: its manifest and files ---- */

static pn_status check_manifest(const char *path, const char *dir, int64_t step, const uint64_t *fingerprint,
                                pn_state_manifest *m) {
    PN_CHECK(m->step == step, PN_FORMAT, "%s: is of step %lld", path, (long long)m->step);
    PN_CHECK(!fingerprint || m->fingerprint == *fingerprint, PN_USAGE,
             "%s holds the state of a run with other settings; use another output directory, or remove this one", dir);
    return pn_state_complete(m, path);
}

pn_status pn_state_open(const char *dir, int64_t step, const uint64_t *fingerprint, pn_state_manifest *out) {
    char path[PN_PATH_MAX], manifest[PN_PATH_MAX], *text;
    size_t n_bytes;
    *out = (pn_state_manifest){ 0 };
    PN_TRY(step_path(dir, step, path));
    PN_CHECK(pn_is_directory(path), PN_FORMAT, "%s: named by %s/latest, but not there", path, dir);
    PN_TRY(pn_path_join(manifest, path, "manifest.json"));
    PN_TRY(pn_file_read(manifest, manifest_limit, &text, &n_bytes));
    pn_status s = pn_state_parse(manifest, text, n_bytes, out);
    free(text);
    if (!s) s = check_manifest(manifest, dir, step, fingerprint, out);
    if (s) pn_state_free(out);
    return s;
}

pn_status pn_state_verify(const char *dir, const pn_state_manifest *m, int first, int by, bool whole) {
    for (int64_t f = first; f < m->n_files; f += by) {
        char path[PN_PATH_MAX];
        struct stat is;
        uint64_t hash = m->file[f].hash;
        int64_t n_bytes;
        PN_TRY(file_path(dir, m, f, path));
        PN_CHECK(!stat(path, &is), PN_IO, "%s: cannot read the file: %s", path, strerror(errno));
        n_bytes = is.st_size;
        if (whole && n_bytes == m->file[f].n_bytes) PN_TRY(pn_file_hash(path, &hash, &n_bytes));
        PN_CHECK(n_bytes == m->file[f].n_bytes && hash == m->file[f].hash, PN_FORMAT,
                 "%s: changed or cut short since it was written", path);
    }
    return PN_OK;
}

/* ---- values ---- */

typedef struct reader {
    const char *dir;
    const pn_state_manifest *m;
    hid_t *file;               /* (n_files), -1: not open */
    hid_t dataset;             /* of: */
    const pn_state_array *now; /* NULL: none is open */
    int64_t now_file;
    char path[PN_PATH_MAX]; /* of that file */
    void *piece;            /* a range, where not all of it is wanted */
    size_t piece_bytes;
} reader;

static pn_status reader_open(reader *r, const char *dir, const pn_state_manifest *m) {
    *r = (reader){ .dir = dir, .m = m, .dataset = -1 };
    r->file = malloc((size_t)m->n_files * sizeof *r->file);
    PN_CHECK(r->file, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < m->n_files; i++) r->file[i] = -1;
    return PN_OK;
}

static void reader_close(reader *r) {
    pn_h5_close_dataset(&r->dataset);
    for (int64_t i = 0; r->file && i < r->m->n_files; i++) pn_h5_close_file(&r->file[i], r->path); /* read only */
    free(r->file);
    free(r->piece);
}

static pn_status open_dataset(reader *r, const pn_state_array *a, int64_t file) {
    int64_t length = 0;
    if (r->now == a && r->now_file == file) return PN_OK;
    pn_h5_close_dataset(&r->dataset);
    r->now = NULL;
    PN_TRY(file_path(r->dir, r->m, file, r->path));
    if (r->file[file] < 0) PN_TRY(pn_h5_open(r->path, &r->file[file]));
    for (int64_t k = 0; k < a->n_ranges; k++)
        if (a->range[k].file == file) length += a->range[k].n;
    PN_TRY(pn_h5_open_array(r->file[file], r->path, a->name, pn_state_type(a->dtype), length, &r->dataset));
    r->now = a;
    r->now_file = file;
    return PN_OK;
}

static pn_status piece_of(reader *r, size_t n_bytes, void **out) {
    if (n_bytes > r->piece_bytes) {
        void *fresh = realloc(r->piece, n_bytes);
        PN_CHECK(fresh, PN_MEMORY, "%s: out of memory", r->path);
        r->piece = fresh;
        r->piece_bytes = n_bytes;
    }
    *out = r->piece;
    return PN_OK;
}

/* What of a range lies in [begin, end) to where the element `begin` belongs. values NULL: it is only checked. */
static pn_status read_range(reader *r, const pn_state_array *a, const pn_state_range *p, int64_t begin, int64_t end,
                            char *values) {
    const size_t size = pn_dtype_bytes(a->dtype);
    const int64_t from = p->offset > begin ? p->offset : begin, to = p->offset + p->n < end ? p->offset + p->n : end;
    char *wanted = values ? values + (size_t)(from - begin) * size : NULL;
    void *piece = wanted;
    PN_TRY(open_dataset(r, a, p->file));
    if (!values || to - from < p->n) PN_TRY(piece_of(r, (size_t)p->n * size, &piece));
    PN_TRY(pn_h5_read(r->dataset, r->path, a->name, pn_state_type(a->dtype), p->at, p->n, piece));
    PN_CHECK(XXH3_64bits(piece, (size_t)p->n * size) == p->hash, PN_FORMAT,
             "%s: array %s: elements %lld to %lld are not those that were written", r->path, a->name,
             (long long)p->offset, (long long)(p->offset + p->n));
    if (values && piece != wanted)
        memcpy(wanted, (const char *)piece + (size_t)(from - p->offset) * size, (size_t)(to - from) * size);
    return PN_OK;
}

static pn_status read_values(reader *r, const pn_state_array *a, int64_t begin, int64_t end, char *values) {
    for (int64_t k = 0; k < a->n_ranges; k++) {
        const pn_state_range *p = &a->range[k];
        if (p->offset < end && p->offset + p->n > begin) PN_TRY(read_range(r, a, p, begin, end, values));
    }
    return PN_OK;
}

static pn_status read_array(reader *r, const pn_checkpoint_array *want) {
    const pn_state_array *a = pn_state_find(r->m, want->name);
    const int64_t end = want->offset + want->n, total = pn_checkpoint_total(want);
    PN_ASSERT(want->offset >= 0 && want->n <= total - want->offset);
    char step[PN_PATH_MAX];
    PN_TRY(step_path(r->dir, r->m->step, step));
    PN_CHECK(a, PN_FORMAT, "%s: has no array %s", step, want->name);
    PN_CHECK(a->dtype == want->dtype && a->n == total, PN_FORMAT,
             "%s: array %s is %s of %lld elements; %s of %lld were expected", step, a->name, pn_dtype_name(a->dtype),
             (long long)a->n, pn_dtype_name(want->dtype), (long long)total);
    char *values = pn_state_direct(want);
    if (values || !want->n) return read_values(r, a, want->offset, end, values);
    char *buffer = malloc(pn_state_bytes(want));
    PN_CHECK(buffer, PN_MEMORY, "out of memory");
    pn_status s = read_values(r, a, want->offset, end, buffer);
    if (!s) s = pn_state_give(want, buffer);
    free(buffer);
    return s;
}

static pn_status read_arrays(const char *dir, const pn_state_manifest *m, const pn_checkpoint_array *arrays, int n) {
    reader r;
    pn_status s = reader_open(&r, dir, m);
    for (int i = 0; i < n && !s; i++) s = read_array(&r, &arrays[i]);
    reader_close(&r);
    return s;
}

pn_status pn_state_check(const char *dir, const pn_state_manifest *m) {
    reader r;
    PN_TRY(pn_state_verify(dir, m, 0, 1, true));
    pn_status s = reader_open(&r, dir, m);
    for (int64_t i = 0; i < m->n_arrays && !s; i++) s = read_values(&r, &m->array[i], 0, m->array[i].n, NULL);
    reader_close(&r);
    return s;
}

/* All ranks see to it that all files are whole, each to some of them, before HDF5 sees any. */
static pn_status read_step(const pn_checkpoint_place *w, int64_t step, const pn_checkpoint_array *arrays, int n) {
    pn_state_manifest m;
    pn_status s = pn_state_open(w->dir, step, w->any_job ? NULL : &w->fingerprint, &m);
    if (!s) s = pn_state_verify(w->dir, &m, pn_ranks_me(w->ranks), pn_ranks_n(w->ranks), true);
    s = pn_ranks_agree(w->ranks, s);
    if (!s) s = pn_ranks_agree(w->ranks, read_arrays(w->dir, &m, arrays, n));
    pn_state_free(&m);
    return s;
}

/* ---- which step ---- */

typedef struct candidates {
    int64_t *step; /* that of `latest` first, then the newest */
    int n;
} candidates;

/* A `latest` that says nothing is damage, too: *first is the failure then. */
static pn_status list(const char *dir, candidates *c, pn_status *first) {
    int64_t latest;
    *first = pn_state_latest(dir, &latest);
    int64_t *there;
    int n;
    pn_status s = pn_state_list(dir, &there, &n);
    PN_TRY(s);
    c->n = 0;
    c->step = malloc(((size_t)n + 1) * sizeof *c->step);
    if (c->step) {
        if (latest >= 0) c->step[c->n++] = latest;
        for (int i = 0; i < n; i++)
            if (there[i] != latest) c->step[c->n++] = there[i];
    }
    free(there);
    PN_CHECK(c->step, PN_MEMORY, "out of memory");
    return PN_OK;
}

/* What another step may be taken instead of. */
static bool is_damage(pn_status s) {
    return s == PN_FORMAT || s == PN_IO;
}

static pn_status with_remedy(pn_status s, const char *dir) {
    if (s != PN_FORMAT && s != PN_IO && s != PN_UNSUPPORTED) return s;
    return pn_fail_at(__FILE__, __LINE__, s, "%s; remove %s to start over", pn_error_message(), dir);
}

static void warn(int64_t next) {
    pn_warn("%s; going back to step %lld", pn_error_message(), (long long)next);
}

pn_status pn_checkpoint_read(const pn_checkpoint_place *w, const pn_checkpoint_array *arrays, int n, int64_t *step) {
    const bool first = pn_ranks_me(w->ranks) == 0;
    candidates c = { 0 };
    pn_status damage = PN_OK, s = first ? list(w->dir, &c, &damage) : PN_OK;
    *step = -1;
    for (int i = 0;; i++) {
        if (damage && i < c.n) warn(c.step[i]);
        int64_t next = i < c.n ? c.step[i] : -1;
        s = pn_ranks_tell(w->ranks, s ? s : next < 0 ? damage : PN_OK, &next);
        if (s || next < 0) break;
        s = read_step(w, next, arrays, n);
        if (!s) *step = next;
        if (!is_damage(s)) break;
        damage = first ? s : PN_OK;
        s = PN_OK;
    }
    free(c.step);
    return with_remedy(s, w->dir);
}

pn_status pn_checkpoint_step(const char *dir, uint64_t fingerprint, int64_t *step) {
    candidates c = { 0 };
    pn_status damage, s;
    *step = -1;
    PN_TRY(list(dir, &c, &damage));
    s = damage;
    for (int i = 0; i < c.n; i++) {
        pn_state_manifest m;
        s = pn_state_open(dir, c.step[i], &fingerprint, &m);
        if (!s) s = pn_state_verify(dir, &m, 0, 1, false);
        pn_state_free(&m);
        if (!s) *step = c.step[i];
        if (!is_damage(s)) break;
    }
    free(c.step);
    return with_remedy(s, dir);
}
