/* What training would take, without training: from shapes, on the backend `plan`. */
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "device.h"
#include "finetune.h"
#include "memory_advice.h"
#include "meter.h"
#include "progress.h"
#include "recipe.h"

static const double library_bytes = 1e9; /* pn_memory_budget */

typedef struct stage_plan {
    double tokens, passes; /* trained on; passes of a step, on a device */
    int64_t pass_tokens;
    int64_t steps;
    double weights, trained, teacher, teacher_own;                 /* counts */
    double weight_bytes, gradient_bytes, moment_bytes, step_bytes; /* on a device */
    pn_recompute recompute;
    double over;                   /* bytes more than the limit that it was planned for; 0: it fits, or there is none */
    char advice[PN_MEMORY_ADVICE]; /* where it does not */
    double flops;                  /* useful ones, per token */
    double tokens_per_second;      /* of a device; 0: not known */
} stage_plan;

typedef struct planner {
    const pn_recipe *recipe;
    const pn_finetune_plan_options *o;
    pn_world world; /* one of as many ranks as there are devices, which meets nobody */
    pn_compute on;
    pn_device_info gpu;  /* {0}: none here, or not planned for */
    pn_tokenizer *bytes; /* rows are made up: what they say changes nothing */
    FILE *out;
} planner;

/* Documents as long as the stage's rows. */
static pn_status made_up(const planner *p, int stage, pn_mixture **out) {
    const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = { 1, 1, 1 }, .skill = pn_skill_find("text") };
    const pn_mixture_config c = { .tokenizer = p->bytes,
                                  .frame = pn_doc_frame_default(p->bytes),
                                  .sequence_length = p->recipe->stage[stage].sequence_length,
                                  .seed = 1,
                                  .parts = &part,
                                  .n_parts = 1 };
    PN_TRY(pn_mixture_create(&c, out));
    return PN_OK;
}

static void count(const pn_model *student, const pn_model *teacher, stage_plan *x) {
    for (int i = 0; i < student->params->n; i++) {
        const pn_tensor *v = student->params->item[i]->value;
        const double n = (double)pn_tensor_elems(v);
        x->weights += n;
        x->weight_bytes += (double)pn_tensor_bytes(v);
        if (!v->wants_grad) continue;
        x->trained += n;
        x->gradient_bytes += n * sizeof(float);
    }
    for (int i = 0; teacher && i < teacher->params->n; i++) {
        const pn_param *t = teacher->params->item[i];
        const double n = (double)pn_tensor_elems(t->value);
        x->teacher += n;
        if (pn_params_find(student->params, t->name) == t) continue;
        x->teacher_own += n;
        x->weight_bytes += (double)pn_tensor_bytes(t->value);
    }
}

/* What a device has: the stage's memory_gb, or this GPU's memory; else all that anybody could want. */
static double limit_of(const planner *p, const pn_train_options *o) {
    if (p->on.backend == PN_CPU) return INFINITY;
    const double bytes = o->memory_gb > 0 ? o->memory_gb * 1e9 : (double)p->gpu.memory_bytes;
    return bytes > 0 ? bytes : INFINITY;
}

/* What it leaves for a step and the optimizer. */
static double free_bytes(const planner *p, const pn_train_options *o, const stage_plan *x) {
    return limit_of(p, o) - library_bytes - x->weight_bytes;
}

static pn_status plan_work(const planner *p, const pn_train_job *job, stage_plan *x) {
    pn_memory_need need;
    pn_train_options o = *job->options;
    pn_train_job planned = *job;
    planned.options = &o;
    if (p->on.backend == PN_CPU && o.recompute == PN_RECOMPUTE_AUTO) o.recompute = PN_RECOMPUTE_NONE;
    PN_TRY(pn_train_plan(&planned, free_bytes(p, &o, x), &x->recompute, &need));
    if (x->passes == 1) x->gradient_bytes = 0; /* they take the place of activations */
    x->step_bytes = need.step - x->gradient_bytes;
    x->moment_bytes = need.optimizer;
    PN_TRY(pn_meter_flops(job, &x->flops));
    const double there = free_bytes(p, &o, x);
    x->over = fmax(pn_memory_sum(&need) - there, 0);
    if (x->over > 0) {
        pn_memory_settings settings = { 0 };
        pn_memory_job_settings(&planned, &need, there, &settings);
        pn_memory_advice(&settings, x->over, x->advice);
    }
    return PN_OK;
}

/* ---- measured ---- */

enum { MEASURED_STEPS = 3 };

