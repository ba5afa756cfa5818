/* Who a process is, by what launchers leave in its environment; and the launcher of our own. This program is its own
 * rank. */
#include "ranks.h"

#include "launch.h"
#include "signals.h"
#include "spawn.h"
#include "world.h"

/* ---- the environment ---- */

static const char *const known[] = { "POSTNAS_RANK",
                                     "POSTNAS_RANKS",
                                     "POSTNAS_LOCAL_RANK",
                                     "POSTNAS_LOCAL_RANKS",
                                     "POSTNAS_RENDEZVOUS",
                                     "OMPI_COMM_WORLD_RANK",
                                     "OMPI_COMM_WORLD_SIZE",
                                     "OMPI_COMM_WORLD_LOCAL_RANK",
                                     "OMPI_COMM_WORLD_LOCAL_SIZE",
                                     "SLURM_PROCID",
                                     "SLURM_NTASKS",
                                     "SLURM_STEP_NUM_TASKS",
                                     "SLURM_LOCALID",
                                     "SLURM_JOB_ID",
                                     "SLURM_STEP_ID",
                                     "SLURM_STEP_NODELIST",
                                     "SLURM_JOB_NODELIST",
                                     "RANK",
                                     "WORLD_SIZE",
                                     "LOCAL_RANK",
                                     "LOCAL_WORLD_SIZE",
                                     "MASTER_ADDR",
                                     "MASTER_PORT" };

typedef struct launch_case {
    const char *environment[12]; /* NAME=VALUE */
    int rank, ranks;             /* options; -1: not given */
    const char *rendezvous;
    int is_rank, is_size, is_local; /* is_size 0: refused */
    const char *text;               /* that the rendezvous, or the message, starts with or has */
} launch_case;

static const launch_case cases[] = {
    { { NULL }, -1, -1, NULL, 0, 1, 0, "" },
    { { NULL }, 1, 4, "host:5000", 1, 4, -1, "host:5000" },
    { { NULL }, 1, 4, NULL, 0, 0, 0, "give --rendezvous" },
    { { NULL }, 4, 4, "host:5000", 0, 0, 0, "--rank: 4 is not in 0 .. 3" },
    { { NULL }, 1, -1, "host:5000", 0, 0, 0, "without --ranks" },
    { { NULL }, -1, 2, NULL, 0, 0, 0, "give --rank" },
    { { NULL }, 0, 100000, "host:5000", 0, 0, 0, "not in 1 .. 1024" },
    { { "POSTNAS_RANK=1", "POSTNAS_RANKS=2", "POSTNAS_RENDEZVOUS=file:/x", "POSTNAS_LOCAL_RANK=1" },
      -1,
      -1,
      NULL,
      1,
      2,
      1,
      "file:/x" },
    { { "POSTNAS_RANK=1", "POSTNAS_RANKS=2", "POSTNAS_RENDEZVOUS=file:/x" }, 2, 3, "h:1", 2, 3, -1, "h:1" },
    { { "POSTNAS_RANK=one", "POSTNAS_RANKS=2" }, -1, -1, NULL, 0, 0, 0, "POSTNAS_RANK=one" },
    { { "POSTNAS_RANK=0" }, -1, -1, NULL, 0, 0, 0, "POSTNAS_RANKS" },
    { { "OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_RANK=3",
        "OMPI_COMM_WORLD_LOCAL_SIZE=4", "RANK=9", "WORLD_SIZE=10" },
      -1,
      -1,
      NULL,
      3,
      4,
      3,
      "127.0.0.1:" },
    { { "OMPI_COMM_WORLD_RANK=3", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_RANK=1",
        "OMPI_COMM_WORLD_LOCAL_SIZE=2" },
      -1,
      -1,
      NULL,
      3,
      4,
      1,
      "mpi:" },
    { { "OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_LOCAL_RANK=0",
        "OMPI_COMM_WORLD_LOCAL_SIZE=4" },
      -1,
      2,
      NULL,
      0,
      0,
      0,
      "mpirun started 4" },
    { { "OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=1" }, -1, -1, NULL, 0, 1, 0, "" },
    { { "OMPI_COMM_WORLD_RANK=4", "OMPI_COMM_WORLD_SIZE=4" }, -1, -1, NULL, 0, 0, 0, "OMPI_COMM_WORLD_RANK=4" },
    { { "SLURM_PROCID=5", "SLURM_NTASKS=16", "SLURM_LOCALID=1", "SLURM_JOB_ID=77", "SLURM_STEP_ID=0",
        "SLURM_STEP_NODELIST=gpu[07-09,12]" },
      -1,
      -1,
      NULL,
      5,
      16,
      1,
      "gpu07:" },
    { { "SLURM_PROCID=0", "SLURM_NTASKS=16", "SLURM_JOB_ID=77" }, -1, -1, NULL, 0, 1, 0, "" }, /* the batch script
                                                                                                  itself */
    { { "SLURM_PROCID=0", "SLURM_NTASKS=2", "SLURM_STEP_ID=0" }, -1, -1, NULL, 0, 0, 0, "SLURM_STEP_NODELIST" },
    { { "RANK=1", "WORLD_SIZE=2", "LOCAL_RANK=1", "MASTER_ADDR=node-3", "MASTER_PORT=29500" },
      -1,
      -1,
      NULL,
      1,
      2,
      1,
      "node-3:29501-29508" },
    { { "RANK=1", "WORLD_SIZE=2", "MASTER_ADDR=fe80::1", "MASTER_PORT=29500" },
      -1,
      -1,
      NULL,
      1,
      2,
      -1,
      "[fe80::1]:29501" },
    { { "RANK=1", "WORLD_SIZE=2" }, -1, -1, NULL, 0, 0, 0, "MASTER_ADDR" },
    { { "RANK=1", "WORLD_SIZE=2" }, -1, -1, "h:7", 0, 0, 0, "MASTER_ADDR" },
    { { "RANK=1" }, -1, -1, NULL, 0, 1, 0, "" },
};

