/* Run state on disk: named arrays of one step, whole or not at all, whoever wrote them and whoever reads them.
 *
 *     <dir>/step-<N>/state-<r>-of-<n>.h5   what rank r of n held: a dataset per array (named as it is)
 *     <dir>/step-<N>/manifest.json         what is where, with checksums
 *     <dir>/step-<N>.partial/              a step being written, renamed when it is whole; .old: one being removed
 *     <dir>/latest                         the name of the newest step, replaced atomically
 *
 * Every array is global: elements 0 .. n, of which a process holds all or a range. The manifest maps them:
 *
 *     { "format": "postnas-run-state", "version": 2, "step": 1200, "fingerprint": "<hash>",
 *       "files": [ { "n_bytes": 81920, "xxh3_64": "<hash>" }, ... ],
 *       "arrays": [ { "name": "weight/model.norm.weight", "dtype": "f32", "n": 64,
 *                     "ranges": [ [<file>, <offset>, <length>, "<hash>"], ... ] }, ... ] }
 *
 * files: those of rank 0, 1, ...; a range: elements offset .. offset + length of the array, the index of its file, the
 * xxh3-64 of its values (little-endian). The ranges of an array rise and tile 0 .. n; its dataset in a file holds the
 * ranges that name the file, one after the other. Hashes are 16 hexadecimal digits. So any number of processes reads
 * what any other number wrote, each only the ranges it wants.
 *
 * Whoever dies at whatever moment, and when the disk is full: what `latest` names was whole before it got there, and
 * older steps go after that. A reader checks sizes and hashes of files before HDF5 sees them, and of ranges after; a
 * step that is damaged or gone is passed over with a warning, for the newest other that is whole. */
#ifndef PN_IO_CHECKPOINT_H
#define PN_IO_CHECKPOINT_H

#include <stdint.h>

#include "buffer.h"
#include "tensor.h"

/* Values that are kept otherwise than as an array is: all n of part `index` of something. */
typedef struct pn_checkpoint_source {
    pn_status (*read)(const void *of, int index, void *values);
    pn_status (*write)(void *of, int index, const void *values);
} pn_checkpoint_source;

typedef struct pn_checkpoint_array {
    const char *name;                   /* parts joined by '/', none of them empty, "." or ".." */
    pn_dtype dtype;                     /* F32, F64, I32 or I64: as which it is kept */
    int64_t n;                          /* elements that are here */
    void *data;                         /* read by save, written by load */
    pn_tensor *tensor;                  /* in place of data: its values, wherever they are; borrowed */
    const pn_checkpoint_source *source; /* in place of both; borrowed, and so is `of` */
    void *of;
    int index;
    int64_t total;  /* of a part: elements of the whole array; 0: this is all of it, alike on every rank */
    int64_t offset; /* of a part: these are offset .. offset + n */
} pn_checkpoint_array;

static inline pn_checkpoint_array pn_checkpoint_data(const char *name, pn_dtype dtype, int64_t n, void *data) {
    return (pn_checkpoint_array){ .name = name, .dtype = dtype, .n = n, .data = data };
}
static inline pn_checkpoint_array pn_checkpoint_tensor(const char *name, pn_dtype dtype, pn_tensor *t) {
    return (pn_checkpoint_array){ .name = name, .dtype = dtype, .n = pn_tensor_elems(t), .tensor = t };
}
static inline pn_checkpoint_array pn_checkpoint_from(const char *name, pn_dtype dtype, int64_t n,
                                                     const pn_checkpoint_source *source, void *of, int index) {
    return (pn_checkpoint_array){ .name = name, .dtype = dtype, .n = n, .source = source, .of = of, .index = index };
}
/* The same as what this process holds of a larger array. For a save the parts of all ranks tile it; an array may be
 * several parts here, and one that is not here need not be listed. A load takes any range. */
static inline pn_checkpoint_array pn_checkpoint_part(pn_checkpoint_array a, int64_t offset, int64_t total) {
    a.offset = offset;
    a.total = total;
    return a;
}
/* Elements of the whole array. */
static inline int64_t pn_checkpoint_total(const pn_checkpoint_array *a) {
    return a->total ? a->total : a->n;
}

/* The ranks that save and load one state together, on a file system that all of them see: all call the same functions
 * in the same order, and get the same status. A whole array is written by rank 0, parts by who has them. */
typedef struct pn_checkpoint_ranks {
    int rank, n;
    /* Brings what every rank gives to rank 0: appended to all[r] for rank r; all is NULL elsewhere. */
    pn_status (*gather)(void *ctx, const void *mine, size_t n_bytes, pn_buf *all);
    /* Gives every rank the bytes of rank 0: as many everywhere. */
    pn_status (*broadcast)(void *ctx, void *bytes, size_t n_bytes);
    /* Either returns PN_COMM, everywhere and within a set time, when a rank is gone. They are called from the thread
     * that calls the functions here and in checkpoint_background.h, never from another. */
    void *ctx;
} pn_checkpoint_ranks;

enum { PN_CHECKPOINT_KEEP = 2 };

/* Where the state of a job is. */
typedef struct pn_checkpoint_place {
    const char *dir;
    uint64_t fingerprint;             /* identifies the job; a state of another one is refused on load */
    bool any_job;                     /* none is refused: for who reads a state and does not go on with it */
    int keep;                         /* newest steps that stay, those saved before included; 0: PN_CHECKPOINT_KEEP */
    const pn_checkpoint_ranks *ranks; /* borrowed; NULL: one process */
} pn_checkpoint_place;

/* Writes a step; one that is there and whole is left as it is (the same job at the same step: the same state). On any
 * failure nothing of it stays and what was saved before is untouched. PN_IO, naming file and cause, where the disk is
 * full. Also removes what processes that died left half-written. */
pn_status pn_checkpoint_write(const pn_checkpoint_place *where, int64_t step, const pn_checkpoint_array *arrays, int n);
/* The newest step that is whole into the arrays; *step = -1 when there is none. A damaged one is passed over: a warning
 * names the file and what is wrong. PN_FORMAT or PN_IO when none is whole, PN_USAGE for the state of another job,
 * PN_UNSUPPORTED for one of another version of the program: each names the directory and the remedy. After a failure
 * the values are undefined. Nothing on disk changes. */
pn_status pn_checkpoint_read(const pn_checkpoint_place *where, const pn_checkpoint_array *arrays, int n, int64_t *step);
/* Removes what processes that died left half-written; no directory is fine. Rank 0's to call. */
pn_status pn_checkpoint_clean(const char *dir);

/* The same for one process. */
static inline pn_status pn_checkpoint_save(const char *dir, int64_t step, uint64_t fingerprint,
                                           const pn_checkpoint_array *arrays, int n) {
    return pn_checkpoint_write(&(pn_checkpoint_place){ .dir = dir, .fingerprint = fingerprint }, step, arrays, n);
}
static inline pn_status pn_checkpoint_load(const char *dir, uint64_t fingerprint, const pn_checkpoint_array *arrays,
                                           int n, int64_t *step) {
    return pn_checkpoint_read(&(pn_checkpoint_place){ .dir = dir, .fingerprint = fingerprint }, arrays, n, step);
}
/* Which step is the newest whose files are all there, without reading them: load may have to take an older one. The
 * same errors. */
pn_status pn_checkpoint_step(const char *dir, uint64_t fingerprint, int64_t *step);

#endif
