#include "bench_step.h"

#include <stdlib.h>
#include <string.h>

#include "bench_gpu.h"
#include "attention/attention_vary.h"
#include "bench_rates.h"
#include "clock.h"
#include "device.h"
#include "distill.h"
#include "json.h"
#include "memory.h"
#include "optimizer.h"
#include "profile.h"
#include "step.h"

enum { SHOWN = 28 }; /* rows of the profile */
/* Of the start: when each was made. */
enum { WEIGHTS, OPTIMIZER, PLAN, PHASES };

typedef struct bench {
    const pn_bench_step_options *o;
    pn_machine machine;
    pn_model *student, *teacher;
    pn_tape *tape;
    pn_adamw *optim;
    pn_step pass;
    pn_batch batch;
    pn_timing step;
    pn_recompute recompute;
    double planned;      /* bytes of a step; 0: not asked for */
    double first;        /* seconds from the start to the end of the first step */
    double used;         /* bytes of the GPU, at the most */
    double made[PHASES]; /* seconds of the clock */
    FILE *out;
} bench;

static void bench_free(bench *b) {
    pn_batch_free(&b->batch);
    pn_step_close(&b->pass);
    pn_adamw_destroy(&b->optim);
    pn_tape_destroy(&b->tape);
    pn_model_destroy(&b->teacher);
    pn_model_destroy(&b->student);
    pn_machine_free(&b->machine);
}

static pn_status make_models(bench *b) {
    const pn_bench_step_options *o = b->o;
    const bool stage1 = o->stage == 1;
    PN_TRY(pn_bench_shape_model(o->shape, o->layers, o->block, o->n_blocks, &b->student));
    pn_params_train(b->student->params, "*", !stage1);
    pn_params_train(b->student->params, "*.self_attn.*", true);
    if (stage1) PN_TRY(pn_bench_teacher(b->student, &b->teacher));
    PN_TRY(pn_params_move(b->student->params, o->on.backend, o->on.dtype));
    if (stage1) PN_TRY(pn_params_move(b->teacher->params, o->on.backend, o->on.dtype));
    return PN_OK;
}

static pn_status make_optimizer(bench *b) {
    static const pn_adamw_settings settings = { 0.9, 0.95, 1e-8, 0.01, 1 };
    PN_TRY(pn_params_tape(b->student->params, &b->tape));
    PN_TRY(pn_optimizer_create(b->student->params, NULL, &settings, &b->optim));
    PN_TRY(pn_step_open(&b->pass, b->tape, b->optim));
    return PN_OK;
}

static pn_status make_batch(bench *b) {
    const int64_t tokens = b->o->tokens, n = b->o->sequences;
    int32_t *ids = malloc((size_t)tokens * sizeof *ids);
    int64_t *offset = malloc((size_t)(n + 1) * sizeof *offset);
    pn_status s = PN_OK;
    if (!ids || !offset) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int64_t i = 0; i < tokens; i++) ids[i] = (int32_t)(i * 7919 % b->o->shape->vocab);
    for (int64_t i = 0; i <= n; i++) offset[i] = tokens * i / n;
    PN_TRY_GOTO(s, pn_batch_from_ids(ids, offset, n, &b->batch), done);
done:
    free(ids);
    free(offset);
    return s;
}

static pn_distill pass_of(const bench *b) {
    static const pn_loss_weights stage1 = { .kl = 1, .feature = 1, .temperature = 1 }, stage2 = { .ce = 1 };
    const pn_distill pass = { .student = b->student,
                              .teacher = b->teacher,
                              .weights = b->teacher ? &stage1 : &stage2,
                              .recompute = b->recompute };
    return pass;
}

static pn_status planned_step(void *ctx, const pn_recompute *r, double *bytes) {
    bench *b = ctx;
    pn_tape *plan;
    b->recompute = *r;
    const pn_distill pass = pass_of(b);
    PN_TRY(pn_params_tape_plan(b->student->params, &plan));
    pn_status s = pn_pass_plan(plan, &pass, &b->batch, bytes);
    pn_tape_destroy(&plan);
    return s;
}

