#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "checkpoint_internal.h"
#include "log.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "hashes are of little-endian values"
#endif

enum { CHUNK = 1 << 16 }; /* elements of a dataset's chunk at most */

typedef struct paths {
    char partial[PN_PATH_MAX], whole[PN_PATH_MAX], state[PN_PATH_MAX], manifest[PN_PATH_MAX], latest[PN_PATH_MAX];
} paths;

static pn_status paths_of(const pn_checkpoint_place *w, int64_t step, paths *p) {
    char name[PN_STATE_STEP_NAME], partial[PN_STATE_STEP_NAME + 8], file[PN_STATE_FILE_NAME];
    pn_state_step_name(name, step);
    snprintf(partial, sizeof partial, "%s.partial", name);
    pn_state_file_name(file, pn_ranks_me(w->ranks), pn_ranks_n(w->ranks));
    PN_TRY(pn_path_join(p->whole, w->dir, name));
    PN_TRY(pn_path_join(p->partial, w->dir, partial));
    PN_TRY(pn_path_join(p->state, p->partial, file));
    PN_TRY(pn_path_join(p->manifest, p->partial, "manifest.json"));
    return pn_path_join(p->latest, w->dir, "latest");
}

/* ---- what this rank has ---- */

typedef const pn_checkpoint_array *const *listing; /* sorted: an array's parts stand together, and rise */

static int in_order(const void *a, const void *b) {
    const pn_checkpoint_array *x = *(const pn_checkpoint_array *const *)a, *y = *(const pn_checkpoint_array *const *)b;
    const int name = strcmp(x->name, y->name);
    return name ? name : (x->offset > y->offset) - (x->offset < y->offset);
}

/* Values that stand in memory to the end of the dataset, in pieces at whole multiples of their size in the array. */
static pn_status write_values(hid_t dataset, const char *path, const pn_checkpoint_array *a, int64_t at,
                              const char *values, pn_state_manifest *part) {
    const size_t size = pn_dtype_bytes(a->dtype);
    for (int64_t done = 0, now; done < a->n; done += now) {
        const int64_t offset = a->offset + done, room = PN_STATE_PIECE - offset % PN_STATE_PIECE;
        now = a->n - done < room ? a->n - done : room;
        const char *piece = values + (size_t)done * size;
        PN_TRY(pn_h5_append(dataset, path, a->name, pn_state_type(a->dtype), at + done, now, piece));
        const uint64_t hash = XXH3_64bits(piece, (size_t)now * size);
        PN_TRY(pn_state_add_range(part, (pn_state_range){ .offset = offset, .n = now, .hash = hash }));
    }
    return PN_OK;
}

static pn_status write_part(hid_t dataset, const char *path, const pn_checkpoint_array *a, int64_t at,
                            pn_state_manifest *part) {
    PN_ASSERT(a->offset >= 0 && a->n <= pn_checkpoint_total(a) - a->offset);
    const char *values = pn_state_direct(a);
    if (values || !a->n) return write_values(dataset, path, a, at, values, part);
    char *buffer = malloc(pn_state_bytes(a));
    PN_CHECK(buffer, PN_MEMORY, "out of memory");
    pn_status s = pn_state_fetch(a, buffer);
    if (!s) s = write_values(dataset, path, a, at, buffer, part);
    free(buffer);
    return s;
}

/* The parts of one array: a dataset. */
static pn_status write_array(hid_t file, const char *path, listing a, int n, pn_state_manifest *part) {
    hid_t dataset = -1;
    int64_t length = 0, at = 0;
    for (int i = 0; i < n; i++) length += a[i]->n;
    PN_TRY(pn_state_add_array(part, a[0]->name, a[0]->dtype, pn_checkpoint_total(a[0])));
    if (!length) return PN_OK;
    const int64_t chunks = (length + CHUNK - 1) / CHUNK; /* of a size that leaves little of the last one empty */
    PN_TRY(pn_h5_create_array(file, path, a[0]->name, pn_state_type(a[0]->dtype), (length + chunks - 1) / chunks,
                              &dataset));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; at += a[i++]->n) s = write_part(dataset, path, a[i], at, part);
    if (!s) return pn_h5_end_array(&dataset, path, a[0]->name);
    pn_h5_close_dataset(&dataset);
    return s;
}

static double room_for(listing a, int n) {
    double values = 0, chunks = 0;
    for (int i = 0; i < n; i++) {
        values += (double)pn_state_bytes(a[i]);
        chunks += (double)a[i]->n / CHUNK + 1;
    }
    return values + pn_h5_overhead(n, chunks);
}

static pn_status write_arrays(const char *path, listing a, int n, pn_state_manifest *part) {
    hid_t file;
    pn_status s = pn_h5_create_with_room(path, room_for(a, n), &file);
    for (int i = 0, end; i < n && !s; i = end) {
        for (end = i + 1; end < n && !strcmp(a[i]->name, a[end]->name);) end++;
        s = write_array(file, path, a + i, end - i, part);
    }
    return pn_h5_end_file(&file, path, s);
}

static pn_status write_file(const paths *p, listing a, int n, char **text) {
    pn_state_manifest part = { .n_files = 1, .file = calloc(1, sizeof *part.file) };
    pn_status s = part.file ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) s = write_arrays(p->state, a, n, &part);
    if (!s) s = pn_file_hash(p->state, &part.file->hash, &part.file->n_bytes);
    if (!s) s = pn_state_text(&part, text);
    pn_state_free(&part);
    return s;
}

