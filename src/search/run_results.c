/* What a finished run leaves for people: result.json, the report, the table on the terminal. */
#include "run_phases.h"

#include <stdlib.h>

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "report.h"

static int by_path(const void *a, const void *b) {
    const pn_history *x = a, *y = b;
    return memcmp(x->path.choice, y->path.choice, sizeof x->path.choice);
}

pn_status pn_run_count_paths(const pn_run *r, int *n) {
    pn_history *sorted = malloc((size_t)r->n_history * sizeof *sorted);
    PN_CHECK(sorted, PN_MEMORY, "out of memory");
    memcpy(sorted, r->history, (size_t)r->n_history * sizeof *sorted);
    qsort(sorted, (size_t)r->n_history, sizeof *sorted, by_path);
    *n = 1;
    for (int i = 1; i < r->n_history; i++) *n += by_path(&sorted[i - 1], &sorted[i]) != 0;
    free(sorted);
    return PN_OK;
}

pn_status pn_run_results(pn_run *r) {
    char path[PN_PATH_MAX], page[PN_PATH_MAX], text[PN_PATH_TEXT_MAX], *config;
    uint64_t weights;
    PN_TRY(pn_params_hash(r->net->params, &weights));
    PN_TRY(pn_run_dir_config(&r->dir, &config));
    const pn_result result = { .config = &r->config,
                               .supernet = r->net,
                               .space = r->space,
                               .stage = r->stage,
                               .placed = r->placed,
                               .n_placements = r->n_placements,
                               .n_stages = r->n_stages,
                               .variants = r->variants,
                               .history = r->history,
                               .n_history = r->n_history,
                               .winner = r->winner,
                               .trained = &r->trained,
                               .distill_curve = &r->distill_curve,
                               .table = r->table,
                               .comparison = r->comparison.n ? &r->comparison : NULL,
                               .config_text = config,
                               .weights_hash = weights };
    json_t *root = NULL;
    pn_status s = pn_result_json(&result, &root);
    free(config);
    if (!s) s = pn_run_dir_file(&r->dir, "result.json", path);
    if (!s) s = pn_json_write(path, root);
    if (!s) s = pn_run_dir_file(&r->dir, "report.html", page);
    if (!s) s = pn_report_write(root, r->speed, page);
    json_decref(root);
    PN_TRY(s);
    int n_paths;
    PN_TRY(pn_run_count_paths(r, &n_paths));
    fprintf(r->out, "\n%d paths measured; %d of %d layers keep full attention", n_paths,
            pn_space_count(&r->winner, r->space.limit[0].choice), r->winner.n);
    for (int k = 1; k < r->space.n_limits; k++)
        fprintf(r->out, ", %d %s", pn_space_count(&r->winner, r->space.limit[k].choice), r->space.limit[k].name);
    fprintf(r->out, ":\n  %s\n\n", pn_path_text(r->net, &r->winner, text, sizeof text));
    pn_run_print_variants(r);
    pn_table_print(r->table, r->out);
    if (r->comparison.n) {
        fputc('\n', r->out);
        pn_comparison_print(&r->comparison, r->net, r->out);
    }
    fprintf(r->out, "\nresults: %s\nreport: %s\n", path, page);
    return PN_OK;
}
