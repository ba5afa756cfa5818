#include "trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "clock.h"
#include "heldout.h"
#include "log.h"
#include "memory.h"
#include "optimizer.h"
#include "parts.h"
#include "range.h"
#include "ranks.h"
#include "saving.h"
#include "signals.h"
#include "state_ranks.h"
#include "step.h"
#include "telling.h"

enum { IN_A_ROW, IN_ALL, SKIPS };

typedef struct trainer {
    const pn_train_job *job;
    pn_tape *tape;
    pn_zero *zero; /* with many ranks: it has the optimizer */
    pn_adamw *optim;
    pn_step pass;
    pn_recompute recompute;
    pn_saving saving;
    pn_batch batch[2];    /* that of the step asked for last, and the one before or after it */
    pn_parts parts;       /* of the step asked for last */
    int64_t step, steps;  /* made, and in all */
    int64_t asked;        /* steps asked for: `step`, or one more */
    int64_t rows, loaded; /* of a step on this rank; the last step that has its batch */
    bool ahead;           /* a step is settled when the next one's forward has been asked for, not at its own end */
    pn_checkpoint_array *arrays; /* weights, both moments, optimizer steps, curves, skipped steps */
    char (*names)[PN_OPTIMIZER_NAME];
    int n_arrays;
    uint64_t fingerprint;
    pn_curve_record curve, heldout;
    int64_t skipped[SKIPS]; /* steps that were not finite */
    pn_telling telling;
    int64_t first;   /* where this run began */
    double saved;    /* when a checkpoint was written */
    bool stop, save; /* what is to be done before the next step */
} trainer;

static pn_status make_optimizer(trainer *r) {
    const pn_train_options *o = r->job->options;
    const pn_adamw_settings set = { o->beta1, o->beta2, o->epsilon, o->weight_decay, o->clip };
    const pn_params *p = r->job->student->params;
    PN_CHECK(pn_params_count(p, true) > 0, PN_USAGE, "%s: nothing trains", r->job->name);
    if (pn_ranks_of(r->job->world) == 1) {
        PN_TRY(pn_optimizer_create(p, NULL, &set, &r->optim));
        return pn_step_open(&r->pass, r->tape, r->optim);
    }
    PN_TRY(pn_zero_create(p, r->job->world->comm, &set, PN_ZERO_BUCKET, &r->zero));
    r->optim = pn_zero_optimizer(r->zero);
    return pn_step_open_zero(&r->pass, r->tape, r->zero);
}

/* What a checkpoint holds. */
static pn_status list_arrays(trainer *r) {
    const size_t n = (size_t)pn_adamw_slots(r->optim) * PN_OPTIMIZER_ARRAYS;
    r->arrays = calloc(n + 4 + (size_t)r->job->n_arrays, sizeof *r->arrays);
    r->names = calloc(n + 1, sizeof *r->names);
    PN_CHECK(r->arrays && r->names, PN_MEMORY, "out of memory");
    int k = r->zero ? pn_zero_arrays(r->zero, r->arrays, r->names) : pn_optimizer_arrays(r->optim, r->arrays, r->names);
    r->arrays[k++] = pn_checkpoint_data("optimizer_steps", PN_I64, 1, pn_adamw_steps(r->optim));
    r->arrays[k++] = pn_curve_record_array(&r->curve, "curve");
    r->arrays[k++] = pn_curve_record_array(&r->heldout, "heldout");
    r->arrays[k++] = pn_checkpoint_data("skipped", PN_I64, SKIPS, r->skipped);
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
    for (int i = 0; i < job->student->params->n; i++) { /* not its state's arrays: a rank has some of them */
        const pn_param *p = job->student->params->item[i];
        const int64_t n = pn_tensor_elems(p->value);
        if (!p->value->wants_grad) continue;
        hash = XXH3_64bits_withSeed(p->name, strlen(p->name), hash);
        hash = XXH3_64bits_withSeed(&n, sizeof n, hash);
    }
    for (int i = 0; i < job->n_arrays; i++) {
        hash = XXH3_64bits_withSeed(job->arrays[i].name, strlen(job->arrays[i].name), hash);
        hash = XXH3_64bits_withSeed(&job->arrays[i].n, sizeof job->arrays[i].n, hash);
    }
    return pn_params_fingerprint(job->student->params, hash);
}

int64_t pn_train_rank_pass(const pn_train_job *job) {
    const int64_t share = job->options->batch_tokens / pn_ranks_of(job->world);
    const int64_t pass = pn_train_pass_tokens(job->options);
    return pass < share ? pass : share;
}

