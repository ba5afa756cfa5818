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
#include "signals.h"
#include "step.h"

typedef struct trainer {
    const pn_train_job *job;
    pn_tape *tape;
    pn_adamw *optim;
    pn_step pass;
    pn_recompute recompute;
    pn_batch batch[2];    /* that of the step asked for last, and the one before or after it */
    int64_t step, steps;  /* made, and in all */
    int64_t asked;        /* steps asked for: `step`, or one more */
    int64_t rows, loaded; /* of a step; the last step that has its batch */
    bool ahead;           /* a step is settled when the next one's forward has been asked for, not at its own end */
    pn_checkpoint_array *arrays; /* weights, both moments, optimizer steps, the curve */
    char (*names)[PN_OPTIMIZER_NAME];
    int n_arrays;
    uint64_t fingerprint;
    pn_curve_record curve;
    pn_progress progress;
    int64_t first, shown_tokens; /* where this run began, and the last point on the monitor */
    double shown, saved, smooth; /* when a point was shown and a checkpoint written; the loss on the progress line */
} trainer;

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
    r->arrays[k++] = pn_curve_record_array(&r->curve);
    for (int i = 0; i < r->job->n_arrays; i++) r->arrays[k++] = r->job->arrays[i];
    r->n_arrays = k;
    return PN_OK;
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
        hash = XXH3_64bits_withSeed(&r->arrays[i].n, sizeof r->arrays[i].n, hash);
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

static pn_status save(trainer *r) {
    if (r->job->state_dir)
        PN_TRY(pn_checkpoint_save(r->job->state_dir, r->step, r->fingerprint, r->arrays, r->n_arrays));
    return PN_OK;
}

static double rate_of(const trainer *r, int64_t step) {
    return pn_schedule_rate(&r->job->options->schedule, step, r->steps);
}

/* What is told and kept of a step that was made. */
static void record(trainer *r, const pn_curve_point *p) {
    r->smooth = r->smooth == 0 ? p->loss.total : 0.95 * r->smooth + 0.05 * p->loss.total;
    if (pn_curve_index(&r->curve, r->step) >= 0) {
        const double now = pn_seconds();
        show_point(r, p, p->tokens - r->shown_tokens, now - r->shown);
        r->shown = now;
        r->shown_tokens = p->tokens;
        pn_curve_keep(&r->curve, p);
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
    if (stop || (interval > 0 && pn_seconds() - r->saved > interval)) {
        PN_TRY(save(r));
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
    if (job->after) PN_TRY(job->after(job->ctx, r->step - 1, pn_curve_index(&r->curve, r->step)));
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
    PN_TRY_GOTO(s, pn_curve_record_open(r.steps, &r.curve), done);
    PN_TRY_GOTO(s, pn_train_fits(job, &r.recompute), done);
    PN_TRY_GOTO(s, make_optimizer(&r), done);
    PN_TRY_GOTO(s, list_arrays(&r), done);
    r.fingerprint = fingerprint(&r);
    if (job->state_dir) {
        int64_t step;
        PN_TRY_GOTO(s, pn_checkpoint_load(job->state_dir, r.fingerprint, r.arrays, r.n_arrays, &step), done);
        if (step >= 0) {
            r.step = step;
            pn_info("%s: resuming at step %lld of %lld", job->name, (long long)step, (long long)r.steps);
        }
    }
    if (job->finished && r.step < r.steps)
        PN_FAIL_GOTO(s, PN_USAGE, done, "%s: holds no training to the end with these settings", job->state_dir);
    PN_TRY_GOTO(s, loop(&r), done);
    if (!job->finished) PN_TRY_GOTO(s, save(&r), done);
    if (curve) PN_TRY_GOTO(s, pn_curve_copy(&r.curve, r.step, curve), done);
done:
    for (int i = 0; i < 2; i++) pn_batch_free(&r.batch[i]);
    pn_step_close(&r.pass);
    pn_adamw_destroy(&r.optim);
    pn_tape_destroy(&r.tape);
    free(r.arrays);
    pn_curve_record_close(&r.curve);
    free(r.names);
    return s;
}
