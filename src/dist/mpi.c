/* Bytes from rank to rank through MPI. Only messages that can be asked about are used, so that waiting for one can end
 * when a rank fails; MPI's own collectives could not. */
#include "mpi_library.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "host.h"
#include "mpi_plugin.h"

#define LIBRARY "postnas_mpi.so"

enum { SLICE = 1 << 28, SPINS = 200 };

static const pn_mpi_plugin *plugin;
static bool started;

/* ---- loading ---- */

/* Beside the program, in lib/ beside it, or wherever libraries are looked for. */
static void *load(void) {
    static const char *const folders[] = { "", "lib/" };
    char program[PN_PATH_MAX], path[PN_PATH_MAX + 64];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n > 0) {
        program[n] = '\0';
        *(strrchr(program, '/') + 1) = '\0';
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s%s" LIBRARY, program, folders[i]);
            if (pn_file_exists(path))
                return dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* MPI's own parts want its symbols */
        }
    }
    return dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
}

pn_status pn_mpi_find(void) {
    if (plugin) return PN_OK;
    void *handle = load();
    PN_CHECK(handle, PN_UNSUPPORTED,
             "MPI cannot be used: %s; build postnas where an MPI is installed (libopenmpi-dev), or leave MPI out with "
             "--rendezvous and collectives over tcp",
             dlerror());
    const pn_mpi_plugin *table = dlsym(handle, "pn_mpi_plugin_table");
    PN_CHECK(table && table->version == PN_MPI_PLUGIN_VERSION, PN_UNSUPPORTED,
             "%s belongs to another version of postnas: build it again", LIBRARY);
    plugin = table;
    return PN_OK;
}

pn_status pn_mpi_start(int rank, int size) {
    char why[PN_MPI_WHY] = "";
    int is_rank = -1, is_size = -1;
    if (started) return PN_OK;
    PN_TRY(pn_mpi_find());
    PN_CHECK(!plugin->open(&is_rank, &is_size, why), PN_COMM, "MPI does not start: %s", why);
    started = true;
    PN_CHECK(is_rank == rank && is_size == size, PN_USAGE,
             "this is rank %d of %d and MPI (%s) says %d of %d: was it started by the mpirun of another MPI?", rank,
             size, plugin->library, is_rank, is_size);
    return PN_OK;
}

pn_status pn_mpi_broadcast(void *bytes, int n_bytes) {
    char why[PN_MPI_WHY] = "";
    PN_ASSERT(started);
    PN_CHECK(!plugin->broadcast(bytes, n_bytes, why), PN_COMM, "MPI: %s", why);
    return PN_OK;
}

void pn_mpi_end(bool orderly) {
    if (started && orderly) plugin->close();
    started = false;
}

/* ---- exchanging ---- */

/* A rank that waits leaves the processor to others: first it only offers it, then it sleeps, longer and longer. */
static void rest(int turn) {
    if (turn < SPINS) {
        sched_yield();
        return;
    }
    const long us = 10L * (turn - SPINS + 1);
    nanosleep(&(struct timespec){ .tv_nsec = 1000 * (us < 300 ? us : 300) }, NULL);
}

static pn_status one_slice(pn_transport *t, int to, const void *out, int n_out, int from, void *in, int n_in) {
    char why[PN_MPI_WHY] = "";
    int done = 0;
    PN_CHECK(!plugin->post(to, out, n_out, from, in, n_in, why), PN_COMM, "MPI: %s", why);
    for (int turn = 0; !done; turn++) {
        PN_CHECK(!plugin->test(&done, why), PN_COMM, "MPI: %s", why);
        if (done) break;
        PN_TRY(pn_transport_status(t)); /* no call of MPI's follows, and without one it moves no bytes */
        rest(turn);
    }
    pn_control_tick(t->control);
    return PN_OK;
}

/* Both sides cut what they exchange alike. */
static pn_status mpi_exchange(pn_transport *t, int to, const void *out, size_t n_out, int from, void *in, size_t n_in) {
    if (to < 0) n_out = 0;
    if (from < 0) n_in = 0;
    for (size_t at = 0; at < n_out || at < n_in; at += SLICE) {
        const size_t o = at < n_out ? n_out - at : 0, i = at < n_in ? n_in - at : 0;
        PN_TRY(one_slice(t, o ? to : -1, o ? (const char *)out + at : NULL, (int)(o < SLICE ? o : SLICE), i ? from : -1,
                         i ? (char *)in + at : NULL, (int)(i < SLICE ? i : SLICE)));
    }
    return PN_OK;
}

static void mpi_close(pn_transport *t) {
    free(t);
}

static const pn_transport_type type = { .name = "mpi", .exchange = mpi_exchange, .close = mpi_close };

pn_status pn_comm_mpi(pn_control *control, pn_comm **out) {
    PN_TRY(pn_mpi_start(pn_control_rank(control), pn_control_size(control)));
    pn_transport *t = malloc(sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    *t = (pn_transport){
        .type = &type, .rank = pn_control_rank(control), .size = pn_control_size(control), .control = control
    };
    PN_TRY(pn_comm_host(t, out));
    return PN_OK;
}
