/* Inside teacher rows: what writer, reader and manifest share and nobody else includes. */
#ifndef PN_IO_TEACHER_ROWS_INTERNAL_H
#define PN_IO_TEACHER_ROWS_INTERNAL_H

#include "hdf5_io.h"
#include "teacher_rows.h"

enum { PN_TEACHER_FILE_MAX = 48, PN_TEACHER_SHARDS_MAX = 100000 /* the name has five digits */ };

typedef struct pn_teacher_shard {
    char file[PN_TEACHER_FILE_MAX];
    int64_t rows, n_bytes;
    uint64_t hash; /* xxh3-64 of the file */
} pn_teacher_shard;

typedef struct pn_teacher_manifest {
    pn_teacher_info info;
    int64_t shard_rows; /* all shards have so many; the last may have fewer */
    pn_teacher_shard *shards;
    int64_t n_shards; /* owned */
} pn_teacher_manifest;

/* Of a shard's one row. */
static inline int64_t pn_teacher_row_entries(const pn_teacher_info *info) {
    return info->sequence_length * info->k;
}
/* The file of shard i with so many rows. */
void pn_teacher_shard_name(int64_t i, int64_t rows, int64_t shard_rows, char out[PN_TEACHER_FILE_MAX]);
int64_t pn_teacher_manifest_rows(const pn_teacher_manifest *m);

pn_status pn_teacher_manifest_write(const pn_teacher_manifest *m, const char *path);
/* Checks everything the file says, also against itself; the shards' files are not looked at. */
pn_status pn_teacher_manifest_read(const char *path, pn_teacher_manifest *out);
/* The same from memory; `path` is for messages. */
pn_status pn_teacher_manifest_parse(const char *path, const char *text, size_t n_bytes, pn_teacher_manifest *out);
void pn_teacher_manifest_free(pn_teacher_manifest *m);

/* The size of shard i in dir. */
pn_status pn_teacher_shard_check(const char *dir, const pn_teacher_manifest *m, int64_t i);

typedef struct pn_teacher_shard_file {
    char *path; /* NULL: closed */
    hid_t file, ids, log_p;
    int64_t index;
} pn_teacher_shard_file;

/* Opens it; before, its hash, unless it is known to hold. */
pn_status pn_teacher_shard_open(const char *dir, const pn_teacher_manifest *m, int64_t i, bool verified,
                                pn_teacher_shard_file *out);
void pn_teacher_shard_close(pn_teacher_shard_file *f); /* closed or {0} is fine */
/* Rows of the shard, checked as pn_teacher_rows_read says. */
pn_status pn_teacher_shard_read(const pn_teacher_shard_file *f, const pn_teacher_manifest *m, int64_t first, int64_t n,
                                int32_t *ids, float *log_p);

#endif
