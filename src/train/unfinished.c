#include "unfinished.h"

#include <stdio.h>
#include <stdlib.h>

#include "checkpoint.h"
#include "optimizer.h"
#include "recipe.h"
#include "run_dir.h"

static pn_status state_dir(const char *run, int stage, char *out) {
    char part[32];
    snprintf(part, sizeof part, PN_RUN_STATE "%d", stage + 1);
    return pn_path_join(out, run, part);
}

/* The weights that train in the stage become those of its newest checkpoint; *step is -1 where there is none. */
static pn_status take_weights(const char *run, const pn_recipe *r, int stage, const pn_params *params, int64_t *step) {
    char dir[PN_PATH_MAX];
    PN_TRY(state_dir(run, stage, dir));
    pn_checkpoint_array *arrays = calloc((size_t)params->n + 1, sizeof *arrays);
    char(*names)[PN_OPTIMIZER_NAME] = calloc((size_t)params->n + 1, sizeof *names);
    int n = 0;
    pn_status s = arrays && names ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    for (int i = 0; i < params->n && !s; i++) {
        const pn_param *p = params->item[i];
        if (!p->value->wants_grad) continue;
        snprintf(names[n], sizeof names[n], PN_OPTIMIZER_WEIGHT "/%s", p->name);
        arrays[n] = pn_checkpoint_tensor(names[n], PN_F32, p->value);
        n++;
    }
    if (!s) s = pn_checkpoint_read(&(pn_checkpoint_place){ .dir = dir, .any_job = true }, arrays, n, step);
    free(arrays);
    free(names);
    if (!s && *step > pn_train_steps(&r->stage[stage].train))
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: holds step %lld of a stage of %lld", dir, (long long)*step,
                       (long long)pn_train_steps(&r->stage[stage].train));
    return s;
}

/* The stage that is on: the last with a state. */
static pn_status find_stage(const char *run, const pn_recipe *r, int *stage) {
    char dir[PN_PATH_MAX], latest[PN_PATH_MAX];
    for (*stage = r->n_stages - 1; *stage >= 0; --*stage) {
        PN_TRY(state_dir(run, *stage, dir));
        PN_TRY(pn_path_join(latest, dir, "latest"));
        if (pn_file_exists(latest)) return PN_OK;
    }
    PN_FAIL(PN_USAGE,
            "%s: this run is not finished and has saved no step yet: let it train until its first checkpoint "
            "(checkpoint_seconds), or to its end",
            run);
}

static pn_status make_model(const char *run, const pn_recipe *r, pn_unfinished *out) {
    PN_TRY(find_stage(run, r, &out->stage));
    PN_TRY(pn_recipe_tokenizer(r, &out->tokenizer));
    PN_TRY(pn_recipe_model(r, out->tokenizer, &out->model));
    for (int i = 0; i <= out->stage; i++) {
        PN_TRY(pn_recipe_choose_trained(r, i, out->model->params));
        PN_TRY(take_weights(run, r, i, out->model->params, &out->step));
        out->steps = pn_train_steps(&r->stage[i].train);
        PN_CHECK(i == out->stage || out->step == out->steps, PN_FORMAT,
                 "%s: the state of stage %d is not that of its last step, %lld; start the run again, which makes it",
                 run, i + 1, (long long)out->steps);
    }
    out->n_stages = r->n_stages;
    return PN_OK;
}

pn_status pn_unfinished_open(const char *run, pn_unfinished *out) {
    char file[PN_PATH_MAX];
    pn_config *c;
    *out = (pn_unfinished){ 0 };
    PN_TRY(pn_path_join(file, run, "config.yaml"));
    PN_TRY(pn_config_load(file, &c));
    pn_recipe *r = calloc(1, sizeof *r);
    pn_status s = r ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s && pn_config_has(c, "search"))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                       "%s: this search is not finished and has no hybrid yet: the command that began it goes on with "
                       "it",
                       run);
    if (!s) s = pn_recipe_read(c, r);
    if (!s) s = make_model(run, r, out);
    if (s) pn_unfinished_close(out);
    free(r);
    pn_config_destroy(&c);
    return s;
}

void pn_unfinished_close(pn_unfinished *x) {
    pn_model_destroy(&x->model);
    pn_tokenizer_destroy(&x->tokenizer);
    *x = (pn_unfinished){ 0 };
}
