/* Score against decode state: which paths no other one beats in both. */
#include "report_internal.h"

#include <math.h>
#include <stdlib.h>

enum { CONTEXT = 65536, DOTS_MAX = 3000 }; /* the history counts bytes at this context */

typedef struct mark { /* a path to name in the plot */
    const char *name;
    const char *colour;
    double cache, objective;
    bool heldout; /* its score is of held-out data: the search did not measure it */
    bool known, scored;
} mark;

/* Bytes of a path follow from how many layers of each kind it has: those of one measured alike. */
static double cache_of(const pn_page_paths *h, const pn_page_path *path) {
    for (size_t i = 0; i < h->n; i++) {
        pn_page_path other;
        if (h->at[i].cache < 0 || !pn_page_path_read(h->at[i].json, &other) || other.n != path->n) continue;
        bool alike = true;
        for (int l = 0; l < path->n && alike; l++)
            alike = pn_page_path_count(&other, path->name[l]) == pn_page_path_count(path, path->name[l]);
        if (alike) return h->at[i].cache;
    }
    return -1;
}

/* The base's bytes at CONTEXT, from the list of contexts; -1: not there. */
static double base_cache(const pn_page *r) {
    const json_t *list = json_object_get(r->root, "cache_bytes");
    double context, base;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        if (pn_page_number(o, "context", &context) && context == CONTEXT && pn_page_number(o, "base", &base) &&
            base > 0)
            return base;
    }
    return -1;
}

/* Where a row of the table belongs: as the search measured its path, else with its held-out score. */
static mark mark_of(const pn_page *r, const pn_page_paths *h, const char *name, const char *colour) {
    const json_t *row = pn_page_row(r, name, false);
    mark m = { .name = name, .colour = colour, .cache = -1 };
    pn_page_path path, other;
    if (!pn_page_path_read(row, &path)) return m;
    for (size_t i = 0; i < h->n && !m.scored; i++)
        if (pn_page_path_read(h->at[i].json, &other) && pn_page_path_equal(&path, &other) && h->at[i].cache > 0) {
            m.cache = h->at[i].cache;
            m.objective = h->at[i].objective;
            m.scored = true;
        }
    if (!m.scored) {
        pn_page_cell cell;
        m.cache = row == r->teacher_row ? base_cache(r) : cache_of(h, &path);
        m.scored = m.heldout = pn_page_cell_read(row, h->objective.task, h->objective.metric, &cell);
        m.objective = m.scored ? cell.mean : 0;
    }
    m.known = m.cache > 0;
    return m;
}

static void include(pn_plot *p, double cache, double objective, bool scored) {
    p->x_min = fmin(p->x_min, log2(cache));
    p->x_max = fmax(p->x_max, log2(cache));
    if (!scored) return;
    p->y_min = fmin(p->y_min, objective);
    p->y_max = fmax(p->y_max, objective);
}

static int by_cache(const void *a_, const void *b_) {
    const pn_page_entry *const *a = a_, *const *b = b_;
    if ((*a)->cache != (*b)->cache) return (*a)->cache < (*b)->cache ? -1 : 1;
    return *a < *b ? -1 : *a > *b; /* entries are sorted best first */
}

/* A staircase through the paths that are better than every cheaper one. */
static void frontier(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    const pn_page_entry **at = calloc(h->n, sizeof *at), *best = NULL;
    size_t n = 0;
    if (!at) {
        r->out->failed = true;
        return;
    }
    for (size_t i = 0; i < h->n; i++)
        if (h->at[i].cache > 0) at[n++] = &h->at[i];
    qsort(at, n, sizeof *at, by_cache);
    pn_buf_text(r->out, "<path class=\"frontier\" d=\"");
    for (size_t i = 0; i < n; i++) {
        if (best && at[i] > best) continue; /* not better */
        double x = pn_plot_x(p, log2(at[i]->cache)), y = pn_plot_y(p, at[i]->objective);
        if (best)
            pn_html(r->out, "H%.1fV%.1f", x, y);
        else
            pn_html(r->out, "M%.1f %.1f", x, y);
        best = at[i];
    }
    pn_html(r->out, "H%.1f\"><title>the best score for at most this much state</title></path>\n", p->left + p->width);
    free(at);
}

static void dots(pn_page *r, const pn_page_paths *h, const pn_plot *p) {
    char text[PN_PAGE_TEXT], bytes[PN_PAGE_TEXT];
    for (size_t i = h->n < DOTS_MAX ? h->n : DOTS_MAX; i-- > 0;) { /* the best on top */
        const pn_page_entry *e = &h->at[i];
        const char *path = pn_page_string(e->json, "path");
        if (e->cache < 0) continue;
        pn_html(r->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s: %s, %s%s</title></circle>\n",
                e->complete ? "k1 dot" : "open", pn_plot_x(p, log2(e->cache)), pn_plot_y(p, e->objective),
                path ? path : "?", pn_page_value(h->objective.metric, e->objective, text),
                pn_page_bytes(e->cache, bytes), e->complete ? "" : ", incomplete");
    }
}

enum { WIDE = 150 }; /* two labels, one to the right of its mark and one to the left, may meet within it */

