/* Selectors compared: what each placed for every number of layers with full attention, and its held-out score. */
#include "report_internal.h"

#include <math.h>
#include <string.h>

enum { SELECTORS_MAX = 16, COUNTS_MAX = 32, DODGE = 6, LINE = 15 };

typedef struct score {
    const json_t *row; /* NULL: not compared */
    double mean, min, max;
} score;

typedef struct comparison {
    pn_page_objective objective;
    const char *selector[SELECTORS_MAX]; /* borrowed; as they first come */
    double count[COUNTS_MAX];            /* layers, rising */
    int n_selectors, n_counts;
    score at[SELECTORS_MAX][COUNTS_MAX];
} comparison;

static const char *const colours[] = { "k0", "k1", "k2", "k3", "k4", "k5", "k6", "kn" };
static const char *const dashes[] = { "none", "7 3", "2 3", "9 3 2 3" };

static const char *colour_of(int selector) {
    return colours[selector % (int)(sizeof colours / sizeof *colours)];
}

/* ---- reading ---- */

static bool read_row(const json_t *row, score *s, double *count) {
    const json_t *heldout = json_object_get(row, "heldout");
    *s = (score){ .row = row };
    if (!pn_page_string(row, "selector") || !pn_page_number(row, "full_attention", count)) return false;
    if (!pn_page_number(heldout, "mean", &s->mean)) return false;
    if (!pn_page_number(heldout, "min", &s->min)) s->min = s->mean;
    if (!pn_page_number(heldout, "max", &s->max)) s->max = s->mean;
    return *count >= 0 && *count <= PN_MAX_LAYERS;
}

static int selector_of(comparison *c, const char *name) {
    for (int i = 0; i < c->n_selectors; i++)
        if (!strcmp(c->selector[i], name)) return i;
    if (c->n_selectors == SELECTORS_MAX) return -1;
    c->selector[c->n_selectors] = name;
    return c->n_selectors++;
}

static void add_count(comparison *c, double count) {
    int at = c->n_counts;
    for (int i = 0; i < c->n_counts; i++)
        if (c->count[i] == count) return;
    if (c->n_counts == COUNTS_MAX) return;
    for (c->n_counts++; at > 0 && c->count[at - 1] > count; at--) c->count[at] = c->count[at - 1];
    c->count[at] = count;
}

static void read_comparison(const pn_page *r, comparison *c) {
    const json_t *all = json_object_get(r->root, "selectors"), *rows = json_object_get(all, "rows");
    score s;
    double count;
    *c = (comparison){ 0 };
    pn_page_objective_read(all, &c->objective);
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (read_row(json_array_get(rows, i), &s, &count)) add_count(c, count);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (!read_row(json_array_get(rows, i), &s, &count)) continue;
        int selector = selector_of(c, pn_page_string(s.row, "selector"));
        for (int k = 0; k < c->n_counts && selector >= 0; k++)
            if (c->count[k] == count) c->at[selector][k] = s;
    }
}

/* ---- the table ---- */

/* Whether no selector has a better mean for as many layers. */
static bool is_best(const comparison *c, int selector, int k) {
    double mean = c->at[selector][k].mean;
    for (int i = 0; i < c->n_selectors; i++)
        if (c->at[i][k].row && (c->objective.ascending ? c->at[i][k].mean > mean : c->at[i][k].mean < mean))
            return false;
    return true;
}

static void cell(pn_page *r, const comparison *c, int selector, int k) {
    const score *s = &c->at[selector][k];
    char mean[PN_PAGE_TEXT], min[PN_PAGE_TEXT], max[PN_PAGE_TEXT];
    const char *metric = c->objective.metric;
    pn_page_path path;
    double paths;
    if (!s->row) {
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td>");
        return;
    }
    pn_html(r->out, is_best(c, selector, k) ? "<td><b>%s</b>" : "<td>%s", pn_page_value(metric, s->mean, mean));
    if (s->min != s->max)
        pn_html(r->out, "<small>%s\xe2\x80\x93%s</small>", pn_page_value(metric, s->min, min),
                pn_page_value(metric, s->max, max));
    if (pn_page_number(s->row, "paths", &paths))
        pn_html(r->out, "<small>%.0f path%s</small>", paths, paths == 1 ? "" : "s");
    if (pn_page_path_read(s->row, &path)) pn_page_strip(r, &path);
    pn_buf_text(r->out, "</td>");
}

