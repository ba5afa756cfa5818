#include "comparison.h"

#include <math.h>
#include <stdlib.h>

pn_status pn_comparison_create(const pn_objective *objective, int n_samples, int n_rows, pn_comparison *out) {
    *out = (pn_comparison){ .objective = objective, .n_samples = n_samples };
    out->row = calloc((size_t)n_rows, sizeof *out->row);
    PN_CHECK(out->row, PN_MEMORY, "out of memory");
    for (; out->n < n_rows; out->n++) {
        out->row[out->n].heldout = calloc((size_t)n_samples, sizeof *out->row->heldout);
        PN_CHECK(out->row[out->n].heldout, PN_MEMORY, "out of memory");
    }
    return PN_OK;
}

void pn_comparison_free(pn_comparison *c) {
    for (int i = 0; i < c->n; i++) free(c->row[i].heldout);
    free(c->row);
    *c = (pn_comparison){ 0 };
}

static double summary(const pn_comparison *c, const pn_compared *row, double *least, double *most) {
    double sum = 0;
    *least = INFINITY;
    *most = -INFINITY;
    for (int i = 0; i < c->n_samples; i++) {
        sum += row->heldout[i];
        *least = fmin(*least, row->heldout[i]);
        *most = fmax(*most, row->heldout[i]);
    }
    return sum / c->n_samples;
}

void pn_comparison_print(const pn_comparison *c, const pn_model *supernet, FILE *out) {
    fprintf(out, "selectors on one super-network, held-out %s%s, %s is better\n", c->objective->text,
            c->objective->normalised ? ", 0 all linear and 1 the teacher" : "",
            c->objective->ascending ? "more" : "less");
    fprintf(out, "%14s  %-12s  %-26s  %5s  placement\n", "full attention", "selector",
            c->n_samples > 1 ? "mean (min..max)" : "value", "paths");
    for (int i = 0; i < c->n; i++) {
        const pn_compared *row = &c->row[i];
        char value[96], path[PN_PATH_TEXT_MAX];
        double least, most, mean = summary(c, row, &least, &most);
        if (c->n_samples > 1)
            snprintf(value, sizeof value, "%.4f (%.4f..%.4f)", mean, least, most);
        else
            snprintf(value, sizeof value, "%.4f", mean);
        fprintf(out, "%14d  %-12s  %-26s  %5d  %s\n", row->full_attention, row->selector->name, value, row->n_paths,
                pn_path_text(supernet, &row->path, path, sizeof path));
    }
}

static json_t *row_json(const pn_comparison *c, const pn_compared *row, const pn_model *supernet) {
    char path[PN_PATH_TEXT_MAX];
    double least, most, mean = summary(c, row, &least, &most);
    json_t *values = json_array();
    for (int i = 0; i < c->n_samples; i++) json_array_append_new(values, json_real(row->heldout[i]));
    return json_pack("{s:s, s:i, s:s, s:i, s:f, s:{s:f, s:f, s:f, s:o}}", "selector", row->selector->name,
                     "full_attention", row->full_attention, "path",
                     pn_path_text(supernet, &row->path, path, sizeof path), "paths", row->n_paths, "searched",
                     row->searched, "heldout", "mean", mean, "min", least, "max", most, "values", values);
}

json_t *pn_comparison_json(const pn_comparison *c, const pn_model *supernet) {
    json_t *rows = json_array();
    for (int i = 0; i < c->n; i++) json_array_append_new(rows, row_json(c, &c->row[i], supernet));
    return json_pack("{s:s, s:b, s:b, s:o}", "objective", c->objective->text, "ascending", c->objective->ascending,
                     "normalised", c->objective->normalised, "rows", rows);
}
