/* The stages after the placement: a table of their variants, objective against measured speed, and the mixed stack. */
#include "report_variants.h"

#include <math.h>
#include <string.h>

enum { SIDE_BY_SIDE = 8 }; /* columns of tasks */

typedef struct column {
    const char *task, *metric;
} column;

typedef struct columns {
    column at[PN_PAGE_COLUMNS];
    int n;
} columns;

static bool metric_read(const pn_page_variant *x, const char *task, const char *metric, double *out) {
    return pn_page_number(json_object_get(json_object_get(x->json, "tasks"), task), metric, out);
}

static void add(columns *c, const char *task, const char *metric) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->at[i].task, task) && !strcmp(c->at[i].metric, metric)) return;
    if (c->n < PN_PAGE_COLUMNS) c->at[c->n++] = (column){ task, metric };
}

/* Every task and metric that some variant has; those by distance are for the held-out table. */
static void find_columns(const pn_page_variants *v, columns *c) {
    c->n = 0;
    for (int i = 0; i < v->n; i++) {
        const char *task, *metric;
        json_t *metrics, *unused;
        double value;
        json_object_foreach(json_object_get(v->at[i].json, "tasks"), task, metrics) {
            json_object_foreach(metrics, metric, unused) {
                if (!strchr(metric, '@') && !pn_page_is_chance(metric) && metric_read(&v->at[i], task, metric, &value))
                    add(c, task, metric);
            }
        }
    }
}

static bool chance(const pn_page_variants *v, const column *c, double *out) {
    char name[PN_PAGE_NAME + 16];
    if (strlen(c->metric) >= PN_PAGE_NAME) return false;
    snprintf(name, sizeof name, "%s_chance", c->metric);
    for (int i = 0; i < v->n; i++)
        if (metric_read(&v->at[i], c->task, name, out)) return true;
    return false;
}

/* ---- cells ---- */

/* The corner above the names holds the type that they all have. */
static void corner(pn_page *r, const pn_page_variants *v) {
    if (!v->skip) {
        pn_buf_text(r->out, "<tr><td></td>");
        return;
    }
    pn_buf_text(r->out, "<tr><th scope=\"col\" class=\"left\">");
    for (size_t i = 0; i + 1 < v->skip; i++) {
        char one[2] = { v->at[0].text[i] };
        pn_html(r->out, "%s", one);
    }
    pn_buf_text(r->out, "</th>");
}

static void row_head(pn_page *r, const pn_page_variants *v, const pn_page_variant *x, bool names) {
    pn_html(r->out, "<tr class=\"%s\"><th scope=\"row\">%s%s", x->chosen ? "winner" : "", x->text + v->skip,
            x->chosen ? " (chosen)" : "");
    if (names && *x->name && strcmp(x->name, x->text)) pn_html(r->out, "<small>in paths: %s</small>", x->name);
    pn_buf_text(r->out, "</th>");
}

static void none(pn_page *r) {
    pn_buf_text(r->out, "<td>\xe2\x80\x93</td>");
}

static void value_cell(pn_page *r, const char *metric, bool known, double value) {
    char text[PN_PAGE_TEXT], exact[PN_PAGE_TEXT];
    if (!known) {
        none(r);
        return;
    }
    pn_double_text(value, exact, sizeof exact);
    pn_html(r->out, "<td title=\"%s\">%s</td>", exact, pn_page_value(metric, value, text));
}

static void amount_cell(pn_page *r, bool known, double value, const char *(*text)(double, char *)) {
    char shown[PN_PAGE_TEXT];
    if (!known || value < 0) {
        none(r);
        return;
    }
    pn_html(r->out, "<td title=\"%.10g\">%s</td>", value, text(value, shown));
}

/* ---- what the variants score ---- */