pn_status pn_train_batch(const pn_train_job *job, int64_t first, int64_t n, pn_batch *b) {
    PN_TRY(pn_batch_load(job->mixture, first, n, b));
    if (job->teacher_rows)
        PN_TRY(pn_batch_teach(b, job->teacher_rows, first));
    else if (job->teacher_words)
        PN_TRY(pn_batch_make_up(b, job->teacher_words));
    return PN_OK;
}

static pn_status load_batch(trainer *r, int64_t step) {
    if (r->loaded == step) return PN_OK;
    const int rank = r->job->world ? r->job->world->rank : 0;
    const int64_t first = (step * pn_ranks_of(r->job->world) + rank) * r->rows;
    PN_TRY(pn_train_batch(r->job, first, r->rows, &r->batch[step % 2]));
    r->loaded = step;
    return PN_OK;
}

/* Over the part that was taken last. */
static pn_distill plain_pass(const trainer *r) {
    const pn_train_job *job = r->job;
    return (pn_distill){ .student = job->student,
                         .path = job->path,
                         .teacher = job->teacher,
                         .teacher_path = job->teacher_path,
                         .weights = &r->parts.weights,
                         .recompute = r->recompute,
                         .passed = r->zero ? pn_zero_passed : NULL,
                         .passed_ctx = r->zero };
}

static double rate_of(const trainer *r, int64_t step) {
    return pn_schedule_rate(&r->job->options->schedule, step, r->steps);
}

static pn_status open_parts(trainer *r, int64_t step) {
    const pn_world *world = r->job->world;
    const pn_batch *batch = &r->batch[step % 2];
    double weight = pn_ranks_of(world) > 1 ? pn_batch_weight(batch) : 0;
    PN_TRY(pn_ranks_sum(world, "weight of a batch", &weight, 1));
    pn_parts_open(&r->parts, batch, pn_train_rank_pass(r->job), pn_ranks_of(world), weight);
    return PN_OK;
}

static pn_status take_part(trainer *r, int64_t step, int i, bool *loses) {
    const pn_loss_weights weights = pn_loss_at(&r->job->options->loss, step, r->steps);
    PN_TRY(pn_parts_take(&r->parts, i, &weights, loses));
    return PN_OK;
}

/* Tells the other ranks, who wait, why this one is silent for a while; NULL: no longer. */
static void busy(const trainer *r, const char *what) {
    if (r->job->world) pn_control_busy(r->job->world->control, what);
}

static void waiting(const trainer *r, bool waits) {
    if (r->job->world) pn_control_waiting(r->job->world->control, waits);
}

/* This rank gets somewhere: without a word for as long as they wait, the others take it for dead. */
static void alive(const trainer *r) {
    if (!r->job->world) return;
    pn_control_doing(r->job->world->control, "step %lld", (long long)r->asked + 1);
    pn_control_tick(r->job->world->control);
}

/* ---- steps that are not finite ---- */

/* Where the step after those that were made went wrong: the first part of it that did. */
static pn_status locate(trainer *r, char where[PN_DISTILL_WHERE]) {
    PN_TRY(open_parts(r, r->step));
    for (int i = 0; i < r->parts.n && !*where; i++) {
        bool loses;
        PN_TRY(take_part(r, r->step, i, &loses));
        pn_distill again = plain_pass(r);
        pn_tape_reset(r->tape);
        if (r->job->before) PN_TRY(r->job->before(r->job->ctx, r->tape, r->step, &again));
        PN_TRY(pn_distill_locate(r->tape, &again, pn_parts_batch(&r->parts), where));
    }
    return PN_OK;
}

/* For people, with `cause`, what is wrong, in rank 0. The tape is used. */
static void explain(trainer *r, const char *cause, bool passes_over) {
    const pn_train_job *job = r->job;
    char where[PN_DISTILL_WHERE] = "";
    busy(r, "looking for what is not finite");
    pn_status s = locate(r, where);
    busy(r, NULL);
    const pn_status told = pn_ranks_say(job->world, where, sizeof where);
    if (!pn_ranks_first(job->world)) return;
    if (!s && !told && *where) pn_warn("%s: step %lld: not finite in %s", job->name, (long long)r->step + 1, where);
    if (passes_over)
        pn_warn("%s: step %lld changes nothing and is passed over (%lld in a row, %lld in all): %s", job->name,
                (long long)r->step + 1, (long long)r->skipped[IN_A_ROW], (long long)r->skipped[IN_ALL], cause);
    else
        pn_warn("%s: stopped before step %lld changed anything", job->name, (long long)r->step + 1);
}

