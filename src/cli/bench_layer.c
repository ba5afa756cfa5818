#include "bench_layer.h"

#include <stdlib.h>

#include "bench_rates.h"
#include "block_cost.h"
#include "json.h"
#include "progress.h"
#include "timing.h"

static const double most_seconds = 2; /* of one row */

/* A block at work, on the documents of its bench. */
typedef struct work {
    pn_params *params;
    pn_block *block;
    pn_tape *tape;
    pn_tensor *x, *dy; /* [tokens, D]; x wants a gradient when there is a backward pass */
    const pn_docs *docs;
    bool backward;
} work;

static void work_close(work *w) {
    if (w->tape) pn_tape_reset(w->tape);
    pn_tensor_release(&w->x);
    pn_tensor_release(&w->dy);
    pn_tape_destroy(&w->tape);
    pn_block_destroy(&w->block);
    pn_params_destroy(&w->params);
}

static pn_status made_up(pn_tape *t, const int64_t shape[2], pn_tensor **out) {
    const int64_t n = shape[0] * shape[1];
    float *x = malloc((size_t)n * sizeof *x + 1);
    PN_CHECK(x, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 7919 % 2003) / 1001.0f - 1;
    pn_status s = pn_tensor_create(pn_tape_pool(t), pn_tape_dtype(t), 2, shape, out);
    if (!s) s = pn_tensor_write(*out, x, PN_F32);
    free(x);
    return s;
}

static pn_status work_open(const pn_bench_layer_options *o, const pn_docs *docs, const pn_block_spec *spec,
                           bool backward, work *w) {
    const int64_t shape[] = { o->tokens, o->shape->dims.hidden };
    *w = (work){ .docs = docs, .backward = backward };
    PN_TRY(pn_params_create(PN_F32, &w->params));
    PN_TRY(pn_block_create(spec, &o->shape->dims, w->params, "", &w->block));
    PN_TRY(pn_params_init(w->params, 1));
    PN_TRY(pn_params_move(w->params, o->backend, o->type));
    pn_params_train(w->params, "*", backward);
    PN_TRY(pn_params_tape(w->params, &w->tape));
    pn_tape_record(w->tape, backward);
    PN_TRY(made_up(w->tape, shape, &w->x));
    PN_TRY(made_up(w->tape, shape, &w->dy));
    w->x->wants_grad = backward;
    return PN_OK;
}

static pn_status run_once(void *ctx) {
    work *w = ctx;
    pn_carry carry = { 0 };
    pn_tensor *y;
    pn_tape_reset(w->tape);
    PN_TRY(pn_block_forward(w->block, w->tape, w->x, w->docs, &carry, &y));
    if (w->backward && y->wants_grad) PN_TRY(pn_tape_backward_from(w->tape, &y, &w->dy, 1));
    return PN_OK;
}

typedef struct bench {
    const pn_bench_layer_options *o;
    pn_docs docs;
    int64_t offset[PN_BENCH_MOST_SEQUENCES + 1];
    pn_machine machine;
    json_t *rows;
    FILE *out;
} bench;

static pn_status measure(bench *b, const pn_block_spec *spec, bool backward, pn_timing *t) {
    const pn_timing_rule rule = { .clock = b->machine.clock, .warm = 1, .runs = b->o->repeat, .seconds = most_seconds };
    work w;
    pn_status s = work_open(b->o, &b->docs, spec, backward, &w);
    if (!s) s = pn_time_runs(&rule, run_once, &w, t);
    work_close(&w);
    PN_TRY(s);
    return pn_machine_measure(&b->machine);
}

static pn_status row(bench *b, const pn_block_spec *spec, bool backward) {
    const pn_machine *m = &b->machine;
    pn_timing t;
    pn_op_cost cost;
    pn_block_cost of_block;
    PN_TRY(pn_block_spec_pass_cost(spec, &b->o->shape->dims, &b->docs, backward, &cost));
    PN_TRY(pn_block_spec_cost(spec, &b->o->shape->dims, b->o->tokens, 2, &of_block));
    PN_TRY(measure(b, spec, backward, &t));
    const pn_rates r = pn_machine_rates(m, &cost, &t);
    const char *direction = backward ? "both" : "fwd";
    const double speed = (double)b->o->tokens / t.median;
    fprintf(b->out, "%-20s %12.0f %-4s %10.3f %10.3f %10.3f %10.0f %9.2f %7.2f  %s %5.2f\n", spec->type->name,
            of_block.parameters, direction, t.median * 1e3, t.least * 1e3, t.most * 1e3, speed,
            pn_rates_in_unit(m, r.flops), r.bytes / 1e9, r.bound, r.share);
    fflush(b->out);
    json_t *one = json_pack("{s:s, s:s, s:I, s:I, s:f, s:f}", "block", spec->type->name, "direction", direction,
                            "tokens", (json_int_t)b->o->tokens, "sequences", (json_int_t)b->o->sequences, "parameters",
                            of_block.parameters, "tokens_per_second", speed);
    pn_rates_to_json(&r, &cost, &t, "ms", one);
    json_array_append_new(b->rows, one);
    return PN_OK;
}

static pn_status write_json(const bench *b) {
    if (!b->o->json) return PN_OK;
    json_t *root = json_pack("{s:s, s:s, s:o, s:O}", "bench", "layer", "shape", b->o->shape->name, "machine",
                             pn_machine_json(&b->machine), "rows", b->rows);
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(b->o->json, root);
    json_decref(root);
    return s;
}

static pn_status rows(bench *b) {
    fprintf(b->out,
            "block                  parameters dir   median ms     min ms     max ms   tokens/s   %s    GB/s  bound of "
            "it\n",
            pn_rates_unit(&b->machine));
    pn_progress p = pn_progress_begin("bench layer", 0, b->o->n_blocks, "blocks");
    for (int i = 0; i < b->o->n_blocks; i++) {
        pn_progress_update(&p, i, "%s", b->o->block[i].type->name);
        for (int backward = 0; backward < 2; backward++) PN_TRY(row(b, &b->o->block[i], backward));
    }
    pn_progress_end(&p);
    return PN_OK;
}

pn_status pn_bench_layer(const pn_bench_layer_options *o, FILE *out) {
    bench b = { .o = o, .out = out, .rows = json_array() };
    pn_status s = PN_OK;
    for (int64_t i = 0; i <= o->sequences; i++) b.offset[i] = o->tokens * i / o->sequences;
    b.docs = (pn_docs){ .n = o->sequences, .offset = b.offset };
    if (!b.rows) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    PN_TRY_GOTO(s, pn_machine_open(&b.machine, o->backend, o->type), done);
    pn_machine_print(&b.machine, out);
    PN_TRY_GOTO(s, rows(&b), done);
    pn_machine_print(&b.machine, out);
    PN_TRY_GOTO(s, write_json(&b), done);
done:
    json_decref(b.rows);
    pn_machine_free(&b.machine);
    return s;
}