static void scores_head(pn_page *r, const pn_page_variants *v, const columns *c, int first, int n) {
    pn_buf_text(r->out, "<thead>\n<tr><td></td>");
    if (!first) pn_buf_text(r->out, "<td></td>");
    for (int i = first, run; i < first + n; i += run) {
        for (run = 1; i + run < first + n && !strcmp(c->at[i].task, c->at[i + run].task);) run++;
        pn_html(r->out, "<th scope=\"colgroup\" colspan=\"%d\">%s</th>", run, c->at[i].task);
    }
    pn_buf_text(r->out, "</tr>\n");
    corner(r, v);
    if (!first)
        pn_html(r->out, "<th scope=\"col\">objective %s</th>",
                v->objective.ascending ? "\xe2\x86\x91" : "\xe2\x86\x93");
    for (int i = first; i < first + n; i++)
        pn_html(r->out, "<th scope=\"col\">%s %s</th>", c->at[i].metric,
                pn_page_ascending(c->at[i].metric) ? "\xe2\x86\x91" : "\xe2\x86\x93");
    pn_buf_text(r->out, "</tr>\n</thead>\n<tbody>\n");
}

static void scores_chance(pn_page *r, const pn_page_variants *v, const columns *c, int first, int n) {
    char text[PN_PAGE_TEXT];
    double value;
    bool any = false;
    for (int i = first; i < first + n; i++) any |= chance(v, &c->at[i], &value);
    if (!any) return;
    pn_buf_text(r->out, "<tr class=\"chance\"><th scope=\"row\">chance</th>");
    if (!first) pn_buf_text(r->out, "<td></td>");
    for (int i = first; i < first + n; i++)
        pn_html(r->out, "<td>%s</td>", chance(v, &c->at[i], &value) ? pn_page_value(c->at[i].metric, value, text) : "");
    pn_buf_text(r->out, "</tr>\n");
}

/* As many tables as the tasks need: a wider one would not fit the page. */
static void scores(pn_page *r, const pn_page_variants *v) {
    columns c;
    find_columns(v, &c);
    for (int first = 0; first < c.n || !first; first += SIDE_BY_SIDE) {
        int n = c.n - first < SIDE_BY_SIDE ? c.n - first : SIDE_BY_SIDE;
        pn_buf_text(r->out, "<div class=\"scroll\"><table>\n<caption>Scores of the candidates</caption>\n");
        scores_head(r, v, &c, first, n);
        for (int i = 0; i < v->n; i++) {
            const pn_page_variant *x = &v->at[i];
            row_head(r, v, x, !first);
            if (!first) value_cell(r, v->objective.metric, true, x->objective);
            for (int k = first; k < first + n; k++) {
                double value;
                bool known = metric_read(x, c.at[k].task, c.at[k].metric, &value);
                value_cell(r, c.at[k].metric, known, known ? value : 0);
            }
            pn_buf_text(r->out, "</tr>\n");
        }
        scores_chance(r, v, &c, first, n);
        pn_buf_text(r->out, "</tbody>\n</table></div>\n");
    }
}

/* ---- what they cost ---- */

static const char *const passes[] = { "decode", "prefill" };

static void costs_head(pn_page *r, const pn_page_variants *v, bool timed) {
    char context[PN_PAGE_TEXT];
    pn_buf_text(r->out, "<thead>\n<tr><td></td><th scope=\"colgroup\" colspan=\"2\">local error</th><td></td><td></td>"
                        "<td></td>");
    for (int k = 0; k < 2 && timed; k++)
        pn_html(r->out, "<th scope=\"colgroup\" colspan=\"%d\">%s at, tokens/s</th>", v->n_contexts, passes[k]);
    pn_buf_text(r->out, "</tr>\n");
    corner(r, v);
    pn_buf_text(r->out, "<th scope=\"col\">at step 0</th><th scope=\"col\">trained</th>"
                        "<th scope=\"col\">parameters</th><th scope=\"col\">flops<small>per token</small></th>"
                        "<th scope=\"col\">state</th>");
    for (int k = 0; k < 2 && timed; k++)
        for (int i = 0; i < v->n_contexts; i++)
            pn_html(r->out, "<th scope=\"col\">%s</th>", pn_page_context(v->context[i].tokens, context));
    if (timed) pn_buf_text(r->out, "<th scope=\"col\">front</th>");
    pn_buf_text(r->out, "</tr>\n</thead>\n<tbody>\n");
}