static void check_case(const launch_case *c, int number) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) unsetenv(known[i]);
    for (int i = 0; c->environment[i]; i++) putenv((char *)(uintptr_t)c->environment[i]);
    pn_launch l;
    const pn_status s = pn_launch_detect(&(pn_launch_request){ c->rank, c->ranks, c->rendezvous }, &l);
    if (c->is_size == 0) {
        ck_assert_msg(s == PN_USAGE && strstr(pn_error_message(), c->text), "case %d: %s", number,
                      s ? pn_error_message() : "is taken");
        return;
    }
    ck_assert_msg(s == PN_OK, "case %d: %s", number, pn_error_message());
    ck_assert(!pn_launch_needs_spawn(&(pn_launch_request){ c->rank, c->ranks, c->rendezvous }));
    if (c->rank < 0)
        ck_assert(pn_launch_needs_spawn(&(pn_launch_request){ -1, 2, NULL }) == (l.launcher == PN_LAUNCH_ALONE));
    ck_assert_msg(l.rank == c->is_rank && l.size == c->is_size && l.local_rank == c->is_local,
                  "case %d: rank %d of %d, %d on its machine", number, l.rank, l.size, l.local_rank);
    ck_assert_msg(!strncmp(l.rendezvous, c->text, strlen(c->text)) && (*c->text || !*l.rendezvous), "case %d: %s",
                  number, l.rendezvous);
}

START_TEST(launchers_say_who_one_is) {
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(&cases[i], (int)i);
}
END_TEST

