#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "model_load.h"
#include "recipe.h"
#include "teach.h"
#include "train_options.h"

typedef struct teach_stage {
    pn_recipe recipe;
    int stage;
    char teacher[PN_PATH_MAX];
    const char *dir;
    pn_tokenizer *tokenizer;
    pn_mixture *mixture;
    pn_model *model;
    pn_compute on;
} teach_stage;

static bool has_teacher(const pn_recipe *r, int i) {
    return strcmp(r->stage[i].teacher, "none");
}

static pn_status find_stage(const pn_recipe *r, const char *wanted, int *out) {
    int n = 0;
    *out = -1;
    for (int i = 0; i < r->n_stages && wanted; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i + 1);
        if (*out < 0 && (!strcmp(wanted, number) || (r->stage[i].name && !strcmp(wanted, r->stage[i].name)))) *out = i;
    }
    PN_CHECK(!wanted || *out >= 0, PN_USAGE,
             "%s: there is no stage \"%s\"; give --stage a name, or a number from 1 to %d", pn_config_name(r->config),
             wanted, r->n_stages);
    for (int i = 0; i < r->n_stages && !wanted; i++) {
        if (!has_teacher(r, i)) continue;
        *out = i;
        n++;
    }
    PN_CHECK(wanted || n <= 1, PN_USAGE, "%s: %d stages have a teacher; say which one's rows to write with --stage",
             pn_config_name(r->config), n);
    PN_CHECK(*out >= 0 && has_teacher(r, *out), PN_USAGE,
             "%s: %s has no teacher; set teacher: base, or a model directory", pn_config_name(r->config),
             wanted ? "the stage" : "no stage has one, or the only one");
    return PN_OK;
}

/* All that can be wrong, before the teacher's weights are read. */
static pn_status read_stage(teach_stage *t, pn_config *c, const pn_teach_options *o) {
    const pn_recipe *r = &t->recipe;
    char where[32];
    PN_TRY(pn_recipe_read(c, &t->recipe));
    PN_TRY(find_stage(r, o->stage, &t->stage));
    const pn_recipe_stage *stage = &r->stage[t->stage];
    snprintf(where, sizeof where, "stages.%d", t->stage);
    t->dir = o->output ? o->output : stage->teacher_logits;
    PN_CHECK(t->dir, PN_USAGE, "%s: say where the rows go: teacher_logits in the stage, or --output DIR",
             pn_config_where(c, where));
    PN_TRY(pn_recipe_tokenizer(r, &t->tokenizer));
    PN_TRY(pn_recipe_mixture(r, t->stage, t->tokenizer, &t->mixture));
    PN_TRY(pn_train_options_check(&stage->train, t->mixture, pn_config_where(c, where)));
    PN_TRY(pn_recipe_teacher_path(r, t->stage, t->teacher));
    return pn_compute_open(&r->compute, pn_config_where(c, "precision"), &t->on);
}

static pn_status run(teach_stage *t, pn_config *c, const pn_teach_options *o) {
    char name[96];
    PN_TRY(read_stage(t, c, o));
    const pn_recipe_stage *stage = &t->recipe.stage[t->stage];
    PN_TRY(pn_model_load(t->teacher, PN_F32, &t->model));
    const int64_t vocab = t->model->config.vocab;
    PN_CHECK(pn_tokenizer_vocab(t->tokenizer) <= vocab, PN_USAGE,
             "%s: the tokenizer has %lld tokens, the teacher in %s only %lld: teacher and model must share theirs",
             pn_config_name(c), (long long)pn_tokenizer_vocab(t->tokenizer), t->teacher, (long long)vocab);
    snprintf(name, sizeof name, "teach %s", stage->name ? stage->name : "");
    pn_teach_job job = { .name = name,
                         .teacher = t->model,
                         .mixture = t->mixture,
                         .rows = stage->train.tokens / stage->sequence_length,
                         .batch_tokens = o->batch_tokens,
                         .dir = t->dir };
    PN_TRY(pn_teach_info(t->teacher, t->model, pn_tokenizer_hash(t->tokenizer), t->mixture, &job.info));
    job.info.k = o->words ? o->words : vocab < PN_TEACHER_WORDS ? vocab : PN_TEACHER_WORDS;
    job.info.temperature = stage->train.loss.temperature;
    PN_TRY(pn_params_move(t->model->params, t->on.backend, t->on.dtype));
    PN_TRY(pn_compute_tell(&t->on));
    PN_TRY(pn_teach_run(&job));
    return PN_OK;
}

pn_status pn_teach_stage(pn_config *c, const pn_teach_options *o) {
    teach_stage *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    pn_status s = run(t, c, o);
    if (!s && !t->recipe.stage[t->stage].teacher_logits)
        pn_info("to train with them, in the stage:  teacher_logits: %s", t->dir);
    pn_model_destroy(&t->model);
    pn_mixture_destroy(&t->mixture);
    pn_tokenizer_destroy(&t->tokenizer);
    free(t);
    return s;
}
