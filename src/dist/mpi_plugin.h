/* What postnas_mpi.so offers: MPI behind a table of its own, so that the program itself needs no MPI to start.
 *
 * The program loads it when mpirun started it, or when it is asked to use MPI. It is built against the MPI at hand and
 * lies beside the program; on another machine it is built again, or left out. Functions return 0, or 1 with the reason
 * in `why`. After open, one thread at a time calls them. */
#ifndef PN_DIST_MPI_PLUGIN_H
#define PN_DIST_MPI_PLUGIN_H

#include <stddef.h>

enum { PN_MPI_PLUGIN_VERSION = 1, PN_MPI_WHY = 256 };

typedef struct pn_mpi_plugin {
    int version;         /* PN_MPI_PLUGIN_VERSION of when it was built */
    const char *library; /* "Open MPI 4.1.4": what it was built against */
    /* Starts MPI. Once per process. */
    int (*open)(int *rank, int *size, char why[PN_MPI_WHY]);
    /* Rank 0's bytes to all. May wait for ever. */
    int (*broadcast)(void *bytes, int n_bytes, char why[PN_MPI_WHY]);
    /* Asks for bytes to be sent to one rank and received from another (-1: none), at most 2^30 of each. One such pair
     * is under way at a time. */
    int (*post)(int to, const void *out, int n_out, int from, void *in, int n_in, char why[PN_MPI_WHY]);
    int (*test)(int *done, char why[PN_MPI_WHY]); /* never waits */
    void (*close)(void);                          /* ends MPI; waits for all ranks */
} pn_mpi_plugin;

extern const pn_mpi_plugin pn_mpi_plugin_table; /* the symbol */

#endif
