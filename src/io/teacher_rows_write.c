#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "files.h"
#include "teacher_rows_internal.h"

enum { MOST_CHUNK = 1 << 18 /* entries: a row, or 1 MiB of one */ };

struct pn_teacher_writer {
    char *dir;
    int lock;
    pn_teacher_manifest manifest; /* as on disk */
    int32_t *ids;                 /* (shard_rows T k) the rows of the shard that is not full */
    float *log_p;
    int64_t held; /* rows there */
};

static int64_t entries(const pn_teacher_writer *w, int64_t rows) {
    return rows * pn_teacher_row_entries(&w->manifest.info);
}

/* Shards of shard_rows rows that are on disk and full. */
static int64_t full_shards(const pn_teacher_manifest *m) {
    return m->n_shards - (m->n_shards && m->shards[m->n_shards - 1].rows < m->shard_rows);
}

int64_t pn_teacher_writer_rows(const pn_teacher_writer *w) {
    return full_shards(&w->manifest) * w->manifest.shard_rows + w->held;
}

/* ---- opening ---- */

/* Which shard a file of this name holds rows of; -1: none. */
static int64_t shard_of(const char *name) {
    char exact[PN_TEACHER_FILE_MAX];
    long long i, rows = 0;
    if (sscanf(name, "rows-%5lld-to-%18lld", &i, &rows) < 1 || i < 0) return -1;
    pn_teacher_shard_name(i, rows, 0, exact);
    return strcmp(name, exact) ? -1 : i;
}

/* What a writer leaves that stopped before it had its first shard. */
static bool is_unfinished(const char *name) {
    return shard_of(name) == 0 || !strcmp(name, "manifest.json.tmp");
}

static pn_status need_empty(const char *dir) {
    DIR *d = opendir(dir);
    PN_CHECK(d, PN_IO, "%s: cannot read the directory: %s", dir, strerror(errno));
    bool empty = true;
    for (struct dirent *e; (e = readdir(d));)
        empty = empty && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") || is_unfinished(e->d_name));
    closedir(d);
    PN_CHECK(empty, PN_USAGE, "%s: has other files in it; name a new directory for the teacher's rows", dir);
    return PN_OK;
}

/* Shards that the manifest does not name: of a writer that was stopped before it did, or before it removed them. */
static pn_status remove_unnamed(const pn_teacher_writer *w) {
    const pn_teacher_manifest *m = &w->manifest;
    char path[PN_PATH_MAX];
    pn_status s = PN_OK;
    DIR *d = opendir(w->dir);
    PN_CHECK(d, PN_IO, "%s: cannot read the directory: %s", w->dir, strerror(errno));
    for (struct dirent *e; !s && (e = readdir(d));) {
        const int64_t i = shard_of(e->d_name);
        if (i < 0 || (i < m->n_shards && !strcmp(m->shards[i].file, e->d_name))) continue;
        s = pn_path_join(path, w->dir, e->d_name);
        if (!s) unlink(path);
    }
    closedir(d);
    return s;
}

static pn_status take_lock(pn_teacher_writer *w) {
    w->lock = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    PN_CHECK(w->lock >= 0, PN_IO, "%s: cannot open the directory: %s", w->dir, strerror(errno));
    PN_CHECK(!flock(w->lock, LOCK_EX | LOCK_NB), PN_USAGE, "%s: another process is writing teacher rows there", w->dir);
    return PN_OK;
}

static pn_status need_same(const char *path, const pn_teacher_info *found, const pn_teacher_info *now) {
    const struct {
        const char *what;
        bool same;
    } parts[] = { { "teacher", found->teacher_hash == now->teacher_hash },
                  { "tokenizer", found->tokenizer_hash == now->tokenizer_hash && found->vocab == now->vocab },
                  { "sequence length", found->sequence_length == now->sequence_length },
                  { "mixture or seed", found->mixture_hash == now->mixture_hash },
                  { "k", found->k == now->k },
                  { "temperature", found->temperature == now->temperature } };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        PN_CHECK(parts[i].same, PN_USAGE,
                 "%s: has rows of another %s; name another directory, or remove this one to start over", path,
                 parts[i].what);
    return PN_OK;
}

/* The last shard's rows, where it is not full, are held again. */
static pn_status resume(pn_teacher_writer *w, const char *path, const pn_teacher_info *info) {
    pn_teacher_manifest *m = &w->manifest;
    PN_TRY(pn_teacher_manifest_read(path, m));
    PN_TRY(need_same(path, &m->info, info));
    for (int64_t i = 0; i < m->n_shards; i++) PN_TRY(pn_teacher_shard_check(w->dir, m, i));
    return PN_OK;
}

static pn_status hold_last(pn_teacher_writer *w) {
    const pn_teacher_manifest *m = &w->manifest;
    const int64_t last = full_shards(m);
    pn_teacher_shard_file f;
    if (last == m->n_shards) return PN_OK;
    PN_TRY(pn_teacher_shard_open(w->dir, m, last, false, &f));
    pn_status s = pn_teacher_shard_read(&f, m, 0, m->shards[last].rows, w->ids, w->log_p);
    pn_teacher_shard_close(&f);
    PN_TRY(s);
    w->held = m->shards[last].rows;
    return PN_OK;
}

