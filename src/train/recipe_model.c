/* The models that a recipe means. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_load.h"
#include "recipe.h"
#include "swa.h"

/* ---- which files ---- */

pn_status pn_recipe_model_path(const pn_recipe *r, char *path) {
    char config[PN_PATH_MAX], model[PN_PATH_MAX];
    *path = '\0';
    if (!r->top.model) return PN_OK;
    PN_TRY(pn_path_join(config, r->top.model, "config.yaml"));
    PN_TRY(pn_path_join(model, r->top.model, "model"));
    if (pn_file_exists(config) && pn_is_directory(model)) return pn_path_join(path, r->top.model, "model");
    PN_CHECK(!pn_file_exists(config), PN_USAGE, "%s: the run in %s has no model yet; let it finish first",
             pn_config_where(r->config, "model"), r->top.model);
    PN_CHECK(strlen(r->top.model) < PN_PATH_MAX, PN_USAGE, "%s: a path too long", pn_config_where(r->config, "model"));
    strcpy(path, r->top.model);
    return PN_OK;
}

typedef struct run_keys {
    const char *model;
} run_keys;
static const pn_option run_table[] = {
    PN_OPT_STRING(run_keys, model, NULL, "what a search began with", .example = "models/mine"),
    PN_OPT_END,
};

pn_status pn_recipe_base_path(const pn_recipe *r, char *path) {
    char file[PN_PATH_MAX];
    run_keys keys;
    pn_config *run;
    if (r->layers.n) return pn_recipe_model_path(r, path);
    PN_TRY(pn_path_join(file, r->top.model ? r->top.model : "", "config.yaml"));
    PN_CHECK(
        r->top.model && pn_file_exists(file), PN_USAGE,
        "%s: teacher: base is the model that a hybrid was made from: give section hybrid, or as model the run of a "
        "search; or name the teacher's directory",
        pn_config_where(r->config, "stages"));
    PN_TRY(pn_config_load(file, &run));
    pn_status s = pn_config_read(run, "", run_table, &keys);
    if (!s && (!keys.model || strlen(keys.model) >= PN_PATH_MAX))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "%s: names no model; name the teacher's directory", file);
    if (!s) strcpy(path, keys.model);
    pn_config_destroy(&run);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_recipe_teacher_path(const pn_recipe *r, int stage, char *path) {
    const char *teacher = r->stage[stage].teacher;
    *path = '\0';
    if (!strcmp(teacher, "none")) return PN_OK;
    if (!strcmp(teacher, "base")) return pn_recipe_base_path(r, path);
    PN_CHECK(strlen(teacher) < PN_PATH_MAX, PN_USAGE, "teacher: a path too long");
    strcpy(path, teacher);
    return PN_OK;
}

bool pn_recipe_teacher_runs(const pn_recipe_stage *stage) {
    return strcmp(stage->teacher, "none") && !stage->teacher_logits;
}

/* ---- shapes ---- */

