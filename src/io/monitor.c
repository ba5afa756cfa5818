#include "monitor.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "log.h"

typedef struct series {
    char *name;
    pn_tensorboard *events;
} series;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static char root[PN_PATH_MAX];                           /* "": no event files */
static series *known;
static int n_known;

static void forget(void) { /* the lock is held */
    for (int i = 0; i < n_known; i++) {
        pn_tensorboard_close(&known[i].events);
        free(known[i].name);
    }
    free(known);
    known = NULL;
    n_known = 0;
    root[0] = '\0';
}

pn_status pn_monitor_open(const char *directory) {
    PN_CHECK(strlen(directory) < sizeof root, PN_USAGE, "path %.100s... is too long", directory);
    pthread_mutex_lock(&lock);
    forget();
    strcpy(root, directory);
    pthread_mutex_unlock(&lock);
    return PN_OK;
}

void pn_monitor_close(void) {
    pthread_mutex_lock(&lock);
    forget();
    pthread_mutex_unlock(&lock);
}

bool pn_monitor_due(int64_t step, int64_t steps) {
    return step % (steps / PN_MONITOR_POINTS + 1) == 0 || step == steps;
}

/* A name as one directory's: what is no letter, digit, dot or underscore becomes a hyphen, so does a leading dot. */
static void directory_name(const char *name, char out[128]) {
    size_t n = 0;
    for (; name[n] && n < 127; n++) {
        bool plain = isalnum((unsigned char)name[n]) || name[n] == '_' || (name[n] == '.' && n);
        out[n] = plain ? name[n] : '-';
    }
    out[n] = '\0';
}

static pn_status find_series(const char *name, int64_t step, pn_tensorboard **out) {
    for (int i = 0; i < n_known; i++)
        if (!strcmp(known[i].name, name)) return *out = known[i].events, PN_OK;
    char part[128], directory[PN_PATH_MAX];
    directory_name(name, part);
    PN_TRY(pn_path_join(directory, root, part));
    series *grown = realloc(known, (size_t)(n_known + 1) * sizeof *known);
    PN_CHECK(grown, PN_MEMORY, "out of memory");
    known = grown;
    char *copy = strdup(name);
    PN_CHECK(copy, PN_MEMORY, "out of memory");
    pn_status s = pn_tensorboard_open(directory, step, out);
    if (s) {
        free(copy);
        return s;
    }
    known[n_known++] = (series){ copy, *out };
    return PN_OK;
}

static pn_status write_events(const char *name, int64_t step, const pn_scalar *scalars, int n) {
    pn_tensorboard *events;
    PN_TRY(find_series(name, step, &events));
    PN_TRY(pn_tensorboard_write(events, step, scalars, n));
    return PN_OK;
}

void pn_monitor_point(const char *name, int64_t step, const pn_scalar *scalars, int n) {
    pn_event e = pn_event_begin("point");
    pn_event_str(&e, "series", name);
    pn_event_i64(&e, "step", step);
    for (int i = 0; i < n; i++) pn_event_f64(&e, scalars[i].name, scalars[i].value);
    pn_event_end(&e);
    pthread_mutex_lock(&lock);
    bool failed = *root && write_events(name, step, scalars, n);
    if (failed) forget();
    pthread_mutex_unlock(&lock);
    if (!failed) return;
    pn_warn("TensorBoard's event files cannot be written: %s; going on without them", pn_error_message());
    pn_error_clear();
}