static pn_status open_writer(pn_teacher_writer *w, const pn_teacher_info *info, int64_t shard_bytes) {
    char path[PN_PATH_MAX];
    const int64_t row_bytes = pn_teacher_row_entries(info) * PN_TEACHER_ENTRY_BYTES;
    PN_TRY(pn_path_join(path, w->dir, "manifest.json"));
    PN_TRY(pn_make_directories(w->dir));
    PN_TRY(take_lock(w));
    if (pn_file_exists(path)) {
        PN_TRY(resume(w, path, info));
    } else {
        PN_TRY(need_empty(w->dir));
        w->manifest.info = *info;
        w->manifest.shard_rows = shard_bytes / row_bytes > 1 ? shard_bytes / row_bytes : 1;
    }
    const size_t n = (size_t)entries(w, w->manifest.shard_rows);
    w->ids = malloc(n * sizeof *w->ids);
    w->log_p = malloc(n * sizeof *w->log_p);
    PN_CHECK(w->ids && w->log_p, PN_MEMORY, "%s: out of memory for a shard of %zu entries", w->dir, n);
    PN_TRY(hold_last(w));
    return remove_unnamed(w);
}

pn_status pn_teacher_writer_open(const char *dir, const pn_teacher_info *info, int64_t shard_bytes,
                                 pn_teacher_writer **out) {
    *out = NULL;
    PN_ASSERT(info->k >= 1 && info->k <= info->vocab && info->vocab <= INT32_MAX);
    pn_teacher_writer *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "%s: out of memory", dir);
    w->lock = -1;
    w->dir = strdup(dir);
    pn_status s;
    if (!w->dir) PN_FAIL_GOTO(s, PN_MEMORY, fail, "%s: out of memory", dir);
    PN_TRY_GOTO(s, open_writer(w, info, shard_bytes ? shard_bytes : PN_TEACHER_SHARD_BYTES), fail);
    *out = w;
    return PN_OK;
fail:
    pn_teacher_writer_close(&w);
    return s;
}

void pn_teacher_writer_close(pn_teacher_writer **out) {
    pn_teacher_writer *w = *out;
    *out = NULL;
    if (!w) return;
    if (w->lock >= 0) close(w->lock);
    pn_teacher_manifest_free(&w->manifest);
    free(w->ids);
    free(w->log_p);
    free(w->dir);
    free(w);
}

/* ---- a shard ---- */

static pn_status write_array(hid_t file, const char *path, const char *name, pn_h5_type type, int64_t chunk, int64_t n,
                             const void *data) {
    hid_t dataset;
    PN_TRY(pn_h5_create_array(file, path, name, type, chunk, &dataset));
    const pn_status s = pn_h5_append(dataset, path, name, type, 0, n, data);
    if (!s) return pn_h5_end_array(&dataset, path, name);
    pn_h5_close_dataset(&dataset);
    return s;
}

static pn_status write_file(const pn_teacher_writer *w, const char *path) {
    const int64_t n = entries(w, w->held), row = entries(w, 1), chunk = row < MOST_CHUNK ? row : MOST_CHUNK;
    const int64_t chunks = (n + chunk - 1) / chunk;
    const double values = (double)(chunks * chunk * PN_TEACHER_ENTRY_BYTES);
    hid_t file;
    pn_status s = pn_h5_create_with_room(path, values + pn_h5_overhead(2, 2 * (double)chunks), &file);
    if (!s) s = write_array(file, path, "ids", PN_H5_I32, chunk, n, w->ids);
    if (!s) s = write_array(file, path, "log_p", PN_H5_F32, chunk, n, w->log_p);
    return pn_h5_end_file(&file, path, s);
}

/* The rows that are held become the shard after the full ones, in place of one that has fewer of them. */
static pn_status write_shard(pn_teacher_writer *w) {
    pn_teacher_manifest *m = &w->manifest;
    const int64_t i = full_shards(m);
    char path[PN_PATH_MAX], old[PN_PATH_MAX] = "";
    pn_teacher_shard fresh = { .rows = w->held };
    PN_CHECK(i < PN_TEACHER_SHARDS_MAX, PN_USAGE, "%s: more than %d shards; write fewer rows, or lower k", w->dir,
             PN_TEACHER_SHARDS_MAX);
    if (i < m->n_shards) {
        if (m->shards[i].rows == w->held) return PN_OK; /* it is there */
        PN_TRY(pn_path_join(old, w->dir, m->shards[i].file));
    }
    pn_teacher_shard_name(i, w->held, m->shard_rows, fresh.file);
    PN_TRY(pn_path_join(path, w->dir, fresh.file));
    PN_TRY(write_file(w, path));
    PN_TRY(pn_file_hash(path, &fresh.hash, &fresh.n_bytes));
    pn_teacher_shard *shards = realloc(m->shards, (size_t)(i + 1) * sizeof *shards);
    PN_CHECK(shards, PN_MEMORY, "%s: out of memory", w->dir);
    m->shards = shards;
    m->shards[i] = fresh;
    m->n_shards = i + 1;
    PN_TRY(pn_path_join(path, w->dir, "manifest.json"));
    PN_TRY(pn_teacher_manifest_write(m, path));
    if (*old) unlink(old); /* the manifest names it no longer */
    return PN_OK;
}

pn_status pn_teacher_writer_add(pn_teacher_writer *w, int64_t n, const int32_t *ids, const float *log_p) {
    const int64_t shard_rows = w->manifest.shard_rows;
    for (int64_t some; n > 0; n -= some) {
        some = shard_rows - w->held < n ? shard_rows - w->held : n;
        const size_t k = (size_t)entries(w, some);
        memcpy(w->ids + entries(w, w->held), ids, k * sizeof *ids);
        memcpy(w->log_p + entries(w, w->held), log_p, k * sizeof *log_p);
        ids += k;
        log_p += k;
        w->held += some;
        if (w->held < shard_rows) continue;
        PN_TRY(write_shard(w));
        w->held = 0;
    }
    return PN_OK;
}

pn_status pn_teacher_writer_save(pn_teacher_writer *w) {
    return w->held ? write_shard(w) : PN_OK;
}
