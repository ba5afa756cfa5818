#include "hdf5_io.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of HDF5 */

static int hold(void) {
    return pthread_mutex_lock(&lock);
}
static void let_go(const int *held) {
    if (!*held) pthread_mutex_unlock(&lock);
}
/* First in a function: HDF5 is ours until it returns. */
#define HOLD_HDF5() __attribute__((cleanup(let_go))) const int held = hold()

/* HDF5 prints its own error stack by default; ours is the one the user reads. The setting is per thread. And it tidies
 * up at exit, where it reads freed memory when a file could not be closed on a full disk; every file is closed here, so
 * nothing is left to tidy. Only a call before all others has an effect. */
static void quiet(void) {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static hid_t stored(pn_h5_type t) {
    switch (t) {
    case PN_H5_U8: return H5T_STD_U8LE;
    case PN_H5_U16: return H5T_STD_U16LE;
    case PN_H5_U32: return H5T_STD_U32LE;
    case PN_H5_I32: return H5T_STD_I32LE;
    case PN_H5_I64: return H5T_STD_I64LE;
    case PN_H5_F32: return H5T_IEEE_F32LE;
    default: return H5T_IEEE_F64LE;
    }
}

static hid_t in_memory(pn_h5_type t) {
    switch (t) {
    case PN_H5_U8: return H5T_NATIVE_UINT8;
    case PN_H5_U16: return H5T_NATIVE_UINT16;
    case PN_H5_U32: return H5T_NATIVE_UINT32;
    case PN_H5_I32: return H5T_NATIVE_INT32;
    case PN_H5_I64: return H5T_NATIVE_INT64;
    case PN_H5_F32: return H5T_NATIVE_FLOAT;
    default: return H5T_NATIVE_DOUBLE;
    }
}

/* HDF5 says only that a write failed; the system's reason is mostly still there. */
static const char *reason(void) {
    return errno ? strerror(errno) : "HDF5 cannot write";
}

pn_status pn_h5_create(const char *path, hid_t *file) {
    HOLD_HDF5();
    quiet();
    *file = -1;
    hid_t create = H5Pcreate(H5P_FILE_CREATE);
    PN_CHECK(create >= 0, PN_MEMORY, "%s: HDF5 is out of memory", path);
    errno = 0;
    *file = H5Fcreate(path, H5F_ACC_TRUNC, create, H5P_DEFAULT);
    const char *why = reason();
    H5Pclose(create);
    PN_CHECK(*file >= 0, PN_IO,
             "%s: cannot create the file: %s; check that its folder can be written and the disk is not full", path,
             why);
    return PN_OK;
}

pn_status pn_h5_open(const char *path, hid_t *file) {
    HOLD_HDF5();
    quiet();
    *file = -1;
    PN_CHECK(access(path, R_OK) == 0, PN_IO, "%s: cannot read the file: %s", path, strerror(errno));
    *file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    PN_CHECK(*file >= 0, PN_FORMAT, "%s: not an HDF5 file, or cut short", path);
    return PN_OK;
}

pn_status pn_h5_close_file(hid_t *file, const char *path) {
    HOLD_HDF5();
    hid_t f = *file;
    *file = -1;
    if (f < 0) return PN_OK;
    errno = 0;
    PN_CHECK(H5Fclose(f) >= 0, PN_IO, "%s: cannot finish writing the file: %s; is the disk full?", path, reason());
    return PN_OK;
}

pn_status pn_h5_end_array(hid_t *dataset, const char *path, const char *name) {
    HOLD_HDF5();
    hid_t d = *dataset;
    *dataset = -1;
    errno = 0;
    PN_CHECK(H5Dclose(d) >= 0, PN_IO, "%s: cannot write dataset /%s: %s; is the disk full?", path, name, reason());
    return PN_OK;
}

void pn_h5_close_dataset(hid_t *dataset) {
    HOLD_HDF5();
    if (*dataset >= 0) H5Dclose(*dataset);
    *dataset = -1;
}

/* ---- room on the disk ---- */

/* What HDF5 puts around values, at most: of a file, a dataset, a chunk. */
enum { FILE_BYTES = 1 << 14, DATASET_BYTES = 1 << 12, CHUNK_BYTES = 64 };

double pn_h5_overhead(int n_datasets, double n_chunks) {
    return FILE_BYTES + (double)n_datasets * DATASET_BYTES + n_chunks * CHUNK_BYTES;
}

/* Takes the room that a file is going to need, where the file system can do that. */
static pn_status take_room(const char *path, double n_bytes) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    PN_CHECK(fd >= 0, PN_IO, "%s: cannot create the file: %s", path, strerror(errno));
    const int why = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)n_bytes) ? errno : 0;
    close(fd);
    PN_CHECK(why != ENOSPC && why != EDQUOT && why != EFBIG, PN_IO, "%s: the disk has no room for its %.1f MB: %s",
             path, n_bytes / 1e6, strerror(why));
    return PN_OK;
}