/* Before training ends with a step that is not finite: steps since the last checkpoint are not lost. All ranks come
 * here, as the step is refused on all. That the disk takes no more is told, and ends nothing: the step did. */
static void save_last_good(trainer *r) {
    const pn_train_job *job = r->job;
    const int64_t good = r->step - r->skipped[IN_A_ROW];
    pn_status s = PN_OK;
    if (!r->saving.writer) return;
    busy(r, "writing a checkpoint");
    if (good) s = pn_saving_save(&r->saving, r->step, true);
    busy(r, NULL);
    if (!pn_ranks_first(job->world)) return;
    if (!good)
        pn_warn("%s: no step before it was finite: there is nothing to save", job->name);
    else if (s)
        pn_warn("%s: the state after step %lld, the last that was finite, is not saved: %s", job->name, (long long)good,
                pn_error_message());
    else
        pn_warn("%s: the state after step %lld, the last that was finite, is saved in %s/step-%lld", job->name,
                (long long)good, job->state_dir, (long long)r->step);
}

/* The step asked for failed with `s` and changed nothing: OK when the options pass it over. */
static pn_status pass_over(trainer *r, pn_status s) {
    const pn_train_options *o = r->job->options;
    char cause[512];
    snprintf(cause, sizeof cause, "%s", pn_error_message());
    const bool may = r->skipped[IN_A_ROW] < o->skip_steps && r->skipped[IN_ALL] < o->skip_steps_in_all;
    for (int i = 0; i < SKIPS && may; i++) r->skipped[i]++;
    explain(r, cause, may);
    if (may) return PN_OK;
    save_last_good(r);
    if (!o->skip_steps) PN_FAIL(s, "%s", cause); /* which explaining or saving may have replaced */
    PN_FAIL(s, "%s: step %lld, after %lld passed over in a row and %lld in all: %s", r->job->name,
            (long long)r->step + 1, (long long)r->skipped[IN_A_ROW], (long long)r->skipped[IN_ALL], cause);
}

/* ---- between steps ---- */

/* Losses and what is to be done, as all ranks have it. */
static pn_status tell_ranks(trainer *r, pn_loss_parts *loss) {
    const double interval = r->job->options->checkpoint_seconds;
    pn_rank_word word = { .loss = *loss,
                          .stop = pn_interrupted(),
                          .save = interval > 0 && pn_seconds() - r->saved > interval };
    PN_TRY(pn_ranks_word(r->job->world, &word));
    *loss = word.loss;
    r->stop = word.stop != 0;
    r->save = word.save != 0;
    return PN_OK;
}

/* Between two updates: state is written where somebody asked to stop, and now and then. */
static pn_status keep(trainer *r) {
    const pn_train_job *job = r->job;
    const bool asked = r->stop || (job->stop_after && r->step - r->first == job->stop_after);
    const bool stop = asked && r->step < r->steps;
    busy(r, "writing a checkpoint");
    PN_TRY(pn_saving_advance(&r->saving));
    if (stop || r->save) {
        PN_TRY(pn_saving_save(&r->saving, r->step, stop));
        r->saved = pn_seconds();
    }
    busy(r, NULL);
    PN_CHECK(!stop, PN_INTERRUPTED, "%s: stopped by %s at step %lld of %lld%s", job->name, pn_interruption(),
             (long long)r->step, (long long)r->steps,
             job->state_dir ? "; state saved: the same command goes on from here" : "");
    return PN_OK;
}

static pn_status step_made(trainer *r, pn_curve_point *p) {
    const pn_train_job *job = r->job;
    p->step = ++r->step;
    p->tokens = r->step * job->options->batch_tokens;
    r->skipped[IN_A_ROW] = 0;
    const int64_t point = pn_curve_index(&r->curve, r->step);
    if (job->after) PN_TRY(job->after(job->ctx, r->step - 1, point));
    if (point >= 0) pn_curve_keep(&r->curve, p);
    pn_telling_step(&r->telling, p, point >= 0);
    return PN_OK;
}

/* Waits for the step that was asked for, if there is one. *lost: it was passed over, and what is on the tape is gone.
 */
static pn_status settle(trainer *r, bool *lost) {
    pn_curve_point p = { .learning_rate = rate_of(r, r->step) };
    *lost = false;
    if (r->asked == r->step) return PN_OK;
    waiting(r, true); /* for a GPU that waits for other ranks */
    const pn_status s = pn_step_settle(&r->pass, &p.loss, &p.norm);
    waiting(r, false);
    PN_TRY(s == PN_NUMERIC ? PN_OK : s);
    PN_TRY(tell_ranks(r, &p.loss));
    if (s == PN_NUMERIC) {
        PN_TRY(pass_over(r, s));
        *lost = true;
        r->step++;
    } else {
        PN_TRY(step_made(r, &p));
    }
    PN_TRY(keep(r));
    return PN_OK;
}

