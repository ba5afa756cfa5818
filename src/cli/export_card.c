#include "export_card.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "files.h"
#include "run_dir.h"

enum { MAX_RESULT_BYTES = 256 << 20 };

typedef struct gathered {
    char *text;        /* config.yaml without origins */
    pn_config *config; /* the same, read */
    json_t *result;    /* the run's result.json */
    json_t *trained;   /* of it, what made this model */
    json_t *scores;    /* the file of --scores */
    json_t *rows;      /* of them, this model's last */
    pn_model_card card;
    char name[PN_PATH_MAX], base[PN_PATH_MAX], where[160]; /* what the card's point into */
} gathered;

/* "c" of "a/b/c/", whose last slash goes. */
static const char *last_part(char *path) {
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--) path[n - 1] = '\0';
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* ---- base and recipe ---- */

/* Paths from the root say nothing on another machine: of every scalar that is one, the last part stays. */
static void shorten_paths(char *text) {
    char *to = text;
    for (char *p = text; *p;) {
        const bool starts = *p == '/' && p > text && strchr(" [\"'", p[-1]) && isalnum((unsigned char)p[1]);
        const size_t n = starts ? strcspn(p, " ,]\"'\n") : 1;
        const char *part = p;
        for (size_t i = 1; starts && i + 1 < n; i++)
            if (p[i] == '/') part = p + i + 1;
        p += n;
        memmove(to, part, (size_t)(p - part));
        to += p - part;
    }
    *to = '\0';
}

typedef struct base_options {
    const char *model;
} base_options;

static const pn_option base_table[] = {
    PN_OPT_STRING(base_options, model, NULL, "where the run began", .example = "models/mine"),
    PN_OPT_END,
};

/* As text: how a number is written is the recipe's own affair. */
static const pn_option stage_table[] = {
    PN_OPT_STRING(pn_card_stage, name, NULL, "", .example = ""),
    PN_OPT_STRING(pn_card_stage, tokens, NULL, "", .example = ""),
    PN_OPT_STRING(pn_card_stage, batch_tokens, NULL, "", .example = ""),
    PN_OPT_STRING(pn_card_stage, learning_rate, NULL, "", .example = ""),
    PN_OPT_STRING(pn_card_stage, schedule, NULL, "", .example = ""),
    PN_OPT_STRING(pn_card_stage, teacher, NULL, "", .example = ""),
    PN_OPT_END,
};

static pn_status add_stage(gathered *g, const char *section, pn_card_stage **out) {
    pn_card_stage *s = *out = &g->card.stage[g->card.n_stages];
    PN_TRY(pn_config_read(g->config, section, stage_table, s));
    g->card.n_stages += s->tokens != NULL;
    return PN_OK;
}

/* Which of several models of a run it is. */
static void say_where(gathered *g, const pn_export_card *c, int n_stages) {
    if (c->step)
        snprintf(g->where, sizeof g->where,
                 "Not finished: this is the model after step %lld of stage %d of %d, the newest that was saved.",
                 (long long)c->step, c->stage, n_stages);
    else
        snprintf(g->where, sizeof g->where, "This is the model after stage %d of %d.", c->stage, n_stages);
    g->card.where = g->where;
    g->card.unfinished = c->step > 0;
}

static pn_status add_stages(gathered *g, const pn_export_card *c) {
    pn_card_stage *s;
    int n;
    if (pn_config_has(g->config, "search")) {
        static const char *const part[][2] = { { "supernet", "candidates of the search" },
                                               { "distill", "distillation of the hybrid" } };
        for (int i = 0; i < 2; i++) {
            PN_TRY(add_stage(g, part[i][0], &s));
            s->name = part[i][1];
            s->teacher = "base";
        }
        return PN_OK;
    }
    PN_TRY(pn_config_list_size(g->config, "stages", &n));
    if (c->stage) say_where(g, c, n);
    if (c->stage && c->stage < n) n = c->stage;
    for (int i = 0; i < n && i < PN_CARD_STAGES; i++) {
        char section[32];
        snprintf(section, sizeof section, "stages.%d", i);
        PN_TRY(add_stage(g, section, &s));
    }
    return PN_OK;
}

