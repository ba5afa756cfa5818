/* A file mapped read-only. What it shows is whatever the file holds: every reader checks before it believes. */
#ifndef PN_IO_MAPPED_FILE_H
#define PN_IO_MAPPED_FILE_H

#include <stddef.h>

#include "status.h"

typedef struct pn_mapped_file {
    const unsigned char *data; /* NULL for an empty file */
    size_t n_bytes;
} pn_mapped_file;

/* PN_IO: it cannot be opened, or is not a regular file. */
pn_status pn_mapped_file_open(const char *path, pn_mapped_file *out);
/* Accepts one that was never opened ({0}); leaves {0}. */
void pn_mapped_file_close(pn_mapped_file *m);

#endif
