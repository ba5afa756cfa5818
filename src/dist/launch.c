#include "launch.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

static const char *const names[] = {
    [PN_LAUNCH_ALONE] = "no launcher", [PN_LAUNCH_OPTIONS] = "--rank",    [PN_LAUNCH_OPENMPI] = "mpirun",
    [PN_LAUNCH_SLURM] = "srun",        [PN_LAUNCH_TORCHRUN] = "torchrun",
};

const char *pn_launcher_name(pn_launcher l) {
    return names[l];
}

/* A whole number in least .. most; leaves *out alone when the variable is not set. */
static pn_status number(const char *variable, int64_t least, int64_t most, int *out) {
    const char *text = getenv(variable);
    if (!text) return PN_OK;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    PN_CHECK(end != text && !*end && !errno && value >= least && value <= most, PN_USAGE,
             "%s=%.40s in the environment is not a whole number in %lld .. %lld", variable, text, (long long)least,
             (long long)most);
    *out = (int)value;
    return PN_OK;
}

static pn_status copy(char *out, size_t n_bytes, const char *text, const char *what) {
    PN_CHECK(strlen(text) < n_bytes, PN_USAGE, "%s is longer than %zu bytes", what, n_bytes - 1);
    strcpy(out, text);
    return PN_OK;
}

/* rank_name, size_name: variables. */
static pn_status rank_of(const char *rank_name, const char *size_name, pn_launch *out) {
    out->rank = out->size = -1;
    PN_TRY(number(size_name, 1, PN_RANKS_MOST, &out->size));
    PN_CHECK(out->size > 0, PN_USAGE, "%s is set in the environment and %s is not: set both or none", rank_name,
             size_name);
    PN_TRY(number(rank_name, 0, out->size - 1, &out->rank));
    return PN_OK;
}

/* ---- Slurm ---- */

pn_status pn_slurm_first_host(const char *list, char *host, size_t n_bytes) {
    size_t n = strcspn(list, ",[");
    size_t digits = 0;
    const char *first = "";
    if (list[n] == '[') {
        first = list + n + 1;
        digits = strspn(first, "0123456789");
    }
    PN_CHECK((n > 0 && list[n] != '[') || digits > 0, PN_USAGE, "the node list '%.80s' names no host", list);
    PN_CHECK(n + digits < n_bytes, PN_USAGE, "the node list '%.80s' has too long a name", list);
    for (size_t i = 0; i < n; i++)
        PN_CHECK(isalnum((unsigned char)list[i]) || strchr("-._", list[i]), PN_USAGE,
                 "the node list '%.80s' has a name with '%c'", list, list[i]);
    memcpy(host, list, n);
    memcpy(host + n, first, digits);
    host[n + digits] = '\0';
    return PN_OK;
}

static const char *or_empty(const char *text) {
    return text ? text : "";
}

/* A job's steps all have ports of their own, eight to choose from; most likely different from those of other jobs. */
static int port_of(const char *run_id) {
    enum { FIRST = 20000, GROUPS = 1500, GROUP = 8 };
    return FIRST + (int)(XXH3_64bits(run_id, strlen(run_id)) % GROUPS) * GROUP;
}