static pn_status choose_recompute(bench *b) {
    double budget;
    b->recompute.level = b->o->recompute == PN_RECOMPUTE_AUTO ? PN_RECOMPUTE_NONE : b->o->recompute;
    if (b->o->on.backend != PN_CUDA) return PN_OK;
    PN_TRY(pn_memory_budget(b->o->memory_gb, &budget));
    if (b->o->memory_gb == 0)
        budget -= (double)pn_gpu_bench_bytes(b->o->on.dtype); /* which the machine is measured with, beside the step */
    if (b->o->recompute == PN_RECOMPUTE_AUTO)
        PN_TRY(pn_recompute_fit(b->student->config.n_layers, budget, planned_step, b, &b->recompute));
    const pn_recompute chosen = b->recompute;
    return planned_step(b, &chosen, &b->planned);
}

static pn_status settle(bench *b) {
    pn_loss_parts losses;
    double norm;
    return b->pass.open ? pn_step_settle(&b->pass, &losses, &norm) : PN_OK;
}

/* As the trainer does it: the step before is waited for when the forward pass has been asked for. */
static pn_status run_step(void *ctx) {
    bench *b = ctx;
    const pn_distill pass = pass_of(b);
    pn_tape_reset(b->tape);
    PN_TRY(pn_step_forward(&b->pass, &pass, &b->batch));
    PN_TRY(settle(b));
    PN_TRY(pn_step_update(&b->pass, 1e-5));
    return PN_OK;
}

static pn_status measure(bench *b, double began) {
    const pn_compute *on = &b->o->on;
    pn_device_info gpu;
    PN_TRY(run_step(b));
    PN_TRY(settle(b));
    b->first = pn_seconds() - began;
    /* Now: a reader can time the process. */
    fprintf(b->out, "first step done %.1f s after the start: weights %.1f, optimizer %.1f, plan %.1f, step %.1f\n",
            b->first, b->made[WEIGHTS] - began, b->made[OPTIMIZER] - b->made[WEIGHTS],
            b->made[PLAN] - b->made[OPTIMIZER], b->first + began - b->made[PLAN]);
    fflush(b->out);
    /* From one wait to the next is a step, so the clock on the wall will do, once the pipeline is full. */
    const pn_timing_rule rule = { .clock = pn_seconds, .warm = 2, .runs = b->o->steps, .seconds = 3600 };
    PN_TRY(pn_time_runs(&rule, run_step, b, &b->step));
    PN_TRY(settle(b));
    if (on->backend == PN_CUDA) {
        PN_TRY(pn_device_describe(&gpu));
        b->used = (double)(gpu.memory_bytes - gpu.free_bytes);
    }
    PN_TRY(pn_machine_open(&b->machine, on->backend, on->dtype)); /* takes memory of its own */
    pn_profile_start(b->machine.clock);                           /* waits after every op, so it is a step of its own */
    pn_status s = run_step(b);
    if (!s) s = settle(b);
    pn_profile_stop();
    PN_TRY(s);
    return pn_machine_measure(&b->machine);
}

/* Of all rows of the profile: seconds, each waited for, and what they cost. */
static double sum_rows(pn_op_cost *cost) {
    double seconds = 0;
    int n;
    const pn_profile_row *row = pn_profile_rows(&n);
    *cost = (pn_op_cost){ 0 };
    for (int i = 0; i < n; i++) {
        seconds += row[i].seconds;
        cost->flops += row[i].cost.flops;
        cost->bytes += row[i].cost.bytes;
    }
    return seconds;
}

