/* Who am I among the ranks of a run, and where do they meet: from options, or from what started this process.
 *
 * In this order: --rank, --ranks and --rendezvous; POSTNAS_RANK, POSTNAS_RANKS and POSTNAS_RENDEZVOUS (spawn.h sets
 * them); mpirun of Open MPI; srun of Slurm, with PMIx or without; torchrun's RANK, WORLD_SIZE and MASTER_ADDR. Nothing
 * of these: one rank. Nothing here opens a connection. */
#ifndef PN_DIST_LAUNCH_H
#define PN_DIST_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

#include "files.h"
#include "status.h"

enum { PN_RANKS_MOST = 1024, PN_RENDEZVOUS_BYTES = PN_PATH_MAX + 8, PN_RUN_ID_BYTES = 256 };

typedef enum pn_launcher {
    PN_LAUNCH_ALONE,
    PN_LAUNCH_OPTIONS, /* --rank, or POSTNAS_RANK */
    PN_LAUNCH_OPENMPI,
    PN_LAUNCH_SLURM,
    PN_LAUNCH_TORCHRUN
} pn_launcher;

typedef struct pn_launch {
    pn_launcher launcher;
    int rank, size;
    int local_rank,
        local_size; /* among the ranks of this machine; -1: the launcher does not say (pn_world_open does) */
    /* "HOST:PORT" or "HOST:PORT-PORT" (rank 0 listens there, on the first port that is free), "file:PATH" (rank 0 says
     * there where it listens), "mpi:" (MPI carries the message). "" with one rank. */
    char rendezvous[PN_RENDEZVOUS_BYTES];
    char run_id[PN_RUN_ID_BYTES]; /* the same on all ranks of a run and on no other, as far as the launcher knows */
} pn_launch;

/* What the command line says; -1 and NULL: nothing. */
typedef struct pn_launch_request {
    int64_t rank, ranks;
    const char *rendezvous;
} pn_launch_request;

/* request NULL: nothing is said. PN_USAGE where something is missing, contradicts itself or is out of bounds, naming
 * the option or variable. */
pn_status pn_launch_detect(const pn_launch_request *request, pn_launch *out);
/* Several ranks are asked for and nothing has started them: pn_spawn does (spawn.h). */
bool pn_launch_needs_spawn(const pn_launch_request *request);
const char *pn_launcher_name(pn_launcher l); /* "mpirun", for messages */

/* The first host of a Slurm node list: "gpu[003-010,12],login" gives "gpu003". PN_USAGE when it has none. */
pn_status pn_slurm_first_host(const char *list, char *host, size_t n_bytes);

#endif
