#include "finetune.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "finetune_result.h"
#include "log.h"
#include "memory_advice.h"
#include "model_load.h"
#include "ranks.h"
#include "recipe.h"
#include "run_dir.h"
#include "trainer.h"

typedef struct finetune {
    pn_recipe recipe;
    pn_compute on;
    pn_tokenizer *tokenizer;
    pn_model *model;
    pn_world world;            /* of one rank: not opened */
    pn_run_dir run;            /* of rank 0; elsewhere its path alone */
    pn_finetune_result result; /* of rank 0 */
} finetune;

static pn_status new_finetune(finetune **out) {
    *out = calloc(1, sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return PN_OK;
}

static void finetune_free(finetune *f) {
    pn_finetune_result_close(&f->result);
    pn_run_dir_close(&f->run);
    pn_model_destroy(&f->model);
    pn_tokenizer_destroy(&f->tokenizer);
    free(f);
}

/* ---- ranks ---- */

static const pn_world *world_of(const finetune *f) {
    return f->world.size > 1 ? &f->world : NULL;
}

/* Before the device is opened. */
static pn_status meet(finetune *f, const pn_launch *who) {
    const pn_recipe *r = &f->recipe;
    const pn_compute asked = pn_compute_asked(&r->compute);
    if (who->size == 1) return PN_OK;
    PN_TRY(pn_world_open(who, &r->ranks, 0, pn_backend_pool(asked.backend), &f->world));
    pn_control_busy(f->world.control, "loading the model");
    pn_info("%d ranks, %d of them on this machine, with %d threads each", f->world.size, f->world.local_size,
            f->world.threads);
    return PN_OK;
}

/* How the work of each rank, or of rank 0 for all, went. */
static pn_status agree(finetune *f, const char *what, pn_status mine) {
    return world_of(f) ? pn_world_agree(&f->world, what, mine) : mine;
}

/* ---- before anything is written ---- */

/* What a stage needs beside the model: its data serve its budget, its patterns name weights, its teacher fits. */
static pn_status check_stage(finetune *f, int i) {
    const pn_recipe *r = &f->recipe;
    char where[32];
    pn_mixture *mixture;
    pn_model *student = NULL, *teacher = NULL;
    pn_teacher_rows *rows = NULL;
    snprintf(where, sizeof where, "stages.%d", i);
    PN_TRY(pn_recipe_mixture(r, i, f->tokenizer, &mixture));
    pn_status s = pn_train_options_check(&r->stage[i].train, mixture, pn_config_where(r->config, where));
    if (!s)
        s = pn_train_options_check_ranks(&r->stage[i].train, r->stage[i].sequence_length, pn_ranks_of(world_of(f)),
                                         pn_config_where(r->config, where));
    if (!s) s = pn_recipe_planned(r, i, &f->on, &student, &teacher);
    if (!s) s = pn_recipe_teacher_rows(r, i, f->tokenizer, mixture, student->config.vocab, &rows);
    pn_teacher_rows_close(&rows);
    pn_mixture_destroy(&mixture);
    pn_model_destroy(&teacher);
    pn_model_destroy(&student);
    return s;
}

static pn_status check_stage_memory(finetune *f, int i, const pn_model *student, const pn_model *teacher) {
    const pn_recipe *r = &f->recipe;
    const double taught = pn_own_bytes(teacher, student);
    char name[96];
    double budget;
    pn_memory_need need;
    pn_mixture *mixture;
    pn_teacher_rows *rows;
    PN_TRY(pn_memory_budget(r->stage[i].train.memory_gb, &budget));
    PN_TRY(pn_recipe_mixture(r, i, f->tokenizer, &mixture));
    pn_status s = pn_recipe_teacher_rows(r, i, f->tokenizer, mixture, student->config.vocab, &rows);
    const pn_train_job job = { .name = pn_recipe_stage_name(r, i, name, sizeof name),
                               .options = &r->stage[i].train,
                               .mixture = mixture,
                               .student = (pn_model *)(uintptr_t)student,
                               .teacher = teacher,
                               .teacher_rows = rows,
                               .world = world_of(f) };
    if (!s) s = pn_train_plan(&job, budget - taught, NULL, &need);
    need.weights = taught;
    pn_memory_settings settings = { 0 };
    if (!s) pn_memory_job_settings(&job, &need, budget, &settings);
    if (!s) s = pn_memory_check(&need, budget, &settings, name);
    pn_teacher_rows_close(&rows);
    pn_mixture_destroy(&mixture);
    return s;
}

/* Every stage, before the first begins; the model is on the GPU. */
static pn_status check_memory(finetune *f) {
    for (int i = 0; i < f->recipe.n_stages && f->on.backend == PN_CUDA; i++) {
        pn_model *student, *teacher;
        PN_TRY(pn_recipe_planned(&f->recipe, i, &f->on, &student, &teacher));
        pn_status s = check_stage_memory(f, i, student, teacher);
        pn_model_destroy(&teacher);
        pn_model_destroy(&student);
        PN_TRY(s);
    }
    return PN_OK;
}

/* ---- training ---- */

static pn_status open_teacher(finetune *f, int i, const char *path, pn_model **teacher) {
    char name[96];
    *teacher = NULL;
    if (!pn_recipe_teacher_runs(&f->recipe.stage[i])) return PN_OK;
    PN_TRY(pn_recipe_teacher(path, f->model, teacher));
    double own = 0;
    for (int k = 0; k < (*teacher)->params->n; k++)
        if ((*teacher)->params->item[k]->refs == 1) own += (double)pn_tensor_elems((*teacher)->params->item[k]->value);
    pn_info("%s: teacher %s, %lld weights, %.0f of them its own",
            pn_recipe_stage_name(&f->recipe, i, name, sizeof name), path,
            (long long)pn_params_count((*teacher)->params, false), own);
    return PN_OK;
}

/* identity: of the teacher who wrote them, and how many words of a token. */
static pn_status open_rows(finetune *f, int i, const pn_mixture *mixture, pn_teacher_rows **rows,
                           uint64_t identity[2]) {
    char name[96];
    PN_TRY(pn_recipe_teacher_rows(&f->recipe, i, f->tokenizer, mixture, f->model->config.vocab, rows));
    if (!*rows) return PN_OK;
    const pn_teacher_info *o = pn_teacher_rows_info(*rows);
    identity[0] = o->teacher_hash;
    identity[1] = (uint64_t)o->k;
    pn_info("%s: kl follows the %lld most likely words that teacher %s gives each token, read from %s",
            pn_recipe_stage_name(&f->recipe, i, name, sizeof name), (long long)o->k, o->teacher,
            f->recipe.stage[i].teacher_logits);
    return PN_OK;
}

/* A run keeps its learning rate, or its result would be no configuration's; what else there is to do. */
static void advise(const finetune *f, int i, const char *state) {
    char latest[PN_PATH_MAX];
    if (pn_path_join(latest, state, "latest") || !pn_file_exists(latest))
        pn_warn("to train with another learning rate or other data, give another output, or remove %s", f->run.path);
    else
        pn_warn(
            "to pass over more such steps, raise stages.%d.skip_steps or skip_steps_in_all and start this run "
            "again; to go on with another learning rate or other data, `postnas export %s DIRECTORY` and train that "
            "model in a new run",
            i, f->run.path);
}

static pn_status train_stage(finetune *f, int i, uint64_t start) {
    const pn_recipe *r = &f->recipe;
    char state[PN_PATH_MAX], path[PN_PATH_MAX], name[96], part[64];
    pn_mixture *mixture = NULL;
    pn_model *teacher = NULL;
    pn_teacher_rows *rows = NULL;
    uint64_t identity[] = { start, 0, 0 };
    pn_status s;
    snprintf(part, sizeof part, PN_RUN_STATE "%d", i + 1);
    PN_TRY(pn_run_dir_file(&f->run, part, state));
    PN_TRY(pn_recipe_choose_trained(r, i, f->model->params));
    pn_info("%s: %lld weights, %lld of them train", pn_recipe_stage_name(r, i, name, sizeof name),
            (long long)pn_params_count(f->model->params, false), (long long)pn_params_count(f->model->params, true));
    PN_TRY_GOTO(s, pn_recipe_mixture(r, i, f->tokenizer, &mixture), done);
    PN_TRY_GOTO(s, pn_recipe_teacher_path(r, i, path), done);
    PN_TRY_GOTO(s, open_teacher(f, i, path, &teacher), done);
    if (pn_ranks_first(world_of(f)))
        PN_TRY_GOTO(s, pn_finetune_result_begin(&f->result, r, i, f->model->params, path), done);
    if (teacher) PN_TRY_GOTO(s, pn_params_hash(teacher->params, &identity[1]), done);
    PN_TRY_GOTO(s, open_rows(f, i, mixture, &rows, &identity[1]), done);
    const pn_train_job job = { .name = name,
                               .options = &r->stage[i].train,
                               .mixture = mixture,
                               .student = f->model,
                               .teacher = teacher,
                               .teacher_rows = rows,
                               .shows = pn_ranks_first(world_of(f)) ? pn_finetune_result_show : NULL,
                               .ctx = &f->result,
                               .identity = teacher || rows ? XXH3_64bits(identity, sizeof identity) : start,
                               .state_dir = state,
                               .world = world_of(f),
                               .mfu_tflops = r->top.mfu_tflops };
    if (world_of(f)) pn_control_busy(f->world.control, NULL);
    s = pn_train_run(&job, NULL);
    if (s == PN_NUMERIC) {
        if (pn_ranks_first(world_of(f))) {
            char cause[512];
            snprintf(cause, sizeof cause, "%s", pn_error_message());
            advise(f, i, state);
            s = pn_fail_at(__FILE__, __LINE__, s, "%s", cause);
        }
        s = agree(f, "a step that is not finite", s); /* it is so on all */
    }
    if (world_of(f)) pn_control_busy(f->world.control, "between two stages");
done:
    pn_teacher_rows_close(&rows);
    pn_model_destroy(&teacher);
    pn_mixture_destroy(&mixture);
    return s;
}

/* The model as it is now, below the run; there already: nothing to do. */
static pn_status write_model(finetune *f, const char *part) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&f->run, part, path));
    if (pn_is_directory(path)) return PN_OK;
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(path, &w));
    const pn_save_options save = { .dtype = pn_recipe_dtype(&f->recipe), .kind = PN_HF_AUTO };
    pn_status s = pn_model_save(f->model, w.temporary, &save);
    if (!s) s = pn_tokenizer_write_dir(f->tokenizer, w.temporary);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    pn_info("wrote %s", path);
    return PN_OK;
}

