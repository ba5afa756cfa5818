#include "hdf5_io.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* HDF5 prints its own error stack by default; ours is the one the user reads. The setting is per thread. And it tidies
 * up at exit, where it reads freed memory when a file could not be closed on a full disk; every file is closed here, so
 * nothing is left to tidy. Only a call before all others has an effect. */
static void quiet(void) {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

pn_status pn_h5_create(const char *path, hid_t *file) {
    quiet();
    *file = -1;
    hid_t create = H5Pcreate(H5P_FILE_CREATE);
    PN_CHECK(create >= 0, PN_MEMORY, "%s: HDF5 is out of memory", path);
    *file = H5Fcreate(path, H5F_ACC_TRUNC, create, H5P_DEFAULT);
    H5Pclose(create);
    PN_CHECK(*file >= 0, PN_IO, "%s: cannot create the file; check that its folder exists and can be written", path);
    return PN_OK;
}

pn_status pn_h5_open(const char *path, hid_t *file) {
    quiet();
    *file = -1;
    PN_CHECK(access(path, R_OK) == 0, PN_IO, "%s: cannot read the file: %s", path, strerror(errno));
    *file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    PN_CHECK(*file >= 0, PN_FORMAT, "%s: not an HDF5 file, or cut short", path);
    return PN_OK;
}

pn_status pn_h5_close_file(hid_t *file, const char *path) {
    hid_t f = *file;
    *file = -1;
    if (f < 0) return PN_OK;
    PN_CHECK(H5Fclose(f) >= 0, PN_IO, "%s: cannot finish writing the file; is the disk full?", path);
    return PN_OK;
}

void pn_h5_close_dataset(hid_t *dataset) {
    if (*dataset >= 0) H5Dclose(*dataset);
    *dataset = -1;
}

/* Groups and datasets alike: no time stamps, missing groups are made. */
static hid_t link_properties(void) {
    hid_t p = H5Pcreate(H5P_LINK_CREATE);
    if (p >= 0) H5Pset_create_intermediate_group(p, 1);
    return p;
}

pn_status pn_h5_create_array(hid_t file, const char *path, const char *name, hid_t type, int64_t chunk,
                             hid_t *dataset) {
    quiet();
    hsize_t now = 0, most = H5S_UNLIMITED, piece = (hsize_t)chunk;
    hid_t space = H5Screate_simple(1, &now, &most), links = link_properties(), p = H5Pcreate(H5P_DATASET_CREATE);
    *dataset = -1;
    if (space >= 0 && links >= 0 && p >= 0 && H5Pset_chunk(p, 1, &piece) >= 0 && H5Pset_fletcher32(p) >= 0 &&
        H5Pset_obj_track_times(p, 0) >= 0)
        *dataset = H5Dcreate2(file, name, type, space, links, p, H5P_DEFAULT);
    if (p >= 0) H5Pclose(p);
    if (links >= 0) H5Pclose(links);
    if (space >= 0) H5Sclose(space);
    PN_CHECK(*dataset >= 0, PN_IO, "%s: cannot create dataset /%s; is the disk full?", path, name);
    return PN_OK;
}

/* One element range of a one-dimensional dataset; -1 on failure. The caller closes it. */
static hid_t range_of(hid_t dataset, int64_t begin, int64_t n) {
    hsize_t start = (hsize_t)begin, count = (hsize_t)n;
    hid_t space = H5Dget_space(dataset);
    if (space < 0) return -1;
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL) >= 0) return space;
    H5Sclose(space);
    return -1;
}

pn_status pn_h5_append(hid_t dataset, const char *path, const char *name, hid_t type, int64_t at, int64_t n,
                       const void *data) {
    if (n == 0) return PN_OK;
    quiet();
    hsize_t length = (hsize_t)(at + n), count = (hsize_t)n;
    bool ok = H5Dset_extent(dataset, &length) >= 0;
    hid_t to = ok ? range_of(dataset, at, n) : -1, from = H5Screate_simple(1, &count, NULL);
    ok = ok && to >= 0 && from >= 0 && H5Dwrite(dataset, type, from, to, H5P_DEFAULT, data) >= 0;
    if (from >= 0) H5Sclose(from);
    if (to >= 0) H5Sclose(to);
    PN_CHECK(ok, PN_IO, "%s: cannot write dataset /%s; is the disk full?", path, name);
    return PN_OK;
}

pn_status pn_h5_open_array(hid_t file, const char *path, const char *name, hid_t type, int64_t n, hid_t *dataset) {
    quiet();
    *dataset = H5Dopen2(file, name, H5P_DEFAULT);
    PN_CHECK(*dataset >= 0, PN_FORMAT, "%s: no dataset /%s", path, name);
    hid_t space = H5Dget_space(*dataset), stored = H5Dget_type(*dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    hsize_t length = 0;
    if (rank == 1) H5Sget_simple_extent_dims(space, &length, NULL);
    bool same_type = stored >= 0 && H5Tequal(stored, type) > 0;
    if (stored >= 0) H5Tclose(stored);
    if (space >= 0) H5Sclose(space);
    pn_status s = PN_OK;
    if (rank != 1)
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: dataset /%s is not one-dimensional", path, name);
    else if (!same_type)
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: dataset /%s has another element type than its manifest says",
                       path, name);
    else if (length != (hsize_t)n)
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: dataset /%s has %llu elements, expected %lld", path, name,
                       (unsigned long long)length, (long long)n);
    if (s) pn_h5_close_dataset(dataset);
    return s;
}

pn_status pn_h5_read(hid_t dataset, const char *path, const char *name, hid_t type, int64_t begin, int64_t n,
                     void *out) {
    if (n == 0) return PN_OK;
    quiet();
    hsize_t count = (hsize_t)n;
    hid_t from = range_of(dataset, begin, n), to = H5Screate_simple(1, &count, NULL);
    bool ok = from >= 0 && to >= 0 && H5Dread(dataset, type, to, from, H5P_DEFAULT, out) >= 0;
    if (to >= 0) H5Sclose(to);
    if (from >= 0) H5Sclose(from);
    PN_CHECK(ok, PN_FORMAT,
             "%s: dataset /%s, elements %lld to %lld: cannot be read; its checksum does not hold or the "
             "file changed",
             path, name, (long long)begin, (long long)(begin + n));
    return PN_OK;
}
