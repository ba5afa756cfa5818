/* Every path the search measured, round by round, and the best of them. */
#include "report_internal.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

enum { DOTS_MAX = 3000, LISTED = 5, KINDS = PN_MAX_LAYERS + 1 };

typedef struct entry {
    const json_t *json;
    double objective;
    int attention, none, order; /* layers of either kind; place in the order of evaluation */
    bool complete;
} entry;

typedef struct search_round { /* paths of equal numbers of attention and none */
    int attention, none, first_order, last_order, n;
    int index;         /* its column */
    const entry *best; /* borrowed */
} search_round;

typedef struct history {
    entry *at; /* owned; best first */
    size_t n;
    bool ascending;
    search_round *round; /* owned; KINDS x KINDS by none and attention, n 0 where there is no such path */
    int n_rounds;
    bool any_none;
} history;

static int by_value(const void *a_, const void *b_) {
    const entry *a = a_, *b = b_;
    if (a->objective != b->objective) return a->objective < b->objective ? -1 : 1;
    return a->order - b->order;
}

static int by_value_descending(const void *a_, const void *b_) {
    const entry *a = a_, *b = b_;
    if (a->objective != b->objective) return a->objective > b->objective ? -1 : 1;
    return a->order - b->order;
}

static search_round *round_of(const history *h, const entry *e) {
    return &h->round[e->none * KINDS + e->attention];
}

static void add_to_round(history *h, const entry *e) {
    search_round *r = round_of(h, e);
    if (!r->n++) *r = (search_round){ e->attention, e->none, e->order, e->order, 1, 0, NULL };
    r->last_order = e->order;
    h->any_none |= e->none > 0;
}

static void read_history(const pn_page *r, history *h) {
    const json_t *list = json_object_get(r->root, "history");
    size_t n = json_array_size(list);
    *h = (history){ .ascending = pn_page_ascending(r->objective_metric) };
    if (!n || n > INT_MAX) return;
    h->at = calloc(n, sizeof *h->at);
    h->round = calloc((size_t)KINDS * KINDS, sizeof *h->round);
    if (!h->at || !h->round) {
        r->out->failed = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        pn_page_path path;
        entry *e = &h->at[h->n];
        *e = (entry){ .json = json_array_get(list, i), .order = (int)i };
        if (!pn_page_number(e->json, "objective", &e->objective) || !pn_page_path_read(e->json, &path)) continue;
        e->attention = pn_page_path_count(&path, "attention");
        e->none = pn_page_path_count(&path, "none");
        e->complete = json_is_true(json_object_get(e->json, "complete"));
        add_to_round(h, e);
        h->n++;
    }
    qsort(h->at, h->n, sizeof *h->at, h->ascending ? by_value_descending : by_value);
    for (int i = 0; i < KINDS * KINDS; i++)
        if (h->round[i].n) h->round[i].index = h->n_rounds++;
    for (size_t i = 0; i < h->n; i++)
        if (!round_of(h, &h->at[i])->best) round_of(h, &h->at[i])->best = &h->at[i];
}

/* Middle part of the round's column, in the order of evaluation. */
static double dot_x(const history *h, const entry *e) {
    const search_round *r = round_of(h, e);
    double span = r->last_order - r->first_order;
    return r->index + (span > 0 ? 0.64 * ((e->order - r->first_order) / span - 0.5) : 0);
}

static void dots(pn_page *r, const history *h, const pn_plot *p) {
    char text[PN_PAGE_TEXT];
    pn_buf_text(r->out, "<polyline class=\"joined\" points=\"");
    for (int i = 0; i < KINDS * KINDS; i++) {
        const entry *best = h->round[i].best;
        if (best && best - h->at < DOTS_MAX)
            pn_html(r->out, "%.1f,%.1f ", pn_plot_x(p, dot_x(h, best)), pn_plot_y(p, best->objective));
    }
    pn_buf_text(r->out, "\"/>\n");
    for (size_t k = 0; k < h->n && k < DOTS_MAX; k++) {
        const entry *e = &h->at[k];
        bool best = round_of(h, e)->best == e;
        const char *path = pn_page_string(e->json, "path");
        pn_html(r->out,
                "<circle class=\"k6 %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>%s: %s (measured as number "
                "%d)</title></circle>\n",
                best ? "best" : "dot", pn_plot_x(p, dot_x(h, e)), pn_plot_y(p, e->objective), best ? "5" : "3.5",
                path ? path : "?", pn_page_value(r->objective_metric, e->objective, text), e->order + 1);
    }
}

