/* What the search measured: its paths in columns, a tree where it is known from which one each grew, and how the choice
 * came about. */
#include "report_internal.h"

#include <math.h>
#include <string.h>

enum { DOTS_MAX = 3000, LISTED = 5 };

static bool drawn(const pn_page_paths *h, const pn_page_entry *e) {
    return e - h->at < DOTS_MAX || e->line;
}

/* Middle part of the column, in the order of evaluation. */
static double dot_x(const pn_page_paths *h, const pn_page_entry *e) {
    const pn_page_round *r = &h->round[e->column];
    double span = r->last_order - r->first_order;
    return e->column + (span > 0 ? 0.64 * ((e->order - r->first_order) / span - 0.5) : 0);
}

/* Both paths, when they have as many layers. */
static bool read_step(const pn_page_entry *parent, const pn_page_entry *e, pn_page_path *before, pn_page_path *after) {
    return parent && pn_page_path_read(parent->json, before) && pn_page_path_read(e->json, after) &&
           before->n == after->n;
}

/* The first layer whose mixer differs from the parent's; -1: none, or nobody knows. */
static int changed_layer(const pn_page_entry *parent, const pn_page_entry *e) {
    pn_page_path before, after;
    if (!read_step(parent, e, &before, &after)) return -1;
    for (int l = 0; l < after.n; l++)
        if (strcmp(before.name[l], after.name[l])) return l;
    return -1;
}

/* Lines from each path to the one it grew from: all in one, then those of kept paths, then those of the chosen one's
 * line. */
static void links(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    static const char *const kinds[] = { "link", "link kept", "link line" };
    for (int kind = 0; kind < 3; kind++) {
        pn_html(r->out, "<path class=\"%s\" d=\"", kinds[kind]);
        for (size_t i = 0; i < h->n; i++) {
            const pn_page_entry *e = &h->at[i], *parent = pn_page_entry_of(h, e->parent);
            if (!parent || !drawn(h, e) || !drawn(h, parent) || kind != (e->line ? 2 : e->kept ? 1 : 0)) continue;
            pn_html(r->out, "M%.1f %.1fL%.1f %.1f", pn_plot_x(p, dot_x(h, parent)), pn_plot_y(p, parent->objective),
                    pn_plot_x(p, dot_x(h, e)), pn_plot_y(p, e->objective));
        }
        pn_buf_text(r->out, "\"/>\n");
    }
}

/* Without parents: a line through the best of each column. */
static void joined(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    pn_buf_text(r->out, "<polyline class=\"joined\" points=\"");
    for (int i = 0; i < h->n_rounds; i++) {
        const pn_page_entry *best = h->round[i].best;
        if (drawn(h, best)) pn_html(r->out, "%.1f,%.1f ", pn_plot_x(p, dot_x(h, best)), pn_plot_y(p, best->objective));
    }
    pn_buf_text(r->out, "\"/>\n");
}

static void dot(pn_page *r, const pn_page_paths *h, const pn_plot *p, const pn_page_entry *e) {
    char text[PN_PAGE_TEXT];
    const char *path = pn_page_string(e->json, "path");
    bool strong = h->has_parents ? e->kept : h->round[e->column].best == e;
    double x = pn_plot_x(p, dot_x(h, e)), y = pn_plot_y(p, e->objective);
    pn_html(r->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>%s: %s (",
            e->chosen ? "k0 best"
            : strong  ? "k1 best"
                      : "k6 dot",
            x, y,
            e->chosen ? "6"
            : strong  ? "4.5"
                      : "3",
            path ? path : "?", pn_page_value(h->objective.metric, e->objective, text));
    if (h->has_rounds) pn_html(r->out, "round %d, ", e->round);
    pn_html(r->out, "measured as number %d%s)</title></circle>\n", e->order + 1,
            e->chosen         ? ", chosen"
            : !h->has_parents ? ""
            : e->kept         ? ", kept"
                              : ", dropped");
}

static void dots(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    for (int strong = 0; strong < 2; strong++) /* the kept ones on top */
        for (size_t i = 0; i < h->n; i++)
            if (drawn(h, &h->at[i]) && (h->at[i].kept || h->at[i].chosen) == (strong == 1)) dot(r, h, p, &h->at[i]);
    for (size_t i = 0; i < h->n; i++) { /* what each step to the chosen one changed */
        const pn_page_entry *e = &h->at[i], *parent = pn_page_entry_of(h, e->parent);
        int layer = e->line ? changed_layer(parent, e) : -1;
        double y = pn_plot_y(p, e->objective);
        if (layer >= 0)
            pn_html(r->out, "<text class=\"mid halo\" x=\"%.1f\" y=\"%.1f\">layer %d</text>\n",
                    pn_plot_x(p, dot_x(h, e)), y < p->top + p->height - 24 ? y + 19 : y - 11, layer);
    }
}

static void columns_axis(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    double bottom = p->top + p->height;
    pn_html(r->out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", p->left,
            p->left + p->width, bottom, bottom);
    for (int i = 0; i < h->n_rounds; i++) {
        const pn_page_round *at = &h->round[i];
        double x = pn_plot_x(p, i);
        pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%d</text>\n", x, bottom + 16,
                h->has_rounds ? at->best->round : at->attention);
        if (h->has_rounds)
            pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%d path%s</text>\n", x, bottom + 31, at->n,
                    at->n == 1 ? "" : "s");
        else if (at->none)
            pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">+ %d none</text>\n", x, bottom + 31,
                    at->none);
    }
    pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width / 2, bottom + 48,
            h->has_rounds ? "round of the search" : "layers with full attention");
}

