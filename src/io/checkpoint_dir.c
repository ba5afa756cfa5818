#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_internal.h"
#include "log.h"

void pn_state_step_name(char out[PN_STATE_STEP_NAME], int64_t step) {
    snprintf(out, PN_STATE_STEP_NAME, "step-%" PRId64, step);
}

/* -1: not the name of a step. */
static int64_t step_of(const char *name) {
    char again[PN_STATE_STEP_NAME];
    if (strncmp(name, "step-", 5) || strspn(name + 5, "0123456789") != strlen(name + 5)) return -1;
    errno = 0;
    const int64_t step = strtoll(name + 5, NULL, 10);
    pn_state_step_name(again, step);
    return !errno && !strcmp(again, name) ? step : -1;
}

pn_status pn_state_latest(const char *dir, int64_t *step) {
    char path[PN_PATH_MAX], *text;
    size_t len;
    *step = -1;
    PN_TRY(pn_path_join(path, dir, "latest"));
    if (!pn_file_exists(path)) return PN_OK;
    PN_TRY(pn_file_read(path, 256, &text, &len));
    while (len && (text[len - 1] == '\n' || text[len - 1] == '\r')) text[--len] = '\0';
    *step = step_of(text);
    free(text);
    PN_CHECK(*step >= 0, PN_FORMAT, "%s: names no step", path);
    return PN_OK;
}

static int newest_first(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

pn_status pn_state_list(const char *dir, int64_t **out, int *n) {
    int room = 0;
    *out = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    PN_CHECK(d || errno == ENOENT, PN_IO, "%s: cannot read this directory: %s", dir, strerror(errno));
    for (struct dirent *e; d && (e = readdir(d));) {
        const int64_t step = step_of(e->d_name);
        if (step < 0) continue;
        if (*n == room) {
            int64_t *fresh = realloc(*out, (size_t)(room = 2 * room + 8) * sizeof *fresh);
            if (!fresh) {
                closedir(d);
                free(*out);
                *out = NULL;
                PN_FAIL(PN_MEMORY, "%s: out of memory", dir);
            }
            *out = fresh;
        }
        (*out)[(*n)++] = step;
    }
    if (d) closedir(d);
    if (*n) qsort(*out, (size_t)*n, sizeof **out, newest_first);
    return PN_OK;
}

pn_status pn_checkpoint_clean(const char *dir) {
    DIR *d = opendir(dir);
    PN_CHECK(d || errno == ENOENT, PN_IO, "%s: cannot read this directory: %s", dir, strerror(errno));
    pn_status s = PN_OK;
    for (struct dirent *e; d && !s && (e = readdir(d));) {
        char path[PN_PATH_MAX];
        const char *dot = strchr(e->d_name, '.');
        if (strncmp(e->d_name, "step-", 5) || !dot) continue; /* step-N.partial, step-N.old */
        s = pn_path_join(path, dir, e->d_name);
        if (!s) s = pn_remove_tree(path);
    }
    if (d) closedir(d);
    return s;
}

pn_status pn_state_remove(const char *dir, int64_t step) {
    char name[PN_STATE_STEP_NAME], old[PN_STATE_STEP_NAME + 4], path[PN_PATH_MAX], aside[PN_PATH_MAX];
    pn_state_step_name(name, step);
    snprintf(old, sizeof old, "%s.old", name);
    PN_TRY(pn_path_join(path, dir, name));
    PN_TRY(pn_path_join(aside, dir, old));
    PN_CHECK(!rename(path, aside) || errno == ENOENT, PN_IO, "%s: cannot move this directory away: %s", path,
             strerror(errno));
    return pn_remove_tree(aside);
}

pn_status pn_state_tidy(const char *dir, int64_t latest, int keep) {
    int64_t *step;
    int n, kept = 0;
    PN_TRY(pn_state_list(dir, &step, &n));
    pn_status s = PN_OK;
    for (int i = 0; i < n && !s; i++) {
        if (step[i] <= latest && kept < keep) /* what is newer was passed over when this run went on */
            kept++;
        else
            s = pn_state_remove(dir, step[i]);
    }
    free(step);
    return s;
}
