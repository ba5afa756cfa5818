/* What this machine can do, measured in the same run and with the same threads as what is compared with it: OpenBLAS's
 * sgemm on 2048 x 2048 matrices, and the triad a = b + s c on arrays beyond the caches.
 *
 * Several measurements are taken over a run and the best of each counts, as it does for what is measured against them:
 * what other programs take away then cancels as far as it can. One thread is timed by its own processor time, so that
 * time slices of others do not count; several threads by the clock on the wall. */
#ifndef PN_CLI_BENCH_MACHINE_H
#define PN_CLI_BENCH_MACHINE_H

#include <jansson.h>

#include "op.h"

typedef struct pn_machine {
    double (*clock)(void); /* seconds */
    int threads;
    double sgemm;  /* flops per second, the best so far */
    double stream; /* bytes per second, likewise: three arrays, each element read or written once */
    int64_t stream_bytes;
    float *buffer; /* the triad's arrays, then the matrices; owned */
} pn_machine;

/* Takes its memory and measures once. Free it either way. */
pn_status pn_machine_open(pn_machine *m);
void pn_machine_measure(pn_machine *m); /* once more */
void pn_machine_free(pn_machine *m);

/* The least time of a cost: as many flops as sgemm does, as many bytes as the triad moves, whichever takes longer. */
double pn_machine_floor(const pn_machine *m, const pn_op_cost *cost);
bool pn_machine_bound_by_flops(const pn_machine *m, const pn_op_cost *cost);

/* The line that heads a table, and the same as JSON (the caller owns it). */
void pn_machine_print(const pn_machine *m, FILE *out);
json_t *pn_machine_json(const pn_machine *m);

#endif