static pn_status show(trainer *r) {
    const pn_train_job *job = r->job;
    pn_curve curve = { 0 }, heldout = { 0 };
    if (!job->shows) return PN_OK;
    pn_status s = pn_curve_copy(&r->curve, r->step, &curve);
    if (!s) s = pn_curve_copy(&r->heldout, r->step, &heldout);
    if (!s) s = job->shows(job->ctx, &curve, &heldout);
    pn_curve_free(&curve);
    pn_curve_free(&heldout);
    return s;
}

/* Held-out losses of the weights as they are, where one is due that a run before this one has not measured. */
static pn_status evaluate(trainer *r) {
    const pn_train_job *job = r->job;
    bool lost;
    if (!job->options->heldout_tokens || pn_curve_index(&r->heldout, r->asked) < 0) return PN_OK;
    PN_TRY(settle(r, &lost));
    if (pn_curve_has(&r->heldout, r->step)) return PN_OK;
    pn_curve_point p = { .step = r->step, .tokens = r->step * job->options->batch_tokens };
    busy(r, "evaluating");
    PN_TRY(pn_heldout_loss(r->tape, job, r->step, &p.loss));
    busy(r, NULL);
    pn_curve_keep(&r->heldout, &p);
    pn_telling_heldout(&r->telling, &p);
    return show(r);
}

/* ---- a step ---- */

/* last: of a step. */
static pn_status forward(trainer *r, bool last) {
    pn_distill pass = plain_pass(r);
    alive(r);
    pn_tape_reset(r->tape);
    if (r->zero) pn_zero_pass(r->zero, r->tape, last);
    if (r->job->before) PN_TRY(r->job->before(r->job->ctx, r->tape, r->asked, &pass));
    pn_range_begin("forward of step", r->asked);
    PN_TRY((r->parts.alone ? pn_step_forward : pn_step_forward_part)(&r->pass, &pass, pn_parts_batch(&r->parts)));
    pn_range_end();
    return PN_OK;
}

/* The first part that has a loss goes first: then the step before is settled. */
static pn_status first_forward(trainer *r, int part, bool last) {
    bool lost, loses;
    PN_TRY(forward(r, last));
    PN_TRY(settle(r, &lost));
    if (!lost) return PN_OK;
    PN_TRY(open_parts(r, r->asked)); /* which explaining what was lost has taken */
    PN_TRY(take_part(r, r->asked, part, &loses));
    PN_TRY(forward(r, last));
    return PN_OK;
}

/* A rank whose part of the batch has no target with weight: it only takes part in what the others have. */
static pn_status ask_nothing(trainer *r) {
    bool lost;
    PN_TRY(settle(r, &lost));
    if (lost) PN_TRY(open_parts(r, r->asked)); /* as the other ranks do */
    pn_tape_reset(r->tape);
    pn_zero_pass(r->zero, r->tape, true);
    return pn_step_nothing(&r->pass);
}

/* All parts' gradients; that of the last one with a loss is left to the update. */
static pn_status ask_parts(trainer *r) {
    bool begun = false, loses = false;
    PN_TRY(open_parts(r, r->asked));
    int last = r->parts.n;
    while (last > 0 && !loses) PN_TRY(take_part(r, r->asked, --last, &loses));
    if (!loses && r->zero) return ask_nothing(r);
    for (int i = 0; i <= last; i++) {
        PN_TRY(take_part(r, r->asked, i, &loses));
        if (!loses && i < last) continue;
        PN_TRY(begun ? forward(r, i == last) : first_forward(r, i, i == last));
        begun = true;
        if (r->parts.alone) continue;
        PN_TRY(i < last ? pn_step_part(&r->pass, &r->parts.share) : pn_step_last_part(&r->pass, &r->parts.share));
    }
    return PN_OK;
}

/* Asks for a step. The next batch is made while the GPU is at work. */
static pn_status ask(trainer *r) {
    bool lost;
    PN_TRY(load_batch(r, r->asked));
    PN_TRY(ask_parts(r));
    pn_range_begin("update of step", r->asked);
    PN_TRY(pn_step_update(&r->pass, rate_of(r, r->asked)));
    pn_range_end();
    r->asked++;
    if (r->asked < r->steps) PN_TRY(load_batch(r, r->asked));
    if (!r->ahead) PN_TRY(settle(r, &lost));
    return PN_OK;
}

