#include "bench_train.h"

#include <stdlib.h>
#include <string.h>

#include "attention/attention_vary.h"
#include "bench_rates.h"
#include "json.h"
#include "mixture.h"
#include "model_load.h"
#include "profile.h"
#include "search_config.h"
#include "supernet.h"

enum { SHOWN = 24, MACHINE_SAMPLES = 3 };
static const double most_seconds = 30; /* of the timed runs, unless they would be fewer than three */

/* What is trained. */
typedef struct job {
    pn_search_config config; /* of a file; for a shape only `supernet` holds anything */
    pn_tokenizer *tokenizer;
    pn_mixture *mixture;
    pn_model *net;
    pn_latency *latency; /* in memory: of gates with cost seconds */
    pn_supernet_result trained;
} job;

static pn_train_options *options_of(job *j) {
    return &j->config.supernet.phase[0].train;
}

static void job_free(job *j) {
    pn_supernet_result_free(&j->trained);
    pn_latency_close(&j->latency);
    pn_model_destroy(&j->net);
    pn_mixture_destroy(&j->mixture);
    pn_tokenizer_destroy(&j->tokenizer);
    pn_search_config_free(&j->config);
}

static pn_status job_from_config(pn_config *file, int64_t steps, job *j) {
    PN_TRY(pn_search_config_read(file, &j->config));
    PN_TRY(pn_tokenizer_open(j->config.top.model, &j->tokenizer));
    PN_TRY(pn_search_config_mixture(&j->config, j->tokenizer, &j->mixture));
    PN_TRY(pn_model_load(j->config.top.model, PN_F32, &j->net));
    PN_TRY(pn_supernet_build(j->net, j->config.blocks, j->config.n_blocks, j->config.limit[PN_KIND_NONE] > 0,
                             (uint64_t)j->config.top.seed));
    j->config.supernet.n_phases = 1;
    options_of(j)->tokens = steps * options_of(j)->batch_tokens;
    return PN_OK;
}

/* As configs/smollm2-135m-cpu.yaml trains: Gated DeltaNet with as many heads of the same width, layer by layer. */
static pn_status job_from_shape(const pn_bench_train_options *o, job *j) {
    static const char *const specials[] = { "<|endoftext|>" };
    static const char *const settings =
        "{ mode: local, order: layer, store: bf16, learning_rate: 1e-3, warmup: 0.05, weight_decay: 0 }";
    char yaml[512];
    snprintf(yaml, sizeof yaml, "supernet: %s\nblock: { expand_v: 1 }\nmixture:\n  - { skill: text, weight: 1 }\n",
             settings);
    PN_TRY(pn_tokenizer_bytes(specials, 1, &j->tokenizer));
    pn_block_spec attention;
    PN_TRY(pn_block_spec_default(&pn_block_attention, &attention));
    PN_TRY(pn_bench_shape_model(o->shape, o->layers, &attention, 1, &j->net));
    pn_config *c = NULL;
    pn_block_spec block;
    pn_status s = pn_config_parse("bench", yaml, &c);
    const pn_mixture_config base = {
        .tokenizer = j->tokenizer, .frame = pn_doc_frame_default(j->tokenizer), .sequence_length = o->tokens, .seed = 1
    };
    if (!s) s = pn_supernet_config_read(c, "supernet", &j->config.supernet);
    if (!s) s = pn_block_spec_default(&pn_block_gated_deltanet, &block);
    if (!s) s = pn_config_read(c, "block", pn_block_gated_deltanet.options, block.options);
    if (!s) s = pn_mixture_read(c, "mixture", &base, &j->mixture);
    if (!s) s = pn_supernet_build(j->net, &block, 1, false, 1);
    pn_config_destroy(&c);
    options_of(j)->deterministic = !pn_attention_varies();
    options_of(j)->batch_tokens = o->tokens;
    options_of(j)->tokens = o->steps * o->tokens;
    return s;
}

typedef struct result {
    double seconds, measured; /* of everything, with a profile; inside its rows */
    pn_timing all;            /* of everything without: on the GPU a profile waits after every op */
    double layer_tokens, steps;
    pn_op_cost cost;
    const pn_profile_row *row;
    int n_rows;
} result;

typedef struct work {
    job *job;
    pn_supernet_job train;
} work;

static pn_status run_once(void *ctx) {
    work *w = ctx;
    pn_supernet_result_free(&w->job->trained);
    return pn_supernet_train(w->job->net, &w->train, &w->job->trained);
}

/* Every run trains on from the last: the speed is the same. */
static pn_status train(job *j, const pn_machine *m, int64_t repeat, result *r) {
    PN_TRY(pn_latency_open(NULL, j->config.latency.table, &j->latency));
    PN_TRY(pn_latency_on(j->latency, m->backend, m->type));
    work w = { .job = j,
               .train = { .config = &j->config.supernet,
                          .mixture = j->mixture,
                          .seed = 1,
                          .latency = j->latency,
                          .latency_options = &j->config.latency } };
    const pn_timing_rule rule = { .clock = m->clock, .warm = 1, .runs = repeat, .seconds = most_seconds };
    PN_TRY(pn_time_runs(&rule, run_once, &w, &r->all));
    pn_profile_start(m->clock);
    const double began = m->clock();
    pn_status s = run_once(&w);
    r->seconds = m->clock() - began;
    pn_profile_stop();
    PN_TRY(s);
    r->layer_tokens = (double)options_of(j)->tokens * j->net->config.n_layers;
    r->steps = (double)options_of(j)->tokens / (double)options_of(j)->batch_tokens;
    r->row = pn_profile_rows(&r->n_rows);
    for (int i = 0; i < r->n_rows; i++) {
        r->measured += r->row[i].seconds;
        r->cost.flops += r->row[i].cost.flops;
        r->cost.bytes += r->row[i].cost.bytes;
    }
    return PN_OK;
}

