#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "teacher_rows_internal.h"

enum { MANIFEST_VERSION = 1, MAX_MANIFEST_BYTES = 64 << 20 };
#define MAX_SHARD_BYTES (INT64_C(1) << 32)

static const char format_name[] = "postnas-teacher-rows";

void pn_teacher_shard_name(int64_t i, int64_t rows, int64_t shard_rows, char out[PN_TEACHER_FILE_MAX]) {
    if (rows == shard_rows)
        snprintf(out, PN_TEACHER_FILE_MAX, "rows-%05lld.h5", (long long)i);
    else
        snprintf(out, PN_TEACHER_FILE_MAX, "rows-%05lld-to-%lld.h5", (long long)i, (long long)rows);
}

int64_t pn_teacher_manifest_rows(const pn_teacher_manifest *m) {
    return m->n_shards ? (m->n_shards - 1) * m->shard_rows + m->shards[m->n_shards - 1].rows : 0;
}

/* ---- writing ---- */

pn_status pn_teacher_manifest_write(const pn_teacher_manifest *m, const char *path) {
    const pn_teacher_info *o = &m->info;
    json_t *shards = json_array();
    for (int64_t i = 0; i < m->n_shards; i++)
        json_array_append_new(
            shards, json_pack("{s:s, s:I, s:I, s:o}", "file", m->shards[i].file, "rows", (json_int_t)m->shards[i].rows,
                              "n_bytes", (json_int_t)m->shards[i].n_bytes, "xxh3_64", pn_json_hex(m->shards[i].hash)));
    json_t *root =
        json_pack("{s:s, s:i, s:{s:s, s:o}, s:{s:o, s:I}, s:{s:o}, s:I, s:I, s:f, s:I, s:I, s:o}", "format",
                  format_name, "version", MANIFEST_VERSION, "teacher", "name", o->teacher, "xxh3_64",
                  pn_json_hex(o->teacher_hash), "tokenizer", "xxh3_64", pn_json_hex(o->tokenizer_hash), "vocab",
                  (json_int_t)o->vocab, "mixture", "xxh3_64", pn_json_hex(o->mixture_hash), "sequence_length",
                  (json_int_t)o->sequence_length, "k", (json_int_t)o->k, "temperature", o->temperature, "rows",
                  (json_int_t)pn_teacher_manifest_rows(m), "shard_rows", (json_int_t)m->shard_rows, "shards", shards);
    PN_CHECK(root && json_array_size(json_object_get(root, "shards")) == (size_t)m->n_shards, PN_MEMORY,
             "%s: out of memory, or the teacher's name is not valid UTF-8", path);
    pn_status s = pn_json_write(path, root);
    json_decref(root);
    return s;
}

/* ---- reading ---- */

/* Nothing is compressed, so a shard cannot hold more than its bytes: this bounds what a reader will allocate. */
static pn_status read_shard(const char *path, const json_t *row, const pn_teacher_manifest *m, int64_t i, int64_t n,
                            pn_teacher_shard *s) {
    char where[PN_PATH_MAX + 32];
    const char *name;
    snprintf(where, sizeof where, "%s: shards[%lld]", path, (long long)i);
    PN_TRY(pn_json_get_i64(row, where, "rows", i + 1 < n ? m->shard_rows : 1, m->shard_rows, &s->rows));
    PN_TRY(pn_json_get_i64(row, where, "n_bytes", 1, INT64_C(1) << 60, &s->n_bytes));
    PN_CHECK(s->rows <= s->n_bytes / PN_TEACHER_ENTRY_BYTES / pn_teacher_row_entries(&m->info), PN_FORMAT,
             "%s: %lld bytes cannot hold the rows it claims", where, (long long)s->n_bytes);
    /* A manifest cannot make the reader open anything but its own shards. */
    PN_TRY(pn_json_get_str(row, where, "file", &name));
    pn_teacher_shard_name(i, s->rows, m->shard_rows, s->file);
    PN_CHECK(!strcmp(name, s->file), PN_FORMAT, "%s: the file is \"%.40s\", expected \"%s\"", where, name, s->file);
    return pn_json_get_hex(row, where, "xxh3_64", &s->hash);
}