static pn_status loop(trainer *r) {
    bool lost;
    PN_TRY(pn_telling_open(&r->telling, r->job, r->step, r->steps));
    r->saved = pn_seconds();
    r->first = r->asked = r->step;
    /* What is done after a step may decide how the next one goes. On the CPU there is nothing to win. */
    r->ahead = r->job->student->params->backend == PN_CUDA && !r->job->after;
    while (r->asked < r->steps) {
        PN_TRY(evaluate(r));
        PN_TRY(ask(r));
    }
    PN_TRY(settle(r, &lost));
    PN_TRY(evaluate(r));
    pn_telling_close(&r->telling);
    return PN_OK;
}

/* A point for every evaluation. */
static pn_status open_curves(trainer *r) {
    const pn_train_options *o = r->job->options;
    const int64_t every = o->evaluate_tokens / o->batch_tokens;
    PN_TRY(pn_curve_record_open(r->steps, 0, &r->curve));
    PN_TRY(pn_curve_record_open(r->steps, !o->evaluate_tokens ? r->steps : every ? every : 1, &r->heldout));
    return PN_OK;
}

pn_status pn_train_run(const pn_train_job *job, pn_curve *curve) {
    const pn_train_options *o = job->options;
    PN_TRY(pn_train_options_check(o, job->mixture, job->name));
    const pn_checkpoint_ranks ranks =
        pn_ranks_of(job->world) > 1 ? pn_state_ranks(job->world->control) : (pn_checkpoint_ranks){ 0 };
    PN_TRY(pn_train_options_check_ranks(o, pn_mixture_row_tokens(job->mixture), pn_ranks_of(job->world), job->name));
    pn_train_options_apply(o, job->student->params->backend);
    trainer r = { .job = job,
                  .rows = o->batch_tokens / pn_mixture_row_tokens(job->mixture) / pn_ranks_of(job->world),
                  .steps = pn_train_steps(o),
                  .loaded = -1 };
    pn_status s;
    PN_TRY_GOTO(s, pn_params_tape(job->student->params, &r.tape), done);
    PN_TRY_GOTO(s, open_curves(&r), done);
    PN_TRY_GOTO(s, pn_train_fits(job, &r.recompute), done);
    PN_TRY_GOTO(s, make_optimizer(&r), done);
    PN_TRY_GOTO(s, list_arrays(&r), done);
    r.fingerprint = fingerprint(&r);
    PN_TRY_GOTO(s, pn_ranks_same(job->world, "what they train", r.fingerprint), done);
    const pn_checkpoint_place where = { .dir = job->state_dir,
                                        .fingerprint = r.fingerprint,
                                        .keep = (int)o->checkpoint_keep,
                                        .ranks = ranks.n ? &ranks : NULL };
    busy(&r, "reading the state");
    PN_TRY_GOTO(s, pn_saving_open(job->name, &where, r.arrays, r.n_arrays, job->finished, &r.saving, &r.step), done);
    busy(&r, NULL);
    if (r.step && r.zero) PN_TRY_GOTO(s, pn_zero_gather(r.zero), done);
    if (r.step) pn_info("%s: resuming at step %lld of %lld", job->name, (long long)r.step, (long long)r.steps);
    if (job->finished && r.step < r.steps)
        PN_FAIL_GOTO(s, PN_USAGE, done, "%s: holds no training to the end with these settings", job->state_dir);
    PN_TRY_GOTO(s, loop(&r), done);
    busy(&r, "writing the last checkpoint");
    if (r.step > r.first) PN_TRY_GOTO(s, pn_saving_save(&r.saving, r.step, true), done);
    busy(&r, NULL);
    PN_TRY_GOTO(s, show(&r), done);
    if (curve) PN_TRY_GOTO(s, pn_curve_copy(&r.curve, r.step, curve), done);
done:
    /* What befalls a rank alone is told before anything that may take long; the rest all ranks find at once. */
    if ((s == PN_MEMORY || s == PN_DEVICE) && pn_ranks_of(job->world) > 1)
        pn_control_abort(job->world->control, pn_error_message());
    pn_saving_close(&r.saving);
    for (int i = 0; i < 2; i++) pn_batch_free(&r.batch[i]);
    pn_step_close(&r.pass);
    if (!r.zero) pn_adamw_destroy(&r.optim);
    pn_zero_destroy(&r.zero);
    pn_tape_destroy(&r.tape);
    free(r.arrays);
    pn_parts_free(&r.parts);
    pn_curve_record_close(&r.curve);
    pn_curve_record_close(&r.heldout);
    free(r.names);
    return s;
}
