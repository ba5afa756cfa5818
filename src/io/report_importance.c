/* Importance of every layer for every task: a heat map, tasks down, layers across. */
#include "report_internal.h"

#include <math.h>
#include <string.h>

typedef struct heat_row {
    const char *task, *metric; /* borrowed from the result */
    double most;               /* largest gain by size */
} heat_row;

typedef struct heat_map {
    const json_t *gain[PN_MAX_LAYERS]; /* per layer; NULL: not measured */
    int n_layers;
    heat_row row[PN_PAGE_COLUMNS];
    int n_rows;
} heat_map;

static bool gain_of(const json_t *gain, const heat_row *row, double *out) {
    return pn_page_number(json_object_get(gain, row->task), row->metric, out);
}

/* A task's rows: what tables show of it, without perplexity (its logarithm is there) and accuracies by distance. */
static bool shown(const json_t *metrics, const char *metric) {
    if (strchr(metric, '@') || pn_page_is_chance(metric)) return false;
    return strcmp(metric, "perplexity") || !json_object_get(metrics, "nll");
}

static void note(heat_map *m, const char *task, const char *metric, double gain) {
    int i = 0;
    while (i < m->n_rows && (strcmp(m->row[i].task, task) || strcmp(m->row[i].metric, metric))) i++;
    if (i == m->n_rows) {
        if (i == PN_PAGE_COLUMNS) return;
        m->row[m->n_rows++] = (heat_row){ task, metric, 0 };
    }
    m->row[i].most = fmax(m->row[i].most, fabs(gain));
}

static void read_map(const pn_page *r, heat_map *m) {
    *m = (heat_map){ 0 };
    const json_t *list = json_object_get(r->root, "importance");
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *o = json_array_get(list, i), *gain = json_object_get(o, "gain"), *metrics, *unused;
        double layer, v;
        if (!json_object_size(gain) || !pn_page_number(o, "layer", &layer) || layer < 0 || layer >= PN_MAX_LAYERS)
            continue;
        m->gain[(int)layer] = gain;
        if ((int)layer >= m->n_layers) m->n_layers = (int)layer + 1;
        const char *task, *metric;
        json_object_foreach(gain, task, metrics) {
            json_object_foreach(metrics, metric, unused) {
                if (shown(metrics, metric) && pn_page_number(metrics, metric, &v)) note(m, task, metric, v);
            }
        }
    }
}

/* "p1".."p5" for gains, "n1".."n5" for losses, in fifths of the row's largest; "" below 4 % of it. */
static const char *shade(double gain, double most) {
    static const char *const up[] = { "p1", "p2", "p3", "p4", "p5" }, *const down[] = { "n1", "n2", "n3", "n4", "n5" };
    double part = most > 0 ? fabs(gain) / most : 0;
    if (part < 0.04) return "";
    int step = part < 1 ? (int)(part * 5) : 4;
    return gain > 0 ? up[step] : down[step];
}

/* Few characters: many layers stand side by side. */
static void cell_text(const char *metric, double v, char buffer[PN_PAGE_TEXT]) {
    if (pn_page_is_share(metric)) v *= 100;
    double size = fabs(v);
    char digits[PN_PAGE_TEXT];
    snprintf(digits, sizeof digits,
             size >= 1e4    ? "%.0e"
             : size >= 9.95 ? "%.0f"
             : size >= 0.95 ? "%.1f"
                            : "%.2f",
             size);
    snprintf(buffer, PN_PAGE_TEXT, "%s%.32s", v < 0 && size >= 0.005 ? "\xe2\x88\x92" : "",
             digits[0] == '0' && digits[1] == '.' ? size < 0.005 ? "0" : digits + 1 : digits);
}

