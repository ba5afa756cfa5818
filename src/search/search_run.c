#include "search_run.h"

#include <stdlib.h>

#include "clock.h"
#include "json.h"
#include "log.h"
#include "run_phases.h"

static void end_phase(pn_run *r, const char *name) {
    double now = pn_seconds();
    if (r->n_phases < PN_RUN_PHASES) r->phase[r->n_phases++] = (pn_run_phase){ name, now - r->started };
    r->started = now;
}

/* Everything that can be wrong with the input is found here, before the directory of the run is made. */
static pn_status prepare(pn_run *r, pn_config *file) {
    PN_TRY(pn_run_open(r, file));
    PN_TRY(pn_run_space(r));
    const pn_search_config *c = &r->config;
    r->search_task = calloc((size_t)c->n_tasks, sizeof *r->search_task);
    PN_CHECK(r->search_task, PN_MEMORY, "out of memory");
    for (int k = 0; k < c->n_tasks; k++)
        PN_TRY(pn_task_prepare(&c->tasks[k], r->tokenizer, PN_SPLIT_SEARCH, 0, &r->search_task[k]));
    PN_TRY(pn_heldout_prepare(c->tasks, c->n_tasks, (int)c->heldout_samples, r->tokenizer, &r->heldout));
    PN_TRY(pn_run_build_net(r));
    PN_TRY(pn_run_dir_open(c->top.output, file, &r->dir));
    if (r->dir.resumed) pn_info("going on with the run in %s", r->dir.path);
    return PN_OK;
}

static pn_status write_timing(pn_run *r) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&r->dir, "timing.json", path));
    json_t *root = json_object();
    double total = 0;
    for (int i = 0; i < r->n_phases; i++) {
        json_object_set_new(root, r->phase[i].name, json_real(r->phase[i].seconds));
        total += r->phase[i].seconds;
    }
    json_object_set_new(root, "total_seconds", json_real(total));
    pn_status s = pn_json_write(path, root);
    json_decref(root);
    char text[32];
    fprintf(r->out, "total time: %s\n", pn_duration_text(total, text, sizeof text));
    return s;
}

static pn_status phases(pn_run *r, pn_config *file) {
    r->started = pn_seconds();
    PN_TRY(prepare(r, file));
    end_phase(r, "prepare_seconds");
    PN_TRY(pn_run_train_net(r));
    end_phase(r, "supernet_seconds");
    PN_TRY(pn_run_choose(r));
    end_phase(r, "search_seconds");
    PN_TRY(pn_run_table(r));
    end_phase(r, "heldout_seconds");
    PN_TRY(pn_run_distill(r));
    end_phase(r, "distill_and_export_seconds");
    PN_TRY(pn_run_results(r));
    PN_TRY(write_timing(r));
    return PN_OK;
}

pn_status pn_search_run(pn_config *file, FILE *out) {
    pn_run *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "out of memory");
    r->out = out;
    pn_status s = phases(r, file);
    pn_run_free(r);
    free(r);
    return s;
}
