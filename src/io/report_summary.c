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
    *task = r->objective.task;
    *metric = "accuracy";
    if (pn_page_cell_read(r->winner_row, *task, *metric, winner)) return true;
    *metric = r->objective.metric;
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
    char type[PN_PAGE_NAME];
    for (int i = 0; kept < w->n && i < r->n_blocks; i++) {
        int n = pn_page_path_count(w, r->block[i]);
        if (!n || !strcmp(r->block[i], "attention")) continue;
        pn_html(r->out, "%s%s (%d)", join, pn_page_type_name(r->block[i], type), n);
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

/* The chosen placement against uniform, sample by sample, for samples differ in difficulty and both rows have the same:
 * 1 better, -1 worse, where the mean difference is larger than its spread, largest minus smallest; else 0, or nobody
 * knows. */
static int apart(const pn_page *r, const char *task, const char *metric, bool *known) {
    const json_t *w = pn_page_cell_values(r->winner_row, task, metric);
    const json_t *u = pn_page_cell_values(r->uniform_row, task, metric);
    size_t n = json_array_size(w);
    double sum = 0, least = 0, most = 0;
    *known = false;
    if (n < 2 || json_array_size(u) != n) return 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *a = json_array_get(w, i), *b = json_array_get(u, i);
        if (!json_is_number(a) || !json_is_number(b)) return 0;
        double gain = (json_number_value(a) - json_number_value(b)) * (pn_page_ascending(metric) ? 1 : -1);
        sum += gain;
        least = i && least < gain ? least : gain;
        most = i && most > gain ? most : gain;
    }
    *known = true;
    double mean = sum / (double)n, spread = most - least;
    return mean > spread ? 1 : -mean > spread ? -1 : 0;
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
    bool known;
    int better = apart(r, task, metric, &known);
    if (known)
        pn_html(r->out, " Compared on each of the %d held-out samples, it is %s.", w.n_samples,
                better > 0   ? "better than uniform beyond the spread"
                : better < 0 ? "worse than uniform beyond the spread"
                             : "no different from uniform beyond the spread");
    pn_buf_text(r->out, " ");
}

/* ---- the verdict on every task ---- */

enum { TASKS_MAX = 64 };

typedef struct verdict {
    const char *task, *metric; /* borrowed */
    pn_page_cell winner, uniform;
    int better; /* as apart() */
} verdict;

/* The metric of a task that people ask for: accuracy, else perplexity, else the first one. */
static const char *main_metric(const json_t *metrics) {
    const char *name;
    json_t *unused;
    if (json_object_get(metrics, "accuracy")) return "accuracy";
    if (json_object_get(metrics, "perplexity")) return "perplexity";
    json_object_foreach((json_t *)metrics, name, unused) {
        if (!strchr(name, '@') && !pn_page_is_chance(name)) return name;
    }
    return NULL;
}

static int verdicts(const pn_page *r, verdict *out) {
    int n = 0;
    const char *task;
    json_t *metrics;
    json_object_foreach(json_object_get(r->winner_row, "tasks"), task, metrics) {
        bool known;
        verdict *v = &out[n];
        *v = (verdict){ .task = task, .metric = main_metric(metrics) };
        if (n == TASKS_MAX || !v->metric || !pn_page_cell_read(r->winner_row, task, v->metric, &v->winner)) continue;
        v->better = apart(r, task, v->metric, &known);
        if (known) n += pn_page_cell_read(r->uniform_row, task, v->metric, &v->uniform);
    }
    return n;
}

static int count(const verdict *v, int n, int better) {
    int k = 0;
    for (int i = 0; i < n; i++) k += v[i].better == better;
    return k;
}

static void names(pn_page *r, const verdict *v, int n, int better) {
    int k = 0, of = count(v, n, better);
    for (int i = 0; i < n; i++) {
        if (v[i].better != better) continue;
        pn_html(r->out, "%s%s", !k ? "" : k == of - 1 ? " and " : ", ", v[i].task);
        k++;
    }
}

