/* Event files as TensorBoard reads them: scalars over steps.
 *
 * A file is a sequence of records: length (u64), masked CRC-32C of it, an Event in protobuf, masked CRC-32C of that;
 * little-endian. A directory is one of TensorBoard's runs, its files are read in the order of their names. Each process
 * adds a file of its own: what a killed one left, torn last record included, is never touched. */
#ifndef PN_IO_TENSORBOARD_H
#define PN_IO_TENSORBOARD_H

#include <stdint.h>

#include "status.h"

typedef struct pn_tensorboard pn_tensorboard;

typedef struct pn_scalar {
    const char *name; /* UTF-8; TensorBoard groups by what stands before a slash */
    double value;     /* kept as F32 */
} pn_scalar;

/* Opens the next event file of the directory, which is made when missing. What earlier files say of `first_step` and
 * later steps no longer counts: this process does them again. PN_IO when the file cannot be made or written. */
pn_status pn_tensorboard_open(const char *directory, int64_t first_step, pn_tensorboard **out);
/* One event with n scalars, in the file when this returns. */
pn_status pn_tensorboard_write(pn_tensorboard *t, int64_t step, const pn_scalar *scalars, int n);
void pn_tensorboard_close(pn_tensorboard **t);

/* CRC-32C (Castagnoli). */
uint32_t pn_crc32c(const void *data, size_t n_bytes);

#endif
