#include "spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "files.h"
#include "launch.h"
#include "log.h"
#include "signals.h"

static const char marker[] = "POSTNAS_SPAWNED";

bool pn_spawned(void) {
    return getenv(marker) != NULL;
}

static void set_number(const char *name, int value) {
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

/* In the new process; parent: to end with it, however it ends. */
static void become_rank(int rank, int ranks, const char *dir, pid_t parent, char **argv) {
    char text[PN_PATH_MAX + 32];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(3);
    setpgid(0, 0); /* Ctrl-C comes once, from the launcher: a second one would end a rank without saving */
    set_number("POSTNAS_RANK", rank);
    set_number("POSTNAS_RANKS", ranks);
    set_number("POSTNAS_LOCAL_RANK", rank);
    set_number("POSTNAS_LOCAL_RANKS", ranks);
    snprintf(text, sizeof text, "local:%s/rendezvous", dir);
    setenv("POSTNAS_RENDEZVOUS", text, 1);
    setenv(marker, "1", 1);
    execv("/proc/self/exe", argv);
    fprintf(stderr, "postnas: error: rank %d cannot start: %s\n", rank, strerror(errno));
    _exit(3);
}

static int code_of(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 3;
}

typedef struct ranks {
    pid_t *pid; /* 0: ended */
    int n, running, code;
    double failed_at; /* 0: none has */
} ranks;

static void send_all(const ranks *r, int sig) {
    for (int i = 0; i < r->n; i++)
        if (r->pid[i]) kill(r->pid[i], sig);
}

/* Ranks that only heard of a failure end with that of their peer: one that found a mistake in the input says more. */
static bool says_more(int code, int than) {
    return code == pn_exit_code(PN_USAGE) && than == pn_exit_code(PN_COMM);
}

static void rank_ended(ranks *r, pid_t pid, int status) {
    for (int i = 0; i < r->n; i++) {
        if (r->pid[i] != pid) continue;
        r->pid[i] = 0;
        r->running--;
        const int code = code_of(status);
        if (!code || (r->code && !says_more(code, r->code))) continue;
        r->code = code;
        r->failed_at = pn_seconds();
        if (WIFSIGNALED(status)) pn_warn("rank %d was ended by signal %d", i, WTERMSIG(status));
    }
}

static void wait_for_ranks(ranks *r, double grace) {
    bool passed_on = false;
    while (r->running > 0) {
        int status;
        const pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid > 0) {
            rank_ended(r, pid, status);
            continue;
        }
        if (pid < 0 && errno == ECHILD) return;
        if (pn_interrupted() && !passed_on) {
            send_all(r, SIGTERM);
            passed_on = true;
        }
        if (r->failed_at && pn_seconds() - r->failed_at > grace) send_all(r, SIGKILL);
        usleep(20000);
    }
}

static pn_status start_ranks(ranks *r, const char *dir, char **argv) {
    const pid_t parent = getpid();
    for (int i = 0; i < r->n; i++) {
        const pid_t pid = fork();
        PN_CHECK(pid >= 0, PN_COMM, "cannot start rank %d: %s", i, strerror(errno));
        if (pid == 0) become_rank(i, r->n, dir, parent, argv);
        r->pid[i] = pid;
        r->running++;
    }
    return PN_OK;
}

pn_status pn_spawn(int n, char **argv, double grace_seconds, int *exit_code) {
    char dir[PN_PATH_MAX];
    const char *tmp = getenv("TMPDIR");
    PN_CHECK(n >= 1 && n <= PN_RANKS_MOST, PN_USAGE, "%d ranks: not in 1 .. %d", n, (int)PN_RANKS_MOST);
    snprintf(dir, sizeof dir, "%.4000s/postnas-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    PN_CHECK(mkdtemp(dir), PN_IO, "%s: cannot make a directory for the ranks to meet in: %s", dir, strerror(errno));
    ranks r = { .pid = calloc((size_t)n, sizeof *r.pid), .n = n };
    pn_status s = r.pid ? start_ranks(&r, dir, argv) : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (s && r.pid) send_all(&r, SIGKILL);
    wait_for_ranks(&r, grace_seconds);
    free(r.pid);
    *exit_code = r.code;
    const pn_status removed = pn_remove_tree(dir);
    return s ? s : removed;
}