static void rounds_axis(pn_page *r, const history *h, const pn_plot *p) {
    double bottom = p->top + p->height;
    pn_html(r->out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", p->left,
            p->left + p->width, bottom, bottom);
    for (int i = 0; i < KINDS * KINDS; i++) {
        const search_round *at = &h->round[i];
        if (!at->n) continue;
        double x = pn_plot_x(p, at->index);
        pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%d</text>\n", x, bottom + 16, at->attention);
        if (at->none)
            pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">+ %d none</text>\n", x, bottom + 31,
                    at->none);
    }
    pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">layers with full attention</text>\n",
            p->left + p->width / 2, bottom + (h->any_none ? 48 : 34));
}

static void plot(pn_page *r, const history *h) {
    double width = 70 + fmax(440, h->n_rounds * 72.0);
    pn_plot p = { -0.5,
                  h->n_rounds - 0.5,
                  h->at[0].objective,
                  h->at[h->n < DOTS_MAX ? h->n - 1 : DOTS_MAX - 1].objective,
                  56,
                  28,
                  width - 64,
                  250 };
    if (p.y_min > p.y_max) {
        double most = p.y_min;
        p.y_min = p.y_max;
        p.y_max = most;
    }
    pn_plot_settle(&p, true);
    char caption[3 * PN_PAGE_NAME];
    snprintf(caption, sizeof caption, "%s %s, %s is better", r->objective_task, r->objective_metric,
             h->ascending ? "higher" : "lower");
    pn_plot_open(r->out, width, h->any_none ? 332 : 318, width < 640, "Objective of every measured path");
    pn_plot_y_axis(r->out, &p, caption);
    rounds_axis(r, h, &p);
    dots(r, h, &p);
    pn_plot_close(r->out);
}

/* The best complete paths; the best of all when none is complete. */
static void best_paths(pn_page *r, const history *h) {
    bool any_complete = false;
    for (size_t i = 0; i < h->n; i++) any_complete |= h->at[i].complete;
    pn_html(r->out,
            "<h3>Best %s</h3>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">%s</th>"
            "<th scope=\"col\" class=\"left\">layers, first to last</th><th scope=\"col\" class=\"left\">path</th></tr>"
            "</thead>\n<tbody>\n",
            any_complete ? "complete paths" : "paths", *r->objective_metric ? r->objective_metric : "objective");
    int listed = 0;
    for (size_t i = 0; i < h->n && listed < LISTED; i++) {
        const entry *e = &h->at[i];
        pn_page_path path;
        char text[PN_PAGE_TEXT], exact[PN_PAGE_TEXT];
        const char *name = pn_page_string(e->json, "path");
        if ((any_complete && !e->complete) || !pn_page_path_read(e->json, &path)) continue;
        pn_double_text(e->objective, exact, sizeof exact);
        pn_html(r->out, "<tr><td title=\"%s\">%s</td><td class=\"left\">", exact,
                pn_page_value(r->objective_metric, e->objective, text));
        pn_page_strip(r, &path);
        pn_buf_text(r->out, "</td><td class=\"left path\">");
        pn_page_path_text(r->out, name ? name : "");
        pn_buf_text(r->out, "</td></tr>\n");
        listed++;
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

void pn_page_history(pn_page *r) {
    history h;
    read_history(r, &h);
    if (h.n) {
        pn_page_section(r->out, "history", "What the search saw");
        pn_buf_text(r->out, "<p class=\"how\">Every dot is a measured path (point at it for its layers), in columns by "
                            "how many layers have full attention; within a column from the first measured to the last. "
                            "The line joins the best of each column, measured on search data.");
        if (h.n > DOTS_MAX) pn_html(r->out, " Of %ld paths the best %d are drawn.", (long)h.n, DOTS_MAX);
        pn_buf_text(r->out, "</p>\n");
        plot(r, &h);
        best_paths(r, &h);
        pn_page_section_end(r->out);
    }
    free(h.at);
    free(h.round);
}