/* The room is there before HDF5 comes to know the file, and, as it empties what it creates, taken again. */
pn_status pn_h5_create_with_room(const char *path, double n_bytes, hid_t *file) {
    *file = -1;
    PN_TRY(take_room(path, n_bytes));
    PN_TRY(pn_h5_create(path, file));
    return take_room(path, n_bytes);
}

/* Gives back what was too much. */
static pn_status fit(const char *path) {
    struct stat is;
    PN_CHECK(!stat(path, &is) && !truncate(path, is.st_size), PN_IO, "%s: cannot finish the file: %s", path,
             strerror(errno));
    return PN_OK;
}

/* Makes it empty first: HDF5 may still have it open, and then removing it alone frees nothing. */
static void discard(const char *path) {
    const int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd >= 0) close(fd);
    unlink(path);
}

pn_status pn_h5_end_file(hid_t *file, const char *path, pn_status s) {
    const pn_status closed = pn_h5_close_file(file, path);
    if (!s) s = closed;
    if (!s) s = fit(path);
    if (!s) s = pn_file_sync(path);
    if (s) discard(path);
    return s;
}

/* ---- datasets ---- */

/* Groups and datasets alike: no time stamps, missing groups are made. */
static hid_t link_properties(void) {
    hid_t p = H5Pcreate(H5P_LINK_CREATE);
    if (p >= 0) H5Pset_create_intermediate_group(p, 1);
    return p;
}

pn_status pn_h5_create_array(hid_t file, const char *path, const char *name, pn_h5_type type, int64_t chunk,
                             hid_t *dataset) {
    HOLD_HDF5();
    quiet();
    errno = 0;
    hsize_t now = 0, most = H5S_UNLIMITED, piece = (hsize_t)chunk;
    hid_t space = H5Screate_simple(1, &now, &most), links = link_properties(), p = H5Pcreate(H5P_DATASET_CREATE);
    *dataset = -1;
    if (space >= 0 && links >= 0 && p >= 0 && H5Pset_chunk(p, 1, &piece) >= 0 && H5Pset_fletcher32(p) >= 0 &&
        H5Pset_obj_track_times(p, 0) >= 0)
        *dataset = H5Dcreate2(file, name, stored(type), space, links, p, H5P_DEFAULT);
    if (p >= 0) H5Pclose(p);
    if (links >= 0) H5Pclose(links);
    if (space >= 0) H5Sclose(space);
    PN_CHECK(*dataset >= 0, PN_IO, "%s: cannot create dataset /%s: %s; is the disk full?", path, name, reason());
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

pn_status pn_h5_append(hid_t dataset, const char *path, const char *name, pn_h5_type type, int64_t at, int64_t n,
                       const void *data) {
    if (n == 0) return PN_OK;
    HOLD_HDF5();
    quiet();
    errno = 0;
    hsize_t length = (hsize_t)(at + n), count = (hsize_t)n;
    bool ok = H5Dset_extent(dataset, &length) >= 0;
    hid_t to = ok ? range_of(dataset, at, n) : -1, from = H5Screate_simple(1, &count, NULL);
    ok = ok && to >= 0 && from >= 0 && H5Dwrite(dataset, in_memory(type), from, to, H5P_DEFAULT, data) >= 0;
    if (from >= 0) H5Sclose(from);
    if (to >= 0) H5Sclose(to);
    PN_CHECK(ok, PN_IO, "%s: cannot write dataset /%s: %s; is the disk full?", path, name, reason());
    return PN_OK;
}

pn_status pn_h5_open_array(hid_t file, const char *path, const char *name, pn_h5_type type, int64_t n, hid_t *dataset) {
    HOLD_HDF5();
    quiet();
    *dataset = H5Dopen2(file, name, H5P_DEFAULT);
    PN_CHECK(*dataset >= 0, PN_FORMAT, "%s: no dataset /%s", path, name);
    hid_t space = H5Dget_space(*dataset), found = H5Dget_type(*dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    hsize_t length = 0;
    if (rank == 1) H5Sget_simple_extent_dims(space, &length, NULL);
    bool same_type = found >= 0 && H5Tequal(found, stored(type)) > 0;
    if (found >= 0) H5Tclose(found);
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
    if (s) {
        H5Dclose(*dataset);
        *dataset = -1;
    }
    return s;
}

pn_status pn_h5_read(hid_t dataset, const char *path, const char *name, pn_h5_type type, int64_t begin, int64_t n,
                     void *out) {
    if (n == 0) return PN_OK;
    HOLD_HDF5();
    quiet();
    hsize_t count = (hsize_t)n;
    hid_t from = range_of(dataset, begin, n), to = H5Screate_simple(1, &count, NULL);
    bool ok = from >= 0 && to >= 0 && H5Dread(dataset, in_memory(type), to, from, H5P_DEFAULT, out) >= 0;
    if (to >= 0) H5Sclose(to);
    if (from >= 0) H5Sclose(from);
    PN_CHECK(ok, PN_FORMAT,
             "%s: dataset /%s, elements %lld to %lld: cannot be read; its checksum does not hold or the "
             "file changed",
             path, name, (long long)begin, (long long)(begin + n));
    return PN_OK;
}
