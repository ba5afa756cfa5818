#include "bench_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_rates.h"
#include "json.h"
#include "op_case.h"
#include "progress.h"
#include "timing.h"

enum {
    MOST_COPIES = 64,
    /* Bytes that the runs go round in: what a step of training touches between two of them. */
    WORKING_SET = 64 << 20,
    GPU_WORKING_SET = 256 << 20,
};
static const double most_seconds = 2, most_gpu_seconds = 0.1; /* of one row */

typedef struct bench {
    const pn_bench_ops_options *o;
    pn_machine machine;
    pn_progress progress;
    int64_t done;
    json_t *rows;
    FILE *out;
} bench;

/* Copies of one call, used in turn so that a run does not find its operands where the last one left them. */
typedef struct ring {
    pn_case_call copy[MOST_COPIES];
    int n, at; /* the first owns the scratch of whichever runs, as on a tape */
} ring;

static void ring_free(ring *r) {
    for (int i = 0; i < r->n; i++) pn_case_call_free(&r->copy[i]);
}

static double bytes_of(const pn_op_call *c) {
    double n = 0;
    for (int i = 0; i < PN_OP_IN; i++) {
        n += c->in[i] ? (double)pn_tensor_bytes(c->in[i]) : 0;
        n += c->din[i] ? (double)pn_tensor_bytes(c->din[i]) : 0;
    }
    for (int i = 0; i < PN_OP_OUT; i++) {
        n += c->out[i] ? (double)pn_tensor_bytes(c->out[i]) : 0;
        n += c->dout[i] ? (double)pn_tensor_bytes(c->dout[i]) : 0;
    }
    return n;
}

static pn_status ring_make(const pn_bench_ops_options *o, const pn_op *op, const pn_op_case *c, ring *r) {
    const bool gpu = o->backend == PN_CUDA;
    memset(r, 0, sizeof *r);
    r->n = 1;
    PN_TRY(pn_case_call_make(op, c, o->backend, o->type, &r->copy[0]));
    double copies = ceil((gpu ? GPU_WORKING_SET : WORKING_SET) / (bytes_of(&r->copy[0].call) + 1));
    int n = copies < MOST_COPIES ? (int)copies : MOST_COPIES;
    while (r->n < n) {
        r->n++;
        PN_TRY(pn_case_call_copy(&r->copy[0], pn_backend_pool(o->backend), &r->copy[r->n - 1]));
    }
    return PN_OK;
}

static pn_status ring_scratch(ring *r, const pn_op_impl *impl, bool backward) {
    pn_status s = pn_case_call_scratch(&r->copy[0], impl, backward);
    for (int i = 1; i < r->n; i++) r->copy[i].call.scratch = r->copy[0].call.scratch;
    return s;
}

/* One implementation in one direction, to run again and again. */
typedef struct work {
    ring *ring;
    const pn_op_impl *impl;
    bool backward;
} work;

static pn_status run_once(void *ctx) {
    const work *w = ctx;
    const pn_op_call *c = &w->ring->copy[w->ring->at].call;
    w->ring->at = (w->ring->at + 1) % w->ring->n;
    return w->backward ? w->impl->backward(c) : w->impl->forward(c);
}

static pn_status time_runs(bench *b, ring *r, const pn_op_impl *impl, bool backward, pn_timing *out) {
    work w = { r, impl, backward };
    const pn_timing_rule rule = {
        .clock = b->machine.clock,
        .warm = r->n,
        .runs = b->o->repeat,
        .seconds = b->o->backend == PN_CUDA ? most_gpu_seconds : most_seconds,
        .sample = b->machine.sample,
    }; /* the warm-up goes round once: forward fills what backward reads */
    PN_TRY(ring_scratch(r, impl, backward));
    PN_TRY(pn_time_runs(&rule, run_once, &w, out));
    return PN_OK;
}