/* Writes this rank's file; *text, which the caller frees, is its manifest. */
static pn_status write_mine(const pn_checkpoint_place *w, const paths *p, const pn_checkpoint_array *arrays, int n,
                            char **text) {
    const pn_checkpoint_array **mine = malloc(((size_t)n + 1) * sizeof *mine);
    PN_CHECK(mine, PN_MEMORY, "out of memory");
    int k = 0;
    for (int i = 0; i < n; i++)
        if (arrays[i].total || pn_ranks_me(w->ranks) == 0) mine[k++] = &arrays[i];
    qsort(mine, (size_t)k, sizeof *mine, in_order);
    pn_status s = write_file(p, mine, k, text);
    free(mine);
    return s;
}

/* ---- what rank 0 does for all ---- */

/* Whether the step is there and what it should be. */
static bool is_written(const pn_checkpoint_place *w, int64_t step) {
    pn_state_manifest m;
    int64_t latest;
    pn_status s = pn_state_latest(w->dir, &latest);
    if (s || latest != step) return false;
    s = pn_state_open(w->dir, step, &w->fingerprint, &m);
    if (!s) s = pn_state_check(w->dir, &m);
    pn_state_free(&m);
    return !s;
}

static pn_status begin(const pn_checkpoint_place *w, const paths *p, int64_t step, int64_t *there) {
    PN_TRY(pn_make_directories(w->dir));
    PN_TRY(pn_checkpoint_clean(w->dir));
    *there = is_written(w, step);
    if (*there) return PN_OK;
    return pn_make_directories(p->partial);
}

static pn_status gather_manifest(const paths *p, pn_buf *parts, int n, pn_state_manifest *all) {
    for (int r = 0; r < n; r++) {
        pn_state_manifest part;
        PN_TRY(pn_state_parse(p->manifest, pn_buf_string(&parts[r]), parts[r].n_bytes, &part));
        const bool one = part.n_files == 1;
        pn_status s = one ? pn_state_merge(all, &part) : PN_COMM;
        pn_state_free(&part);
        PN_CHECK(one, PN_COMM, "%s: rank %d sent something else than its part of it", p->manifest, r);
        PN_TRY(s);
    }
    return pn_state_complete(all, p->manifest);
}

static pn_status write_manifest(const pn_checkpoint_place *w, const paths *p, int64_t step, pn_buf *parts) {
    pn_state_manifest all = { 0 };
    char *text = NULL;
    pn_status s = gather_manifest(p, parts, pn_ranks_n(w->ranks), &all);
    all.step = step;
    all.fingerprint = w->fingerprint;
    if (!s) s = pn_state_text(&all, &text);
    if (!s) s = pn_file_write(p->manifest, text, strlen(text));
    free(text);
    pn_state_free(&all);
    return s;
}

/* From here the step counts. */
static pn_status name_latest(const pn_checkpoint_place *w, const paths *p, int64_t step) {
    char name[PN_STATE_STEP_NAME];
    pn_state_step_name(name, step);
    pn_status s = pn_file_write(p->latest, name, strlen(name));
    if (s) pn_state_remove(w->dir, step);
    return s;
}

static pn_status commit(const pn_checkpoint_place *w, const paths *p, int64_t step, pn_buf *parts) {
    PN_TRY(write_manifest(w, p, step, parts));
    pn_directory_sync(p->partial);
    PN_TRY(pn_state_remove(w->dir, step)); /* damaged, or `latest` never came to name it */
    PN_CHECK(!rename(p->partial, p->whole), PN_IO, "%s: cannot put the finished directory in place: %s", p->whole,
             strerror(errno));
    pn_directory_sync(w->dir);
    PN_TRY(name_latest(w, p, step));
    if (pn_state_tidy(w->dir, step, w->keep ? w->keep : PN_CHECKPOINT_KEEP))
        pn_warn("%s; step %lld is saved, older ones stay", pn_error_message(), (long long)step);
    return PN_OK;
}

/* ---- a save, in its three parts ---- */

pn_status pn_state_begin(const pn_checkpoint_place *w, int64_t step, bool *there) {
    paths p;
    int64_t is = 0;
    PN_TRY(paths_of(w, step, &p));
    PN_TRY(pn_ranks_tell(w->ranks, pn_ranks_me(w->ranks) == 0 ? begin(w, &p, step, &is) : PN_OK, &is));
    *there = is;
    return PN_OK;
}

pn_status pn_state_write(const pn_checkpoint_place *w, int64_t step, const pn_checkpoint_array *arrays, int n,
                         char **text) {
    paths p;
    *text = NULL;
    PN_TRY(paths_of(w, step, &p));
    return write_mine(w, &p, arrays, n, text);
}

pn_status pn_state_commit(const pn_checkpoint_place *w, int64_t step, pn_status mine, const char *text) {
    const bool first = pn_ranks_me(w->ranks) == 0;
    const int n = pn_ranks_n(w->ranks);
    paths p;
    PN_TRY(paths_of(w, step, &p));
    pn_buf *parts = first ? calloc((size_t)n, sizeof *parts) : NULL;
    PN_CHECK(parts || !first, PN_MEMORY, "out of memory");
    pn_status s = pn_ranks_collect(w->ranks, mine, text, parts);
    if (!s && first) s = commit(w, &p, step, parts);
    if (s && first) pn_remove_tree(p.partial);
    for (int r = 0; parts && r < n; r++) pn_buf_free(&parts[r]);
    free(parts);
    return pn_ranks_tell(w->ranks, s, NULL);
}

pn_status pn_checkpoint_write(const pn_checkpoint_place *w, int64_t step, const pn_checkpoint_array *arrays, int n) {
    bool there;
    char *text;
    PN_TRY(pn_state_begin(w, step, &there));
    if (there) return PN_OK; /* the same job at the same step: this state */
    pn_status s = pn_state_write(w, step, arrays, n, &text);
    s = pn_state_commit(w, step, s, text);
    free(text);
    return s;
}