static pn_status note_time(void *ctx, int64_t step, int64_t point) {
    double *at = ctx;
    (void)point;
    at[step > 0] = pn_seconds(); /* of the end of the first step, and of the last so far */
    return PN_OK;
}

/* The planned weights with random values, on the device. */
static pn_status make_real(const planner *p, const pn_model *planned, const pn_params *share, pn_model **out) {
    PN_TRY(pn_model_create(&planned->config, PN_F32, share, out));
    for (int i = 0; i < (*out)->params->n; i++) {
        pn_param *x = (*out)->params->item[i];
        if (!share || !pn_params_find(share, x->name)) PN_TRY(pn_param_init(x, 1));
    }
    PN_TRY(pn_params_move((*out)->params, p->on.backend, p->on.dtype));
    return PN_OK;
}

static pn_status share_as_planned(const pn_model *student, const pn_model *planned, const pn_model *teacher,
                                  pn_params *shared) {
    for (int i = 0; i < teacher->params->n; i++) {
        const pn_param *t = teacher->params->item[i];
        if (pn_params_find(planned->params, t->name) == t)
            PN_TRY(pn_params_share(shared, pn_params_find(student->params, t->name)));
    }
    return PN_OK;
}

/* One device does here what many share in training, where each holds a part of the optimizer. */
static pn_status run_whole(const planner *p, const pn_train_job *job) {
    char cause[1024];
    const pn_status s = pn_train_run(job, NULL);
    if (s != PN_USAGE || p->world.size == 1) return s;
    snprintf(cause, sizeof cause, "%s", pn_error_message());
    PN_FAIL(s,
            "--measure times a step on one device, with the whole optimizer that %d devices share in training; that "
            "step is refused, the training may fit: measure with smaller stages, or leave --measure out and give "
            "--tokens-per-second (%s)",
            p->world.size, cause);
}

static pn_status time_steps(const planner *p, int stage, const pn_train_job *planned, stage_plan *x) {
    pn_train_options o = *planned->options;
    pn_model *student = NULL, *teacher = NULL;
    pn_params *shared = NULL;
    double at[2] = { 0 };
    char name[96];
    pn_status s;
    o.batch_tokens = x->pass_tokens; /* an update among as many passes costs less than here */
    o.micro_batch_tokens = o.evaluate_tokens = o.heldout_tokens = 0;
    o.tokens = (1 + MEASURED_STEPS) * o.batch_tokens;
    PN_TRY_GOTO(s, pn_model_create(&planned->student->config, PN_F32, NULL, &student), done);
    PN_TRY_GOTO(s, pn_params_init(student->params, 1), done);
    PN_TRY_GOTO(s, pn_params_create_like(student->params, &shared), done);
    if (planned->teacher) {
        PN_TRY_GOTO(s, share_as_planned(student, planned->student, planned->teacher, shared), done);
        PN_TRY_GOTO(s, make_real(p, planned->teacher, shared, &teacher), done);
    }
    PN_TRY_GOTO(s, pn_params_move(student->params, p->on.backend, p->on.dtype), done);
    PN_TRY_GOTO(s, pn_recipe_choose_trained(p->recipe, stage, student->params), done);
    const pn_train_job job = { .name = pn_recipe_stage_name(p->recipe, stage, name, sizeof name),
                               .options = &o,
                               .mixture = planned->mixture,
                               .student = student,
                               .teacher = teacher,
                               .teacher_words = planned->teacher_words,
                               .after = note_time,
                               .ctx = at };
    PN_TRY_GOTO(s, run_whole(p, &job), done);
    x->tokens_per_second = MEASURED_STEPS * (double)o.batch_tokens / (at[1] - at[0]);
done:
    pn_model_destroy(&teacher);
    pn_params_destroy(&shared);
    pn_model_destroy(&student);
    return s;
}

/* ---- told ---- */

static void print_over(const planner *p, const pn_train_options *o, const stage_plan *x) {
    char limit[200];
    if (o->memory_gb > 0)
        snprintf(limit, sizeof limit, "memory_gb %g", o->memory_gb);
    else
        snprintf(limit, sizeof limit, "the %.1f GB of this GPU (%s)", (double)p->gpu.memory_bytes / 1e9, p->gpu.name);
    fprintf(p->out, "  with %.1f GB for libraries that is %.2f GB more than %s: %s\n", library_bytes / 1e9,
            x->over / 1e9, limit, x->advice);
}

