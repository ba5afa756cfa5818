/* The head of the page: what was found, in a paragraph and a few large numbers. */
#include "report_internal.h"

#include <string.h>

/* "3, 4 and 9" */
static void layer_list(pn_buf *b, const pn_page_path *p, const char *block) {
    int n = pn_page_path_count(p, block), i = 0;
    for (int l = 0; l < p->n; l++) {
        if (strcmp(p->name[l], block)) continue;
        pn_html(b, "%s%d", !i ? "" : i == n - 1 ? " and " : ", ", l);
        i++;
    }
}

/* The metric that speaks for the search: the accuracy of the objective's task, else the objective itself, else the
 * first accuracy in the winner's row. */
static bool headline(const pn_page *r, const char **task, const char **metric, pn_page_cell *winner) {
    *task = r->objective_task;
    *metric = "accuracy";
    if (pn_page_cell_read(r->winner_row, *task, *metric, winner)) return true;
    *metric = r->objective_metric;
    if (pn_page_cell_read(r->winner_row, *task, *metric, winner)) return true;
    *metric = "accuracy";
    const char *name;
    json_t *unused;
    json_object_foreach(json_object_get(r->winner_row, "tasks"), name, unused) {
        *task = name;
        if (pn_page_cell_read(r->winner_row, name, *metric, winner)) return true;
    }
    return false;
}

static void placement(pn_page *r) {
    const pn_page_path *w = &r->winner;
    if (!w->n) return;
    int kept = pn_page_path_count(w, "attention");
    pn_html(r->out, "In the chosen hybrid %d of %d layers %s full attention", kept, w->n, kept == 1 ? "keeps" : "keep");
    if (kept && kept < w->n) {
        pn_buf_text(r->out, kept == 1 ? ": layer " : ": layers ");
        layer_list(r->out, w, "attention");
        pn_buf_text(r->out, " (counted from 0)");
    }
    const char *join = "; the others are ";
    for (int i = 0; kept < w->n && i < r->n_blocks; i++) {
        int n = pn_page_path_count(w, r->block[i]);
        if (!n || !strcmp(r->block[i], "attention")) continue;
        pn_html(r->out, "%s%s (%d)", join, r->block[i], n);
        join = ", ";
    }
    pn_buf_text(r->out, ". ");
}

static void against(pn_page *r, const json_t *row, const char *task, const char *metric, const char *who) {
    pn_page_cell c;
    char text[PN_PAGE_TEXT];
    if (!pn_page_cell_read(row, task, metric, &c)) return;
    pn_html(r->out, ", %s %s", who, pn_page_value(metric, c.mean, text));
}

/* Whether the ranges over the held-out samples leave the two apart. */
static void apart(pn_page *r, const char *task, const char *metric, const pn_page_cell *w) {
    pn_page_cell u;
    if (!pn_page_cell_read(r->uniform_row, task, metric, &u) || w->n_samples < 2 || u.n_samples < 2) return;
    bool better = pn_page_ascending(metric) ? w->min > u.max : w->max < u.min;
    bool worse = pn_page_ascending(metric) ? w->max < u.min : w->min > u.max;
    pn_html(r->out, " Over %d held-out samples the chosen placement %s.", w->n_samples,
            better  ? "is better than uniform in every one"
            : worse ? "is worse than uniform in every one"
                    : "and uniform overlap");
}

static bool chance_of(const pn_page *r, const char *task, const char *metric, double *out) {
    char name[PN_PAGE_NAME + 8];
    pn_page_cell c;
    snprintf(name, sizeof name, "%s_chance", metric);
    if (!pn_page_cell_read(r->winner_row, task, name, &c)) return false;
    *out = c.mean;
    return true;
}

