#include "trainer.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "clock.h"
#include "log.h"
#include "memory.h"
#include "monitor.h"
#include "optimizer.h"
#include "progress.h"
#include "range.h"
#include "saving.h"
#include "signals.h"
#include "step.h"

enum { CURVE_POINTS = 400, POINT_VALUES = 8 };

#define ROW_FLOAT(name_, field_, def_, min_, max_, help_)                                                              \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_FLOAT, .offset = offsetof(pn_train_options, field_), .def = def_,             \
        .min = min_, .max = max_, .help = help_                                                                        \
    }

const pn_option pn_train_option_table[] = {
    PN_OPT_INT(pn_train_options, tokens, 1000000, 0, 9e15, "tokens to train on"),
    PN_OPT_INT(pn_train_options, batch_tokens, 4096, 1, 1e9,
               "tokens per step; a multiple of the data's sequence_length"),
    ROW_FLOAT("learning_rate", schedule.learning_rate, "1e-3", 0, 10, "peak learning rate"),
    { .name = "schedule",
      .kind = PN_OPTION_ENUM,
      .offset = offsetof(pn_train_options, schedule.kind),
      .def = "cosine",
      .choices = pn_schedule_names,
      .help = "shape of the learning rate over the run" },
    ROW_FLOAT("warmup", schedule.warmup, "0.05", 0, 1, "fraction of the steps spent rising to the peak"),
    ROW_FLOAT("final", schedule.final, "0.1", 0, 1, "fraction of the peak at the end"),
    ROW_FLOAT("decay", schedule.decay, "0.2", 0, 1, "wsd: fraction of the steps spent falling"),
    PN_OPT_FLOAT(pn_train_options, weight_decay, 0.01, 0, 10, "decoupled weight decay on matrices"),
    PN_OPT_FLOAT(pn_train_options, beta1, 0.9, 0, 0.99999, "AdamW first moment"),
    PN_OPT_FLOAT(pn_train_options, beta2, 0.95, 0, 0.999999, "AdamW second moment"),
    PN_OPT_FLOAT(pn_train_options, epsilon, 1e-8, 0, 1, "AdamW epsilon"),
    PN_OPT_FLOAT(pn_train_options, clip, 1.0, 0, 1e9, "global gradient norm to clip at; 0: no clipping"),
    ROW_FLOAT("ce", loss.ce, "0", 0, 1e6, "weight of the next-token cross-entropy"),
    ROW_FLOAT("kl", loss.kl, "1", 0, 1e6, "weight of KL(teacher || student)"),
    ROW_FLOAT("feature", loss.feature, "1", 0, 1e6, "weight of the per-layer feature loss"),
    ROW_FLOAT("temperature", loss.temperature, "1", 0.01, 100, "of the KL term"),
    { .name = "recompute",
      .kind = PN_OPTION_ENUM,
      .offset = offsetof(pn_train_options, recompute),
      .def = "auto",
      .choices = pn_recompute_names,
      .help = "what backward makes again, to save memory: activations and norms (cheap), convolutions and recurrences "
              "too (cores), whole layers; auto: the least that fits the GPU, and none on the CPU" },
    PN_OPT_FLOAT(pn_train_options, memory_gb, 0, 0, 1e6, "GB of the GPU that training may take; 0: what is free"),
    PN_OPT_FLOAT(pn_train_options, checkpoint_seconds, 120, 0, 1e9, "seconds between checkpoints; 0: at the end only"),
    PN_OPT_END,
};

pn_status pn_train_options_check(const pn_train_options *o, const pn_mixture *mixture, const char *where) {
    int64_t row = pn_mixture_row_tokens(mixture);
    PN_CHECK(pn_mixture_has(mixture, PN_SPLIT_TRAIN), PN_USAGE,
             "%s: the mixture has no training rows; add a skill, or shards made for the train split", where);
    PN_CHECK(o->batch_tokens % row == 0, PN_USAGE,
             "%s: batch_tokens %lld is not a multiple of sequence_length %lld; use %lld", where,
             (long long)o->batch_tokens, (long long)row, (long long)((o->batch_tokens / row + 1) * row));
    PN_CHECK(o->tokens >= o->batch_tokens, PN_USAGE,
             "%s: tokens %lld is less than one step of batch_tokens %lld; raise tokens or lower batch_tokens", where,
             (long long)o->tokens, (long long)o->batch_tokens);
    return PN_OK;
}

