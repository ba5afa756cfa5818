/* What a row of a bench says beside its times: rates at the median, and how near they are to what the machine can do.
 */
#ifndef PN_CLI_BENCH_RATES_H
#define PN_CLI_BENCH_RATES_H

#include "bench_machine.h"

typedef struct pn_rates {
    double flops, bytes;    /* per second */
    double product, stream; /* of the machine's */
    double share;           /* the least time the machine could take over the median: 1 is as fast as the machine */
    double spread;          /* slowest less fastest, over the median */
    const char *bound;      /* "flops" or "bytes", whichever would take the machine longer */
} pn_rates;

/* Of `cost`, done once in what `t` says of a run. */
pn_rates pn_machine_rates(const pn_machine *m, const pn_op_cost *cost, const pn_timing *t);

/* Tables give flops per second in tera on a GPU and in giga on a CPU: the unit's name, and a rate in it. */
const char *pn_rates_unit(const pn_machine *m);
double pn_rates_in_unit(const pn_machine *m, double flops_per_second);

/* Adds to a row: median_us, min_us, max_us (unit "us"; "ms" likewise), runs, flops, bytes, tflops and
 * gbytes_per_second, bound, share_of_bound, spread. */
void pn_rates_to_json(const pn_rates *r, const pn_op_cost *cost, const pn_timing *t, const char *unit, json_t *row);

#endif