/* tokenizer NULL: the shape must say the vocabulary. */
static pn_status shape_config(const pn_recipe *r, const pn_recipe_shape *o, const pn_tokenizer *t, pn_model_config *c) {
    const char *section = r->shaped ? "shape" : "random";
    const int64_t least = t ? pn_tokenizer_vocab(t) : 0;
    char key[32];
    snprintf(key, sizeof key, "%s.vocab_size", section);
    PN_CHECK(!o->vocab_size || o->vocab_size >= least, PN_USAGE,
             "%s: vocab_size %lld is smaller than the tokenizer's %lld", pn_config_where(r->config, key),
             (long long)o->vocab_size, (long long)least);
    PN_CHECK(o->vocab_size || t, PN_USAGE, "%s: give vocab_size", pn_config_where(r->config, section));
    PN_CHECK(o->head_dim || o->hidden_size % o->num_attention_heads == 0, PN_USAGE,
             "%s: hidden_size %lld is not a multiple of num_attention_heads %lld; give head_dim",
             pn_config_where(r->config, section), (long long)o->hidden_size, (long long)o->num_attention_heads);
    *c = (pn_model_config){ .dims = { .hidden = o->hidden_size,
                                      .heads = o->num_attention_heads,
                                      .kv_heads = o->num_key_value_heads,
                                      .head_dim = o->head_dim ? o->head_dim : o->hidden_size / o->num_attention_heads,
                                      .intermediate = o->intermediate_size,
                                      .rope_theta = o->rope_theta,
                                      .rms_norm_eps = o->rms_norm_eps,
                                      .qkv_bias = o->attention_bias },
                            .vocab = o->vocab_size ? o->vocab_size : least,
                            .n_layers = (int)o->num_hidden_layers,
                            .tied = o->tie_word_embeddings,
                            .bos = t ? pn_tokenizer_bos(t) : -1,
                            .eos = t ? pn_tokenizer_eos(t) : -1,
                            .max_position = r->top.sequence_length,
                            .initializer_range = o->initializer_range,
                            .file_dtype = pn_recipe_dtype(r) };
    for (int l = 0; l < c->n_layers; l++) PN_TRY(pn_block_spec_default(&pn_block_attention, &c->layer[l]));
    return PN_OK;
}

/* The files say what the configuration does. */
static pn_status check_shape(const pn_recipe *r, const pn_model_config *is, const char *path) {
    pn_model_config c;
    pn_recipe_shape said = r->shape;
    if (!r->shaped) return PN_OK;
    if (!said.vocab_size) said.vocab_size = is->vocab;
    PN_TRY(shape_config(r, &said, NULL, &c));
    const struct {
        const char *key;
        double said, is;
    } same[] = { { "hidden_size", (double)c.dims.hidden, (double)is->dims.hidden },
                 { "num_hidden_layers", c.n_layers, is->n_layers },
                 { "num_attention_heads", (double)c.dims.heads, (double)is->dims.heads },
                 { "num_key_value_heads", (double)c.dims.kv_heads, (double)is->dims.kv_heads },
                 { "head_dim", (double)c.dims.head_dim, (double)is->dims.head_dim },
                 { "intermediate_size", (double)c.dims.intermediate, (double)is->dims.intermediate },
                 { "vocab_size", (double)c.vocab, (double)is->vocab },
                 { "tie_word_embeddings", c.tied, is->tied } };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        PN_CHECK(same[i].said == same[i].is, PN_USAGE,
                 "%s: %s is %.0f here and %.0f in %s; correct it, or name the "
                 "model that this configuration is for",
                 pn_config_where(r->config, "shape"), same[i].key, same[i].said, same[i].is, path);
    return PN_OK;
}

/* Puts the recipe's layers into a base's config. changed[l]: its mixer is another than the base's. */
static pn_status put_layers(const pn_recipe *r, pn_model_config *c, bool *changed) {
    const pn_recipe_layers *in = &r->layers;
    memset(changed, 0, PN_MAX_LAYERS * sizeof *changed);
    if (!in->n) return PN_OK;
    PN_CHECK(in->n == c->n_layers, PN_USAGE, "%s: names %d layers, and the model has %d",
             pn_config_where(r->config, "hybrid.layers"), in->n, c->n_layers);
    for (int l = 0; l < in->n; l++) {
        if (in->own[l] && in->spec[l].type == c->layer[l].type) continue;
        pn_block_spec spec = in->spec[l];
        PN_TRY(pn_swa_settle(&spec, in->spec, in->n, &c->dims));
        changed[l] = !pn_block_spec_equal(&spec, &c->layer[l]);
        c->layer[l] = spec;
    }
    return PN_OK;
}

/* ---- with weights ---- */