typedef struct trainer {
    const pn_train_job *job;
    pn_tape *tape;
    pn_adamw *optim;
    pn_step pass;
    pn_recompute recompute;
    pn_saving saving;
    pn_batch batch[2];    /* that of the step asked for last, and the one before or after it */
    int64_t step, steps;  /* made, and in all */
    int64_t asked;        /* steps asked for: `step`, or one more */
    int64_t rows, loaded; /* of a step; the last step that has its batch */
    bool ahead;           /* a step is settled when the next one's forward has been asked for, not at its own end */
    pn_checkpoint_array *arrays; /* weights, both moments, optimizer steps, the curve */
    char (*names)[PN_OPTIMIZER_NAME];
    int n_arrays;
    uint64_t fingerprint;
    int64_t stride, n_points; /* a point of the curve every `stride` steps and at the end; n_points in all */
    double *points;           /* n_points x POINT_VALUES: part of the state, so that a resumed run has them all */
    pn_progress progress;
    int64_t first, shown_tokens; /* where this run began, and the last point on the monitor */
    double shown, saved, smooth; /* when a point was shown and a checkpoint written; the loss on the progress line */
} trainer;

void pn_curve_free(pn_curve *c) {
    free(c->point);
    *c = (pn_curve){ 0 };
}

static int64_t curve_stride(int64_t steps) {
    return steps / CURVE_POINTS + 1;
}

int64_t pn_train_curve_points(const pn_train_options *o) {
    int64_t steps = o->tokens / o->batch_tokens, stride = curve_stride(steps);
    return (steps + stride - 1) / stride;
}

static pn_status curve_start(trainer *r) {
    r->stride = curve_stride(r->steps);
    r->n_points = pn_train_curve_points(r->job->options);
    r->points = calloc((size_t)r->n_points * POINT_VALUES, sizeof *r->points);
    PN_CHECK(r->points, PN_MEMORY, "out of memory");
    return PN_OK;
}

static bool on_curve(const trainer *r) {
    return r->step % r->stride == 0 || r->step == r->steps;
}

/* Which point the present step is, one that is on the curve. */
static int64_t curve_index(const trainer *r) {
    return (r->step + r->stride - 1) / r->stride - 1;
}

static void curve_add(trainer *r, const pn_curve_point *p) {
    const double values[POINT_VALUES] = { (double)p->step, (double)p->tokens, p->learning_rate, p->norm,
                                          p->loss.total,   p->loss.ce,        p->loss.kl,       p->loss.feature };
    memcpy(r->points + curve_index(r) * POINT_VALUES, values, sizeof values);
}

/* The points up to the present step. */
static pn_status curve_copy(const trainer *r, pn_curve *out) {
    int64_t n = r->step == r->steps ? r->n_points : r->step / r->stride;
    pn_curve_point *point = malloc((size_t)(n + 1) * sizeof *point);
    PN_CHECK(point, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        const double *v = r->points + i * POINT_VALUES;
        point[i] = (pn_curve_point){ (int64_t)v[0], (int64_t)v[1], v[2], v[3], { v[4], v[5], v[6], v[7] } };
    }
    pn_curve_free(out);
    *out = (pn_curve){ point, (int)n };
    return PN_OK;
}

static pn_status make_optimizer(trainer *r) {
    const pn_train_options *o = r->job->options;
    const pn_adamw_settings set = { o->beta1, o->beta2, o->epsilon, o->weight_decay, o->clip };
    PN_TRY(pn_optimizer_create(r->job->student->params, NULL, &set, &r->optim));
    PN_CHECK(pn_adamw_slots(r->optim) > 0, PN_USAGE, "%s: nothing trains", r->job->name);
    PN_TRY(pn_step_open(&r->pass, r->tape, r->optim));
    return PN_OK;
}

/* What a checkpoint holds. */
static pn_status list_arrays(trainer *r) {
    const size_t n = (size_t)pn_adamw_slots(r->optim) * PN_OPTIMIZER_ARRAYS;
    r->arrays = calloc(n + 2 + (size_t)r->job->n_arrays, sizeof *r->arrays);
    r->names = calloc(n, sizeof *r->names);
    PN_CHECK(r->arrays && r->names, PN_MEMORY, "out of memory");
    int k = pn_optimizer_arrays(r->optim, r->arrays, r->names);
    r->arrays[k++] = pn_checkpoint_data("optimizer_steps", PN_I64, 1, pn_adamw_steps(r->optim));
    r->arrays[k++] = pn_checkpoint_data("curve", PN_F64, r->n_points * POINT_VALUES, r->points);
    for (int i = 0; i < r->job->n_arrays; i++) r->arrays[k++] = r->job->arrays[i];
    r->n_arrays = k;
    return PN_OK;
}

