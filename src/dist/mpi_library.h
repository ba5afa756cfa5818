/* MPI, loaded when first wanted (mpi_plugin.h). */
#ifndef PN_DIST_MPI_LIBRARY_H
#define PN_DIST_MPI_LIBRARY_H

#include <stdbool.h>

#include "status.h"

/* Whether postnas_mpi.so can be loaded; starts nothing. PN_UNSUPPORTED with what is missing. */
pn_status pn_mpi_find(void);
/* Starts MPI, the first time. PN_USAGE when MPI does not say that this is rank `rank` of `size`. */
pn_status pn_mpi_start(int rank, int size);
/* Rank 0's bytes to all: for control.h's carry. */
pn_status pn_mpi_broadcast(void *bytes, int n_bytes);
/* Ends MPI if it was started. Not orderly: some rank has failed, and MPI would wait for it; it is left as it is. */
void pn_mpi_end(bool orderly);

#endif