static pn_status random_model(const pn_recipe *r, const pn_tokenizer *tokenizer, pn_model **out) {
    pn_model_config c;
    PN_TRY(shape_config(r, &r->shape, tokenizer, &c));
    PN_TRY(pn_model_create(&c, PN_F32, NULL, out));
    const pn_params *params = (*out)->params;
    for (int i = 0; i < params->n; i++) {
        pn_param *p = params->item[i];
        if (p->init.kind == PN_INIT_NORMAL) {
            bool residual = strstr(p->name, "o_proj.weight") || strstr(p->name, "down_proj.weight");
            p->init.a = r->shape.initializer_range / (residual ? sqrt(2.0 * c.n_layers) : 1);
        }
    }
    PN_TRY(pn_params_init((*out)->params, (uint64_t)r->top.seed));
    return PN_OK;
}

/* Below a layer's mixer, where that is another than the base's. */
static bool replaced(const char *name, const bool *changed, int n_layers) {
    for (int l = 0; l < n_layers; l++) {
        char prefix[PN_NAME_MAX];
        snprintf(prefix, sizeof prefix, "model.layers.%d.self_attn.", l);
        if (changed[l] && pn_param_below(name, prefix)) return true;
    }
    return false;
}

/* Takes the base's weights for all but the mixers that are new, and gives the base up. */
static pn_status put_hybrid(const pn_recipe *r, pn_model **model) {
    pn_model *base = *model, *hybrid = NULL;
    pn_model_config c = base->config;
    bool changed[PN_MAX_LAYERS];
    pn_params *kept = NULL;
    pn_status s;
    PN_TRY(put_layers(r, &c, changed));
    if (!r->layers.n) return PN_OK;
    PN_TRY(pn_params_create_like(base->params, &kept));
    for (int i = 0; i < base->params->n; i++)
        if (!replaced(base->params->item[i]->name, changed, c.n_layers))
            PN_TRY_GOTO(s, pn_params_share(kept, base->params->item[i]), done);
    PN_TRY_GOTO(s, pn_model_create(&c, PN_F32, kept, &hybrid), done);
    for (int i = 0; i < hybrid->params->n; i++)
        if (!pn_params_find(kept, hybrid->params->item[i]->name))
            PN_TRY_GOTO(s, pn_param_init(hybrid->params->item[i], (uint64_t)r->top.seed), done);
    *model = hybrid;
    hybrid = base;
done:
    pn_model_destroy(&hybrid);
    pn_params_destroy(&kept);
    return s;
}

pn_status pn_recipe_model(const pn_recipe *r, const pn_tokenizer *tokenizer, pn_model **out) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_recipe_model_path(r, path));
    if (!*path) {
        PN_TRY(random_model(r, tokenizer, out));
    } else {
        PN_TRY(pn_model_load(path, PN_F32, out));
        PN_TRY(check_shape(r, &(*out)->config, path));
        PN_CHECK(pn_tokenizer_vocab(tokenizer) <= (*out)->config.vocab, PN_USAGE,
                 "%s: the tokenizer has %lld tokens, the model in %s only %lld; leave tokenizer out to use the model's "
                 "own",
                 pn_config_where(r->config, r->top.tokenizer ? "tokenizer" : "model"),
                 (long long)pn_tokenizer_vocab(tokenizer), path, (long long)(*out)->config.vocab);
    }
    PN_TRY(put_hybrid(r, out));
    return PN_OK;
}

/* ---- without ---- */

/* The config in files, which need not be there where the recipe gives the shape. */
static pn_status config_at(const pn_recipe *r, const char *path, pn_model_config *out) {
    char file[PN_PATH_MAX];
    PN_TRY(pn_path_join(file, path, "config.json"));
    if (r->shaped && !pn_file_exists(path)) return shape_config(r, &r->shape, NULL, out);
    if (pn_file_exists(file)) return pn_hf_config_read(path, out);
    pn_model_files files;
    PN_TRY(pn_model_files_open(path, &files));
    *out = files.config;
    pn_model_files_close(&files);
    return PN_OK;
}

