#include "threads.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

enum { MOST = 4096 };

/* Reads a file of one or two words; false when there is none. */
static bool read_words(const char *dir, const char *name, char *a, char *b) {
    char path[PN_PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    a[0] = b[0] = '\0';
    int n = fscanf(f, "%31s %31s", a, b);
    fclose(f);
    return n >= 1;
}

static int processors(const char *quota, const char *period) {
    double q = atof(quota), p = atof(period); /* "max" and -1: no limit */
    if (!(q > 0) || !(p > 0) || q / p > MOST) return 0;
    int n = (int)(q / p);
    return n < q / p ? n + 1 : n;
}

static int quota_here(const char *dir) {
    char quota[32], period[32], none[32];
    if (read_words(dir, "cpu.max", quota, period)) return processors(quota, period);
    if (read_words(dir, "cpu.cfs_quota_us", quota, none) && read_words(dir, "cpu.cfs_period_us", period, none))
        return processors(quota, period);
    return 0;
}

/* The smallest quota from `path` up to the mount: every level binds. Inside a container the path may not be visible;
 * the levels that are count. */
static int quota_upwards(const char *mount, const char *path) {
    char dir[PN_PATH_MAX];
    size_t root = strlen(mount);
    if (root + strlen(path) >= sizeof dir) return 0;
    memcpy(dir, mount, root);
    strcpy(dir + root, path);
    int least = 0;
    for (;;) {
        int n = quota_here(dir);
        if (n && (!least || n < least)) least = n;
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < root) return least;
        *slash = '\0';
    }
}

static bool lists_cpu(const char *controllers) {
    for (const char *p = controllers; *p;) {
        size_t len = strcspn(p, ",");
        if (len == 3 && !memcmp(p, "cpu", 3)) return true;
        p += len;
        if (*p) p++;
    }
    return false;
}

int pn_threads_quota(const char *cgroup_file, const char *mount) {
    FILE *f = fopen(cgroup_file, "re");
    if (!f) return 0;
    char line[PN_PATH_MAX];
    int least = 0;
    while (fgets(line, sizeof line, f)) { /* "hierarchy:controllers:/path" */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *controllers++ = '\0';
        *path++ = '\0';
        char base[PN_PATH_MAX];
        if (!strcmp(line, "0") && !*controllers)
            snprintf(base, sizeof base, "%.2000s", mount);
        else if (lists_cpu(controllers))
            snprintf(base, sizeof base, "%.1000s/%.200s", mount, controllers);
        else
            continue;
        int n = quota_upwards(base, path);
        if (n && (!least || n < least)) least = n;
    }
    fclose(f);
    return least;
}

int pn_threads_available(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : omp_get_num_procs();
    int quota = pn_threads_quota("/proc/self/cgroup", "/sys/fs/cgroup");
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : n;
}

pn_status pn_threads_init(int requested) {
    PN_CHECK(requested <= MOST, PN_USAGE, "%d threads are more than the %d postnas can use", requested, MOST);
    if (requested > 0)
        omp_set_num_threads(requested);
    else if (!getenv("OMP_NUM_THREADS"))
        omp_set_num_threads(pn_threads_available());
    return PN_OK;
}

int pn_threads(void) {
    return omp_get_max_threads();
}