static void scores(pn_page *r) {
    const char *task, *metric;
    pn_page_cell w;
    char text[PN_PAGE_TEXT];
    double chance;
    if (!headline(r, &task, &metric, &w)) return;
    bool distilled = json_is_true(json_object_get(r->winner_row, "distilled"));
    pn_html(r->out, "On held-out %s its %s is %s%s", task, metric, pn_page_value(metric, w.mean, text),
            distilled ? " after distillation" : "");
    against(r, r->uniform_row, task, metric,
            distilled ? "uniform placement distilled alike has" : "uniform placement has");
    against(r, r->teacher_row, task, metric, "the teacher");
    if (chance_of(r, task, metric, &chance)) pn_html(r->out, ", chance %s", pn_page_value(metric, chance, text));
    pn_buf_text(r->out, ".");
    apart(r, task, metric, &w);
    pn_buf_text(r->out, " ");
}

/* The largest context of the cache list. */
static bool cache_at_most(const pn_page *r, double *context, double *base, double *winner) {
    const json_t *list = json_object_get(r->root, "cache_bytes");
    bool found = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        double c, b, w;
        if (!pn_page_number(o, "context", &c) || !pn_page_number(o, "base", &b) || !pn_page_number(o, "winner", &w) ||
            !(b > 0 && w > 0) || (found && c <= *context))
            continue;
        *context = c, *base = b, *winner = w;
        found = true;
    }
    return found;
}

static void cache(pn_page *r) {
    double context, base, winner;
    char at[PN_PAGE_TEXT], from[PN_PAGE_TEXT], to[PN_PAGE_TEXT];
    if (!cache_at_most(r, &context, &base, &winner)) return;
    pn_html(r->out, "At %s tokens of context one sequence's decode state takes %s instead of %s. ",
            pn_page_context(context, at), pn_page_bytes(winner, to), pn_page_bytes(base, from));
}

static void effort(pn_page *r) {
    const char *strategy = pn_page_string(r->root, "strategy"), *objective = pn_page_string(r->root, "objective");
    size_t n = json_array_size(json_object_get(r->root, "history"));
    if (!strategy || !n) return;
    pn_html(r->out, "The %s search measured %ld path%s", strategy, (long)n, n == 1 ? "" : "s");
    if (objective) pn_html(r->out, ", ranked by %s", objective);
    pn_buf_text(r->out, ".");
}

static void tiles(pn_page *r) {
    const char *task, *metric;
    pn_page_cell w, u;
    double chance, context, base, winner;
    char a[PN_PAGE_TEXT], b[PN_PAGE_TEXT];
    bool scored = headline(r, &task, &metric, &w), cached = cache_at_most(r, &context, &base, &winner);
    if (!r->winner.n && !scored && !cached) return;
    pn_buf_text(r->out, "<ul class=\"tiles\">\n");
    if (r->winner.n)
        pn_html(r->out, "<li><b>%d of %d</b><span>layers keep full attention</span></li>\n",
                pn_page_path_count(&r->winner, "attention"), r->winner.n);
    if (scored) {
        pn_html(r->out, "<li><b>%s</b><span>%s %s", pn_page_value(metric, w.mean, a), task, metric);
        if (pn_page_cell_read(r->uniform_row, task, metric, &u))
            pn_html(r->out, "; uniform %s", pn_page_value(metric, u.mean, a));
        if (chance_of(r, task, metric, &chance)) pn_html(r->out, "; chance %s", pn_page_value(metric, chance, a));
        pn_buf_text(r->out, "</span></li>\n");
    }
    if (cached)
        pn_html(r->out, "<li><b>%.1f\xc3\x97</b><span>%s decode state at %s tokens, %s per sequence</span></li>\n",
                winner <= base ? base / winner : winner / base, winner <= base ? "smaller" : "larger",
                pn_page_context(context, a), pn_page_bytes(winner, b));
    pn_buf_text(r->out, "</ul>\n");
}

void pn_page_summary(pn_page *r) {
    const char *model = pn_page_string(r->root, "model");
    pn_html(r->out, "<header>\n<h1>postnas search%s%s</h1>\n", model ? ": " : "", model ? model : "");
    size_t before = r->out->n_bytes;
    pn_buf_text(r->out, "<p>");
    placement(r);
    scores(r);
    cache(r);
    effort(r);
    if (r->out->n_bytes == before + 3) pn_buf_text(r->out, "The result holds no placement, scores or cache sizes.");
    pn_buf_text(r->out, "</p>\n");
    tiles(r);
    pn_buf_text(r->out, "</header>\n");
}
