#include "eval_run.h"

#include "json.h"
#include "model_load.h"
#include "result.h"
#include "table.h"

typedef struct eval {
    pn_search_config config;
    pn_tokenizer *tokenizer;
    pn_model *model;
    pn_heldout heldout;
    pn_table *table;
} eval;

static pn_status measure(eval *e, const char *dir, pn_config *file) {
    PN_TRY(pn_search_config_read(file, &e->config));
    const pn_search_config *c = &e->config;
    pn_compute on;
    PN_TRY(pn_compute_open(&c->compute, pn_config_where(file, "precision"), &on));
    PN_TRY(pn_compute_tell(&on));
    PN_TRY(pn_tokenizer_open(dir, &e->tokenizer));
    PN_TRY(pn_model_load(dir, PN_F32, &e->model));
    PN_TRY(pn_params_move(e->model->params, on.backend, on.dtype));
    PN_TRY(pn_heldout_prepare(c->tasks, c->n_tasks, (int)c->heldout_samples, e->tokenizer, &e->heldout));
    PN_TRY(pn_table_create(c->tasks, c->n_tasks, (int)c->heldout_samples, &e->table));
    pn_path own = pn_model_own_path(e->model);
    char text[PN_PATH_TEXT_MAX];
    pn_table_row *row;
    PN_TRY(pn_table_add_row(e->table, dir, pn_path_text(e->model, &own, text, sizeof text), false, &row));
    PN_TRY(pn_heldout_measure(&e->heldout, e->model, &own, false, NULL, "held-out", row));
    return PN_OK;
}

pn_status pn_eval_run(const char *dir, pn_config *file, const char *json, FILE *out) {
    eval e = { 0 };
    pn_status s = measure(&e, dir, file);
    if (!s) pn_table_print(e.table, out);
    if (!s && json) {
        json_t *root = pn_table_json(e.table);
        s = pn_json_write(json, root);
        json_decref(root);
    }
    pn_table_destroy(&e.table);
    pn_heldout_free(&e.heldout);
    pn_model_destroy(&e.model);
    pn_tokenizer_destroy(&e.tokenizer);
    pn_search_config_free(&e.config);
    return s;
}
