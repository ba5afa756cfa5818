/* Inside checkpoints: the manifest, the names in a directory, and what ranks tell each other. */
#ifndef PN_IO_CHECKPOINT_INTERNAL_H
#define PN_IO_CHECKPOINT_INTERNAL_H

#include "checkpoint.h"
#include "files.h"
#include "hdf5_io.h"

/* ---- the manifest (checkpoint_manifest.c) ---- */

enum {
    PN_STATE_VERSION = 2,
    PN_STATE_PIECE = 1 << 20, /* elements of a range at most, as written: what is read to check a hash */
    PN_STATE_FILES_MAX = 65536,
    PN_STATE_NAME_MAX = 512,
    PN_STATE_FILE_NAME = 48
};

typedef struct pn_state_file {
    int64_t n_bytes;
    uint64_t hash;
} pn_state_file;

typedef struct pn_state_range {
    int64_t file, offset, n;
    uint64_t hash;
    int64_t at; /* position in the dataset of that file */
} pn_state_range;

typedef struct pn_state_array {
    char *name;
    pn_dtype dtype;
    int64_t n;
    pn_state_range *range; /* rising */
    int64_t n_ranges;
} pn_state_array;

typedef struct pn_state_manifest {
    int64_t step;
    uint64_t fingerprint;
    pn_state_file *file;
    int64_t n_files;
    pn_state_array *array; /* by name, once sorted */
    int64_t n_arrays;
} pn_state_manifest;

/* Adds an empty array, or a range to the array added last. */
pn_status pn_state_add_array(pn_state_manifest *m, const char *name, pn_dtype dtype, int64_t n);
pn_status pn_state_add_range(pn_state_manifest *m, pn_state_range r);
/* Moves what a rank wrote, its one file and ranges in it, into the manifest of all; `part` is left empty. */
pn_status pn_state_merge(pn_state_manifest *m, pn_state_manifest *part);
/* Sorts the arrays by name and puts together those of one name, places ranges in their datasets, and checks that they
 * tile every array. PN_FORMAT, with `path`, where they do not. */
pn_status pn_state_complete(pn_state_manifest *m, const char *path);
/* NULL when there is none; of a complete manifest. */
const pn_state_array *pn_state_find(const pn_state_manifest *m, const char *name);
/* As text; the caller frees it. */
pn_status pn_state_text(const pn_state_manifest *m, char **out);
/* Everything that a manifest says is checked, but for what pn_state_complete does. */
pn_status pn_state_parse(const char *path, const char *text, size_t n_bytes, pn_state_manifest *out);
void pn_state_free(pn_state_manifest *m);

void pn_state_file_name(char out[PN_STATE_FILE_NAME], int64_t rank, int64_t n);

/* ---- the directory (checkpoint_dir.c) ---- */

enum { PN_STATE_STEP_NAME = 48 };
void pn_state_step_name(char out[PN_STATE_STEP_NAME], int64_t step);
/* The step that `latest` names, -1: there is no such file. PN_FORMAT for anything else in it. */
pn_status pn_state_latest(const char *dir, int64_t *step);
/* Steps that are there, newest first: the caller frees *out. No directory: none. */
pn_status pn_state_list(const char *dir, int64_t **out, int *n);
/* Removes a step; none by that name is fine. What is half removed never stands under it. */
pn_status pn_state_remove(const char *dir, int64_t step);
/* Removes all but the newest `keep` up to `latest`. */
pn_status pn_state_tidy(const char *dir, int64_t latest, int keep);

/* ---- writing (checkpoint_write.c) ---- */

/* Makes the directory aside, unless the step is there and whole. All ranks together. */
pn_status pn_state_begin(const pn_checkpoint_place *where, int64_t step, bool *there);
/* Writes this rank's file. *text is what the manifest says of it; the caller frees it, NULL ok. Each rank by itself. */
pn_status pn_state_write(const pn_checkpoint_place *where, int64_t step, const pn_checkpoint_array *arrays, int n,
                         char **text);
/* Puts the step in place when `mine` is OK on every rank, else removes it. All ranks together. */
pn_status pn_state_commit(const pn_checkpoint_place *where, int64_t step, pn_status mine, const char *text);

/* ---- reading (checkpoint_read.c) ---- */

/* PN_USAGE when the state is of another job; fingerprint NULL: of any. */
pn_status pn_state_open(const char *dir, int64_t step, const uint64_t *fingerprint, pn_state_manifest *out);
/* Every by-th file, from the first-th: sizes, and hashes where `whole`. */
pn_status pn_state_verify(const char *dir, const pn_state_manifest *m, int first, int by, bool whole);
/* All files, and all values in them. */
pn_status pn_state_check(const char *dir, const pn_state_manifest *m);

/* ---- ranks (checkpoint_ranks.c) ---- */

static inline int pn_ranks_n(const pn_checkpoint_ranks *r) {
    return r ? r->n : 1;
}
static inline int pn_ranks_me(const pn_checkpoint_ranks *r) {
    return r ? r->rank : 0;
}
/* Brings status and text (NULL: none) of every rank to rank 0: parts[rank], zeroed before; freed by the caller. Its
 * status there is that of the first rank that failed, with its message; elsewhere the rank's own. */
pn_status pn_ranks_collect(const pn_checkpoint_ranks *r, pn_status mine, const char *text, pn_buf *parts);
/* Gives every rank the status and message of rank 0, and its *value (NULL: none). */
pn_status pn_ranks_tell(const pn_checkpoint_ranks *r, pn_status s, int64_t *value);
/* Whether it is so on every rank, to all. */
pn_status pn_ranks_all(const pn_checkpoint_ranks *r, bool mine, bool *all);
/* The first failure of any rank, to all. */
pn_status pn_ranks_agree(const pn_checkpoint_ranks *r, pn_status mine);

/* ---- values (checkpoint_values.c) ---- */

static inline pn_h5_type pn_state_type(pn_dtype t) {
    switch (t) {
    case PN_F32: return PN_H5_F32;
    case PN_F64: return PN_H5_F64;
    case PN_I32: return PN_H5_I32;
    case PN_I64: return PN_H5_I64;
    default: PN_ASSERT(!"a dtype that run state uses");
    }
}
/* Where an array's values stand as they are kept; NULL: they go by way of a buffer. */
void *pn_state_direct(const pn_checkpoint_array *a);
pn_status pn_state_fetch(const pn_checkpoint_array *a, void *buffer);
pn_status pn_state_give(const pn_checkpoint_array *a, const void *buffer);
static inline size_t pn_state_bytes(const pn_checkpoint_array *a) {
    return (size_t)a->n * pn_dtype_bytes(a->dtype);
}

#endif