static void print_stage(const planner *p, int stage, const stage_plan *x) {
    const pn_recipe_stage *s = &p->recipe->stage[stage];
    const double bytes = x->weight_bytes + x->gradient_bytes + x->moment_bytes + x->step_bytes;
    const double unit = bytes < 1e9 ? 1e6 : 1e9;
    char name[96], tokens[24], weights[24], trained[24], own[24], flops[24], each[48] = "", part[64] = "";
    if (p->world.size > 1) {
        snprintf(each, sizeof each, " on each of %d devices", p->world.size);
        snprintf(part, sizeof part, " (of %.2f that the devices share)", x->moment_bytes * p->world.size / unit);
    }
    fprintf(p->out, "%s\n", pn_recipe_stage_name(p->recipe, stage, name, sizeof name));
    fprintf(p->out, "  %lld steps of %lld tokens, %s in all; %.0f %s of %lld%s, rows of %lld\n", (long long)x->steps,
            (long long)s->train.batch_tokens, pn_compact_text(x->tokens, tokens, sizeof tokens), x->passes,
            x->passes == 1 ? "pass" : "passes", (long long)x->pass_tokens, each, (long long)s->sequence_length);
    fprintf(p->out, "  %s weights, %s of them train", pn_compact_text(x->weights, weights, sizeof weights),
            pn_compact_text(x->trained, trained, sizeof trained));
    if (x->teacher > 0)
        fprintf(p->out, "; teacher %s, %s of them its own", pn_compact_text(x->teacher, weights, sizeof weights),
                pn_compact_text(x->teacher_own, own, sizeof own));
    fprintf(
        p->out,
        "\n  memory of a device %.2f %s: weights %.2f, moments and masters %.2f%s, gradients %.2f, activations%s %.2f\n"
        "  backward makes again: %s; useful work %s operations per token\n",
        bytes / unit, bytes < 1e9 ? "MB" : "GB", x->weight_bytes / unit, x->moment_bytes / unit, part,
        x->gradient_bytes / unit, x->passes == 1 ? ", whose place gradients take," : "", x->step_bytes / unit,
        pn_recompute_text(&x->recompute), pn_compact_text(x->flops, flops, sizeof flops));
    if (x->over > 0) print_over(p, &s->train, x);
}

static void print_time(const planner *p, double device_seconds) {
    char text[48];
    fprintf(p->out, "  %.1f %s; %s on %lld %s\n", device_seconds / 3600,
            p->on.backend == PN_CPU ? "hours of such a machine" : "GPU-hours",
            pn_duration_text(device_seconds / (double)p->o->devices, text, sizeof text), (long long)p->o->devices,
            p->o->devices == 1 ? "device" : "devices");
}

static void print_speed(const planner *p, const stage_plan *x) {
    char rate[24];
    if (x->tokens_per_second <= 0) return;
    const double said = p->recipe->top.mfu_tflops * 1e12, peak = said > 0 ? said : pn_gpu_peak(p->gpu.name);
    fprintf(p->out, "  %s tokens/s a device, %s%s", pn_compact_text(x->tokens_per_second, rate, sizeof rate),
            p->o->measure ? "measured here" : "as given",
            p->o->measure && p->world.size > 1 ? " with the whole optimizer on one device" : "");
    if (peak > 0)
        fprintf(p->out, "; MFU %.0f%% of %.0f TFLOP/s", 100 * x->flops * x->tokens_per_second / peak, peak / 1e12);
    fputc('\n', p->out);
    print_time(p, x->tokens / x->tokens_per_second);
}

static void print_end(const planner *p, double device_seconds) {
    char utc[32];
    if (device_seconds <= 0) {
        fputs("No speed is known: give --tokens-per-second N, or --measure to time a few steps here.\n", p->out);
        return;
    }
    fputs("all stages\n", p->out);
    print_time(p, device_seconds);
    const time_t end = (time_t)(pn_utc_seconds() + device_seconds / (double)p->o->devices);
    struct tm at;
    strftime(utc, sizeof utc, "%Y-%m-%d %H:%M", gmtime_r(&end, &at));
    fprintf(p->out, "  begun now it ends %s UTC, where the devices share the work without loss\n", utc);
}

/* ---- a stage ---- */