static pn_status read_recipe(gathered *g, const pn_export_card *c) {
    pn_run_dir dir = { 0 };
    char name[PN_PATH_MAX];
    base_options base;
    strcpy(dir.path, c->run);
    PN_TRY(pn_run_dir_file(&dir, "config.yaml", name));
    PN_TRY(pn_run_dir_config(&dir, &g->text));
    PN_TRY(pn_config_parse(name, g->text, &g->config));
    PN_TRY(pn_config_read(g->config, "", base_table, &base));
    shorten_paths(g->text); /* the config has its own copy */
    g->card.recipe = g->text;
    snprintf(g->base, sizeof g->base, "%s", base.model ? base.model : "Random weights.");
    g->card.base = *g->base == '/' ? last_part(g->base) : g->base;
    return add_stages(g, c);
}

/* ---- scores ---- */

/* The teacher, and what was written; other rows are of other hybrids. */
static bool is_ours(const char *name) {
    return !strcmp(name, "teacher") || !strcmp(name, "PostNAS, distilled") || !strcmp(name, "PostNAS, exported");
}

/* all: every row is of the model. */
static pn_status add_rows(gathered *g, const char *file, const json_t *table, bool all) {
    PN_CHECK(g->rows = json_array(), PN_MEMORY, "out of memory");
    for (size_t i = 0; i < json_array_size(table); i++) {
        char key[32];
        const char *name;
        snprintf(key, sizeof key, "%zu.name", i);
        PN_TRY(pn_json_get_str(table, file, key, &name));
        if (all || is_ours(name)) json_array_append(g->rows, json_array_get(table, i));
        if (all || (is_ours(name) && strcmp(name, "teacher"))) g->card.scores = g->rows;
    }
    return PN_OK;
}

/* The stages that made the model; of one that is not finished, no evaluation of a later model. */
static pn_status cut_stages(gathered *g, const pn_export_card *c) {
    json_t *stages = json_object_get(g->result, "stages");
    PN_CHECK(g->trained = json_deep_copy(stages), PN_MEMORY, "out of memory");
    if (!c->stage) return PN_OK;
    while (json_array_size(g->trained) > (size_t)c->stage)
        json_array_remove(g->trained, json_array_size(g->trained) - 1);
    if (!c->step || json_array_size(g->trained) < (size_t)c->stage) return PN_OK;
    json_t *points = json_object_get(json_array_get(g->trained, (size_t)c->stage - 1), "heldout");
    for (size_t i = json_array_size(points); i > 0; i--)
        if (json_integer_value(json_object_get(json_array_get(points, i - 1), "step")) > c->step)
            json_array_remove(points, i - 1);
    return PN_OK;
}

/* Of a search the table, of finetune its losses. */
static pn_status read_result(gathered *g, const pn_export_card *c) {
    char file[PN_PATH_MAX];
    if (!c->is_result && !c->stage) return PN_OK;
    PN_TRY(pn_path_join(file, c->run, "result.json"));
    if (!pn_file_exists(file)) return PN_OK;
    PN_TRY(pn_json_load(file, MAX_RESULT_BYTES, &g->result));
    const json_t *table = json_object_get(g->result, "table");
    if (!table && json_object_get(g->result, "stages")) {
        PN_TRY(cut_stages(g, c));
        g->card.trained = g->trained;
    }
    return c->scores ? PN_OK : add_rows(g, file, table, false);
}

static pn_status read_scores(gathered *g, const pn_export_card *c) {
    PN_TRY(read_result(g, c));
    if (!c->scores) return PN_OK;
    PN_TRY(pn_json_load(c->scores, MAX_RESULT_BYTES, &g->scores));
    PN_CHECK(json_is_array(g->scores), PN_FORMAT, "%s: this is no file of postnas eval --output, which is a list",
             c->scores);
    return add_rows(g, c->scores, g->scores, true);
}

pn_status pn_export_card_write(const pn_export_card *c, const char *dir) {
    gathered *g = calloc(1, sizeof *g);
    char path[PN_PATH_MAX];
    pn_status s = PN_OK;
    PN_CHECK(g, PN_MEMORY, "out of memory");
    snprintf(g->name, sizeof g->name, "%s", c->target);
    g->card.name = last_part(g->name);
    g->card.config = c->config;
    g->card.parameters = c->parameters;
    g->card.kind = c->kind;
    if (c->run) s = read_recipe(g, c);
    if (!s) s = read_scores(g, c);
    if (!s) s = pn_path_join(path, dir, "README.md");
    if (!s) s = pn_model_card_write(path, &g->card);
    json_decref(g->rows);
    json_decref(g->trained);
    json_decref(g->result);
    json_decref(g->scores);
    pn_config_destroy(&g->config);
    free(g->text);
    free(g);
    return s;
}
