#include "finetune_result.h"

#include <stdlib.h>

#include "json.h"
#include "report.h"

pn_status pn_finetune_result_open(const pn_recipe *r, const pn_run_dir *run, const pn_params *params,
                                  pn_finetune_result *out) {
    char *config;
    *out = (pn_finetune_result){ .run = run, .root = json_object() };
    PN_CHECK(out->root, PN_MEMORY, "out of memory");
    PN_TRY(pn_run_dir_config(run, &config));
    json_object_set_new(out->root, "format", json_integer(1));
    json_object_set_new(out->root, "postnas", json_string(POSTNAS_VERSION));
    json_object_set_new(out->root, "kind", json_string("finetune"));
    json_object_set_new(out->root, "model", json_string(r->top.model ? r->top.model : "random weights"));
    json_object_set_new(out->root, "seed", json_integer(r->top.seed));
    json_object_set_new(out->root, "backend", json_string(pn_backend_name(params->backend)));
    if (params->backend == PN_CUDA)
        json_object_set_new(out->root, "precision", json_string(pn_dtype_name(params->dtype)));
    json_object_set_new(out->root, "weights", json_integer(pn_params_count(params, false)));
    json_object_set_new(out->root, "stages", json_array());
    json_object_set_new(out->root, "config", json_string(config));
    free(config);
    return PN_OK;
}

void pn_finetune_result_close(pn_finetune_result *x) {
    json_decref(x->root);
    *x = (pn_finetune_result){ 0 };
}

pn_status pn_finetune_result_begin(pn_finetune_result *x, const pn_recipe *r, int stage, const pn_params *params,
                                   const char *teacher) {
    const pn_recipe_stage *s = &r->stage[stage];
    char number[32];
    snprintf(number, sizeof number, "stage %d", stage + 1);
    x->stage = json_object();
    PN_CHECK(x->stage, PN_MEMORY, "out of memory");
    json_array_append_new(json_object_get(x->root, "stages"), x->stage);
    json_object_set_new(x->stage, "name", json_string(s->name ? s->name : number));
    json_object_set_new(x->stage, "tokens", json_integer(pn_train_steps(&s->train) * s->train.batch_tokens));
    json_object_set_new(x->stage, "deterministic", json_boolean(s->train.deterministic));
    json_object_set_new(x->stage, "trains", json_integer(pn_params_count(params, true)));
    json_object_set_new(x->stage, "teacher", *teacher ? json_string(teacher) : json_null());
    return PN_OK;
}

pn_status pn_finetune_result_show(void *ctx, const pn_curve *curve, const pn_curve *heldout) {
    pn_finetune_result *x = ctx;
    char file[PN_PATH_MAX];
    json_object_set_new(x->stage, "curve", pn_curve_json(curve));
    json_object_set_new(x->stage, "heldout", pn_curve_json(heldout));
    PN_TRY(pn_run_dir_file(x->run, "result.json", file));
    PN_TRY(pn_json_write(file, x->root));
    PN_TRY(pn_run_dir_file(x->run, "report.html", file));
    PN_TRY(pn_report_write(x->root, NULL, file));
    return PN_OK;
}
