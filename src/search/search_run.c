#include "search_run.h"

#include <stdlib.h>

#include "clock.h"
#include "json.h"
#include "log.h"
#include "run_phases.h"

/* Everything that can be wrong with the input is found here, before the directory of the run is made. */
static pn_status prepare(pn_run *r, pn_config *file) {
    PN_TRY(pn_run_open(r, file));
    PN_TRY(pn_run_space(r));
    PN_TRY(pn_run_check_variants(r));
    const pn_search_config *c = &r->config;
    r->search_task = calloc((size_t)c->n_tasks, sizeof *r->search_task);
    PN_CHECK(r->search_task, PN_MEMORY, "out of memory");
    for (int k = 0; k < c->n_tasks; k++)
        PN_TRY(pn_task_prepare(&c->tasks[k], r->tokenizer, PN_SPLIT_SEARCH, 0, &r->search_task[k]));
    PN_TRY(pn_heldout_prepare(c->tasks, c->n_tasks, (int)c->heldout_samples, r->tokenizer, &r->heldout));
    PN_TRY(pn_run_check_latency(r));
    PN_TRY(pn_run_build_net(r));
    PN_TRY(pn_run_check_memory(r));
    PN_TRY(pn_run_open_dir(r, c->top.output, file));
    PN_TRY(pn_compute_tell(&r->on));
    return PN_OK;
}

/* The last file of a run: with it, the run is finished. */
static const char last_file[] = "timing.json";

static pn_status write_timing(pn_run *r) {
    char path[PN_PATH_MAX], text[32];
    double total;
    PN_TRY(pn_run_clock_begin(&r->clock, NULL));
    PN_TRY(pn_run_dir_file(&r->dir, last_file, path));
    json_t *root = pn_run_clock_json(&r->clock, &total);
    pn_status s = pn_json_write(path, root);
    json_decref(root);
    fprintf(r->out, "total time: %s\n", pn_duration_text(total, text, sizeof text));
    return s;
}

/* A finished run says so; without one of its files it is finished again, from what its state knows. */
static pn_status is_finished(pn_run *r, bool *yes) {
    const char *const files[] = { "model", "result.json", "report.html", last_file };
    char path[PN_PATH_MAX];
    *yes = true;
    for (int i = 0; i < 4; i++) {
        PN_TRY(pn_run_dir_file(&r->dir, files[i], path));
        *yes = *yes && pn_file_exists(path);
    }
    if (*yes) fprintf(r->out, "%s holds this run, finished: see report.html and result.json in it\n", r->dir.path);
    return PN_OK;
}

static pn_status later_stages(pn_run *r) {
    static const char *const phases[] = {
        [PN_VARIANTS_BLOCK] = "block_seconds", [PN_VARIANTS_SHAPE] = "shape_seconds"
    };
    for (int k = 0; k < PN_VARIANT_STAGES; k++) {
        if (!r->config.variants[k].wanted) continue;
        PN_TRY(pn_run_clock_begin(&r->clock, phases[k]));
        PN_TRY(pn_run_stage_variants(r, (pn_variant_stage)k));
    }
    return PN_OK;
}

static pn_status work(pn_run *r) {
    PN_TRY(pn_run_clock_begin(&r->clock, "supernet_seconds"));
    PN_TRY(pn_run_train_net(r));
    PN_TRY(pn_run_clock_begin(&r->clock, "search_seconds"));
    PN_TRY(pn_run_choose(r));
    PN_TRY(later_stages(r));
    PN_TRY(pn_run_clock_begin(&r->clock, "heldout_seconds"));
    PN_TRY(pn_run_table(r));
    PN_TRY(pn_run_compare(r));
    PN_TRY(pn_run_clock_begin(&r->clock, "distill_and_export_seconds"));
    PN_TRY(pn_run_distill(r));
    PN_TRY(pn_run_clock_begin(&r->clock, "speed_seconds"));
    PN_TRY(pn_run_speed(r));
    PN_TRY(pn_run_clock_begin(&r->clock, "results_seconds"));
    PN_TRY(pn_run_results(r));
    PN_TRY(write_timing(r));
    return PN_OK;
}

static pn_status phases(pn_run *r, pn_config *file) {
    double started = pn_seconds();
    bool finished;
    PN_TRY(prepare(r, file));
    PN_TRY(is_finished(r, &finished));
    if (finished) return PN_OK;
    if (r->dir.resumed) pn_info("going on with the run in %s", r->dir.path);
    PN_TRY(pn_run_clock_open(&r->dir, &r->clock));
    pn_run_clock_add(&r->clock, "prepare_seconds", pn_seconds() - started);
    pn_status s = work(r);
    if (s == PN_INTERRUPTED) (void)pn_run_clock_begin(&r->clock, NULL); /* otherwise the log says how long it worked */
    return s;
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
