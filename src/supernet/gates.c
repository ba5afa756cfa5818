#include "gates.h"

#include <math.h>
#include <stdlib.h>

#include <xxhash.h>

static const char *const anneals[] = { [PN_ANNEAL_EXPONENTIAL] = "exponential", [PN_ANNEAL_LINEAR] = "linear", NULL };
static const char *const budgets[] = { [PN_BUDGET_LIMIT] = "limit", [PN_BUDGET_FREE] = "free", NULL };
static const char *const costs[] = {
    [PN_COST_NONE] = "none", [PN_COST_CACHE_BYTES] = "cache_bytes", [PN_COST_SECONDS] = "seconds", NULL
};

const pn_option pn_gate_option_table[] = {
    PN_OPT_FLOAT(pn_gate_options, learning_rate, 0.1, 0, 100, "of the gates' logits, constant"),
    PN_OPT_FLOAT(pn_gate_options, temperature, 1, 0.001, 1000, "of the softmax over candidates, at the first step"),
    PN_OPT_FLOAT(pn_gate_options, final_temperature, 0.5, 0.001, 1000, "at the last step"),
    PN_OPT_ENUM(pn_gate_options, anneal, "exponential", anneals, "how the temperature falls over the steps"),
    PN_OPT_FLOAT(pn_gate_options, warmup, 0, 0, 1, "fraction of the steps, the first, that train only the branches"),
    PN_OPT_ENUM(pn_gate_options, budget, "limit", budgets,
                "limit: the gates of full attention always sum to search.limits.full_attention; free: to anything"),
    PN_OPT_ENUM(pn_gate_options, cost, "none", costs,
                "term of the loss, expected by the gates, over that of attention in every layer: cache_bytes, or "
                "seconds of decoding a token, measured on this machine (latency)"),
    PN_OPT_FLOAT(pn_gate_options, cost_weight, 1, 0, 1e6, "weight of that term"),
    PN_OPT_INT(pn_gate_options, cost_context, 65536, 1, 1e12, "cost: after this many tokens"),
    PN_OPT_END,
};

int64_t pn_gate_warmup_steps(const pn_gate_options *o, int64_t steps) {
    return (int64_t)(o->warmup * (double)steps);
}

double pn_gate_temperature(const pn_gate_options *o, int64_t step, int64_t steps) {
    int64_t first = pn_gate_warmup_steps(o, steps), last = steps - 1;
    if (step <= first || last <= first) return o->temperature;
    double way = (double)(step - first) / (double)(last - first);
    if (o->anneal == PN_ANNEAL_LINEAR) return o->temperature + way * (o->final_temperature - o->temperature);
    return o->temperature * pow(o->final_temperature / o->temperature, way);
}

uint64_t pn_gate_options_hash(const pn_gate_options *o) {
    const double settings[] = {
        o->learning_rate,  o->temperature,  o->final_temperature, (double)o->anneal,       o->warmup,
        (double)o->budget, (double)o->cost, o->cost_weight,       (double)o->cost_context,
    };
    return XXH3_64bits(settings, sizeof settings);
}

void pn_gate_curve_free(pn_gate_curve *c) {
    free(c->point);
    *c = (pn_gate_curve){ 0 };
}