static pn_status from_slurm(pn_launch *out) {
    out->launcher = PN_LAUNCH_SLURM;
    const char *size = getenv("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
    PN_TRY(rank_of("SLURM_PROCID", size, out));
    PN_TRY(number("SLURM_LOCALID", 0, PN_RANKS_MOST, &out->local_rank));
    snprintf(out->run_id, sizeof out->run_id, "slurm %.100s.%.40s", or_empty(getenv("SLURM_JOB_ID")),
             or_empty(getenv("SLURM_STEP_ID")));
    char host[256];
    const char *nodes = getenv("SLURM_STEP_NODELIST") ? getenv("SLURM_STEP_NODELIST") : getenv("SLURM_JOB_NODELIST");
    PN_CHECK(nodes, PN_USAGE, "srun: neither SLURM_STEP_NODELIST nor SLURM_JOB_NODELIST is set; give --rendezvous");
    PN_TRY(pn_slurm_first_host(nodes, host, sizeof host));
    const int port = port_of(out->run_id);
    snprintf(out->rendezvous, sizeof out->rendezvous, "%s:%d-%d", host, port, port + 7);
    return PN_OK;
}

/* ---- mpirun ---- */

static pn_status from_openmpi(pn_launch *out) {
    out->launcher = PN_LAUNCH_OPENMPI;
    PN_TRY(rank_of("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", out));
    PN_TRY(number("OMPI_COMM_WORLD_LOCAL_RANK", 0, PN_RANKS_MOST, &out->local_rank));
    PN_TRY(number("OMPI_COMM_WORLD_LOCAL_SIZE", 1, PN_RANKS_MOST, &out->local_size));
    const char *job = getenv("PMIX_NAMESPACE");
    if (!job) job = getenv("OMPI_MCA_ess_base_jobid");
    const char *session = getenv("PMIX_SERVER_URI2"); /* job numbers recur, the server's address does not */
    if (!session) session = getenv("OMPI_MCA_orte_hnp_uri");
    snprintf(out->run_id, sizeof out->run_id, "mpirun %.80s %.120s", or_empty(job),
             out->local_size == out->size ? or_empty(session) : "");
    if (out->local_size == out->size) {
        const int port = port_of(out->run_id);
        snprintf(out->rendezvous, sizeof out->rendezvous, "127.0.0.1:%d-%d", port, port + 7);
    } else {
        strcpy(out->rendezvous, "mpi:");
    }
    return PN_OK;
}

/* ---- torchrun ---- */

static pn_status from_torchrun(pn_launch *out) {
    out->launcher = PN_LAUNCH_TORCHRUN;
    PN_TRY(rank_of("RANK", "WORLD_SIZE", out));
    PN_TRY(number("LOCAL_RANK", 0, PN_RANKS_MOST, &out->local_rank));
    PN_TRY(number("LOCAL_WORLD_SIZE", 1, PN_RANKS_MOST, &out->local_size));
    snprintf(out->run_id, sizeof out->run_id, "torchrun %.100s.%.40s", or_empty(getenv("TORCHELASTIC_RUN_ID")),
             or_empty(getenv("TORCHELASTIC_RESTART_COUNT")));
    const char *host = getenv("MASTER_ADDR");
    int port = 0;
    PN_TRY(number("MASTER_PORT", 1, 65535, &port));
    PN_CHECK(host && *host && port, PN_USAGE,
             "RANK and WORLD_SIZE are set, MASTER_ADDR and MASTER_PORT are not: set them, or give --rendezvous");
    PN_CHECK(strlen(host) < 256, PN_USAGE, "MASTER_ADDR is longer than a host's name can be");
    /* the launcher's own store may sit on the port itself, so the ports after it are tried as well */
    const bool many = port < 65535 - 8;
    snprintf(out->rendezvous, sizeof out->rendezvous, strchr(host, ':') ? "[%s]:%d-%d" : "%s:%d-%d", host,
             many ? port + 1 : port, many ? port + 8 : port);
    return PN_OK;
}

/* ---- options ---- */

static pn_status from_options(int64_t rank, int64_t ranks, const char *rank_name, const char *ranks_name,
                              pn_launch *out) {
    out->launcher = PN_LAUNCH_OPTIONS;
    PN_CHECK(ranks >= 1 && ranks <= PN_RANKS_MOST, PN_USAGE, "%s: %lld is not in 1 .. %d", ranks_name, (long long)ranks,
             (int)PN_RANKS_MOST);
    PN_CHECK(rank >= 0 && rank < ranks, PN_USAGE, "%s: %lld is not in 0 .. %lld", rank_name, (long long)rank,
             (long long)ranks - 1);
    out->rank = (int)rank;
    out->size = (int)ranks;
    return PN_OK;
}

static pn_status from_environment(pn_launch *out) {
    int rank = -1, ranks = -1;
    PN_TRY(number("POSTNAS_RANK", 0, PN_RANKS_MOST, &rank));
    PN_TRY(number("POSTNAS_RANKS", 1, PN_RANKS_MOST, &ranks));
    PN_TRY(number("POSTNAS_LOCAL_RANK", 0, PN_RANKS_MOST, &out->local_rank));
    PN_TRY(number("POSTNAS_LOCAL_RANKS", 1, PN_RANKS_MOST, &out->local_size));
    return from_options(rank, ranks, "POSTNAS_RANK", "POSTNAS_RANKS", out);
}

static pn_status where_to_meet(const char *asked, pn_launch *out) {
    if (!asked) asked = getenv("POSTNAS_RENDEZVOUS");
    if (asked) PN_TRY(copy(out->rendezvous, sizeof out->rendezvous, asked, "the rendezvous"));
    PN_CHECK(out->rendezvous[0], PN_USAGE,
             "%d ranks, and nothing says where they meet: give --rendezvous HOST:PORT, or file:PATH on a file system "
             "that all of them see",
             out->size);
    return PN_OK;
}

pn_status pn_launch_detect(const pn_launch_request *request, pn_launch *out) {
    const pn_launch_request none = { .rank = -1, .ranks = -1 };
    if (!request) request = &none;
    memset(out, 0, sizeof *out);
    out->size = 1;
    out->local_rank = out->local_size = -1;
    if (request->rank >= 0) {
        PN_CHECK(request->ranks >= 1, PN_USAGE, "--rank %lld without --ranks: say how many there are",
                 (long long)request->rank);
        PN_TRY(from_options(request->rank, request->ranks, "--rank", "--ranks", out));
    } else if (getenv("POSTNAS_RANK")) {
        PN_TRY(from_environment(out));
    } else if (getenv("OMPI_COMM_WORLD_RANK")) {
        PN_TRY(from_openmpi(out));
    } else if (getenv("SLURM_PROCID") && getenv("SLURM_STEP_ID")) { /* a batch script's own shell has no tasks */
        PN_TRY(from_slurm(out));
    } else if (getenv("RANK") && getenv("WORLD_SIZE")) {
        PN_TRY(from_torchrun(out));
    }
    PN_CHECK(request->ranks < 0 || request->ranks == out->size || out->launcher == PN_LAUNCH_ALONE, PN_USAGE,
             "--ranks %lld, and %s started %d: leave --ranks out", (long long)request->ranks,
             pn_launcher_name(out->launcher), out->size);
    PN_CHECK(request->ranks <= 1 || out->launcher != PN_LAUNCH_ALONE, PN_USAGE,
             "--ranks %lld, and nothing says which rank this is: give --rank", (long long)request->ranks);
    if (out->size == 1) {
        out->rank = out->local_rank = 0;
        out->local_size = 1;
        out->rendezvous[0] = '\0';
        return PN_OK;
    }
    PN_TRY(where_to_meet(request->rendezvous, out));
    return PN_OK;
}

bool pn_launch_needs_spawn(const pn_launch_request *request) {
    pn_launch found;
    if (request->ranks <= 1 || request->rank >= 0) return false;
    return !pn_launch_detect(NULL, &found) && found.launcher == PN_LAUNCH_ALONE; /* a failure is told by who detects */
}