static void draw_marks(pn_page *r, const pn_plot *p, const mark *marks, int n) {
    double taken[8][2];
    for (int i = 0; i < n; i++) {
        const mark *m = &marks[i];
        if (!m->known || !m->scored) continue;
        double x = pn_plot_x(p, log2(m->cache)), y = pn_plot_y(p, m->objective), label = y + 4;
        for (int pass = 0; pass < i; pass++) /* away from the labels before it */
            for (int k = 0; k < i; k++)
                if (marks[k].known && marks[k].scored && fabs(taken[k][0] - x) < WIDE && fabs(taken[k][1] - label) < 15)
                    label = taken[k][1] + 15;
        taken[i][0] = x;
        taken[i][1] = label;
        bool left = x > p->left + 0.72 * p->width;
        pn_html(r->out,
                "<path class=\"%s %s\" d=\"M%.1f %.1fl7 7l-7 7l-7 -7z\"><title>%s</title></path>"
                "<text class=\"halo %s\" x=\"%.1f\" y=\"%.1f\">%s%s</text>\n",
                m->colour, m->heldout ? "hollow" : "best", x, y - 7, m->name, left ? "end" : "", left ? x - 11 : x + 11,
                label, m->name, m->heldout ? " (held-out)" : "");
    }
}

/* For those who cannot see the drawing. */
static void describe(pn_page *r, const pn_page_paths *h, const mark *marks, int n) {
    char bytes[PN_PAGE_TEXT], text[PN_PAGE_TEXT];
    pn_buf_text(r->out, "<desc>");
    for (int i = 0; i < n; i++) {
        const mark *m = &marks[i];
        if (m->known && m->scored)
            pn_html(r->out, "%s%s: %s, %s. ", m->name, m->heldout ? " (held-out)" : "",
                    pn_page_value(h->objective.metric, m->objective, text), pn_page_bytes(m->cache, bytes));
    }
    pn_buf_text(r->out, "</desc>\n");
}

static void legend(pn_page *r) {
    pn_buf_text(r->out,
                "<ul class=\"legend\">\n"
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"k1 dot\" cx=\"7\" cy=\"7\" "
                "r=\"4\"/></svg>complete path: the limits are spent</li>\n"
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"open\" cx=\"7\" cy=\"7\" "
                "r=\"4\"/></svg>incomplete path</li>\n"
                "<li><svg width=\"16\" height=\"16\" aria-hidden=\"true\"><path class=\"k0 best\" d=\"M8 1l7 7l-7 7l-7 "
                "-7z\"/></svg>named path</li>\n"
                "<li><svg width=\"30\" height=\"10\" aria-hidden=\"true\"><path class=\"frontier\" d=\"M0 5L30 5\"/>"
                "</svg>best for at most this much state</li>\n</ul>\n");
}

static void plot(pn_page *r, const pn_page_paths *h) {
    const mark marks[] = { mark_of(r, h, "PostNAS", "k0"), mark_of(r, h, "uniform", "k3"),
                           mark_of(r, h, "all linear", "k2"), mark_of(r, h, "teacher", "k5") };
    enum { MARKS = sizeof marks / sizeof *marks };
    pn_plot p = { INFINITY, -INFINITY, INFINITY, -INFINITY, 56, 28, 640, 340 };
    for (size_t i = 0; i < h->n && i < DOTS_MAX; i++)
        if (h->at[i].cache > 0) include(&p, h->at[i].cache, h->at[i].objective, true);
    if (p.x_min > p.x_max) return;
    for (int i = 0; i < MARKS; i++)
        if (marks[i].known) include(&p, marks[i].cache, marks[i].objective, marks[i].scored);
    p.x_min -= 0.25;
    p.x_max += 0.25;
    pn_plot_settle(&p, true);
    char caption[2 * PN_PAGE_NAME];
    pn_page_objective_caption(&h->objective, caption, sizeof caption);
    pn_plot_open(r->out, p.left + p.width + 30, p.top + p.height + 40, true, "Score against bytes of decode state");
    describe(r, h, marks, MARKS);
    pn_plot_y_axis(r->out, &p, caption);
    pn_plot_x_axis_log2(r->out, &p, "decode state of 65,536 tokens", pn_page_bytes);
    dots(r, h, &p);
    frontier(r, h, &p);
    draw_marks(r, &p, marks, MARKS);
    pn_plot_close(r->out);
}

void pn_page_pareto(pn_page *r) {
    bool any = false;
    for (int i = 0; i < r->n_stages; i++) any |= r->stage[i].has_cache;
    if (!any) return;
    pn_page_section(r, "pareto", "Score against decode state");
    pn_buf_text(r->out,
                "<p class=\"how\">Every measured path by the bytes that one sequence of 65,536 tokens keeps while "
                "decoding (to the left is cheaper) and by its score on search data. A path is worth its bytes "
                "when it stands on the line: nothing cheaper is better. Hollow marks were not measured on "
                "search data; they stand at their held-out score.</p>\n");
    legend(r);
    for (int i = 0; i < r->n_stages; i++) {
        if (!r->stage[i].has_cache) continue;
        pn_page_stage_heading(r, i);
        plot(r, &r->stage[i]);
    }
    pn_page_section_end(r);
}
