/* Files and directories: whole or not at all. What is written appears under its name only when complete. */
#ifndef PN_BASE_FILES_H
#define PN_BASE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "status.h"

enum { PN_PATH_MAX = 4096 };

bool pn_file_exists(const char *path);
bool pn_is_directory(const char *path);
/* dir + "/" + name into out (PN_PATH_MAX bytes). PN_USAGE when it does not fit. */
pn_status pn_path_join(char *out, const char *dir, const char *name);
/* Makes a directory and its parents; one that exists is fine. */
pn_status pn_make_directories(const char *path);
/* Removes a directory postnas made and everything in it, or a file; symbolic links are removed, not followed. What is
 * not there is fine. */
pn_status pn_remove_tree(const char *path);

/* The whole file plus a terminating NUL; the caller frees *data. PN_IO when missing or larger than `limit`. */
pn_status pn_file_read(const char *path, size_t limit, char **data, size_t *n_bytes);

/* xxh3-64 of a file's bytes, and how many there are. */
pn_status pn_file_hash(const char *path, uint64_t *hash, int64_t *n_bytes);
/* Puts on disk what another library has written and closed. */
pn_status pn_file_sync(const char *path);
/* The names in a directory, as far as its file system can do that: renames and removals last. */
void pn_directory_sync(const char *path);

/* A file written aside (path.tmp), synced and renamed by commit. On any failure the old file is untouched. */
typedef struct pn_file_writer {
    FILE *file; /* write here with stdio */
    char path[PN_PATH_MAX], temporary[PN_PATH_MAX + 8];
} pn_file_writer;
pn_status pn_file_writer_open(const char *path, pn_file_writer *out);
pn_status pn_file_writer_commit(pn_file_writer *w); /* checks every earlier write */
void pn_file_writer_abort(pn_file_writer *w);       /* after a commit: nothing to do */
pn_status pn_file_write(const char *path, const void *data, size_t n_bytes);

/* An output directory made aside (path.postnas-partial) and renamed by commit; missing parents are made. PN_USAGE when
 * `path` exists and is not an empty directory, or when another process is writing it. What an interrupted process left
 * aside is removed. Files inside are the caller's to sync. */
typedef struct pn_directory_writer {
    char path[PN_PATH_MAX], temporary[PN_PATH_MAX + 24]; /* write files into `temporary` */
    int lock; /* descriptor of the directory aside, locked while it is written */
} pn_directory_writer;
pn_status pn_directory_writer_open(const char *path, pn_directory_writer *out);
/* The same, but what an interrupted process left aside stays, to go on with; it may be anything that one wrote. */
pn_status pn_directory_writer_resume(const char *path, pn_directory_writer *out);
pn_status pn_directory_writer_commit(pn_directory_writer *w);
void pn_directory_writer_abort(pn_directory_writer *w); /* after a commit, or zeroed: nothing to do */
void pn_directory_writer_keep(pn_directory_writer *w);  /* stops writing; what is aside stays for resume */

/* The finished directory `fresh` becomes `path`, on the same file system, in place of what was there: two renames, so
 * that a half-removed directory never stands under that name. */
pn_status pn_directory_replace(const char *fresh, const char *path);

#endif