/* The model after the last stage is the run's result, those before it are stages/1 .. */
static pn_status train(finetune *f) {
    uint64_t start;
    PN_TRY(pn_params_hash(f->model->params, &start));
    for (int i = 0; i < f->recipe.n_stages; i++) {
        char part[32] = "model";
        PN_TRY(train_stage(f, i, start));
        if (i + 1 < f->recipe.n_stages) snprintf(part, sizeof part, PN_RUN_STAGES "%d", i + 1);
        PN_TRY(agree(f, "the model of a stage", pn_ranks_first(world_of(f)) ? write_model(f, part) : PN_OK));
    }
    return PN_OK;
}

/* Of rank 0: the run's directory, in which it alone writes, but for states. *there: it has the model already. */
static pn_status open_run(finetune *f, pn_config *c, bool *there) {
    const pn_recipe *r = &f->recipe;
    char done[PN_PATH_MAX];
    PN_TRY(pn_run_dir_open(r->top.output, c, NULL, 0, &f->run));
    PN_TRY(pn_compute_tell(&f->on));
    PN_TRY(pn_run_dir_file(&f->run, "model", done));
    *there = pn_is_directory(done);
    if (*there) pn_info("%s is already there: nothing to do", done);
    return PN_OK;
}

static pn_status open_runs(finetune *f, pn_config *c, bool *there) {
    const pn_world *world = world_of(f);
    int64_t done = 0;
    *there = false;
    PN_TRY(agree(f, "the run's directory", pn_ranks_first(world) ? open_run(f, c, there) : PN_OK));
    if (!world) return PN_OK;
    done = *there;
    PN_TRY(pn_control_max(world->control, "what is there", &done));
    *there = done != 0;
    if (world->rank) snprintf(f->run.path, sizeof f->run.path, "%s", f->recipe.top.output);
    return PN_OK;
}

