/* Gates of a gated super-network: how likely each candidate of a layer became, over training. */
#include "report_internal.h"

#include <math.h>
#include <string.h>

#include "progress.h"

enum { POINTS_MAX = 60, CANDIDATES_MAX = 16 };

typedef struct gates {
    const json_t *points, *final, *names; /* borrowed; final: of the last point when there is none of its own */
    int n_layers, n_candidates;
    size_t n, bin; /* points, and how many of them make one of the curve's */
} gates;

static bool share(const json_t *p, int layer, int candidate, double *out) {
    const json_t *v = json_array_get(json_array_get(p, (size_t)layer), (size_t)candidate);
    if (!json_is_number(v)) return false;
    *out = json_number_value(v);
    return *out >= 0 && *out <= 1;
}

static const json_t *shares(const json_t *point) {
    return json_object_get(point, "p");
}

static bool read_gates(const pn_page *r, gates *g) {
    const json_t *all = json_object_get(r->root, "gates");
    *g = (gates){ .points = json_object_get(all, "points"),
                  .final = json_object_get(all, "final"),
                  .names = json_object_get(all, "candidates") };
    g->n = json_array_size(g->points);
    g->bin = g->n > POINTS_MAX ? (g->n + POINTS_MAX - 1) / POINTS_MAX : 1;
    size_t candidates = json_array_size(g->names);
    g->n_candidates = candidates < CANDIDATES_MAX ? (int)candidates : CANDIDATES_MAX;
    if (!json_array_size(g->final) && g->n) g->final = shares(json_array_get(g->points, g->n - 1));
    size_t layers = json_array_size(g->final);
    g->n_layers = layers < PN_MAX_LAYERS ? (int)layers : PN_MAX_LAYERS;
    return g->n_layers > 0 && g->n_candidates > 0;
}

static const char *name_of(const gates *g, int candidate) {
    const char *name = json_string_value(json_array_get(g->names, (size_t)candidate));
    return name ? name : "?";
}

/* The candidate with the largest final gate; -1: none is known. */
static int likeliest(const gates *g, int layer, double *p) {
    int best = -1;
    for (int c = 0; c < g->n_candidates; c++) {
        double v;
        if (!share(g->final, layer, c, &v) || (best >= 0 && v <= *p)) continue;
        best = c;
        *p = v;
    }
    return best;
}

static void curve(pn_page *r, const gates *g, int layer, int candidate, const pn_plot *plot) {
    pn_html(r->out, "<path class=\"curve %s\" style=\"fill:none\" d=\"", pn_page_block_class(r, name_of(g, candidate)));
    bool down = false;
    for (size_t i = 0; i < g->n; i += g->bin) {
        double sum = 0, v;
        int held = 0;
        for (size_t k = i; k < i + g->bin && k < g->n; k++) {
            if (!share(shares(json_array_get(g->points, k)), layer, candidate, &v)) continue;
            sum += v, held++;
        }
        if (held)
            pn_html(r->out, "%s%.1f %.1f", down ? "L" : "M", pn_plot_x(plot, (double)i), pn_plot_y(plot, sum / held));
        down = held > 0;
    }
    pn_buf_text(r->out, "\"/>\n");
}

static void panel(pn_page *r, const gates *g, int layer) {
    enum { WIDTH = 116, HEIGHT = 62 };
    size_t last = g->n > 1 ? (g->n - 1) / g->bin * g->bin : 1; /* where the last point of a curve stands */
    pn_plot plot = { 0, (double)last, 0, 1, 2, 18, WIDTH - 4, HEIGHT - 22 };
    double p = 0;
    int best = likeliest(g, layer, &p);
    bool kept = layer < r->winner.n && best >= 0 && !strcmp(r->winner.name[layer], name_of(g, best));
    pn_html(r->out, "<li><svg role=\"img\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\"><title>layer %d:", WIDTH,
            HEIGHT, WIDTH, HEIGHT, layer);
    for (int c = 0; c < g->n_candidates; c++) {
        double v;
        if (share(g->final, layer, c, &v)) pn_html(r->out, " %s %.3f", name_of(g, c), v);
    }
    pn_html(r->out, "%s</title><rect class=\"frame\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
            kept || !r->winner.n ? "" : "; the search chose another", plot.left, plot.top, plot.width, plot.height);
    for (int c = 0; g->n > 1 && c < g->n_candidates; c++) curve(r, g, layer, c, &plot);
    pn_html(r->out, "<text x=\"2\" y=\"12\">%d</text>", layer);
    if (best >= 0) {
        char label[PN_PAGE_NAME];
        pn_html(r->out, "<text class=\"end soft\" x=\"%d\" y=\"12\">%s %.2f</text>", WIDTH - 2,
                pn_page_short(name_of(g, best), 11, label), p);
    }
    pn_buf_text(r->out, "</svg></li>\n");
}

static void training(pn_page *r, const gates *g) {
    double step[2], tokens, temperature[2];
    char text[PN_PAGE_TEXT];
    const json_t *first = json_array_get(g->points, 0), *last = json_array_get(g->points, g->n - 1);
    if (g->n < 2 || !pn_page_number(first, "step", &step[0]) || !pn_page_number(last, "step", &step[1])) return;
    pn_html(r->out, " Steps %.0f to %.0f", step[0], step[1]);
    if (pn_page_number(last, "tokens", &tokens))
        pn_html(r->out, ", %s tokens", pn_compact_text(tokens, text, sizeof text));
    if (pn_page_number(first, "temperature", &temperature[0]) && pn_page_number(last, "temperature", &temperature[1]))
        pn_html(r->out, "; temperature %.3g at first, %.3g at last", temperature[0], temperature[1]);
    pn_buf_text(r->out, ".");
}

void pn_page_gates(pn_page *r) {
    gates g;
    if (!read_gates(r, &g)) return;
    pn_page_section(r, "gates", "Gates over training");
    pn_buf_text(r->out,
                "<p class=\"how\">One panel per layer, from the start of training on the left to its end; a line "
                "is one candidate's share of the gate, 0 at the bottom and 1 at the top. Each panel names the "
                "candidate that ended highest; lines that part early show a layer that knows what it needs.");
    training(r, &g);
    pn_buf_text(r->out, "</p>\n");
    bool used[PN_PAGE_BLOCKS] = { 0 };
    for (int c = 0; c < g.n_candidates; c++) used[pn_page_block(r, name_of(&g, c))] = true;
    pn_page_legend(r, used);
    pn_buf_text(r->out, "<ol class=\"panels\" start=\"0\">\n");
    for (int l = 0; l < g.n_layers; l++) panel(r, &g, l);
    pn_buf_text(r->out, "</ol>\n");
    pn_page_section_end(r);
}
