#include "bench_speed.h"

#include <math.h>

#include "bench_rates.h"
#include "block_cost.h"
#include "json.h"
#include "progress.h"

/* What one pass takes: measured, and at least. */
typedef struct line {
    const char *name;
    int count; /* layers that have it */
    pn_timing timing;
    pn_op_cost cost;
} line;

enum { MOST_LINES = PN_MAX_LAYERS + 2 };

typedef struct bench {
    const pn_bench_speed_options *o;
    const pn_model_config *config;
    pn_machine machine;
    pn_latency *table; /* in memory: everything is measured now */
    pn_progress progress;
    int64_t done;
    json_t *rows;
    FILE *out;
} bench;

/* ---- what a pass must do: every weight read once per step or piece, every state once per step ---- */

static double times_read(const pn_latency_setting *s) {
    return s->pass == PN_LATENCY_DECODE ? 1 : ceil((double)s->context / (double)s->chunk);
}

static pn_status block_cost(const pn_block_spec *spec, const pn_dims *dims, const pn_latency_setting *s,
                            pn_op_cost *out) {
    pn_block_cost c;
    bool decode = s->pass == PN_LATENCY_DECODE;
    const size_t width = pn_dtype_bytes(s->dtype);
    PN_TRY(pn_block_spec_cost(spec, dims, s->context, width, &c));
    out->flops = decode ? (double)s->batch * c.token_flops : (double)pn_latency_sequences(s) * c.prompt_flops;
    out->bytes = (double)width * c.parameters * times_read(s) + (decode ? (double)s->batch * c.state_bytes : 0);
    return PN_OK;
}

/* The MLP: norms and additions are not counted. */
static pn_status rest_cost(const pn_dims *dims, const pn_latency_setting *s, pn_op_cost *out) {
    pn_block_spec mlp;
    PN_TRY(pn_block_spec_default(&pn_block_mlp, &mlp));
    PN_TRY(block_cost(&mlp, dims, s, out));
    return PN_OK;
}

/* Logits of one token per sequence. */
static pn_op_cost ends_cost(const pn_model_config *c, const pn_latency_setting *s) {
    double weights = (double)c->vocab * (double)c->dims.hidden, rows = (double)pn_latency_sequences(s);
    return (pn_op_cost){ .flops = 2 * weights * rows, .bytes = (double)pn_dtype_bytes(s->dtype) * weights };
}

/* ---- rows ---- */

static void show(bench *b, const pn_latency_setting *s, const line *x) {
    const pn_machine *m = &b->machine;
    const pn_rates r = pn_machine_rates(m, &x->cost, &x->timing);
    const double n = x->count;
    fprintf(b->out, "%9lld  %-20s %4d %11.3f %11.3f %11.3f %9.2f %7.2f  %s %5.2f\n", (long long)s->context, x->name,
            x->count, n * x->timing.median * 1e3, n * x->timing.least * 1e3, n * x->timing.most * 1e3,
            pn_rates_in_unit(m, r.flops), r.bytes / 1e9, r.bound, r.share);
    fflush(b->out);
    json_t *row = json_pack("{s:I, s:I, s:s, s:i}", "context", (json_int_t)s->context, "batch", (json_int_t)s->batch,
                            "part", x->name, "layers", x->count);
    pn_rates_to_json(&r, &x->cost, &x->timing, "ms", row);
    json_array_append_new(b->rows, row);
}

/* The mixers of the model, one line each however many layers have it. */
static pn_status mixer_lines(const bench *b, const pn_latency_setting *s, const pn_block_spec **spec, line *out,
                             int *n) {
    const pn_model_config *c = b->config;
    for (int l = 0; l < c->n_layers; l++) {
        int i = 0;
        if (c->layer[l].type == &pn_block_none) continue;
        while (i < *n && !pn_block_spec_equal(spec[i], &c->layer[l])) i++;
        if (i == *n) {
            spec[(*n)++] = &c->layer[l];
            out[i] = (line){ .name = c->layer[l].type->name };
            PN_TRY(block_cost(&c->layer[l], &c->dims, s, &out[i].cost));
        }
        out[i].count++;
    }
    return PN_OK;
}

static void add(const line *x, line *sum) {
    const double n = x->count;
    sum->timing.median += n * x->timing.median;
    sum->timing.least += n * x->timing.least;
    sum->timing.most += n * x->timing.most;
    if (!sum->timing.runs || x->timing.runs < sum->timing.runs) sum->timing.runs = x->timing.runs;
    sum->cost.flops += n * x->cost.flops;
    sum->cost.bytes += n * x->cost.bytes;
}

