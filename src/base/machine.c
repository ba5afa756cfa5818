#include "machine.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <sys/utsname.h>
#include <unistd.h>

enum { LEAST_BEYOND = 192 << 20, MOST_BEYOND = 512 << 20 };

/* The value of the first line "model name : ...", its spaces at both ends cut. */
static void read_cpu_name(char *name, size_t n) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && !*name && fgets(line, sizeof line, f)) {
        char *at = strncmp(line, "model name", 10) ? NULL : strchr(line, ':');
        if (!at) continue;
        do at++;
        while (isspace((unsigned char)*at));
        size_t len = strlen(at);
        while (len && isspace((unsigned char)at[len - 1])) len--;
        snprintf(name, n, "%.*s", (int)len, at);
    }
    if (f) fclose(f);
}

const char *pn_cpu_name(void) {
    static char name[128];
    struct utsname system;
    if (!*name) read_cpu_name(name, sizeof name);
    if (!*name) snprintf(name, sizeof name, "%.64s", uname(&system) ? "unknown" : system.machine);
    return name;
}

int64_t pn_bytes_beyond_caches(void) {
    int64_t twice = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    twice = 2 * (int64_t)sysconf(_SC_LEVEL3_CACHE_SIZE); /* -1 or 0: not known */
#endif
    if (twice < LEAST_BEYOND) twice = LEAST_BEYOND;
    return twice < MOST_BEYOND ? twice : MOST_BEYOND;
}

double pn_memory_bytes(void) {
#ifdef _SC_PHYS_PAGES
    double pages = (double)sysconf(_SC_PHYS_PAGES), page = (double)sysconf(_SC_PAGESIZE);
    if (pages > 0 && page > 0) return pages * page;
#endif
    return INFINITY;
}

double pn_memory_free(void) {
    char line[128];
    long long kib = -1;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && kib < 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld kB", &kib) != 1) kib = -1;
    if (f) fclose(f);
    return kib < 0 ? INFINITY : 1024.0 * (double)kib;
}