static void cells(pn_page *r, const heat_map *m, const heat_row *row) {
    for (int l = 0; l < m->n_layers; l++) {
        double v;
        char text[PN_PAGE_TEXT], gain[PN_PAGE_TEXT];
        if (!gain_of(m->gain[l], row, &v)) {
            pn_buf_text(r->out, "<td></td>");
            continue;
        }
        cell_text(row->metric, v, text);
        pn_html(r->out, "<td class=\"%s\" title=\"layer %d, %s %s: %s\">%s</td>", shade(v, row->most), l, row->task,
                row->metric, pn_page_gain(row->metric, v, gain), text);
    }
}

/* Of a task's metrics, the one that stands for it: the objective's, else an accuracy, else the first. */
static bool stands_for_task(const pn_page *r, const heat_map *m, int index) {
    const heat_row *row = &m->row[index];
    int best = -1, best_rank = -1;
    for (int i = 0; i < m->n_rows; i++) {
        if (strcmp(m->row[i].task, row->task)) continue;
        bool objective = !strcmp(row->task, r->objective.task) && !strcmp(m->row[i].metric, r->objective.metric);
        int rank = objective ? 2 : !strcmp(m->row[i].metric, "accuracy");
        if (rank > best_rank) {
            best = i;
            best_rank = rank;
        }
    }
    return best == index;
}

/* The rows that stand for their tasks, or all the others. */
static void map(pn_page *r, const heat_map *m, bool main_rows) {
    pn_html(r->out,
            "<div class=\"scroll\"><table class=\"heat%s\">\n<caption>Gain of attention in one layer%s</caption>\n"
            "<thead><tr><th scope=\"col\" class=\"left\">layer</th>",
            m->n_layers > 20 ? " dense" : "", main_rows ? "" : ", the other metrics");
    for (int l = 0; l < m->n_layers; l++)
        pn_html(r->out, "<th scope=\"col\" class=\"%s\">%d</th>",
                l < r->winner.n && !strcmp(r->winner.name[l], "attention") ? "kept" : "", l);
    pn_buf_text(r->out, "</tr></thead>\n<tbody>\n");
    for (int i = 0; i < m->n_rows; i++) {
        const heat_row *row = &m->row[i];
        bool objective = !strcmp(row->task, r->objective.task) && !strcmp(row->metric, r->objective.metric);
        if (stands_for_task(r, m, i) != main_rows) continue;
        pn_html(r->out,
                objective ? "<tr><th scope=\"row\"><b>%s</b> <small>%s</small></th>"
                          : "<tr><th scope=\"row\">%s <small>%s</small></th>",
                row->task, row->metric);
        cells(r, m, row);
        pn_buf_text(r->out, "</tr>\n");
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

static void scale(pn_page *r) {
    static const char *const steps[] = { "n5", "n4", "n3", "n2", "n1", "", "p1", "p2", "p3", "p4", "p5" };
    pn_buf_text(r->out, "<p class=\"scale\">loses most<span aria-hidden=\"true\">");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) pn_html(r->out, "<i class=\"%s\"></i>", steps[i]);
    pn_buf_text(r->out, "</span>gains most of its row</p>\n");
}

void pn_page_importance(pn_page *r) {
    heat_map m;
    read_map(r, &m);
    if (!m.n_rows) return;
    int n_main = 0;
    for (int i = 0; i < m.n_rows; i++) n_main += stands_for_task(r, &m, i);
    pn_page_section(r, "importance", "Importance of every layer");
    pn_buf_text(r->out, "<p class=\"how\">What full attention in that layer alone gains over the all-linear path: blue "
                        "is better, orange worse, each row shaded by its own largest value; accuracies and top1 in "
                        "percentage points, the others by how far the metric falls. Layers that keep attention are "
                        "underlined, the objective's row is bold. A layer may look unimportant alone and matter beside "
                        "another.</p>\n");
    scale(r);
    map(r, &m, true);
    if (n_main < m.n_rows) {
        pn_buf_text(r->out, "<details><summary>Other metrics of these tasks</summary>\n");
        map(r, &m, false);
        pn_buf_text(r->out, "</details>\n");
    }
    pn_page_section_end(r);
}
