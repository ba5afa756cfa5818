#include "harness.h"
#include <string.h>

#include "files.h"
#include "threads.h"

static char top[] = "/tmp/postnas-threads-XXXXXX";

static void put(const char *dir, const char *name, const char *text) {
    char full[PN_PATH_MAX], path[PN_PATH_MAX];
    ck_ok(pn_path_join(full, top, dir));
    ck_ok(pn_make_directories(full));
    ck_ok(pn_path_join(path, full, name));
    ck_ok(pn_file_write(path, text, strlen(text)));
}

static int quota(const char *membership) {
    char path[PN_PATH_MAX], mount[PN_PATH_MAX];
    put(".", "cgroup", membership);
    ck_ok(pn_path_join(path, top, "cgroup"));
    ck_ok(pn_path_join(mount, top, "fs"));
    return pn_threads_quota(path, mount);
}

START_TEST(quota_of_control_groups) {
    ck_assert_ptr_nonnull(mkdtemp(top));
    ck_assert_int_eq(quota("0::/job/step\n"), 0); /* nothing mounted */
    put("fs/job/step", "cpu.max", "max 100000\n");
    ck_assert_int_eq(quota("0::/job/step\n"), 0);
    put("fs/job", "cpu.max", "250000 100000\n"); /* the parent binds, 2.5 processors count as 3 */
    ck_assert_int_eq(quota("0::/job/step\n"), 3);
    put("fs/job/step", "cpu.max", "100000 100000\n");
    ck_assert_int_eq(quota("0::/job/step\n"), 1);
    put("fs", "cpu.max", "800000 100000\n"); /* as seen inside a container: the own path is not visible */
    ck_assert_int_eq(quota("0::/not/visible\n"), 8);
    put("fs/cpu,cpuacct/a", "cpu.cfs_quota_us", "200000\n"); /* version 1 */
    put("fs/cpu,cpuacct/a", "cpu.cfs_period_us", "100000\n");
    ck_assert_int_eq(quota("5:memory:/a\n4:cpu,cpuacct:/a\n"), 2);
    put("fs/cpu,cpuacct/a", "cpu.cfs_quota_us", "-1\n");
    ck_assert_int_eq(quota("4:cpu,cpuacct:/a\n"), 0);
    ck_assert_int_eq(quota("nonsense\n:\n::\n4:cpuset:/a\n"), 0);
    ck_ok(pn_remove_tree(top));
}
END_TEST

START_TEST(counts) {
    ck_assert_int_ge(pn_threads_available(), 1);
    ck_ok(pn_threads_init(3));
    ck_assert_int_eq(pn_threads(), 3);
    unsetenv("OMP_NUM_THREADS");
    ck_ok(pn_threads_init(0));
    ck_assert_int_eq(pn_threads(), pn_threads_available());
    ck_assert_int_eq(pn_threads_init(5000), PN_USAGE);
}
END_TEST

TEST_MAIN("threads", quota_of_control_groups, counts)