/* For those who cannot see the drawing. */
static void describe(pn_page *r, const pn_page_paths *h) {
    char text[PN_PAGE_TEXT];
    pn_html(r->out, "<desc>%ld paths. The best of each column:", (long)h->n);
    for (int i = 0; i < h->n_rounds; i++) {
        const pn_page_round *at = &h->round[i];
        pn_html(r->out, "%s %s %d: %s", i ? "," : "", h->has_rounds ? "round" : "layers of attention",
                h->has_rounds ? at->best->round : at->attention,
                pn_page_value(h->objective.metric, at->best->objective, text));
    }
    pn_buf_text(r->out, ".</desc>\n");
}

static void plot(pn_page *r, const pn_page_paths *h) {
    double width = 70 + fmax(440, h->n_rounds * (h->has_parents ? 124.0 : 72.0)), height = h->has_parents ? 340 : 250;
    pn_plot p = { -0.5, h->n_rounds - 0.5, INFINITY, -INFINITY, 56, 28, width - 64, height };
    for (size_t i = 0; i < h->n; i++) {
        if (!drawn(h, &h->at[i])) continue;
        p.y_min = fmin(p.y_min, h->at[i].objective);
        p.y_max = fmax(p.y_max, h->at[i].objective);
    }
    pn_plot_settle(&p, true);
    char caption[2 * PN_PAGE_NAME];
    pn_page_objective_caption(&h->objective, caption, sizeof caption);
    pn_plot_open(r->out, width, p.top + height + 54, width < 640, "Objective of every measured path");
    describe(r, h);
    pn_plot_y_axis(r->out, &p, caption);
    columns_axis(r, h, &p);
    if (h->has_parents)
        links(r, h, &p);
    else
        joined(r, h, &p);
    dots(r, h, &p);
    pn_plot_close(r->out);
}

static void legend(pn_page *r) {
    static const char *const kinds[][2] = { { "k0 best", "chosen" },
                                            { "k1 best", "kept: others grew from it" },
                                            { "k6 dot", "dropped" } };
    pn_buf_text(r->out, "<ul class=\"legend\">\n");
    for (int i = 0; i < 3; i++)
        pn_html(r->out,
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"%s\" cx=\"7\" cy=\"7\" "
                "r=\"5\"/></svg>%s</li>\n",
                kinds[i][0], kinds[i][1]);
    pn_buf_text(r->out, "</ul>\n");
}

static void path_cells(pn_page *r, const pn_page_entry *e) {
    pn_page_path path;
    const char *name = pn_page_string(e->json, "path");
    pn_buf_text(r->out, "<td class=\"left\">");
    if (pn_page_path_read(e->json, &path)) pn_page_strip(r, &path);
    pn_buf_text(r->out, "</td><td class=\"left path\">");
    pn_page_path_text(r->out, name ? name : "");
    pn_buf_text(r->out, "</td></tr>\n");
}

static void objective_cell(pn_page *r, const pn_page_paths *h, const pn_page_entry *e) {
    char text[PN_PAGE_TEXT], exact[PN_PAGE_TEXT];
    pn_double_text(e->objective, exact, sizeof exact);
    pn_html(r->out, "<td title=\"%s\">%s</td>", exact, pn_page_value(h->objective.metric, e->objective, text));
}