uint64_t pn_train_options_hash(const pn_train_options *o) {
    const double settings[] = { (double)o->tokens,
                                (double)o->batch_tokens,
                                (double)o->schedule.kind,
                                o->schedule.learning_rate,
                                o->schedule.warmup,
                                o->schedule.final,
                                o->schedule.decay,
                                o->weight_decay,
                                o->beta1,
                                o->beta2,
                                o->epsilon,
                                o->clip,
                                o->loss.ce,
                                o->loss.kl,
                                o->loss.feature,
                                o->loss.temperature };
    return XXH3_64bits(settings, sizeof settings);
}

/* What must be the same for a resumed run to go on: the job's settings, its data, the shape of what trains, and where.
 */
static uint64_t fingerprint(const trainer *r) {
    const pn_train_job *job = r->job;
    const uint64_t parts[] = { XXH3_64bits(job->name, strlen(job->name)), pn_train_options_hash(job->options),
                               pn_mixture_hash(job->mixture), job->identity };
    uint64_t hash = XXH3_64bits(parts, sizeof parts);
    for (int i = 0; i < r->n_arrays; i++) {
        hash = XXH3_64bits_withSeed(r->arrays[i].name, strlen(r->arrays[i].name), hash);
        const int64_t n = pn_checkpoint_total(&r->arrays[i]);
        hash = XXH3_64bits_withSeed(&n, sizeof n, hash);
    }
    return pn_params_fingerprint(job->student->params, hash);
}

static pn_status load_batch(trainer *r, int64_t step) {
    if (r->loaded == step) return PN_OK;
    PN_TRY(pn_batch_load(r->job->mixture, step * r->rows, r->rows, &r->batch[step % 2]));
    r->loaded = step;
    return PN_OK;
}

static pn_distill plain_pass(const trainer *r) {
    const pn_train_job *job = r->job;
    return (pn_distill){ .student = job->student,
                         .path = job->path,
                         .teacher = job->teacher,
                         .teacher_path = job->teacher_path,
                         .weights = &job->options->loss,
                         .recompute = r->recompute };
}

/* For people: where the step after those that were made went wrong, and what is left. The failure that brought us here
 * is still to be told. */
static void explain(trainer *r) {
    char where[PN_DISTILL_WHERE] = "";
    pn_distill again = plain_pass(r);
    pn_tape_reset(r->tape);
    pn_status s = r->job->before ? r->job->before(r->job->ctx, r->tape, r->step, &again) : PN_OK;
    if (!s) s = pn_distill_locate(r->tape, &again, &r->batch[r->step % 2], where);
    if (!s && *where) pn_warn("%s: step %lld: not finite in %s", r->job->name, (long long)r->step + 1, where);
    pn_warn("%s: stopped before step %lld changed anything%s%s", r->job->name, (long long)r->step + 1,
            r->job->state_dir ? "; what was saved before is in " : "", r->job->state_dir ? r->job->state_dir : "");
}

/* `seconds` of work since the point before, which was `tokens` ago. */
static void show_point(const trainer *r, const pn_curve_point *p, int64_t tokens, double seconds) {
    const pn_scalar scalars[] = { { "loss", p->loss.total },
                                  { "ce", p->loss.ce },
                                  { "kl", p->loss.kl },
                                  { "feature", p->loss.feature },
                                  { "learning_rate", p->learning_rate },
                                  { "gradient_norm", p->norm },
                                  { "tokens", (double)p->tokens },
                                  { "tokens_per_second", (double)tokens / seconds } };
    pn_monitor_point(r->job->name, p->step, scalars, sizeof scalars / sizeof *scalars);
}

static double rate_of(const trainer *r, int64_t step) {
    return pn_schedule_rate(&r->job->options->schedule, step, r->steps);
}

/* What is told and kept of a step that was made. */
static void record(trainer *r, const pn_curve_point *p) {
    r->smooth = r->smooth == 0 ? p->loss.total : 0.95 * r->smooth + 0.05 * p->loss.total;
    if (on_curve(r)) {
        const double now = pn_seconds();
        show_point(r, p, p->tokens - r->shown_tokens, now - r->shown);
        r->shown = now;
        r->shown_tokens = p->tokens;
        curve_add(r, p);
    }
    pn_progress_update(&r->progress, p->tokens, "loss %.4f  step %lld/%lld", r->smooth, (long long)r->step,
                       (long long)r->steps);
}

/* Between two updates: state is written where somebody asked to stop, and now and then. */
static pn_status keep(trainer *r) {
    const pn_train_job *job = r->job;
    const double interval = job->options->checkpoint_seconds;
    const bool asked = pn_interrupted() || (job->stop_after && r->step - r->first == job->stop_after);
    const bool stop = asked && r->step < r->steps;
    PN_TRY(pn_saving_advance(&r->saving));
    if (stop || (interval > 0 && pn_seconds() - r->saved > interval)) {
        PN_TRY(pn_saving_save(&r->saving, r->step, stop));
        r->saved = pn_seconds();
    }
    PN_CHECK(!stop, PN_INTERRUPTED, "%s: stopped by a signal at step %lld of %lld%s", job->name, (long long)r->step,
             (long long)r->steps, job->state_dir ? "; state saved: the same command goes on from here" : "");
    return PN_OK;
}

