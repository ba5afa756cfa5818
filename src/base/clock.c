#include "clock.h"

#include <stdio.h>
#include <time.h>

static double seconds_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double pn_seconds(void) {
    return seconds_of(CLOCK_MONOTONIC);
}

double pn_thread_cpu_seconds(void) {
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

double pn_utc_seconds(void) {
    return seconds_of(CLOCK_REALTIME);
}

const char *pn_utc_text(char *buffer, size_t n) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(buffer, n, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return buffer;
}

const char *pn_duration_text(double seconds, char *buffer, size_t n) {
    const double forever = 1e9; /* thirty years; also where not-a-number goes */
    long s = seconds < forever ? (long)(seconds > 0 ? seconds + 0.5 : 0) : (long)forever;
    if (s < 60)
        snprintf(buffer, n, "%ld s", s);
    else if (s < 3600)
        snprintf(buffer, n, "%ld min %ld s", s / 60, s % 60);
    else if (s < 48 * 3600)
        snprintf(buffer, n, "%ld h %ld min", s / 3600, s / 60 % 60);
    else
        snprintf(buffer, n, "%ld d %ld h", s / 86400, s / 3600 % 24);
    return buffer;
}
