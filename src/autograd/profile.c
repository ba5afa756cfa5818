#include "profile.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS = 128 }; /* two directions of every implementation there is, and to spare */

static double (*now)(void); /* NULL: no profile runs */
static pn_profile_row rows[ROWS];
static int n_rows;

void pn_profile_start(double (*clock)(void)) {
    n_rows = 0;
    now = clock;
}

void pn_profile_stop(void) {
    now = NULL;
}

bool pn_profile_runs(void) {
    return now != NULL;
}

double pn_profile_begin(void) {
    return now ? now() : 0;
}

static pn_profile_row *row_of(const char *name, bool backward) {
    for (int i = 0; i < n_rows; i++)
        if (rows[i].backward == backward && !strcmp(rows[i].name, name)) return &rows[i];
    PN_ASSERT(n_rows < ROWS);
    rows[n_rows] = (pn_profile_row){ .name = name, .backward = backward };
    return &rows[n_rows++];
}

void pn_profile_end(double began, const char *name, bool backward, const pn_op_cost *cost) {
    if (!now) return;
    pn_profile_row *row = row_of(name, backward);
    row->calls++;
    row->seconds += now() - began;
    if (!cost) return;
    row->cost.flops += cost->flops;
    row->cost.bytes += cost->bytes;
}

static int longer_first(const void *a_, const void *b_) {
    const pn_profile_row *a = a_, *b = b_;
    return (a->seconds < b->seconds) - (a->seconds > b->seconds);
}

const pn_profile_row *pn_profile_rows(int *n) {
    qsort(rows, (size_t)n_rows, sizeof *rows, longer_first);
    *n = n_rows;
    return rows;
}