static void step(bench *b, const char *what) {
    pn_progress_update(&b->progress, b->done++, "%s", what);
}

/* Every part is measured, shown and added up. */
static pn_status parts(bench *b, const pn_latency_setting *s, line *sum) {
    const pn_model_config *c = b->config;
    const pn_block_spec *spec[PN_MAX_LAYERS];
    line row[MOST_LINES];
    int n = 0;
    PN_TRY(mixer_lines(b, s, spec, row, &n));
    for (int i = 0; i < n + 2; i++) {
        if (i == n) row[i] = (line){ .name = "rest of a layer", .count = c->n_layers };
        if (i > n) row[i] = (line){ .name = "embedding and head", .count = 1, .cost = ends_cost(c, s) };
        step(b, row[i].name);
        if (i < n) {
            PN_TRY(pn_latency_block(b->table, spec[i], &c->dims, s, &row[i].timing));
        } else if (i == n) {
            PN_TRY(rest_cost(&c->dims, s, &row[i].cost));
            PN_TRY(pn_latency_rest(b->table, &c->dims, s, &row[i].timing));
        } else {
            PN_TRY(pn_latency_ends(b->table, &c->dims, c->vocab, s, &row[i].timing));
        }
        PN_TRY(pn_machine_measure(&b->machine));
        show(b, s, &row[i]);
        add(&row[i], sum);
    }
    show(b, s, sum);
    return PN_OK;
}

static pn_status one_context(bench *b, int64_t context) {
    const pn_bench_speed_options *o = b->o;
    pn_latency_setting s;
    line sum = { .name = "the sum of the parts", .count = 1 }, whole = { .name = "the whole model", .count = 1 };
    PN_TRY(pn_latency_setting_of(&o->latency, o->pass, context, b->config, &s));
    s.dtype = b->o->model->params->dtype;
    s.prompts = o->prompts;
    PN_TRY(parts(b, &s, &sum));
    step(b, whole.name);
    whole.cost = sum.cost;
    PN_TRY(pn_latency_model(o->model, NULL, &s, &whole.timing));
    PN_TRY(pn_machine_measure(&b->machine));
    show(b, &s, &whole);
    double tokens = pn_latency_tokens(&s), measured = tokens / whole.timing.median, sums = tokens / sum.timing.median;
    fprintf(b->out, "%9lld  %.4g tokens/s; the sum of the parts says %.4g, %+.1f %%\n", (long long)context, measured,
            sums, 100 * (sums / measured - 1));
    return PN_OK;
}

static pn_status write_json(const bench *b) {
    const pn_bench_speed_options *o = b->o;
    if (!o->json) return PN_OK;
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:I, s:o, s:O}", "bench", o->pass == PN_LATENCY_DECODE ? "decode" : "prefill",
                  "model", o->name, "chunk", (json_int_t)o->latency.chunk, "prompts", (json_int_t)o->prompts, "machine",
                  pn_machine_json(&b->machine), "rows", b->rows);
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(o->json, root);
    json_decref(root);
    return s;
}

static pn_status contexts(bench *b) {
    const pn_int_list *context = &b->o->latency.context;
    fprintf(b->out,
            "  context  part               layers   median ms      min ms      max ms   %s    GB/s  bound of it\n",
            pn_rates_unit(&b->machine));
    b->progress = pn_progress_begin(b->o->pass == PN_LATENCY_DECODE ? "bench decode" : "bench prefill", 0, 0, "parts");
    for (int64_t i = 0; i < context->n; i++) PN_TRY(one_context(b, context->item[i]));
    pn_progress_end(&b->progress);
    return PN_OK;
}

pn_status pn_bench_speed(const pn_bench_speed_options *o, FILE *out) {
    bench b = { .o = o, .config = &o->model->config, .out = out, .rows = json_array() };
    pn_status s = PN_OK;
    if (!b.rows) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    const pn_params *on = o->model->params;
    PN_TRY_GOTO(s, pn_latency_open(NULL, NULL, &b.table), done);
    PN_TRY_GOTO(s, pn_latency_on(b.table, on->backend, on->dtype), done);
    PN_TRY_GOTO(s, pn_machine_open(&b.machine, on->backend, on->dtype), done);
    pn_machine_print(&b.machine, out);
    PN_TRY_GOTO(s, contexts(&b), done);
    pn_machine_print(&b.machine, out);
    PN_TRY_GOTO(s, write_json(&b), done);
done:
    json_decref(b.rows);
    pn_latency_close(&b.table);
    pn_machine_free(&b.machine);
    return s;
}
