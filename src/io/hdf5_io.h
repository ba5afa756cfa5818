/* The little of HDF5 that run files need: one-dimensional, chunked, checksummed datasets of fixed integer or float
 * types.
 *
 * Every chunk carries a Fletcher-32 checksum that HDF5 verifies on reading; files carry no time stamps, so equal
 * content is an equal file. HDF5 itself is not built to withstand hostile files: callers verify a file's size and hash
 * against a manifest before opening it here.
 *
 * One lock holds every call from here (HDF5 is not built for threads everywhere), so a checkpoint can be written while
 * another thread reads shards; either waits for the other's present call, so pieces are small. Nothing else in the
 * program calls HDF5: even its type names, H5T_..., are calls. */
#ifndef PN_IO_HDF5_IO_H
#define PN_IO_HDF5_IO_H

#include <hdf5.h>
#include <stdint.h>

#include "status.h"

/* Element types: little-endian in a file, the machine's own in memory. */
typedef enum pn_h5_type { PN_H5_U8, PN_H5_U16, PN_H5_U32, PN_H5_I32, PN_H5_I64, PN_H5_F32, PN_H5_F64 } pn_h5_type;

/* Creates `path`, replacing a file of that name. PN_IO. Close with pn_h5_close_file. */
pn_status pn_h5_create(const char *path, hid_t *file);
/* Opens for reading. PN_IO where there is no such file, PN_FORMAT where it is not HDF5. */
pn_status pn_h5_open(const char *path, hid_t *file);
/* *file is set to -1 in all cases; closing is where a full disk shows. A negative *file is accepted. HDF5 may keep a
 * file open that it cannot finish: make it short before removing it, or the disk stays full. */
pn_status pn_h5_close_file(hid_t *file, const char *path);

/* pn_h5_create, with n_bytes of the disk taken for the file before, where its file system can do that: HDF5 does not
 * get over a disk that fills up under it. PN_IO also where there is no room. End with pn_h5_end_file. */
pn_status pn_h5_create_with_room(const char *path, double n_bytes, hid_t *file);
/* What a file takes at most, beside the values of its datasets. */
double pn_h5_overhead(int n_datasets, double n_chunks);
/* s: of what was done with the file so far. It is closed and on disk, and room that was too much is given back; or it
 * failed, here or before, and there is no such file. Returns the first that failed. As pn_h5_close_file of *file. */
pn_status pn_h5_end_file(hid_t *file, const char *path, pn_status s);

void pn_h5_close_dataset(hid_t *dataset);

/* An empty dataset that grows, in chunks of `chunk` elements; a file holds whole chunks. `name` may hold groups
 * ("answers/begin"), which are made as needed. path: for messages. */
pn_status pn_h5_create_array(hid_t file, const char *path, const char *name, pn_h5_type type, int64_t chunk,
                             hid_t *dataset);
/* Appends n elements, `type` in memory, at position `at`, which must be the present length. */
pn_status pn_h5_append(hid_t dataset, const char *path, const char *name, pn_h5_type type, int64_t at, int64_t n,
                       const void *data);
/* Closes a dataset that was written, which is where chunks that were held back are. PN_IO. *dataset becomes -1. */
pn_status pn_h5_end_array(hid_t *dataset, const char *path, const char *name);

/* Opens a dataset that must be one-dimensional, of exactly this type and of n elements. PN_FORMAT otherwise. */
pn_status pn_h5_open_array(hid_t file, const char *path, const char *name, pn_h5_type type, int64_t n, hid_t *dataset);
/* Reads elements [begin, begin + n) as `type`. PN_FORMAT when a checksum does not hold. */
pn_status pn_h5_read(hid_t dataset, const char *path, const char *name, pn_h5_type type, int64_t begin, int64_t n,
                     void *out);

#endif
