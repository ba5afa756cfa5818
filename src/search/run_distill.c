/* From the chosen path to a model directory: distillation of the winner and of its rivals, export. */
#include "run_phases.h"

#include <stdio.h>

#include <xxhash.h>

#include "log.h"
#include "model_load.h"

static pn_status distill(pn_run *r, const char *name, const char *state, const pn_path *path, pn_curve *curve,
                         pn_model **out) {
    PN_TRY(pn_supernet_extract(r->net, path, out));
    if (!r->config.distill_tokens) return PN_OK;
    char dir[PN_PATH_MAX], what[64], part[64];
    snprintf(part, sizeof part, "state/%s", state);
    snprintf(what, sizeof what, "distil %s", name);
    PN_TRY(pn_run_dir_file(&r->dir, part, dir));
    pn_path teacher = pn_model_own_path(r->net);
    const uint64_t start[] = { r->scores->weights_hash, pn_scores_path_key(r->scores, path) };
    const pn_train_job job = { .name = what,
                               .options = &r->config.distill_train,
                               .mixture = r->mixture,
                               .student = *out,
                               .teacher = r->net,
                               .teacher_path = &teacher,
                               .identity = XXH3_64bits(start, sizeof start),
                               .state_dir = dir };
    PN_TRY(pn_train_run(&job, curve));
    return PN_OK;
}

static pn_status distill_rival(pn_run *r, const char *name, const char *state, const pn_path *path) {
    pn_model *m = NULL;
    pn_status s = distill(r, name, state, path, NULL, &m);
    pn_path own = pn_model_own_path(r->net);
    char row[64];
    snprintf(row, sizeof row, "%s, distilled", name);
    if (!s) s = pn_run_add_row(r, row, m, &own, true);
    pn_model_destroy(&m);
    return s;
}

static pn_status export_model(pn_run *r, const pn_model *m) {
    char path[PN_PATH_MAX], fresh[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "model", path));
    PN_TRY(
        pn_run_dir_file(&r->dir, "state/model", fresh)); /* then in place of one that an earlier end of this run left */
    PN_TRY(pn_remove_tree(fresh));
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(fresh, &w));
    const pn_save_options save = { .dtype = pn_export_dtype(r->config.top.dtype), .kind = PN_HF_JET_NEMOTRON };
    pn_status s = pn_model_save(m, w.temporary, &save);
    if (!s) s = pn_tokenizer_write_dir(r->tokenizer, w.temporary);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    PN_TRY(pn_directory_replace(fresh, path));
    pn_info("wrote %s", path);
    return PN_OK;
}

/* The winner's row is measured on what was written: read back from its files. */
static pn_status finish_winner(pn_run *r) {
    pn_model *m = NULL, *back = NULL;
    char path[PN_PATH_MAX];
    pn_path own = pn_model_own_path(r->net);
    pn_status s;
    PN_TRY_GOTO(s, distill(r, "PostNAS", "distill", &r->winner, &r->distill_curve, &m), done);
    PN_TRY_GOTO(s, export_model(r, m), done);
    pn_model_destroy(&m);
    PN_TRY_GOTO(s, pn_run_dir_file(&r->dir, "model", path), done);
    PN_TRY_GOTO(s, pn_model_load(path, PN_F32, &back), done);
    PN_TRY_GOTO(s, pn_params_move(back->params, r->on.backend, r->on.dtype), done);
    bool distilled = r->config.distill_tokens > 0;
    PN_TRY_GOTO(s, pn_run_add_row(r, distilled ? "PostNAS, distilled" : "PostNAS, exported", back, &own, distilled),
                done);
done:
    pn_model_destroy(&m);
    pn_model_destroy(&back);
    return s;
}

pn_status pn_run_distill(pn_run *r) {
    const pn_search_config *c = &r->config;
    if (c->compare.distill && c->distill_tokens) {
        pn_path linear = pn_space_all_linear(&r->final), uniform = pn_space_uniform(&r->final);
        if (c->compare.all_linear) PN_TRY(distill_rival(r, "all linear", "distill-all-linear", &linear));
        if (c->compare.uniform) PN_TRY(distill_rival(r, "uniform", "distill-uniform", &uniform));
    }
    return finish_winner(r);
}
