/* The little of HDF5 that run files need: one-dimensional, chunked, checksummed datasets of fixed integer or float
 * types.
 *
 * Every chunk carries a Fletcher-32 checksum that HDF5 verifies on reading; files carry no time stamps, so equal
 * content is an equal file. HDF5 itself is not built to withstand hostile files: callers verify a file's size and hash
 * against a manifest before opening it here.
 *
 * HDF5 is serialised by one lock of its own: keep all calls on one thread where waiting matters. */
#ifndef PN_IO_HDF5_IO_H
#define PN_IO_HDF5_IO_H

#include <hdf5.h>
#include <stdint.h>

#include "status.h"

/* Creates `path`, replacing a file of that name. PN_IO. Close with pn_h5_close_file. */
pn_status pn_h5_create(const char *path, hid_t *file);
/* Opens for reading. PN_IO where there is no such file, PN_FORMAT where it is not HDF5. */
pn_status pn_h5_open(const char *path, hid_t *file);
/* *file is set to -1 in all cases; closing is where a full disk shows. A negative *file is accepted. */
pn_status pn_h5_close_file(hid_t *file, const char *path);
void pn_h5_close_dataset(hid_t *dataset);

/* An empty dataset that grows. type: as stored, e.g. H5T_STD_U16LE. `name` may hold groups ("answers/begin"), which are
 * made as needed. path: for messages. */
pn_status pn_h5_create_array(hid_t file, const char *path, const char *name, hid_t type, int64_t chunk, hid_t *dataset);
/* Appends n elements of memory type `type` at position `at`, which must be the present length. */
pn_status pn_h5_append(hid_t dataset, const char *path, const char *name, hid_t type, int64_t at, int64_t n,
                       const void *data);

/* Opens a dataset that must be one-dimensional, of exactly this stored type and of n elements. PN_FORMAT otherwise. */
pn_status pn_h5_open_array(hid_t file, const char *path, const char *name, hid_t type, int64_t n, hid_t *dataset);
/* Reads elements [begin, begin + n) as memory type `type`. PN_FORMAT when a checksum does not hold. */
pn_status pn_h5_read(hid_t dataset, const char *path, const char *name, hid_t type, int64_t begin, int64_t n,
                     void *out);

#endif