/* How many words of a token the teacher's rows have; before they are written, as many as `postnas teach` takes. */
static pn_status words_of(const pn_recipe_stage *stage, const pn_model *student, int64_t *words) {
    char path[PN_PATH_MAX];
    pn_teacher_rows *rows;
    if (!stage->teacher_logits) return PN_OK;
    *words = student->config.vocab < PN_TEACHER_WORDS ? student->config.vocab : PN_TEACHER_WORDS;
    PN_TRY(pn_path_join(path, stage->teacher_logits, "manifest.json"));
    if (!pn_file_exists(path)) return PN_OK;
    PN_TRY(pn_teacher_rows_open(stage->teacher_logits, &rows));
    *words = pn_teacher_rows_info(rows)->k;
    pn_teacher_rows_close(&rows);
    return PN_OK;
}

static pn_status plan_stage(const planner *p, int i, stage_plan *x) {
    const pn_train_options *o = &p->recipe->stage[i].train;
    pn_model *student, *teacher;
    pn_mixture *mixture;
    char name[96];
    *x = (stage_plan){ .steps = pn_train_steps(o), .tokens_per_second = p->o->tokens_per_second };
    const int64_t share = o->batch_tokens / p->world.size, pass = pn_train_pass_tokens(o);
    x->tokens = (double)x->steps * (double)o->batch_tokens;
    x->pass_tokens = pass < share ? pass : share;
    x->passes = (double)(share / x->pass_tokens);
    PN_TRY(pn_recipe_planned(p->recipe, i, &p->on, &student, &teacher));
    count(student, teacher, x);
    int64_t words = 0;
    pn_status s = made_up(p, i, &mixture);
    if (!s) s = words_of(&p->recipe->stage[i], student, &words);
    const pn_train_job job = { .name = pn_recipe_stage_name(p->recipe, i, name, sizeof name),
                               .options = o,
                               .mixture = mixture,
                               .student = student,
                               .teacher = teacher,
                               .teacher_words = words,
                               .world = &p->world };
    if (!s) s = plan_work(p, &job, x);
    if (!s && p->o->measure) s = time_steps(p, i, &job, x);
    pn_mixture_destroy(&mixture);
    pn_model_destroy(&teacher);
    pn_model_destroy(&student);
    return s;
}

/* As training would, before anything is told. */
static pn_status check_devices(const planner *p) {
    char path[32];
    for (int i = 0; i < p->recipe->n_stages; i++) {
        const pn_recipe_stage *stage = &p->recipe->stage[i];
        snprintf(path, sizeof path, "stages.%d", i);
        PN_TRY(pn_train_options_check_ranks(&stage->train, stage->sequence_length, p->world.size,
                                            pn_config_where(p->recipe->config, path)));
    }
    return PN_OK;
}

static pn_status plan(const planner *p) {
    double seconds = 0;
    PN_TRY(check_devices(p));
    for (int i = 0; i < p->recipe->n_stages; i++) {
        stage_plan x;
        PN_TRY(plan_stage(p, i, &x));
        print_stage(p, i, &x);
        print_speed(p, &x);
        if (x.tokens_per_second > 0) seconds += x.tokens / x.tokens_per_second;
    }
    print_end(p, seconds);
    return PN_OK;
}

/* A GPU that is to be planned for need not be there, unless something is measured on it. */
static pn_status plan_on(planner *p) {
    const pn_compute_options *o = &p->recipe->compute;
    const pn_status s = pn_compute_open(o, pn_config_where(p->recipe->config, "precision"), &p->on);
    if (!s && p->on.backend == PN_CUDA) PN_TRY(pn_device_describe(&p->gpu));
    if (s != PN_UNSUPPORTED || p->o->measure) return s;
    pn_error_clear();
    p->on = pn_compute_asked(o);
    p->on.backend = PN_PLAN;
    fputs("There is no such GPU here: scratch of its kernels is not in the memory below.\n", p->out);
    return PN_OK;
}

pn_status pn_finetune_plan(pn_config *c, const pn_finetune_plan_options *o, FILE *out) {
    static const char *const specials[] = { "<|endoftext|>" };
    pn_recipe *r = calloc(1, sizeof *r);
    planner p = { .recipe = r, .o = o, .world = { .size = (int)o->devices }, .out = out };
    pn_status s;
    PN_CHECK(r, PN_MEMORY, "out of memory");
    PN_TRY_GOTO(s, pn_recipe_read(c, r), done);
    PN_TRY_GOTO(s, plan_on(&p), done);
    PN_TRY_GOTO(s, pn_tokenizer_bytes(specials, 1, &p.bytes), done);
    PN_TRY_GOTO(s, plan(&p), done);
done:
    pn_tokenizer_destroy(&p.bytes);
    free(r);
    return s;
}