static void cost(pn_page *r, const pn_page_variant *x, const char *key, const char *(*text)(double, char *)) {
    double value;
    bool known = pn_page_number(x->json, key, &value);
    amount_cell(r, known, known ? value : 0, text);
}

static void costs(pn_page *r, const pn_page_variants *v) {
    bool timed = false;
    for (int i = 0; i < v->n; i++) timed |= v->at[i].speed && v->n_contexts;
    pn_buf_text(r->out, "<div class=\"scroll\"><table>\n<caption>Training and cost of the candidates</caption>\n");
    costs_head(r, v, timed);
    for (int i = 0; i < v->n; i++) {
        const pn_page_variant *x = &v->at[i];
        row_head(r, v, x, false);
        value_cell(r, "", isfinite(x->start), x->start);
        value_cell(r, "", isfinite(x->last), x->last);
        cost(r, x, "parameters", pn_page_amount);
        cost(r, x, "flops", pn_page_amount);
        cost(r, x, "state", pn_page_bytes);
        for (int k = 0; k < 2 && timed; k++) {
            for (int c = 0; c < v->n_contexts; c++) {
                double rate;
                bool known = pn_page_rate(x->speed, passes[k], &v->context[c], &rate);
                amount_cell(r, known, rate, pn_page_amount);
            }
        }
        if (timed) pn_html(r->out, "<td>%s</td>", x->front ? "yes" : "");
        pn_buf_text(r->out, "</tr>\n");
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

/* ---- what the stage ended with ---- */

static void worth(pn_page *r, const pn_page_variants *v) {
    const json_t *list = json_object_get(v->json, "worth");
    const char *key, *join = " Costs count too; half of one is worth, in units of the objective: ";
    json_t *unused;
    double value;
    json_object_foreach((json_t *)list, key, unused) {
        if (!pn_page_number(list, key, &value)) continue;
        pn_html(r->out, "%s%s %g", join, key, value);
        join = ", ";
    }
    if (*join == ',') pn_buf_text(r->out, ".");
}

static void ended(pn_page *r, const pn_page_variants *v) {
    char text[PN_PAGE_TEXT];
    const char *path = pn_page_string(v->json, "path");
    if (!path) return;
    pn_buf_text(r->out, "<p>The stage ended with ");
    pn_page_path_text(r->out, path);
    if (isfinite(v->ended))
        pn_html(r->out, ", whose objective is %s", pn_page_value(v->objective.metric, v->ended, text));
    pn_buf_text(r->out, ".</p>\n");
}

static void mixed_stack(pn_page *r, const pn_page_variants *v) {
    bool used[PN_PAGE_BLOCKS] = { 0 };
    if (!pn_page_variants_mixed(r, v, used)) return;
    pn_buf_text(r->out, "<p class=\"how\">A mixture: the search over types per layer found it better than any one type "
                        "in all layers. Its stack, from the first layer to the last:</p>\n<div class=\"pair\">\n");
    pn_page_stack_columns(r, &v->path, NULL);
    pn_page_legend(r, used);
    pn_buf_text(r->out, "</div>\n");
}

void pn_page_later_stage(pn_page *r, const char *stage, const char *title) {
    pn_page_variants v;
    if (!pn_page_variants_read(r, stage, &v)) return;
    pn_page_section(r, stage, title);
    pn_html(r->out,
            "<p class=\"how\">Candidates for the layers that the placement left to a linear block, best first by %s; "
            "each was trained alike, put into all of these layers and scored on search data. Parameters, flops and "
            "decode state are of one layer's block; the local error is the mean over the layers.",
            v.objective.text ? v.objective.text : "the objective");
    worth(r, &v);
    if (v.n_contexts) {
        pn_buf_text(r->out, " Speeds are of one layer's block, measured on the machine that searched; on the front is "
                            "what none beats in both objective and decoding, all contexts together.");
        pn_page_speed_setting(r);
    }
    pn_buf_text(r->out, "</p>\n");
    scores(r, &v);
    costs(r, &v);
    pn_page_front(r, &v);
    ended(r, &v);
    mixed_stack(r, &v);
    pn_page_section_end(r);
}
