#include "world.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "log.h"
#include "mpi_library.h"
#include "rendezvous.h"
#include "threads.h"

static const char *const collectives[] = { "auto", "tcp", "mpi", "nccl", NULL };

const pn_option pn_world_option_table[] = {
    PN_OPT_ENUM(pn_world_options, collectives, "auto", collectives,
                "what carries sums between ranks: auto takes nccl on GPUs, else mpi under mpirun, else tcp"),
    PN_OPT_FLOAT(pn_world_options, limit_seconds, 60, 1, 86400,
                 "a rank that shows no sign of life for as long has failed, and ends the run"),
    PN_OPT_FLOAT(pn_world_options, start_seconds, 300, 1, 86400, "within which all ranks must have come"),
    PN_OPT_END,
};

/* ---- this machine ---- */

typedef struct host_record {
    uint64_t machine;
    cpu_set_t mask;
} host_record;

/* Where a launcher has given every rank processors of its own they are all this rank's; else the ranks share them. */
static int threads_for(const pn_world *w, const host_record *all) {
    const host_record *mine = &all[w->rank];
    bool own = true;
    for (int r = 0; r < w->size; r++) {
        cpu_set_t both;
        if (r == w->rank || all[r].machine != mine->machine) continue;
        CPU_AND(&both, &all[r].mask, &mine->mask);
        own = own && CPU_COUNT(&both) == 0;
    }
    const int n = pn_threads_available() / (own ? 1 : w->local_size);
    return n > 1 ? n : 1;
}

static pn_status look_around(pn_world *w, int threads) {
    host_record mine = { .machine = pn_net_machine() };
    if (sched_getaffinity(0, sizeof mine.mask, &mine.mask)) CPU_ZERO(&mine.mask);
    host_record *all = malloc((size_t)w->size * sizeof *all);
    PN_CHECK(all, PN_MEMORY, "out of memory");
    pn_status s = pn_control_exchange(w->control, "machines", &mine, sizeof mine, all);
    w->local_rank = w->local_size = 0;
    for (int r = 0; !s && r < w->size; r++) {
        if (all[r].machine != mine.machine) continue;
        w->local_rank += r < w->rank;
        w->local_size++;
    }
    if (!s && !threads && !getenv("OMP_NUM_THREADS")) threads = threads_for(w, all);
    free(all);
    if (!s) s = pn_threads_init(threads);
    w->threads = pn_threads();
    return s;
}

/* ---- collectives ---- */

/* Every rank must take the same; where one has no MPI none uses it. */
static pn_status choose(const pn_world *w, const pn_launch *who, pn_collectives asked, pn_pool_kind memory,
                        pn_collectives *out) {
    const bool device = memory == PN_POOL_DEVICE;
    *out = asked;
    PN_CHECK(!device || asked == PN_COLLECTIVES_AUTO || asked == PN_COLLECTIVES_NCCL, PN_USAGE,
             "collectives: %s work on the host's memory; on GPUs it is nccl", collectives[asked]);
    PN_CHECK(device || asked != PN_COLLECTIVES_NCCL, PN_USAGE,
             "collectives: nccl works on GPUs; on the CPU it is tcp or mpi");
    if (asked != PN_COLLECTIVES_AUTO) return PN_OK;
    *out = device ? PN_COLLECTIVES_NCCL : PN_COLLECTIVES_TCP;
    if (device || who->launcher != PN_LAUNCH_OPENMPI) return PN_OK;
    int64_t without = pn_mpi_find() != PN_OK;
    PN_TRY(pn_control_max(w->control, "MPI", &without));
    if (!without) *out = PN_COLLECTIVES_MPI;
    return PN_OK;
}

static pn_status make_comm(pn_world *w, pn_collectives what, pn_pool_kind memory) {
    if (w->size == 1) return pn_comm_self(w->control, memory, &w->comm);
    switch (what) {
    case PN_COLLECTIVES_NCCL: return pn_comm_nccl(w->control, &w->comm);
    case PN_COLLECTIVES_MPI: w->mpi = true; return pn_comm_mpi(w->control, &w->comm);
    default: return pn_comm_tcp(w->control, &w->comm);
    }
}

pn_status pn_world_agree(pn_world *w, const char *what, pn_status mine) {
    const pn_status s = pn_control_agree(w->control, what, mine);
    w->agreed = s && !pn_control_failed(w->control);
    return s;
}

static pn_status carry_by_mpi(void *ctx, char *note) {
    const pn_launch *who = ctx;
    PN_TRY(pn_mpi_start(who->rank, who->size));
    PN_TRY(pn_mpi_broadcast(note, PN_NOTE_BYTES));
    return PN_OK;
}

static pn_status open_world(const pn_launch *who, const pn_world_options *o, int threads, pn_pool_kind memory,
                            pn_world *w) {
    pn_collectives what;
    pn_launch copy = *who;
    w->mpi = !strcmp(who->rendezvous, "mpi:");
    PN_TRY(pn_control_open(&(pn_control_settings){ .rank = who->rank,
                                                   .size = who->size,
                                                   .rendezvous = who->rendezvous,
                                                   .run_id = who->run_id,
                                                   .limit_seconds = o->limit_seconds,
                                                   .start_seconds = o->start_seconds,
                                                   .carry = carry_by_mpi,
                                                   .ctx = &copy },
                           &w->control));
    pn_control_busy(w->control, "starting");
    if (w->size > 1) {
        PN_TRY(look_around(w, threads));
    } else {
        w->local_size = 1;
        w->threads = pn_threads();
    }
    if (w->rank > 0) pn_log_quiet(true);
    if (memory == PN_POOL_DEVICE) {
        if (w->size > 1) PN_TRY(pn_device_choose(w->local_rank, w->local_size));
        PN_TRY(pn_device_open());
    }
    PN_TRY(pn_world_agree(w, "collectives", choose(w, who, (pn_collectives)o->collectives, memory, &what)));
    PN_TRY(make_comm(w, what, memory));
    pn_control_busy(w->control, NULL);
    return PN_OK;
}

pn_status pn_world_open(const pn_launch *who, const pn_world_options *o, int threads, pn_pool_kind memory,
                        pn_world *out) {
    *out = (pn_world){ .rank = who->rank, .size = who->size };
    const pn_status s = open_world(who, o, threads, memory, out);
    return s ? pn_world_close(out, s) : PN_OK;
}

/* The story of how the work of all ended stays in rank 0, which says it. */
static pn_status wait_for_others(pn_control *c, pn_status how) {
    char story[1024];
    snprintf(story, sizeof story, "%.1000s", pn_error_message());
    PN_TRY(pn_control_barrier(c, "the end of the run"));
    if (how && pn_control_rank(c) == 0) PN_FAIL(how, "%s", story);
    pn_error_clear();
    return how;
}

pn_status pn_world_close(pn_world *w, pn_status how) {
    bool orderly = w->control && (how == PN_OK || how == PN_INTERRUPTED || w->agreed);
    if (w->control && !orderly) pn_control_abort(w->control, pn_error_message());
    if (orderly && (w->comm || w->agreed)) how = wait_for_others(w->control, how);
    orderly = w->control && !pn_control_failed(w->control);
    pn_comm_destroy(&w->comm);
    if (w->mpi) pn_mpi_end(orderly);
    pn_control_close(&w->control);
    w->mpi = false;
    return how;
}