START_TEST(first_hosts_of_node_lists) {
    static const char *const lists[][2] = { { "a", "a" },
                                            { "node1,node2", "node1" },
                                            { "n[003-010,12],x", "n003" },
                                            { "n[7]", "n7" },
                                            { "gpu-a.b_c[1-2]", "gpu-a.b_c1" } },
                             *const bad[] = { "", ",", "[", "n[", "n[]", "n[-1]", "a b", "a;reboot", "[a]" };
    char host[64];
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        ck_ok(pn_slurm_first_host(lists[i][0], host, sizeof host));
        ck_assert_str_eq(host, lists[i][1]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(pn_slurm_first_host(bad[i], host, sizeof host) == PN_USAGE, "'%s'", bad[i]);
    ck_assert_int_eq(pn_slurm_first_host("aaaaaaaa", host, 8), PN_USAGE);
}
END_TEST

/* ---- our own launcher ---- */

static pn_status task(pn_world *w, const char *what) {
    double sum = w->rank + 1;
    PN_CHECK(w->local_rank == w->rank && w->local_size == w->size && w->threads >= 1, PN_MISMATCH, "where am I?");
    PN_TRY(pn_comm_all_reduce(w->comm, &sum, 1, PN_F64, PN_SUM, NULL));
    PN_CHECK(sum == w->size * (w->size + 1) / 2, PN_MISMATCH, "the sum is %g", sum);
    if (!strcmp(what, "fail") && w->rank == 1) PN_FAIL(PN_IO, "disk full");
    if (!strcmp(what, "die") && w->rank == 2) raise(SIGKILL);
    while (!strcmp(what, "interrupt")) {
        int64_t stop = pn_interrupted();
        PN_TRY(pn_control_max(w->control, "stop", &stop));
        PN_CHECK(!stop, PN_INTERRUPTED, "stopped");
        usleep(10000);
    }
    PN_TRY(pn_comm_barrier(w->comm));
    return PN_OK;
}

__attribute__((constructor)) static void be_a_rank(void) {
    if (!pn_spawned()) return;
    pn_launch launch;
    pn_world w = { 0 };
    const pn_world_options o = { .limit_seconds = 20, .start_seconds = 20 };
    pn_signals_install();
    pn_status s = pn_launch_detect(NULL, &launch);
    if (!s) s = pn_world_open(&launch, &o, 0, PN_POOL_HOST, &w);
    if (!s) s = task(&w, getenv("TASK"));
    s = pn_world_close(&w, s);
    if (s && getenv("SAID")) {
        char path[PN_PATH_MAX];
        snprintf(path, sizeof path, "%s/%d", getenv("SAID"), launch.rank);
        if (pn_file_write(path, pn_error_message(), strlen(pn_error_message()))) _exit(9);
    }
    _exit(pn_exit_code(s));
}

static int run_task(const char *what) {
    char *argv[] = { (char *)(uintptr_t) "launch", NULL };
    int code = -1;
    setenv("TASK", what, 1);
    ck_ok(pn_spawn(3, argv, 10, &code));
    return code;
}

static void said(const char *dir, int rank, const char *what) {
    char path[PN_PATH_MAX], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%d", dir, rank);
    ck_ok(pn_file_read(path, 10000, &text, &n));
    ck_assert_msg(strstr(text, what), "rank %d says: %s", rank, text);
    free(text);
}

START_TEST(our_own_launcher) {
    char dir[] = "/tmp/postnas-test-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    setenv("SAID", dir, 1);
    ck_assert_int_eq(run_task("succeed"), 0);
    ck_assert_int_ne(run_task("fail"), 0);
    said(dir, 1, "disk full");
    said(dir, 0, "rank 1 failed: disk full");
    said(dir, 2, "rank 1 failed: disk full");
    const int code = run_task("die");
    ck_assert_msg(code == 128 + SIGKILL || code == 3, "%d", code); /* whichever is seen first */
    said(dir, 0, "rank 2 failed: its process ended");
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(a_signal_stops_all_ranks) {
    pn_signals_install();
    const pid_t self = getpid(), helper = fork();
    if (helper == 0) {
        usleep(500000);
        kill(self, SIGTERM);
        _exit(0);
    }
    char *argv[] = { (char *)(uintptr_t) "launch", NULL };
    int code = -1;
    setenv("TASK", "interrupt", 1);
    ck_ok(pn_spawn(2, argv, 10, &code));
    ck_assert_int_eq(code, 75);
    waitpid(helper, NULL, 0);
}
END_TEST

TEST_MAIN("launch", launchers_say_who_one_is, first_hosts_of_node_lists, our_own_launcher, a_signal_stops_all_ranks)
