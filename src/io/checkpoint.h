/* Run state on disk: named arrays of one step, whole or not at all.
 *
 *     <dir>/step-<N>/state.h5        one dataset per array (name as given), as global ranges: here always 0 .. n
 *     <dir>/step-<N>/manifest.json   step, fingerprint of the job, size and xxh3-64 of state.h5
 *     <dir>/latest                   the name of the newest step, replaced atomically
 *
 * A step is written aside and renamed; the one before is kept until the new one is in place. */
#ifndef PN_IO_CHECKPOINT_H
#define PN_IO_CHECKPOINT_H

#include <stdint.h>

#include "tensor.h"

/* Values that are kept otherwise than as an array is: all n of part `index` of something. */
typedef struct pn_checkpoint_source {
    pn_status (*read)(const void *of, int index, void *values);
    pn_status (*write)(void *of, int index, const void *values);
} pn_checkpoint_source;

typedef struct pn_checkpoint_array {
    const char *name;
    pn_dtype dtype;                     /* F32, F64, I32 or I64: as which it is kept */
    int64_t n;                          /* elements */
    void *data;                         /* read by save, written by load */
    pn_tensor *tensor;                  /* in place of data: its values, wherever they are; borrowed */
    const pn_checkpoint_source *source; /* in place of both; borrowed, and so is `of` */
    void *of;
    int index;
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

/* fingerprint: identifies the job; a state of another job is refused on load, which comes before any save. */
pn_status pn_checkpoint_save(const char *dir, int64_t step, uint64_t fingerprint, const pn_checkpoint_array *arrays,
                             int n);
/* Which step is the newest, without reading its arrays; the same errors as load, but for damaged arrays. */
pn_status pn_checkpoint_step(const char *dir, uint64_t fingerprint, int64_t *step);
/* The newest step into the arrays; *step = -1 when there is none. PN_FORMAT for a damaged state, PN_USAGE for one of
 * another job: both name the directory and the remedy. */
pn_status pn_checkpoint_load(const char *dir, uint64_t fingerprint, const pn_checkpoint_array *arrays, int n,
                             int64_t *step);

#endif
