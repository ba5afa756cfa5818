#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "teacher_rows_internal.h"

/* ---- a shard ---- */

static pn_status shard_path(const char *dir, const pn_teacher_manifest *m, int64_t i, char **path) {
    PN_CHECK(asprintf(path, "%s/%s", dir, m->shards[i].file) >= 0, PN_MEMORY, "%s: out of memory", dir);
    return PN_OK;
}

pn_status pn_teacher_shard_check(const char *dir, const pn_teacher_manifest *m, int64_t i) {
    char *path;
    struct stat there;
    const long long want = m->shards[i].n_bytes;
    pn_status s = PN_OK;
    PN_TRY(shard_path(dir, m, i, &path));
    if (stat(path, &there))
        s = pn_fail_at(__FILE__, __LINE__, PN_IO,
                       "%s: a shard that the manifest names is missing: %s; copy it here or write the rows again with "
                       "`postnas teach`",
                       path, strerror(errno));
    else if (there.st_size != want)
        s = pn_fail_at(
            __FILE__, __LINE__, PN_FORMAT,
            "%s: %lld bytes, but the manifest says %lld: the shard is cut short or changed; copy it again or "
            "write the rows again with `postnas teach`",
            path, (long long)there.st_size, want);
    free(path);
    return s;
}

static pn_status verify(const char *path, const pn_teacher_shard *shard) {
    uint64_t hash;
    int64_t n_bytes;
    PN_TRY(pn_file_hash(path, &hash, &n_bytes));
    PN_CHECK(hash == shard->hash && n_bytes == shard->n_bytes, PN_FORMAT,
             "%s: its xxh3-64 is not the manifest's: the shard is damaged or changed; copy it again or write the rows "
             "again with `postnas teach`",
             path);
    return PN_OK;
}

pn_status pn_teacher_shard_open(const char *dir, const pn_teacher_manifest *m, int64_t i, bool verified,
                                pn_teacher_shard_file *f) {
    const int64_t n = m->shards[i].rows * pn_teacher_row_entries(&m->info);
    pn_status s;
    *f = (pn_teacher_shard_file){ .file = -1, .ids = -1, .log_p = -1, .index = i };
    PN_TRY(shard_path(dir, m, i, &f->path));
    if (!verified) PN_TRY_GOTO(s, verify(f->path, &m->shards[i]), fail);
    PN_TRY_GOTO(s, pn_h5_open(f->path, &f->file), fail);
    PN_TRY_GOTO(s, pn_h5_open_array(f->file, f->path, "ids", PN_H5_I32, n, &f->ids), fail);
    PN_TRY_GOTO(s, pn_h5_open_array(f->file, f->path, "log_p", PN_H5_F32, n, &f->log_p), fail);
    return PN_OK;
fail:
    pn_teacher_shard_close(f);
    return s;
}

void pn_teacher_shard_close(pn_teacher_shard_file *f) {
    if (!f->path) return;
    pn_h5_close_dataset(&f->ids);
    pn_h5_close_dataset(&f->log_p);
    pn_h5_close_file(&f->file, f->path);
    free(f->path);
    *f = (pn_teacher_shard_file){ 0 };
}

static pn_status check_values(const char *path, const pn_teacher_info *o, int64_t first, int64_t n, const int32_t *ids,
                              const float *log_p) {
    for (int64_t i = 0; i < n * o->sequence_length; i++)
        for (int64_t j = 0; j < o->k; j++) {
            const int64_t at = i * o->k + j, low = j ? (int64_t)ids[at - 1] + 1 : 0;
            const long long row = first + i / o->sequence_length, token = i % o->sequence_length;
            PN_CHECK(ids[at] >= low && ids[at] < o->vocab, PN_FORMAT,
                     "%s: row %lld, token %lld: id %d is outside %lld .. %lld; the ids of a token ascend", path, row,
                     token, (int)ids[at], (long long)low, (long long)o->vocab - 1);
            PN_CHECK(log_p[at] <= 0, PN_FORMAT, "%s: row %lld, token %lld: a log-probability is %g; it is 0 at most",
                     path, row, token, (double)log_p[at]);
        }
    return PN_OK;
}

pn_status pn_teacher_shard_read(const pn_teacher_shard_file *f, const pn_teacher_manifest *m, int64_t first, int64_t n,
                                int32_t *ids, float *log_p) {
    const int64_t row = pn_teacher_row_entries(&m->info);
    PN_TRY(pn_h5_read(f->ids, f->path, "ids", PN_H5_I32, first * row, n * row, ids));
    PN_TRY(pn_h5_read(f->log_p, f->path, "log_p", PN_H5_F32, first * row, n * row, log_p));
    return check_values(f->path, &m->info, first, n, ids, log_p);
}

/* ---- all of them ---- */

struct pn_teacher_rows {
    char *dir;
    pn_teacher_manifest manifest;
    bool *verified;             /* (n_shards) */
    pn_teacher_shard_file open; /* the shard that was read last: rows are asked for one after another */
};