static void print_row(const pn_machine *m, const result *r, const char *name, const char *direction, int64_t calls,
                      double seconds, const pn_op_cost *cost, FILE *out) {
    fprintf(out, "%-28s %-3s %9lld %10.3f %6.1f %%", name, direction, (long long)calls, seconds,
            100 * seconds / r->seconds);
    if (cost)
        fprintf(out, " %9.2f %7.2f  %s %5.2f", pn_rates_in_unit(m, cost->flops / seconds), cost->bytes / seconds / 1e9,
                pn_machine_bound_by_flops(m, cost) ? "flops" : "bytes", pn_machine_floor(m, cost) / seconds);
    fputc('\n', out);
}

static void print(const job *j, const pn_machine *m, const result *r, FILE *out) {
    const pn_train_options *train = &j->config.supernet.phase[0].train;
    pn_machine_print(m, out);
    fprintf(out, "implementation               dir     calls    seconds    share   %s    GB/s  bound of it\n",
            pn_rates_unit(m));
    double rest = r->seconds - r->measured;
    for (int i = 0; i < r->n_rows; i++) {
        const pn_profile_row *x = &r->row[i];
        if (i < SHOWN)
            print_row(m, r, x->name, x->backward ? "bwd" : "fwd", x->calls, x->seconds, &x->cost, out);
        else
            rest += x->seconds;
    }
    print_row(m, r, "everything else", "", 0, rest, NULL, out);
    const double speed = r->layer_tokens / r->all.median, step_ms = 1e3 / r->steps;
    const pn_rates rates = pn_machine_rates(m, &r->cost, &r->all);
    fprintf(out,
            "%.0f steps of %lld tokens, %d layers: median %.2f s (%.2f .. %.2f, %lld runs), a step %.1f ms, "
            "%.0f layer-tokens/s (%.1f tokens/s through all layers)\n"
            "useful work %.1f %s, %.3f of the product; %.1f GB/s; %.3f of what %s allow\n",
            r->steps, (long long)train->batch_tokens, j->net->config.n_layers, r->all.median, r->all.least, r->all.most,
            (long long)r->all.runs, r->all.median * step_ms, speed, speed / j->net->config.n_layers,
            pn_rates_in_unit(m, rates.flops), pn_rates_unit(m), rates.product, rates.bytes / 1e9, rates.share,
            rates.bound);
}

static pn_status write_json(const pn_bench_train_options *o, const pn_machine *m, const result *r) {
    if (!o->json) return PN_OK;
    json_t *rows = json_array();
    for (int i = 0; i < r->n_rows; i++) {
        const pn_profile_row *x = &r->row[i];
        json_array_append_new(rows, json_pack("{s:s, s:s, s:I, s:f, s:f, s:f}", "op", x->name, "direction",
                                              x->backward ? "bwd" : "fwd", "calls", (json_int_t)x->calls, "seconds",
                                              x->seconds, "flops", x->cost.flops, "bytes", x->cost.bytes));
    }
    const pn_rates rates = pn_machine_rates(m, &r->cost, &r->all);
    json_t *root = json_pack("{s:s, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "bench", "train", "machine",
                             pn_machine_json(m), "steps", r->steps, "seconds", r->all.median, "profiled_seconds",
                             r->seconds, "layer_tokens_per_second", r->layer_tokens / r->all.median, "useful_gflops",
                             rates.flops / 1e9, "of_sgemm", rates.product, "of_product", rates.product, "rows", rows);
    if (root) pn_rates_to_json(&rates, &r->cost, &r->all, "ms", root); /* of all steps */
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(o->json, root);
    json_decref(root);
    return s;
}

pn_status pn_bench_train(const pn_bench_train_options *o, FILE *out) {
    job j = { 0 };
    pn_machine machine = { 0 };
    result r = { 0 };
    pn_status s = PN_OK;
    PN_TRY_GOTO(s, o->config ? job_from_config(o->config, o->steps, &j) : job_from_shape(o, &j), done);
    PN_TRY_GOTO(s, pn_params_move(j.net->params, o->backend, o->type), done);
    PN_TRY_GOTO(s, pn_machine_open(&machine, o->backend, o->type), done);
    for (int i = 0; i < MACHINE_SAMPLES; i++) PN_TRY_GOTO(s, pn_machine_measure(&machine), done);
    PN_TRY_GOTO(s, train(&j, &machine, o->repeat, &r), done);
    for (int i = 0; i < MACHINE_SAMPLES; i++) PN_TRY_GOTO(s, pn_machine_measure(&machine), done);
    print(&j, &machine, &r, out);
    PN_TRY_GOTO(s, write_json(o, &machine, &r), done);
done:
    pn_machine_free(&machine);
    job_free(&j);
    return s;
}
