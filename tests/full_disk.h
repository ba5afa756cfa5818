/* A disk that is full, for tests without one. */
#ifndef PN_TESTS_FULL_DISK_H
#define PN_TESTS_FULL_DISK_H

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

/* No file of this process grows beyond so many bytes: writes fail as on a full disk. Those of Check, too: no assertions
 * meanwhile. */
static inline void let_files_grow(rlim_t n_bytes) {
    struct rlimit most;
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &most)) abort();
    most.rlim_cur = n_bytes;
    if (setrlimit(RLIMIT_FSIZE, &most)) abort();
}

/* What HDF5 cannot finish it keeps. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

#endif