static pn_status open_rows(pn_teacher_rows *r) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_path_join(path, r->dir, "manifest.json"));
    PN_TRY(pn_teacher_manifest_read(path, &r->manifest));
    for (int64_t i = 0; i < r->manifest.n_shards; i++) PN_TRY(pn_teacher_shard_check(r->dir, &r->manifest, i));
    r->verified = calloc((size_t)r->manifest.n_shards, sizeof *r->verified);
    PN_CHECK(r->verified, PN_MEMORY, "%s: out of memory", r->dir);
    return PN_OK;
}

pn_status pn_teacher_rows_open(const char *dir, pn_teacher_rows **out) {
    *out = NULL;
    pn_teacher_rows *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "%s: out of memory", dir);
    r->dir = strdup(dir);
    pn_status s;
    if (!r->dir) PN_FAIL_GOTO(s, PN_MEMORY, fail, "%s: out of memory", dir);
    PN_TRY_GOTO(s, open_rows(r), fail);
    *out = r;
    return PN_OK;
fail:
    pn_teacher_rows_close(&r);
    return s;
}

void pn_teacher_rows_close(pn_teacher_rows **out) {
    pn_teacher_rows *r = *out;
    *out = NULL;
    if (!r) return;
    pn_teacher_shard_close(&r->open);
    pn_teacher_manifest_free(&r->manifest);
    free(r->verified);
    free(r->dir);
    free(r);
}

const pn_teacher_info *pn_teacher_rows_info(const pn_teacher_rows *r) {
    return &r->manifest.info;
}

int64_t pn_teacher_rows_count(const pn_teacher_rows *r) {
    return pn_teacher_manifest_rows(&r->manifest);
}

pn_status pn_teacher_rows_need(const pn_teacher_rows *r, const pn_teacher_info *need, int64_t rows, const char *where) {
    const pn_teacher_info *o = &r->manifest.info;
    PN_CHECK(o->tokenizer_hash == need->tokenizer_hash && o->vocab == need->vocab, PN_USAGE,
             "%s: the teacher rows in %s are of another tokenizer or vocabulary (%lld words) than the model's (%lld); "
             "teacher and student must share them: write the rows again with `postnas teach`",
             where, r->dir, (long long)o->vocab, (long long)need->vocab);
    PN_CHECK(
        o->sequence_length == need->sequence_length, PN_USAGE,
        "%s: the teacher rows in %s are of %lld tokens, the stage's of %lld; write them again with `postnas teach`",
        where, r->dir, (long long)o->sequence_length, (long long)need->sequence_length);
    PN_CHECK(o->mixture_hash == need->mixture_hash, PN_USAGE,
             "%s: the teacher rows in %s are of another mixture or seed (%016llx) than this one (%016llx); write them "
             "again with `postnas teach` and this configuration",
             where, r->dir, (unsigned long long)o->mixture_hash, (unsigned long long)need->mixture_hash);
    PN_CHECK(o->temperature == need->temperature, PN_USAGE,
             "%s: the teacher rows in %s are at temperature %g, the loss at %g; set temperature: %g, or write the "
             "rows again with `postnas teach` and this configuration",
             where, r->dir, o->temperature, need->temperature, o->temperature);
    PN_CHECK(pn_teacher_rows_count(r) >= rows, PN_USAGE,
             "%s: there are %lld teacher rows in %s, and the stage reads %lld; `postnas teach` with this configuration "
             "adds the others",
             where, (long long)pn_teacher_rows_count(r), r->dir, (long long)rows);
    return PN_OK;
}

static pn_status need_open(pn_teacher_rows *r, int64_t shard) {
    if (r->open.path && r->open.index == shard) return PN_OK;
    pn_teacher_shard_close(&r->open);
    PN_TRY(pn_teacher_shard_open(r->dir, &r->manifest, shard, r->verified[shard], &r->open));
    r->verified[shard] = true;
    return PN_OK;
}

pn_status pn_teacher_rows_read(pn_teacher_rows *r, int64_t first, int64_t n, int32_t *ids, float *log_p) {
    const pn_teacher_manifest *m = &r->manifest;
    PN_CHECK(first >= 0 && n >= 0 && first <= pn_teacher_rows_count(r) - n, PN_USAGE,
             "%s: there are %lld teacher rows; %lld from row %lld on were asked for", r->dir,
             (long long)pn_teacher_rows_count(r), (long long)n, (long long)first);
    for (int64_t some; n > 0; first += some, n -= some) {
        const int64_t shard = first / m->shard_rows, begin = first % m->shard_rows;
        some = m->shard_rows - begin < n ? m->shard_rows - begin : n;
        PN_TRY(need_open(r, shard));
        PN_TRY(pn_teacher_shard_read(&r->open, m, begin, some, ids, log_p));
        ids += some * pn_teacher_row_entries(&m->info);
        log_p += some * pn_teacher_row_entries(&m->info);
    }
    return PN_OK;
}