static pn_status check_finite(const pn_op_impl *impl, const pn_op_case *c, const pn_tensor *t, const char *what,
                              int i) {
    if (!t || t->dtype == PN_I32) return PN_OK;
    int64_t n = pn_tensor_elems(t), bad = 0;
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    PN_CHECK(x, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(t, x, PN_F32);
    while (!s && bad < n && isfinite(x[bad])) bad++;
    free(x);
    PN_TRY(s);
    PN_CHECK(bad == n, PN_MISMATCH, "%s, %s: %s %d is not finite at element %lld", impl->name, c->name, what, i,
             (long long)bad);
    return PN_OK;
}

static void print_head(const bench *b) {
    fprintf(b->out,
            "implementation             shape                      dir  median us     min us     max us   %s   GB/s  "
            " gemm strm bound of it\n",
            pn_rates_unit(&b->machine));
}

static void report(bench *b, const pn_op_impl *impl, const pn_op_case *c, bool backward, const pn_op_cost *cost,
                   const pn_timing *t) {
    const pn_machine *m = &b->machine;
    const pn_rates r = pn_machine_rates(m, cost, t);
    const char *direction = backward ? "bwd" : "fwd";
    fprintf(b->out, "%-26s %-26s %s %10.2f %10.2f %10.2f %9.2f %7.2f %5.2f %4.2f %s %5.2f\n", impl->name, c->name,
            direction, t->median * 1e6, t->least * 1e6, t->most * 1e6, pn_rates_in_unit(m, r.flops), r.bytes / 1e9,
            r.product, r.stream, r.bound, r.share);
    fflush(b->out);
    json_t *row = json_pack("{s:s, s:s, s:s, s:s}", "op", impl->name, "shape", c->name, "direction", direction, "clock",
                            m->backend == PN_CPU && m->threads == 1 ? "thread" : "wall");
    pn_rates_to_json(&r, cost, t, "us", row);
    json_array_append_new(b->rows, row);
}

static pn_status measure(bench *b, const pn_op *op, const pn_op_case *c, const pn_op_impl *impl, ring *r) {
    bool wants = false;
    for (int i = 0; i < c->n_in; i++) wants = wants || r->copy[0].call.wants[i];
    for (int backward = 0; backward <= (wants && impl->backward); backward++) {
        pn_timing timing;
        pn_progress_update(&b->progress, b->done, "%s, %s", impl->name, c->name);
        PN_TRY(time_runs(b, r, impl, backward, &timing));
        PN_TRY(pn_machine_measure(&b->machine));
        pn_op_cost cost = { 0 };
        op->contract->cost(&r->copy[0].call, backward, &cost);
        report(b, impl, c, backward, &cost, &timing);
    }
    for (int i = 0; i < PN_OP_OUT; i++) PN_TRY(check_finite(impl, c, r->copy[0].call.out[i], "output", i));
    for (int i = 0; i < PN_OP_IN; i++) PN_TRY(check_finite(impl, c, r->copy[0].call.din[i], "gradient of input", i));
    return PN_OK;
}

static pn_status bench_case(bench *b, const pn_op *op, const pn_op_case *c) {
    ring *r = calloc(1, sizeof *r); /* too large for a stack */
    PN_CHECK(r, PN_MEMORY, "out of memory");
    pn_status s = ring_make(b->o, op, c, r);
    bool enough = false;
    for (const pn_op_impl *const *impl = op->impl[b->o->backend]; *impl && !s && !enough; impl++) {
        if (!pn_op_takes(*impl, &r->copy[0].call)) continue;
        s = measure(b, op, c, *impl, r);
        enough = b->o->chosen;
    }
    ring_free(r);
    free(r);
    b->done++;
    return s;
}

/* All cases in the order they run; run: false only counts them. */
static pn_status walk(bench *b, bool run, int64_t *count) {
    int n_ops = b->o->n_ops;
    const pn_op *const *ops = n_ops ? b->o->ops : pn_op_list(&n_ops);
    pn_bench_case c;
    *count = 0;
    for (int i = 0; i < n_ops; i++)
        for (int t = 0; t < b->o->n_tokens; t++)
            for (int k = 0; pn_bench_case_at(ops[i], b->o->shape, b->o->tokens[t], b->o->sequences, k, &c); k++) {
                if (b->o->only && !strstr(c.op_case.name, b->o->only)) continue;
                if (run) PN_TRY(bench_case(b, ops[i], &c.op_case));
                ++*count;
            }
    return PN_OK;
}

static pn_status write_json(const bench *b) {
    if (!b->o->json) return PN_OK;
    json_t *root = json_pack("{s:s, s:s, s:o, s:O}", "bench", "ops", "shape", b->o->shape->name, "machine",
                             pn_machine_json(&b->machine), "rows", b->rows);
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(b->o->json, root);
    json_decref(root);
    return s;
}

pn_status pn_bench_ops(const pn_bench_ops_options *o, FILE *out) {
    PN_ASSERT(o->repeat >= PN_TIMING_LEAST_RUNS && o->repeat <= PN_TIMING_MOST_RUNS);
    bench b = { .o = o, .out = out, .rows = json_array() };
    int64_t total;
    pn_status s = PN_OK;
    if (!b.rows) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    PN_TRY_GOTO(s, walk(&b, false, &total), done);
    if (!total && o->only)
        PN_FAIL_GOTO(s, PN_USAGE, done, "postnas bench ops: no shape has %s in its name; run it without --only",
                     o->only);
    PN_TRY_GOTO(s, pn_machine_open(&b.machine, o->backend, o->type), done);
    pn_machine_print(&b.machine, out);
    print_head(&b);
    b.progress = pn_progress_begin("bench ops", 0, total, "shapes");
    PN_TRY_GOTO(s, walk(&b, true, &total), done);
    pn_progress_end(&b.progress);
    pn_machine_print(&b.machine, out);
    PN_TRY_GOTO(s, write_json(&b), done);
done:
    json_decref(b.rows);
    pn_machine_free(&b.machine);
    return s;
}