/* Nothing is written before it is known to be good. */
static pn_status read_input(finetune *f, pn_config *c) {
    const pn_recipe *r = &f->recipe;
    PN_TRY(pn_compute_open(&r->compute, pn_config_where(c, "precision"), &f->on));
    for (int i = 0; i < r->n_stages; i++) PN_TRY(check_stage(f, i));
    PN_TRY(pn_recipe_model(r, f->tokenizer, &f->model));
    PN_TRY(pn_params_move(f->model->params, f->on.backend, f->on.dtype));
    PN_TRY(check_memory(f));
    return PN_OK;
}

static pn_status train_all(finetune *f, pn_config *c) {
    const pn_recipe *r = &f->recipe;
    bool there;
    PN_TRY(agree(f, "the input", read_input(f, c)));
    PN_TRY(open_runs(f, c, &there));
    if (there) return PN_OK;
    if (pn_ranks_first(world_of(f))) PN_TRY(pn_finetune_result_open(r, &f->run, f->model->params, &f->result));
    return train(f);
}

static pn_status run(finetune *f, pn_config *c, const pn_launch *who) {
    const pn_recipe *r = &f->recipe;
    PN_TRY(pn_recipe_read(c, &f->recipe));
    PN_TRY(pn_recipe_tokenizer(r, &f->tokenizer));
    PN_TRY(meet(f, who));
    const pn_status s = train_all(f, c);
    return world_of(f) ? pn_world_close(&f->world, s) : s;
}

pn_status pn_finetune_read_config(pn_config *c) {
    finetune *f;
    PN_TRY(new_finetune(&f));
    pn_status s = pn_recipe_read(c, &f->recipe);
    finetune_free(f);
    return s;
}

pn_status pn_finetune_run(pn_config *c, const pn_launch *who) {
    finetune *f;
    PN_TRY(new_finetune(&f));
    pn_status s = run(f, c, who);
    finetune_free(f);
    return s;
}