static void print(const bench *b) {
    const pn_bench_step_options *o = b->o;
    const pn_machine *m = &b->machine;
    const double tokens = (double)o->tokens;
    int n;
    const pn_profile_row *row = pn_profile_rows(&n);
    pn_machine_print(m, b->out);
    fprintf(b->out, "implementation               dir     calls         ms     %s    GB/s  bound of it\n",
            pn_rates_unit(m));
    for (int i = 0; i < n && i < SHOWN; i++) {
        const pn_profile_row *x = &row[i];
        fprintf(b->out, "%-28s %-3s %9lld %10.3f  %10.2f %7.1f  %s %5.2f\n", x->name, x->backward ? "bwd" : "fwd",
                (long long)x->calls, x->seconds * 1e3, pn_rates_in_unit(m, x->cost.flops / x->seconds),
                x->cost.bytes / x->seconds / 1e9, pn_machine_bound_by_flops(m, &x->cost) ? "flops" : "bytes",
                pn_machine_floor(m, &x->cost) / x->seconds);
    }
    pn_op_cost cost;
    const double inside = sum_rows(&cost);
    const pn_rates rates = pn_machine_rates(m, &cost, &b->step);
    double parameters = (double)pn_params_count(b->student->params, false);
    fprintf(b->out,
            "sum of the ops, each waited for: %.1f ms\n"
            "%s, stage %lld, %lld tokens in %lld sequences, %.0f parameters: step median %.1f ms (%.1f .. %.1f, "
            "%lld steps), %.0f tokens/s\n"
            "useful work %.1f %s, %.3f of the product; %.1f GB/s",
            inside * 1e3, o->shape->name, (long long)o->stage, (long long)o->tokens, (long long)o->sequences,
            parameters, b->step.median * 1e3, b->step.least * 1e3, b->step.most * 1e3, (long long)b->step.runs,
            tokens / b->step.median, pn_rates_in_unit(m, rates.flops), pn_rates_unit(m), rates.product,
            rates.bytes / 1e9);
    if (b->used > 0)
        fprintf(b->out, "; %.1f GB of the GPU in use, %.1f planned for activations\nbackward makes again: %s",
                b->used / 1e9, b->planned / 1e9, pn_recompute_text(&b->recompute));
    fputc('\n', b->out);
    if (o->on.backend == PN_CUDA && pn_attention_varies()) fputs("the bits of attention's gradients vary\n", b->out);
    const int64_t launches = pn_pass_graphs_launches(b->pass.graphs);
    if (launches > 0) fprintf(b->out, "%lld passes were launched as CUDA graphs\n", (long long)launches);
}

static pn_status write_json(const bench *b) {
    const pn_bench_step_options *o = b->o;
    pn_op_cost cost;
    if (!o->json) return PN_OK;
    const double inside = sum_rows(&cost);
    const pn_rates rates = pn_machine_rates(&b->machine, &cost, &b->step);
    json_t *root = json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:s, s:b, s:f, s:f, s:f, s:f, s:f}", "bench", "step",
                             "machine", pn_machine_json(&b->machine), "shape", o->shape->name, "stage",
                             (json_int_t)o->stage, "tokens", (json_int_t)o->tokens, "sequences",
                             (json_int_t)o->sequences, "recompute", pn_recompute_text(&b->recompute), "deterministic",
                             !(o->on.backend == PN_CUDA && pn_attention_varies()), "tokens_per_second",
                             (double)o->tokens / b->step.median, "of_product", rates.product, "ops_ms", inside * 1e3,
                             "gpu_bytes", b->used, "first_step_seconds", b->first);
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_rates_to_json(&rates, &cost, &b->step, "ms", root);
    pn_status s = pn_json_write(o->json, root);
    json_decref(root);
    return s;
}

pn_status pn_bench_step(const pn_bench_step_options *o, FILE *out) {
    bench b = { .o = o, .out = out };
    const double began = pn_seconds();
    pn_status s;
    PN_TRY_GOTO(s, make_models(&b), done);
    b.made[WEIGHTS] = pn_seconds();
    PN_TRY_GOTO(s, make_optimizer(&b), done);
    b.made[OPTIMIZER] = pn_seconds();
    PN_TRY_GOTO(s, make_batch(&b), done);
    PN_TRY_GOTO(s, choose_recompute(&b), done);
    b.made[PLAN] = pn_seconds();
    PN_TRY_GOTO(s, measure(&b, began), done);
    print(&b);
    PN_TRY_GOTO(s, write_json(&b), done);
done:
    bench_free(&b);
    return s;
}