/* Waits for the step that was asked for, if there is one. */
static pn_status settle(trainer *r) {
    const pn_train_job *job = r->job;
    pn_curve_point p = { .learning_rate = rate_of(r, r->step) };
    if (r->asked == r->step) return PN_OK;
    const pn_status s = pn_step_settle(&r->pass, &p.loss, &p.norm);
    if (s == PN_NUMERIC) explain(r);
    PN_TRY(s);
    p.step = ++r->step;
    p.tokens = r->step * job->options->batch_tokens;
    if (job->after) PN_TRY(job->after(job->ctx, r->step - 1, on_curve(r) ? curve_index(r) : -1));
    record(r, &p);
    PN_TRY(keep(r));
    return PN_OK;
}

/* Asks for a step. The next batch is made while the GPU is at work. */
static pn_status ask(trainer *r) {
    const pn_train_job *job = r->job;
    pn_distill pass = plain_pass(r);
    pn_tape_reset(r->tape);
    PN_TRY(load_batch(r, r->asked));
    if (job->before) PN_TRY(job->before(job->ctx, r->tape, r->asked, &pass));
    pn_range_begin("forward of step", r->asked);
    PN_TRY(pn_step_forward(&r->pass, &pass, &r->batch[r->asked % 2]));
    pn_range_end();
    PN_TRY(settle(r));
    pn_range_begin("update of step", r->asked);
    PN_TRY(pn_step_update(&r->pass, rate_of(r, r->asked)));
    pn_range_end();
    r->asked++;
    if (r->asked < r->steps) PN_TRY(load_batch(r, r->asked));
    if (!r->ahead) PN_TRY(settle(r));
    return PN_OK;
}

static pn_status loop(trainer *r) {
    const int64_t batch = r->job->options->batch_tokens;
    r->progress = pn_progress_begin(r->job->name, r->step * batch, r->steps * batch, "tokens");
    r->saved = r->shown = pn_seconds();
    r->first = r->asked = r->step;
    r->shown_tokens = r->first * batch;
    /* What is done after a step may decide how the next one goes. On the CPU there is nothing to win. */
    r->ahead = r->job->student->params->backend == PN_CUDA && !r->job->after;
    while (r->asked < r->steps) PN_TRY(ask(r));
    PN_TRY(settle(r));
    pn_progress_end(&r->progress);
    return PN_OK;
}

pn_status pn_train_run(const pn_train_job *job, pn_curve *curve) {
    const pn_train_options *o = job->options;
    PN_TRY(pn_train_options_check(o, job->mixture, job->name));
    trainer r = { .job = job,
                  .rows = o->batch_tokens / pn_mixture_row_tokens(job->mixture),
                  .steps = o->tokens / o->batch_tokens,
                  .loaded = -1 };
    pn_status s;
    PN_TRY_GOTO(s, pn_params_tape(job->student->params, &r.tape), done);
    PN_TRY_GOTO(s, curve_start(&r), done);
    PN_TRY_GOTO(s, pn_train_fits(job, &r.recompute), done);
    PN_TRY_GOTO(s, make_optimizer(&r), done);
    PN_TRY_GOTO(s, list_arrays(&r), done);
    r.fingerprint = fingerprint(&r);
    const pn_checkpoint_place where = { .dir = job->state_dir, .fingerprint = r.fingerprint };
    PN_TRY_GOTO(s, pn_saving_open(job->name, &where, r.arrays, r.n_arrays, job->finished, &r.saving, &r.step), done);
    if (r.step) pn_info("%s: resuming at step %lld of %lld", job->name, (long long)r.step, (long long)r.steps);
    if (job->finished && r.step < r.steps)
        PN_FAIL_GOTO(s, PN_USAGE, done, "%s: holds no training to the end with these settings", job->state_dir);
    PN_TRY_GOTO(s, loop(&r), done);
    if (r.step > r.first) PN_TRY_GOTO(s, pn_saving_save(&r.saving, r.step, true), done);
    if (curve) PN_TRY_GOTO(s, curve_copy(&r, curve), done);
done:
    pn_saving_close(&r.saving);
    for (int i = 0; i < 2; i++) pn_batch_free(&r.batch[i]);
    pn_step_close(&r.pass);
    pn_adamw_destroy(&r.optim);
    pn_tape_destroy(&r.tape);
    free(r.arrays);
    free(r.points);
    free(r.names);
    return s;
}
