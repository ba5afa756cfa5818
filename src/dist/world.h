/* All ranks of a run, as a command wants them: who this one is, the control channel, the communicator.
 *
 *     pn_world w;
 *     PN_TRY(pn_launch_detect(&request, &launch));
 *     PN_TRY(pn_world_open(&launch, &options, 0, PN_POOL_HOST, &w));      // before the GPU is first used
 *     return pn_world_close(&w, work(&w));                                // tells the others when it failed
 *
 * With one rank it costs nothing and everything works the same. */
#ifndef PN_DIST_WORLD_H
#define PN_DIST_WORLD_H

#include "comm.h"
#include "launch.h"
#include "options.h"

typedef enum pn_collectives {
    PN_COLLECTIVES_AUTO, /* nccl on GPUs; else mpi where mpirun started the ranks and this build has it; else tcp */
    PN_COLLECTIVES_TCP,
    PN_COLLECTIVES_MPI,
    PN_COLLECTIVES_NCCL
} pn_collectives;

typedef struct pn_world_options {
    int64_t collectives; /* pn_collectives */
    double limit_seconds, start_seconds;
} pn_world_options;

/* For a section of a command's configuration. */
extern const pn_option pn_world_option_table[];

typedef struct pn_world {
    int rank, size;
    int local_rank, local_size; /* among the ranks of this machine: local_rank picks the GPU */
    int threads;                /* of parallel regions, as set */
    pn_control *control;
    pn_comm *comm;
    bool mpi;
    bool agreed; /* all ranks know how they have failed */
} pn_world;

/* Meets the others, picks this rank's GPU (memory PN_POOL_DEVICE) and how many threads it computes with, and makes the
 * communicator; ranks other than 0 print no info lines from here on. threads: what the user asked for; 0: those of this
 * machine's processors, shared with the other ranks on it, unless OMP_NUM_THREADS says. PN_UNSUPPORTED where this build
 * or machine lacks what `collectives` names. */
pn_status pn_world_open(const pn_launch *who, const pn_world_options *o, int threads, pn_pool_kind memory,
                        pn_world *out);
/* As pn_control_agree, for what ends the run where it fails: pn_world_close leaves the story to rank 0. */
pn_status pn_world_agree(pn_world *w, const char *what, pn_status mine);
/* how: how this rank's work ended. A failure of its own becomes that of all ranks, with the message that is there.
 * After PN_OK, a stop (PN_INTERRUPTED) and a failure that all have agreed on it waits for the others to come here:
 * launchers may end all ranks when the first one ends, and none is to be in the middle of its work then. Returns how,
 * or PN_COMM when another rank failed meanwhile. A zeroed world: nothing to do. */
pn_status pn_world_close(pn_world *w, pn_status how);

#endif
