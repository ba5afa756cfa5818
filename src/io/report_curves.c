/* Training: what each candidate's local error did, and loss curves. */
#include "report_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ERRORS_MAX = 2048, POINTS_MAX = 400 };

typedef struct local_error {
    int layer;
    const char *block;
    double start, first, last; /* start: NAN where the result does not say */
} local_error;

static int by_layer(const void *a_, const void *b_) {
    const local_error *a = a_, *b = b_;
    return a->layer - b->layer;
}

static int read_errors(const pn_page *r, local_error *out) {
    const json_t *list = json_object_get(r->root, "local_errors");
    int n = 0;
    for (size_t i = 0; i < json_array_size(list) && n < ERRORS_MAX; i++) {
        const json_t *o = json_array_get(list, i);
        double layer;
        local_error e = { .block = pn_page_string(o, "block"), .start = NAN };
        if (!e.block || !pn_page_number(o, "layer", &layer) || layer < 0 || layer >= PN_MAX_LAYERS ||
            !pn_page_number(o, "first", &e.first) || !pn_page_number(o, "last", &e.last))
            continue;
        pn_page_number(o, "start", &e.start);
        e.layer = (int)layer;
        out[n++] = e;
    }
    return n;
}

static void bar(pn_page *r, const pn_plot *p, const local_error *e, double x, int width) {
    char start[PN_PAGE_TEXT] = "", first[PN_PAGE_TEXT], last[PN_PAGE_TEXT];
    double zero = pn_plot_y(p, 0), at_first = pn_plot_y(p, fmax(e->first, 0)), at_last = pn_plot_y(p, fmax(e->last, 0));
    const char *k = pn_page_block_class(r, e->block);
    bool started = isfinite(e->start);
    pn_html(r->out,
            "<g><title>layer %d, %s: %s%s%s at first, %s at last</title>"
            "<rect class=\"%s faint\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>"
            "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%.1f\"/>",
            e->layer, e->block, started ? pn_page_value("", e->start, start) : "",
            started ? " before the first update, " : "", pn_page_value("", e->first, first),
            pn_page_value("", e->last, last), k, x, at_first, width, zero - at_first, k, x, at_last, width,
            zero - at_last);
    if (started) /* a stroke across the bar */
        pn_html(r->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"1.5\"/>", k, x - 1,
                pn_plot_y(p, fmax(e->start, 0)) - 0.75, width + 2);
    pn_html(r->out, "</g>\n");
}

void pn_page_local_errors(pn_page *r) {
    local_error *e = calloc(ERRORS_MAX, sizeof *e);
    int n = e ? read_errors(r, e) : 0;
    if (!e) r->out->failed = true;
    if (n) {
        qsort(e, (size_t)n, sizeof *e, by_layer);
        pn_plot p = { 0, 1, 0, 0, 46, 28, 0, 180 };
        int groups = 0;
        for (int i = 0; i < n; i++) {
            groups += !i || e[i].layer != e[i - 1].layer;
            p.y_max = fmax(p.y_max, fmax(fmax(e[i].start, e[i].first), e[i].last)); /* fmax passes NAN over */
        }
        pn_plot_settle(&p, false);
        p.y_min = 0;
        int width = n <= 32 ? 14 : n <= 60 ? 11 : 8, gap = width / 2 + 3; /* of a bar, between layers */
        p.width = n * (width + 2.0) + groups * gap;
        pn_page_section(r, "local-errors", "Local error of the candidates");
        pn_buf_text(r->out,
                    "<p class=\"how\">Error of each candidate against the teacher's layer, over the variance of the "
                    "teacher's output: the stroke before any update, the faint bar over the first tenth of its "
                    "training, the full bar over the last tenth; lower is better.</p>\n");
        bool used[PN_PAGE_BLOCKS] = { 0 };
        for (int i = 0; i < n; i++) used[pn_page_block(r, e[i].block)] = true;
        pn_page_legend(r, used);
        pn_plot_open(r->out, p.left + fmax(p.width, 300) + 4, p.top + p.height + 40, false,
                     "Local error per layer and block");
        pn_plot_y_axis(r->out, &p, "local error");
        double x = p.left + 6;
        for (int i = 0, run; i < n; i += run, x += gap) {
            for (run = 1; i + run < n && e[i + run].layer == e[i].layer;) run++;
            pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%d</text>\n",
                    x + run * (width + 2) / 2.0 - 1, p.top + p.height + 16, e[i].layer);
            for (int k = 0; k < run; k++, x += width + 2) bar(r, &p, &e[i + k], x, width);
        }
        pn_html(r->out, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">layer</text>\n", p.left + p.width / 2,
                p.top + p.height + 33);
        pn_plot_close(r->out);
        pn_page_section_end(r);
    }
    free(e);
}