static const char *objective_name(const pn_page_paths *h) {
    return *h->objective.metric ? h->objective.metric : "objective";
}

/* Under the heading of a stage where there are several. */
static int level(const pn_page *r) {
    return r->n_stages > 1 ? 4 : 3;
}

static void what_changed(pn_page *r, const pn_page_entry *parent, const pn_page_entry *e) {
    pn_page_path before, after;
    bool any = false;
    if (read_step(parent, e, &before, &after))
        for (int l = 0; l < after.n; l++) {
            if (!strcmp(before.name[l], after.name[l])) continue;
            pn_html(r->out, "%slayer %d becomes %s", any ? ", " : "", l, after.name[l]);
            any = true;
        }
    if (!any) pn_buf_text(r->out, parent ? "\xe2\x80\x93" : "start");
}

static void line_of_the_chosen(pn_page *r, const pn_page_paths *h) {
    const pn_page_entry *line[PN_MAX_LAYERS + 1];
    int n = 0;
    for (const pn_page_entry *e = h->last; e && n <= PN_MAX_LAYERS; e = pn_page_entry_of(h, e->parent)) line[n++] = e;
    if (n < 2) return;
    pn_html(r->out,
            "<h%d>How the choice came about</h%d>\n<div class=\"scroll\"><table>\n<thead><tr>"
            "<th scope=\"col\" class=\"left\">what changed</th><th scope=\"col\">%s</th>"
            "<th scope=\"col\" class=\"left\">layers, first to last</th><th scope=\"col\" class=\"left\">path</th></tr>"
            "</thead>\n<tbody>\n",
            level(r), level(r), objective_name(h));
    while (n--) {
        pn_buf_text(r->out, "<tr><td class=\"left\">");
        what_changed(r, pn_page_entry_of(h, line[n]->parent), line[n]);
        pn_buf_text(r->out, "</td>");
        objective_cell(r, h, line[n]);
        path_cells(r, line[n]);
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

/* The best complete paths; the best of all when none is complete. */
static void best_paths(pn_page *r, const pn_page_paths *h) {
    pn_html(r->out,
            "<h%d>Best %s</h%d>\n<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">%s</th>"
            "<th scope=\"col\" class=\"left\">layers, first to last</th><th scope=\"col\" class=\"left\">path</th></tr>"
            "</thead>\n<tbody>\n",
            level(r), h->any_complete ? "complete paths" : "paths", level(r), objective_name(h));
    int listed = 0;
    for (size_t i = 0; i < h->n && listed < LISTED; i++) {
        if (h->any_complete && !h->at[i].complete) continue;
        pn_buf_text(r->out, "<tr>");
        objective_cell(r, h, &h->at[i]);
        path_cells(r, &h->at[i]);
        listed++;
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

static void how_to_read(pn_page *r) {
    bool tree = false, rounds = true;
    size_t n = 0;
    for (int i = 0; i < r->n_stages; i++) {
        tree |= r->stage[i].has_parents;
        rounds &= r->stage[i].has_rounds;
        n = r->stage[i].n > n ? r->stage[i].n : n;
    }
    if (tree)
        pn_buf_text(r->out,
                    "<p class=\"how\">Every dot is a path measured on search data (point at it for its layers), "
                    "a column is a round, first measured to last. Lines lead from the path it grew from; the "
                    "thick one leads to the one chosen and names the layer that each step changed.");
    else
        pn_html(r->out,
                "<p class=\"how\">Every dot is a measured path (point at it for its layers), in columns by %s; within "
                "a column from the first measured to the last. The line joins the best of each column, measured on "
                "search data.",
                rounds ? "round" : "how many layers have full attention");
    if (n > DOTS_MAX) pn_html(r->out, " Of %ld paths the best %d are drawn.", (long)n, DOTS_MAX);
    pn_buf_text(r->out, "</p>\n");
    if (tree) legend(r);
}

void pn_page_history(pn_page *r) {
    size_t n = 0;
    for (int i = 0; i < r->n_stages; i++) n += r->stage[i].n;
    if (!n) return;
    pn_page_section(r, "history", "What the search saw");
    how_to_read(r);
    for (int i = 0; i < r->n_stages; i++) {
        const pn_page_paths *h = &r->stage[i];
        if (!h->n) continue;
        pn_page_stage_heading(r, i);
        plot(r, h);
        line_of_the_chosen(r, h);
        best_paths(r, h);
    }
    pn_page_section_end(r);
}
