/* Who scores what: the held-out table, accuracy by distance. */
#include "report_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_BY_SIDE = 8 }; /* columns; a wider table would not fit the page */

typedef struct column {
    const char *task, *metric; /* borrowed from the result */
    double distance;           /* of metric@distance */
} column;

typedef struct columns {
    column at[PN_PAGE_COLUMNS];
    int n;
} columns;

static const json_t *rows(const pn_page *r) {
    return json_object_get(r->root, "table");
}

static void add(columns *c, const char *task, const char *metric, double distance) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->at[i].task, task) && !strcmp(c->at[i].metric, metric)) return;
    if (c->n < PN_PAGE_COLUMNS) c->at[c->n++] = (column){ task, metric, distance };
}

/* Every task and metric that some row has, in the order they come: those by distance, or the others. */
static void find_columns(const pn_page *r, bool by_distance, columns *c) {
    c->n = 0;
    for (size_t i = 0; i < json_array_size(rows(r)); i++) {
        const char *task, *metric;
        json_t *metrics, *unused;
        json_object_foreach(json_object_get(json_array_get(rows(r), i), "tasks"), task, metrics) {
            json_object_foreach(metrics, metric, unused) {
                const char *mark = strchr(metric, '@');
                double distance = mark ? strtod(mark + 1, NULL) : 0;
                pn_page_cell cell;
                if ((mark != NULL) != by_distance || pn_page_is_chance(metric)) continue;
                if (mark && !(distance > 0 && distance < 1e12)) continue;
                if (pn_page_cell_read(json_array_get(rows(r), i), task, metric, &cell)) add(c, task, metric, distance);
            }
        }
    }
}

/* Columns of one task side by side, in the order the tasks first came; by distance within one. */
static int by_task(const columns *c, int *order) {
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        bool seen = false;
        for (int k = 0; k < i; k++) seen |= !strcmp(c->at[k].task, c->at[i].task);
        if (seen) continue;
        int first = n;
        for (int k = i; k < c->n; k++) {
            if (strcmp(c->at[k].task, c->at[i].task)) continue;
            int at = n++;
            for (; at > first && c->at[order[at - 1]].distance > c->at[k].distance; at--) order[at] = order[at - 1];
            order[at] = k;
        }
    }
    return n;
}

/* Chance of a column: of the first row that states one. `metric` without its distance. */
static bool chance(const pn_page *r, const column *c, double *out) {
    char name[PN_PAGE_NAME + 16];
    pn_page_cell cell;
    size_t n = strcspn(c->metric, "@");
    if (n >= PN_PAGE_NAME) return false;
    snprintf(name, sizeof name, "%.*s_chance", (int)n, c->metric);
    for (size_t i = 0; i < json_array_size(rows(r)); i++)
        if (pn_page_cell_read(json_array_get(rows(r), i), c->task, name, &cell)) return *out = cell.mean, true;
    return false;
}

static void head(pn_page *r, const columns *c, const int *order, int n, bool by_distance) {
    pn_buf_text(r->out, "<thead>\n<tr><td></td>");
    for (int i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && !strcmp(c->at[order[i]].task, c->at[order[i + run]].task);) run++;
        pn_html(r->out, "<th scope=\"colgroup\" colspan=\"%d\">%s</th>", run, c->at[order[i]].task);
    }
    pn_buf_text(r->out, "</tr>\n<tr><td></td>");
    for (int i = 0; i < n; i++) {
        const column *k = &c->at[order[i]];
        bool up = pn_page_ascending(k->metric);
        if (by_distance)
            pn_html(r->out, "<th scope=\"col\" title=\"%s\">%.0f\xe2\x80\x93%.0f</th>", k->metric,
                    floor(k->distance / 2) + 1, k->distance);
        else
            pn_html(r->out, "<th scope=\"col\" title=\"%s is better\">%s %s</th>", up ? "higher" : "lower", k->metric,
                    up ? "\xe2\x86\x91" : "\xe2\x86\x93");
    }
    pn_buf_text(r->out, "</tr>\n</thead>\n<tbody>\n");
}

/* The percent sign stands above, with the mean. */
static void without_unit(char *text) {
    char *unit = strstr(text, "\xc2\xa0");
    if (unit) *unit = '\0';
}

