/* Which step of a state is the newest that is saved. */
#ifndef PN_TESTS_LATEST_STEP_H
#define PN_TESTS_LATEST_STEP_H

#include <stdio.h>
#include <string.h>

#include "files.h"
#include "harness.h"

/* Of the state in `dir`, the one that its `latest` names; -1: there is none. */
static inline int latest_step(const char *dir) {
    char path[PN_PATH_MAX], name[64] = "";
    int step = -1;
    ck_ok(pn_path_join(path, dir, "latest"));
    FILE *f = fopen(path, "r");
    if (!f) return -1;
    name[fread(name, 1, sizeof name - 1, f)] = '\0';
    fclose(f);
    ck_assert_msg(sscanf(name, "step-%d", &step) == 1, "%s: %s", path, name);
    return step;
}

/* Of a stage of a finetune run, from 0; 0: none. */
static inline int latest_step_of_stage(const char *run, int stage) {
    char part[32], dir[PN_PATH_MAX];
    snprintf(part, sizeof part, "state/stage-%d", stage + 1);
    ck_ok(pn_path_join(dir, run, part));
    const int step = latest_step(dir);
    return step < 0 ? 0 : step;
}

#endif
