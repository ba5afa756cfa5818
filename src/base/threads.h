/* How many threads to compute with. */
#ifndef PN_BASE_THREADS_H
#define PN_BASE_THREADS_H

#include "status.h"

/* Processors this process may use: its affinity mask, cut down to the CPU quota of its control groups; at least 1. */
int pn_threads_available(void);
/* Sets the threads of parallel regions: `requested` when positive, else OMP_NUM_THREADS when set, else
 * pn_threads_available. PN_USAGE beyond 4096. */
pn_status pn_threads_init(int requested);
/* Threads the next parallel region will have. */
int pn_threads(void);

/* The quota in whole processors (rounded up) that the control groups in `cgroup_file` (/proc/self/cgroup) set below
 * `mount` (/sys/fs/cgroup), versions 1 and 2; 0: none. */
int pn_threads_quota(const char *cgroup_file, const char *mount);

#endif