static pn_status read_info(const char *path, const json_t *root, pn_teacher_info *o) {
    const char *name;
    PN_TRY(pn_json_get_str(root, path, "teacher.name", &name));
    PN_CHECK(strlen(name) < sizeof o->teacher, PN_FORMAT, "%s: teacher.name is longer than %zu bytes", path,
             sizeof o->teacher - 1);
    memcpy(o->teacher, name, strlen(name) + 1);
    PN_TRY(pn_json_get_hex(root, path, "teacher.xxh3_64", &o->teacher_hash));
    PN_TRY(pn_json_get_hex(root, path, "tokenizer.xxh3_64", &o->tokenizer_hash));
    PN_TRY(pn_json_get_i64(root, path, "tokenizer.vocab", 1, INT32_MAX, &o->vocab));
    PN_TRY(pn_json_get_hex(root, path, "mixture.xxh3_64", &o->mixture_hash));
    PN_TRY(pn_json_get_i64(root, path, "sequence_length", 1, 1 << 24, &o->sequence_length));
    PN_TRY(pn_json_get_i64(root, path, "k", 1, o->vocab, &o->k));
    return pn_json_get_f64(root, path, "temperature", 1e-6, 1e6, &o->temperature);
}

static pn_status read_all(const char *path, const json_t *root, pn_teacher_manifest *m) {
    const json_t *rows;
    const char *format = json_string_value(json_object_get(root, "format"));
    int64_t version, total;
    PN_CHECK(format && !strcmp(format, format_name), PN_FORMAT,
             "%s: not a manifest of teacher rows; `postnas teach` writes one", path);
    PN_TRY(pn_json_get_i64(root, path, "version", 1, INT32_MAX, &version));
    PN_CHECK(version == MANIFEST_VERSION, PN_UNSUPPORTED,
             "%s: written as version %lld, this program reads version %d; write the rows again with `postnas teach`",
             path, (long long)version, MANIFEST_VERSION);
    PN_TRY(read_info(path, root, &m->info));
    /* A writer that goes on holds a shard in memory. */
    const int64_t most = MAX_SHARD_BYTES / (PN_TEACHER_ENTRY_BYTES * pn_teacher_row_entries(&m->info));
    PN_TRY(pn_json_get_i64(root, path, "shard_rows", 1, most > 1 ? most : 1, &m->shard_rows));
    PN_TRY(pn_json_get_array(root, path, "shards", 1, PN_TEACHER_SHARDS_MAX, &rows));
    const int64_t n = (int64_t)json_array_size(rows);
    m->shards = calloc((size_t)n, sizeof *m->shards);
    PN_CHECK(m->shards, PN_MEMORY, "%s: out of memory", path);
    for (int64_t i = 0; i < n; i++) PN_TRY(read_shard(path, json_array_get(rows, (size_t)i), m, i, n, &m->shards[i]));
    m->n_shards = n;
    PN_TRY(pn_json_get_i64(root, path, "rows", 1, INT64_MAX, &total));
    PN_CHECK(total == pn_teacher_manifest_rows(m), PN_FORMAT, "%s: rows is %lld, but its shards have %lld", path,
             (long long)total, (long long)pn_teacher_manifest_rows(m));
    return PN_OK;
}

pn_status pn_teacher_manifest_parse(const char *path, const char *text, size_t n_bytes, pn_teacher_manifest *out) {
    *out = (pn_teacher_manifest){ 0 };
    json_t *root;
    PN_TRY(pn_json_parse(path, text, n_bytes, &root));
    pn_status s = read_all(path, root, out);
    json_decref(root);
    if (s) pn_teacher_manifest_free(out);
    return s;
}

pn_status pn_teacher_manifest_read(const char *path, pn_teacher_manifest *out) {
    *out = (pn_teacher_manifest){ 0 };
    char *text;
    size_t n_bytes;
    PN_CHECK(access(path, R_OK) == 0, PN_IO,
             "%s: cannot read the manifest of teacher rows: %s; write them with `postnas teach`", path,
             strerror(errno));
    PN_TRY(pn_file_read(path, MAX_MANIFEST_BYTES, &text, &n_bytes));
    pn_status s = pn_teacher_manifest_parse(path, text, n_bytes, out);
    free(text);
    return s;
}

void pn_teacher_manifest_free(pn_teacher_manifest *m) {
    free(m->shards);
    *m = (pn_teacher_manifest){ 0 };
}
