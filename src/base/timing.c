#include "timing.h"

#include <stdlib.h>

#include "clock.h"
#include "signals.h"
#include "threads.h"

static const double least_sample = 2e-4;

double (*pn_timing_clock(void))(void) {
    return pn_threads() == 1 ? pn_thread_cpu_seconds : pn_seconds;
}

const char *pn_timing_clock_name(void) {
    return pn_threads() == 1 ? "thread processor time" : "wall time";
}

static int ascending(const void *a_, const void *b_) {
    double a = *(const double *)a_, b = *(const double *)b_;
    return (a > b) - (a < b);
}

static pn_status run_together(const pn_timing_rule *rule, int64_t together, pn_status (*run)(void *ctx), void *ctx,
                              double *took) {
    double began = rule->clock();
    for (int64_t i = 0; i < together; i++) PN_TRY(run(ctx));
    *took = rule->clock() - began;
    return PN_OK;
}

pn_status pn_time_runs(const pn_timing_rule *rule, pn_status (*run)(void *ctx), void *ctx, pn_timing *out) {
    PN_ASSERT(rule->warm >= 1 && rule->runs >= 1 && rule->runs <= PN_TIMING_MOST_RUNS);
    double sample[PN_TIMING_MOST_RUNS], took, spent = 0;
    int64_t n = 0;
    PN_TRY(run_together(rule, rule->warm, run, ctx, &took));
    double estimate = took / (double)rule->warm;
    if (rule->sample > 0) { /* a warm-up may have loaded libraries and made plans */
        PN_TRY(run_together(rule, rule->warm, run, ctx, &took));
        estimate = took / (double)rule->warm;
    }
    const double sample_seconds = rule->sample > 0 ? rule->sample : least_sample;
    int64_t together = estimate < sample_seconds ? (int64_t)(sample_seconds / (estimate + 1e-9)) + 1 : 1;
    while (n < rule->runs && (!n || spent < (n < PN_TIMING_LEAST_RUNS ? 3 : 1) * rule->seconds)) {
        PN_CHECK(!pn_interrupted(), PN_INTERRUPTED, "stopped by a signal while measuring");
        PN_TRY(run_together(rule, together, run, ctx, &took));
        spent += took;
        sample[n++] = took / (double)together;
    }
    qsort(sample, (size_t)n, sizeof *sample, ascending);
    *out = (pn_timing){ .median = sample[n / 2], .least = sample[0], .most = sample[n - 1], .runs = n };
    return PN_OK;
}
