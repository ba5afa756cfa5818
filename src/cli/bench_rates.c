#include "bench_rates.h"

#include <string.h>

pn_rates pn_machine_rates(const pn_machine *m, const pn_op_cost *cost, const pn_timing *t) {
    const double flops = cost->flops / t->median, bytes = cost->bytes / t->median;
    return (pn_rates){ .flops = flops,
                       .bytes = bytes,
                       .product = flops / m->gemm,
                       .stream = bytes / m->stream,
                       .share = pn_machine_floor(m, cost) / t->median,
                       .spread = (t->most - t->least) / t->median,
                       .bound = pn_machine_bound_by_flops(m, cost) ? "flops" : "bytes" };
}

const char *pn_rates_unit(const pn_machine *m) {
    return m->backend == PN_CUDA ? "TFLOP/s" : "GFLOP/s";
}
double pn_rates_in_unit(const pn_machine *m, double flops_per_second) {
    return flops_per_second / (m->backend == PN_CUDA ? 1e12 : 1e9);
}

static void set_time(json_t *row, const char *name, const char *unit, double seconds) {
    char key[32];
    snprintf(key, sizeof key, "%s_%s", name, unit);
    json_object_set_new(row, key, json_real(seconds * (strcmp(unit, "us") ? 1e3 : 1e6)));
}

void pn_rates_to_json(const pn_rates *r, const pn_op_cost *cost, const pn_timing *t, const char *unit, json_t *row) {
    set_time(row, "median", unit, t->median);
    set_time(row, "min", unit, t->least);
    set_time(row, "max", unit, t->most);
    json_object_set_new(row, "runs", json_integer((json_int_t)t->runs));
    json_object_set_new(row, "flops", json_real(cost->flops));
    json_object_set_new(row, "bytes", json_real(cost->bytes));
    json_object_set_new(row, "tflops", json_real(r->flops / 1e12));
    json_object_set_new(row, "gbytes_per_second", json_real(r->bytes / 1e9));
    json_object_set_new(row, "bound", json_string(r->bound));
    json_object_set_new(row, "share_of_bound", json_real(r->share));
    json_object_set_new(row, "spread", json_real(r->spread));
}