static void verdict_text(pn_page *r, const verdict *v, int n) {
    static const struct {
        int better;
        const char *text;
    } kinds[] = { { 1, "better than uniform beyond the spread on " },
                  { 0, "within that spread on " },
                  { -1, "worse beyond it on " } };
    bool any = false;
    pn_html(r->out, "Of %d task%s, it is ", n, n == 1 ? "" : "s");
    for (int k = 0; k < 3; k++) {
        if (!count(v, n, kinds[k].better)) continue;
        pn_html(r->out, "%s%s%d (", any ? ", " : "",
                k == 0 || any ? kinds[k].text
                : k == 1      ? "no different from uniform beyond the spread on "
                              : "worse than uniform beyond the spread on ",
                count(v, n, kinds[k].better));
        names(r, v, n, kinds[k].better);
        pn_buf_text(r->out, ")");
        any = true;
    }
    pn_buf_text(r->out, ".");
}

static void verdict_table(pn_page *r, const verdict *v, int n) {
    static const char *const texts[] = { "worse beyond the spread", "within the spread", "better beyond the spread" };
    static const char *const marks[] = { "n2", "", "p2" };
    char a[PN_PAGE_TEXT], b[PN_PAGE_TEXT], c[PN_PAGE_TEXT];
    pn_html(r->out,
            "<div class=\"scroll\"><table class=\"verdict\">\n<caption>The chosen placement against uniform, sample by "
            "sample: the spread is that of the "
            "differences</caption>\n"
            "<thead><tr><th scope=\"col\" class=\"left\">held-out%s</th><th scope=\"col\">chosen</th>"
            "<th scope=\"col\">uniform</th><th scope=\"col\">teacher</th><th scope=\"col\">chance</th>"
            "<th scope=\"col\" class=\"left\">against uniform</th></tr></thead>\n<tbody>\n",
            json_is_true(json_object_get(r->winner_row, "distilled")) ? ", both distilled" : "");
    for (int i = 0; i < n; i++) {
        pn_page_cell t;
        double chance;
        bool up = pn_page_ascending(v[i].metric);
        pn_html(r->out, "<tr><th scope=\"row\">%s %s %s</th><td>%s</td><td>%s</td><td>%s</td>", v[i].task, v[i].metric,
                up ? "\xe2\x86\x91" : "\xe2\x86\x93", pn_page_value(v[i].metric, v[i].winner.mean, a),
                pn_page_value(v[i].metric, v[i].uniform.mean, b),
                pn_page_cell_read(r->teacher_row, v[i].task, v[i].metric, &t) ? pn_page_value(v[i].metric, t.mean, c)
                                                                              : "\xe2\x80\x93");
        pn_html(r->out, "<td>%s</td><td class=\"left %s\">%s</td></tr>\n",
                chance_of(r, v[i].task, v[i].metric, &chance) ? pn_page_value(v[i].metric, chance, a) : "\xe2\x80\x93",
                marks[v[i].better + 1], texts[v[i].better + 1]);
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
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
    pn_page_speed_tile(r);
    pn_buf_text(r->out, "</ul>\n");
}

/* A paragraph of `part`, nothing when that has nothing to say. */
static bool paragraph(pn_page *r, const char *head, void (*part)(pn_page *)) {
    pn_buf text = { 0 }, *out = r->out;
    r->out = &text;
    part(r);
    r->out = out;
    out->failed |= text.failed;
    bool any = text.n_bytes > 0;
    if (any) {
        pn_html(out, "<p><b>%s.</b> ", head);
        pn_buf_append(out, text.data, text.n_bytes);
        pn_buf_text(out, "</p>\n");
    }
    pn_buf_free(&text);
    return any;
}

void pn_page_summary(pn_page *r) {
    const char *model = pn_page_string(r->root, "model");
    verdict v[TASKS_MAX + 1];
    int n = verdicts(r, v);
    pn_html(r->out, "<header>\n<h1>postnas search%s%s</h1>\n", model ? ": " : "", model ? model : "");
    tiles(r);
    bool any = paragraph(r, "Kept", placement);
    any |= paragraph(r, "Cost", cache);
    any |= paragraph(r, "Speed", pn_page_speed_sentence);
    any |= paragraph(r, "Quality", scores);
    if (n > 1) {
        pn_buf_text(r->out, "<p>");
        verdict_text(r, v, n);
        pn_buf_text(r->out, "</p>\n");
        verdict_table(r, v, n);
    }
    any |= paragraph(r, "Effort", effort);
    if (!any) pn_buf_text(r->out, "<p>The result holds no placement, scores or cache sizes.</p>\n");
    pn_buf_text(r->out, "</header>\n");
}