static const struct series {
    const char *key, *name, *colour, *dash;
} series[] = {
    { "loss", "total loss", "k1", "none" },
    { "kl", "KL to the teacher", "k0", "6 3" },
    { "feature", "feature distance", "k2", "2 3" },
    { "ce", "cross-entropy", "k3", "9 3 2 3" },
};
enum { N_SERIES = sizeof series / sizeof *series };

static bool x_of(const json_t *point, const char *unit, size_t i, double *x) {
    *x = (double)i;
    return *unit ? pn_page_number(point, unit, x) : true;
}

/* A line through means of `bin` neighbouring points, broken where values are missing. */
static void curve(pn_page *r, const json_t *list, const struct series *s, const char *unit, size_t bin,
                  const pn_plot *p) {
    bool down = false;
    char text[PN_PAGE_TEXT];
    double last = 0;
    pn_html(r->out, "<path class=\"curve %s\" style=\"fill:none;stroke-dasharray:%s\" d=\"", s->colour, s->dash);
    for (size_t i = 0, n = json_array_size(list); i < n; i += bin) {
        double sum_x = 0, sum_y = 0, x, y;
        int held = 0;
        for (size_t k = i; k < i + bin && k < n; k++) {
            const json_t *point = json_array_get(list, k);
            if (!x_of(point, unit, k, &x) || !pn_page_number(point, s->key, &y)) continue;
            sum_x += x, sum_y += y, held++;
        }
        if (held) {
            last = sum_y / held;
            pn_html(r->out, "%s%.1f %.1f", down ? "L" : "M", pn_plot_x(p, sum_x / held), pn_plot_y(p, last));
        }
        down = held > 0;
    }
    pn_html(r->out, "\"><title>%s, at last %s</title></path>\n", s->name, pn_page_value("", last, text));
}

void pn_page_curve(pn_page *r, const char *key, const char *id, const char *title) {
    const json_t *list = json_object_get(r->root, key);
    size_t n = json_array_size(list), bin = (n + POINTS_MAX - 1) / POINTS_MAX, points = 0;
    const char *unit = "tokens";
    double x, y;
    if (!pn_page_number(json_array_get(list, 0), unit, &x)) unit = "step";
    if (!pn_page_number(json_array_get(list, 0), unit, &x)) unit = "";
    pn_plot p = { 0, 0, 0, 0, 46, 28, 520, 220 };
    bool used[N_SERIES] = { 0 };
    for (size_t i = 0; i < n; i++) {
        if (!x_of(json_array_get(list, i), unit, i, &x)) continue;
        bool any = false;
        for (int k = 0; k < N_SERIES; k++) {
            if (!pn_page_number(json_array_get(list, i), series[k].key, &y)) continue;
            used[k] |= y != 0;
            any = true;
            p.y_min = fmin(p.y_min, y);
            p.y_max = fmax(p.y_max, y);
        }
        if (!any) continue;
        if (!points++) p.x_min = p.x_max = x;
        p.x_min = fmin(p.x_min, x);
        p.x_max = fmax(p.x_max, x);
    }
    if (points < 2 || p.x_min == p.x_max) return;
    pn_plot_settle(&p, false);
    pn_page_section(r, id, title);
    pn_html(r->out,
            "<p class=\"how\">Training losses over %s; lower is better, and a flat end means that more of the "
            "same data would change little.",
            *unit ? unit : "points");
    if (bin > 1) pn_html(r->out, " Each point is the mean of %ld records.", (long)bin);
    pn_buf_text(r->out, "</p>\n<ul class=\"legend\">\n");
    for (int k = 0; k < N_SERIES; k++) {
        if (!used[k]) continue;
        pn_html(r->out,
                "<li><svg width=\"30\" height=\"10\" aria-hidden=\"true\"><path "
                "class=\"curve %s\" style=\"fill:none;stroke-dasharray:%s\" d=\"M0 5L30 5\"/></svg>%s</li>\n",
                series[k].colour, series[k].dash, series[k].name);
    }
    pn_buf_text(r->out, "</ul>\n");
    pn_plot_open(r->out, p.left + p.width + 24, p.top + p.height + 40, true, title);
    pn_plot_y_axis(r->out, &p, "loss");
    pn_plot_x_axis(r->out, &p, *unit ? unit : "point");
    for (int k = 0; k < N_SERIES; k++)
        if (used[k]) curve(r, list, &series[k], unit, bin, &p);
    pn_plot_close(r->out);
    pn_page_section_end(r);
}
