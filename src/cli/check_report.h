/* The rows of a check: one per file (or model, or case) and implementation, each quantity as worst error/limit. */
#ifndef PN_CLI_CHECK_REPORT_H
#define PN_CLI_CHECK_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "status.h"

typedef struct pn_report {
    FILE *out;
    int passed, failed;
} pn_report;

typedef struct pn_row {
    const char *subject, *impl; /* borrowed */
    bool ok;
    size_t len;
    char text[2048];
} pn_row;

/* The worst of several errors, and whose it is. */
typedef struct pn_worst {
    int n;
    double error;
    char name[96];
} pn_worst;

pn_row pn_row_start(const char *subject, const char *impl);
/* "y 1.2e-07/1e-05", with ! when the error is beyond the limit (NaN is). */
void pn_row_error(pn_row *r, const char *what, double error, double limit);
/* The same with the name of the worst: "grad 1.2e-06/2e-05 (q_proj.weight)"; nothing when it is of no errors. */
void pn_row_worst(pn_row *r, const char *what, const pn_worst *worst, double limit);
/* Fails the row with a reason. */
void pn_row_fail(pn_row *r, const char *format, ...) PN_PRINTF(2, 3);
/* Prints the row and counts it. */
void pn_row_end(pn_report *report, const pn_row *r);
/* A line that counts neither way. */
void pn_row_skip(pn_report *report, const char *subject, const char *why);

void pn_worst_take(pn_worst *w, const char *name, double error);

/* "N passed, M failed"; PN_MISMATCH when M > 0. */
pn_status pn_report_end(const pn_report *report);

#endif