static void cell(pn_page *r, const json_t *row, const column *k, bool by_distance) {
    pn_page_cell v;
    char text[PN_PAGE_TEXT], low[PN_PAGE_TEXT], high[PN_PAGE_TEXT], exact[3][PN_PAGE_TEXT];
    if (!pn_page_cell_read(row, k->task, k->metric, &v)) {
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td>");
        return;
    }
    pn_double_text(v.mean, exact[0], PN_PAGE_TEXT);
    pn_double_text(v.min, exact[1], PN_PAGE_TEXT);
    pn_double_text(v.max, exact[2], PN_PAGE_TEXT);
    pn_html(r->out, "<td title=\"%s %s: mean %s, least %s, most %s\"", k->task, k->metric, exact[0], exact[1],
            exact[2]);
    if (by_distance && v.mean >= 0.1) pn_html(r->out, " class=\"p%d\"", v.mean < 1 ? (int)(v.mean * 5) + 1 : 5);
    pn_html(r->out, ">%s", pn_page_value(k->metric, v.mean, text));
    if (!by_distance && v.n_samples > 1) {
        pn_page_value(k->metric, v.min, low);
        without_unit(low);
        pn_page_value(k->metric, v.max, high);
        without_unit(high);
        pn_html(r->out, "<small>%s\xe2\x80\x93%s</small>", low, high);
    }
    pn_buf_text(r->out, "</td>");
}

static void body(pn_page *r, const columns *c, const int *order, int n, bool by_distance) {
    pn_page_path path;
    bool any_chance = false;
    double v;
    for (size_t i = 0; i < json_array_size(rows(r)); i++) {
        const json_t *row = json_array_get(rows(r), i);
        const char *name = pn_page_string(row, "name");
        if (!json_is_object(row)) continue;
        pn_html(r->out, "<tr class=\"%s\"><th scope=\"row\">%s", row == r->winner_row ? "winner" : "",
                name ? name : "?");
        if (json_is_true(json_object_get(row, "distilled")) && name && !strstr(name, "distilled"))
            pn_buf_text(r->out, " (distilled)");
        if (!by_distance && pn_page_path_read(row, &path)) pn_page_strip(r, &path);
        pn_buf_text(r->out, "</th>");
        for (int k = 0; k < n; k++) cell(r, row, &c->at[order[k]], by_distance);
        pn_buf_text(r->out, "</tr>\n");
    }
    for (int k = 0; k < n; k++) any_chance |= chance(r, &c->at[order[k]], &v);
    if (any_chance) {
        char text[PN_PAGE_TEXT];
        pn_buf_text(r->out, "<tr class=\"chance\"><th scope=\"row\">chance</th>");
        for (int k = 0; k < n; k++) {
            const column *at = &c->at[order[k]];
            pn_html(r->out, "<td>%s</td>", chance(r, at, &v) ? pn_page_value(at->metric, v, text) : "");
        }
        pn_buf_text(r->out, "</tr>\n");
    }
}

/* Columns that stand side by side in one table, from the first on: whole tasks while there is room. */
static int together(const columns *c, const int *order, int first) {
    int n = 0, most = c->n - first < SIDE_BY_SIDE ? c->n - first : SIDE_BY_SIDE;
    for (int i = 1; i <= most; i++)
        if (first + i == c->n || strcmp(c->at[order[first + i]].task, c->at[order[first + i - 1]].task)) n = i;
    return n ? n : most;
}

static void table(pn_page *r, const columns *c, const char *caption, bool by_distance) {
    int order[PN_PAGE_COLUMNS];
    by_task(c, order);
    for (int first = 0, n; first < c->n; first += n) {
        n = together(c, order, first);
        pn_html(r->out, "<div class=\"scroll\"><table>\n<caption>%s</caption>\n", caption);
        head(r, c, order + first, n, by_distance);
        body(r, c, order + first, n, by_distance);
        pn_buf_text(r->out, "</tbody>\n</table></div>\n");
    }
    pn_page_section_end(r);
}

void pn_page_table(pn_page *r) {
    columns c;
    find_columns(r, false, &c);
    if (!c.n) return;
    pn_page_section(r, "table", "Held-out scores");
    pn_buf_text(r->out, "<p class=\"how\">Mean over the held-out samples, smallest and largest beneath; \xe2\x86\x91 "
                        "higher is better, \xe2\x86\x93 lower is better, and an accuracy means something only beside "
                        "chance in the last row. The chosen hybrid is highlighted; the coloured strip is the row's "
                        "layers from first to last.</p>\n");
    table(r, &c, "Held-out scores", false);
}

void pn_page_distances(pn_page *r) {
    columns c;
    find_columns(r, true, &c);
    if (!c.n) return;
    pn_page_section(r, "distances", "Accuracy by distance");
    pn_buf_text(r->out, "<p class=\"how\">How often the answer is right when it was stated that many tokens back "
                        "(columns): a model that forgets gets worse to the right. A column holds few questions when "
                        "its distances are rare, so compare neighbours too.</p>\n");
    table(r, &c, "Accuracy by distance", true);
}
