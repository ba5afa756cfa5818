/* The same collectives under mpirun, over MPI and over TCP: the same bits. This program is its own rank. */
#include "collectives.h"

#include "mpi_library.h"
#include "world.h"

static pn_status work(pn_world *w, rank_report *report) {
    const int code = exercise_all(w->comm, report);
    PN_CHECK(!code, PN_MISMATCH, "%s", report->message);
    for (int i = 0; i < 100; i++) PN_TRY(pn_control_barrier(w->control, "a hundred times"));
    return PN_OK;
}

/* Started by mpirun: a rank of the run. Rank 0 prints what it got. */
__attribute__((constructor)) static void be_a_rank(void) {
    if (!getenv("OMPI_COMM_WORLD_RANK")) return;
    pn_launch launch;
    pn_world w = { 0 };
    static rank_report report;
    const pn_world_options o = { .collectives = getenv("OVER_TCP") ? PN_COLLECTIVES_TCP : PN_COLLECTIVES_AUTO,
                                 .limit_seconds = 30,
                                 .start_seconds = 30 };
    pn_status s = pn_launch_detect(NULL, &launch);
    if (!s && getenv("THROUGH_MPI")) strcpy(launch.rendezvous, "mpi:"); /* as on several machines */
    if (!s) s = pn_world_open(&launch, &o, 0, PN_POOL_HOST, &w);
    char name[16] = "";
    if (!s) strcpy(name, w.comm->type->name);
    const int threads = w.threads;
    if (!s) s = work(&w, &report);
    if (s) pn_error_print(stderr, 1);
    s = pn_world_close(&w, s);
    if (!s && launch.rank == 0) printf("%s %d %016llx\n", name, threads, (unsigned long long)report.digest);
    fflush(stdout);
    _exit(s ? 3 : 0);
}

typedef struct answer {
    char name[16];
    int threads;
    unsigned long long digest;
} answer;

static answer mpirun(int n, const char *variable) {
    char program[PN_PATH_MAX] = "", command[PN_PATH_MAX + 256], line[256] = "", last[256] = "";
    ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof program - 1), 0);
    snprintf(command, sizeof command,
             "%s OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
             "mpirun --oversubscribe -n %d '%s' 2>&1",
             variable, n, program);
    FILE *f = popen(command, "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) memcpy(last, line, sizeof last);
    const int status = pclose(f);
    answer a = { .name = "" };
    ck_assert_msg(status == 0 && sscanf(last, "%15s %d %llx", a.name, &a.threads, &a.digest) == 3, "%d ranks: %s", n,
                  last);
    return a;
}

#define NEED_MPI()                                                                                                     \
    do {                                                                                                               \
        if (system("mpirun --version > /dev/null 2>&1")) ck_skip("no mpirun of Open MPI on this machine");             \
        if (pn_mpi_find()) ck_skip("%s", pn_error_message());                                                          \
    } while (0)

START_TEST(mpi_gives_the_bits_of_tcp) {
    NEED_MPI();
    for (int n = 2; n <= 4; n++) {
        const answer mpi = mpirun(n, n == 4 ? "THROUGH_MPI=1" : "");
        ck_assert_str_eq(mpi.name, "mpi");
        ck_assert_int_ge(mpi.threads, 1);
        if (n == 3) continue;
        const answer tcp = mpirun(n, "OVER_TCP=1");
        ck_assert_str_eq(tcp.name, "tcp");
        ck_assert(mpi.digest == tcp.digest);
    }
}
END_TEST

START_TEST(one_rank_under_mpirun_is_alone) {
    NEED_MPI();
    ck_assert_str_eq(mpirun(1, "").name, "self");
}
END_TEST

/* Nothing of MPI is loaded, started or printed where mpirun did not start the program. */
START_TEST(without_mpirun_there_is_no_mpi) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    ck_assert_ptr_nonnull(maps);
    while (fgets(line, sizeof line, maps)) ck_assert_msg(!strstr(line, "libmpi"), "%s", line);
    fclose(maps);
}
END_TEST

TEST_MAIN("mpi", without_mpirun_there_is_no_mpi, mpi_gives_the_bits_of_tcp, one_rank_under_mpirun_is_alone)