static void table(pn_page *r, const comparison *c) {
    pn_html(r->out,
            "<div class=\"scroll\"><table>\n<caption>Selectors compared</caption>\n<thead>\n<tr><td></td>"
            "<th scope=\"colgroup\" colspan=\"%d\">layers with full attention</th></tr>\n<tr><td></td>",
            c->n_counts);
    for (int k = 0; k < c->n_counts; k++) pn_html(r->out, "<th scope=\"col\">%.0f</th>", c->count[k]);
    pn_buf_text(r->out, "</tr>\n</thead>\n<tbody>\n");
    for (int i = 0; i < c->n_selectors; i++) {
        pn_html(r->out, "<tr><th scope=\"row\">%s</th>", c->selector[i]);
        for (int k = 0; k < c->n_counts; k++) cell(r, c, i, k);
        pn_buf_text(r->out, "</tr>\n");
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

/* ---- the plot ---- */

/* Selectors that agree stand side by side, not on each other, and still apart from the next number of layers. */
static double x_of(const comparison *c, const pn_plot *p, int selector, int k) {
    double room = p->width;
    for (int i = 1; i < c->n_counts; i++) room = fmin(room, pn_plot_x(p, c->count[i]) - pn_plot_x(p, c->count[i - 1]));
    double step = fmin(DODGE, 0.6 * room / c->n_selectors);
    return pn_plot_x(p, c->count[k]) + step * (selector - (c->n_selectors - 1) / 2.0);
}

static int last_of(const comparison *c, int selector) {
    int k = c->n_counts - 1;
    while (k > 0 && !c->at[selector][k].row) k--;
    return k;
}

static void line(pn_page *r, const comparison *c, const pn_plot *p, int i) {
    bool down = false;
    pn_html(r->out, "<path class=\"%s curve\" style=\"fill:none;stroke-dasharray:%s\" d=\"", colour_of(i),
            dashes[i % (int)(sizeof dashes / sizeof *dashes)]);
    for (int k = 0; k < c->n_counts; k++) {
        if (!c->at[i][k].row) continue;
        pn_html(r->out, "%s%.1f %.1f", down ? "L" : "M", x_of(c, p, i, k), pn_plot_y(p, c->at[i][k].mean));
        down = true;
    }
    pn_buf_text(r->out, "\"/>\n");
    for (int k = 0; k < c->n_counts; k++) {
        const score *s = &c->at[i][k];
        char mean[PN_PAGE_TEXT];
        if (!s->row) continue;
        double x = x_of(c, p, i, k);
        pn_html(r->out,
                "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><circle class=\"%s\" "
                "cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s, %.0f: %s</title></circle>\n",
                colour_of(i), x, x, pn_plot_y(p, s->min), pn_plot_y(p, s->max), colour_of(i), x, pn_plot_y(p, s->mean),
                c->selector[i], c->count[k], pn_page_value(c->objective.metric, s->mean, mean));
    }
}

/* Names at the ends of the lines, moved apart where lines end alike. */
static void labels(pn_page *r, const comparison *c, const pn_plot *p) {
    int order[SELECTORS_MAX];
    double end[SELECTORS_MAX], at[SELECTORS_MAX];
    char name[PN_PAGE_NAME];
    for (int i = 0; i < c->n_selectors; i++) {
        int k = i;
        end[i] = pn_plot_y(p, c->at[i][last_of(c, i)].mean);
        for (; k > 0 && end[order[k - 1]] > end[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    for (int k = 0; k < c->n_selectors; k++)
        at[k] = k ? fmax(end[order[k]], at[k - 1] + LINE) : fmax(end[order[k]], p->top);
    double most = p->top + p->height;
    for (int k = c->n_selectors - 1; k >= 0; k--, most -= LINE) at[k] = fmin(at[k], most);
    for (int k = 0; k < c->n_selectors; k++) {
        int i = order[k];
        double x = p->left + p->width + 30;
        pn_html(r->out,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/><rect class=\"%s\" "
                "x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                x_of(c, p, i, last_of(c, i)) + 5, x - 2, end[i], at[k], colour_of(i), x, at[k] - 4, x + 12, at[k] + 4,
                pn_page_short(c->selector[i], 18, name));
    }
}

static void x_axis(pn_page *r, const comparison *c, const pn_plot *p) {
    double bottom = p->top + p->height;
    pn_html(r->out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", p->left,
            p->left + p->width, bottom, bottom);
    for (int k = 0; k < c->n_counts; k++)
        pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%.0f</text>\n", pn_plot_x(p, c->count[k]),
                bottom + 16, c->count[k]);
    pn_html(r->out, "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">layers with full attention</text>\n",
            p->left + p->width, bottom + 32);
}

/* For those who cannot see the drawing. */
static void describe(pn_page *r, const comparison *c) {
    char mean[PN_PAGE_TEXT];
    pn_buf_text(r->out, "<desc>");
    for (int i = 0; i < c->n_selectors; i++) {
        pn_html(r->out, "%s:", c->selector[i]);
        for (int k = 0; k < c->n_counts; k++)
            if (c->at[i][k].row)
                pn_html(r->out, " %s with %.0f;", pn_page_value(c->objective.metric, c->at[i][k].mean, mean),
                        c->count[k]);
        pn_buf_text(r->out, " ");
    }
    pn_buf_text(r->out, "</desc>\n");
}

static void plot(pn_page *r, const comparison *c) {
    char caption[2 * PN_PAGE_NAME];
    double first = c->count[0], last = c->count[c->n_counts - 1], margin = fmax(0.5, 0.05 * (last - first));
    pn_plot p = { first - margin, last + margin, INFINITY, -INFINITY, 56, 28, 560, 300 };
    for (int i = 0; i < c->n_selectors; i++) {
        for (int k = 0; k < c->n_counts; k++) {
            if (!c->at[i][k].row) continue;
            p.y_min = fmin(p.y_min, fmin(c->at[i][k].min, c->at[i][k].mean));
            p.y_max = fmax(p.y_max, fmax(c->at[i][k].max, c->at[i][k].mean));
        }
    }
    pn_plot_settle(&p, true);
    pn_page_objective_caption(&c->objective, caption, sizeof caption);
    pn_plot_open(r->out, p.left + p.width + 170, p.top + p.height + 40, true,
                 "Held-out score against the number of layers with full attention");
    describe(r, c);
    pn_plot_y_axis(r->out, &p, caption);
    x_axis(r, c, &p);
    labels(r, c, &p);
    for (int i = 0; i < c->n_selectors; i++) line(r, c, &p, i);
    pn_plot_close(r->out);
}

void pn_page_selectors(pn_page *r) {
    comparison c;
    read_comparison(r, &c);
    if (!c.n_selectors) return;
    pn_page_section(r, "selectors", "Selectors compared");
    pn_buf_text(r->out,
                "<p class=\"how\">Each selector placed full attention by itself, on the same super-network and from "
                "the same scores on search data; what it placed was then measured on the held-out samples: their mean, "
                "smallest and largest, and how many paths it had measured to choose. The best of a column is bold; the "
                "coloured strip is the placement. Points of one number of layers stand side by side, so that none "
                "hides another.</p>\n");
    plot(r, &c);
    table(r, &c);
    pn_page_section_end(r);
}