static pn_status student_config(const pn_recipe *r, pn_model_config *out, bool *changed) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_recipe_model_path(r, path));
    if (*path) {
        PN_TRY(config_at(r, path, out));
        PN_TRY(check_shape(r, out, path));
    } else {
        pn_tokenizer *t = NULL;
        pn_status s = r->shape.vocab_size ? PN_OK : pn_recipe_tokenizer(r, &t);
        if (!s) s = shape_config(r, &r->shape, t, out);
        pn_tokenizer_destroy(&t);
        PN_TRY(s);
    }
    PN_TRY(put_layers(r, out, changed));
    return PN_OK;
}

/* What a teacher's weights can be: the student's that neither this nor an earlier stage trains. */
static pn_status plan_teacher(const pn_recipe *r, int stage, const pn_model *student, const bool *changed,
                              pn_model **out) {
    char path[PN_PATH_MAX];
    pn_model_config c;
    if (!pn_recipe_teacher_runs(&r->stage[stage])) return PN_OK;
    PN_TRY(pn_recipe_teacher_path(r, stage, path));
    PN_TRY(config_at(r, path, &c));
    pn_params *p = student->params, *shared;
    bool *trained = calloc((size_t)p->n + 1, sizeof *trained);
    PN_CHECK(trained, PN_MEMORY, "out of memory");
    pn_status s = pn_params_create_like(p, &shared);
    for (int k = 0; k <= stage && !s; k++) {
        s = pn_recipe_choose_trained(r, k, p);
        for (int i = 0; i < p->n; i++) trained[i] = trained[i] || p->item[i]->value->wants_grad;
    }
    for (int i = 0; i < p->n && !s; i++)
        if (!trained[i] && !replaced(p->item[i]->name, changed, student->config.n_layers))
            s = pn_params_share(shared, p->item[i]);
    if (!s) s = pn_model_create(&c, p->dtype, shared, out);
    if (shared) pn_params_destroy(&shared);
    free(trained);
    return s;
}

pn_status pn_recipe_planned(const pn_recipe *r, int stage, const pn_compute *on, pn_model **student,
                            pn_model **teacher) {
    pn_model_config c;
    bool changed[PN_MAX_LAYERS];
    pn_params *none;
    char where[32];
    *student = *teacher = NULL;
    PN_TRY(student_config(r, &c, changed));
    PN_TRY(pn_params_plan(on->dtype, &none));
    none->planned_for = on->backend;
    pn_status s = pn_model_create(&c, on->dtype, none, student);
    pn_params_destroy(&none);
    if (!s) s = plan_teacher(r, stage, *student, changed, teacher);
    if (!s) s = pn_recipe_choose_trained(r, stage, (*student)->params);
    snprintf(where, sizeof where, "stages.%d", stage);
    if (!s) s = pn_recipe_teacher_check(&r->stage[stage], *student, *teacher, pn_config_where(r->config, where));
    if (!s) return PN_OK;
    pn_model_destroy(teacher);
    pn_model_destroy(student);
    return s;
}

pn_status pn_recipe_choose_trained(const pn_recipe *r, int stage, pn_params *params) {
    const pn_recipe_stage *s = &r->stage[stage];
    const pn_string_list *lists[] = { &s->trains, &s->frozen };
    char path[64];
    pn_params_train(params, "*", s->trains.n == 0);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < lists[k]->n; i++) {
            if (pn_params_train(params, lists[k]->item[i], k == 0)) continue;
            const char *key = k ? "frozen" : "trains";
            snprintf(path, sizeof path, "stages.%d.%s", stage, key);
            PN_FAIL(PN_USAGE, "%s: no weight is called \"%s\"",
                    pn_config_where(r->config, pn_config_has(r->config, path) ? path : key), lists[k]->item[i]);
        }
    return PN_OK;
}
