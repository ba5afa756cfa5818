/* Axes, strips and legends in inline SVG. */
#include "report_internal.h"

#include <math.h>
#include <string.h>

enum { TICKS_MAX = 16 };

double pn_plot_x(const pn_plot *p, double x) {
    return p->left + p->width * (x - p->x_min) / (p->x_max - p->x_min);
}

double pn_plot_y(const pn_plot *p, double y) {
    return p->top + p->height * (p->y_max - y) / (p->y_max - p->y_min);
}

static void settle(double *min, double *max, double pad) {
    if (*max - *min <= 1e-9 * fmax(fabs(*min), fabs(*max))) {
        double half = *max != 0 ? 0.1 * fabs(*max) : 0.5;
        *min -= half;
        *max += half;
    } else {
        double more = pad * (*max - *min);
        *min -= more;
        *max += more;
    }
}

void pn_plot_settle(pn_plot *p, bool pad) {
    settle(&p->x_min, &p->x_max, 0);
    settle(&p->y_min, &p->y_max, pad ? 0.05 : 0);
}

void pn_plot_open(pn_buf *b, double width, double height, bool shrinks, const char *title) {
    pn_html(b,
            "<div class=\"scroll\"><svg class=\"%s\" role=\"img\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\">\n<title>%s</title>\n",
            !shrinks      ? ""
            : width > 450 ? "plot wide"
                          : "plot",
            width, height, width, height, title);
}

void pn_plot_close(pn_buf *b) {
    pn_buf_text(b, "</svg></div>\n");
}

/* 1, 2 or 5 times a power of ten: about n steps in the range. */
static double nice_step(double range, int n) {
    double raw = range / n, power = pow(10, floor(log10(raw))), digit = raw / power;
    return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
}

static void tick_text(double v, double step, char *out, size_t n) {
    int decimals = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    if (fabs(v) < step / 2)
        snprintf(out, n, "0");
    else if (step >= 1e12 || decimals > 4)
        snprintf(out, n, "%.3g", v);
    else if (step >= 1e3)
        snprintf(out, n, "%.4g%s",
                 v / (step >= 1e9   ? 1e9
                      : step >= 1e6 ? 1e6
                                    : 1e3),
                 step >= 1e9   ? "G"
                 : step >= 1e6 ? "M"
                               : "k");
    else
        snprintf(out, n, "%s%.*f", v < 0 ? "\xe2\x88\x92" : "", decimals, fabs(v));
}

void pn_plot_y_axis(pn_buf *b, const pn_plot *p, const char *caption) {
    double step = nice_step(p->y_max - p->y_min, 5), first = ceil(p->y_min / step - 1e-9);
    for (int i = 0; i < TICKS_MAX && first + i <= p->y_max / step + 1e-9; i++) {
        char text[32];
        double v = (first + i) * step, y = pn_plot_y(p, v);
        tick_text(v, step, text, sizeof text);
        pn_html(b,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                p->left, p->left + p->width, y, y, p->left - 6, y + 4, text);
    }
    pn_html(b, "<text class=\"soft\" x=\"0\" y=\"12\">%s</text>\n", caption);
}

void pn_plot_x_axis(pn_buf *b, const pn_plot *p, const char *caption) {
    double step = nice_step(p->x_max - p->x_min, 6), first = ceil(p->x_min / step - 1e-9);
    double bottom = p->top + p->height;
    pn_html(b, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", p->left, p->left + p->width,
            bottom, bottom);
    for (int i = 0; i < TICKS_MAX && first + i <= p->x_max / step + 1e-9; i++) {
        char text[32];
        double v = (first + i) * step;
        tick_text(v, step, text, sizeof text);
        pn_html(b, "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", pn_plot_x(p, v), bottom + 16, text);
    }
    pn_html(b, "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width, bottom + 32, caption);
}

/* Whole exponents in the range, at most about `most` of them; the first of *n ticks, `step` apart. */
static int log2_ticks(double min, double max, int most, int *step) {
    *step = (int)fmax(1, ceil((max - min) / most));
    return (int)ceil(min / *step - 1e-9) * *step;
}

void pn_plot_x_axis_log2(pn_buf *b, const pn_plot *p, const char *caption, pn_plot_text text) {
    double bottom = p->top + p->height;
    int step, first = log2_ticks(p->x_min, p->x_max, 8, &step);
    pn_html(b, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", p->left, p->left + p->width,
            bottom, bottom);
    for (int e = first; e <= p->x_max + 1e-9; e += step) {
        char label[PN_PAGE_TEXT];
        double x = pn_plot_x(p, e);
        pn_html(b,
                "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"soft mid\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                x, x, bottom, bottom + 4, x, bottom + 17, text(exp2(e), label));
    }
    pn_html(b, "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width, bottom + 34, caption);
}

void pn_plot_y_axis_log2(pn_buf *b, const pn_plot *p, const char *caption, pn_plot_text text) {
    int step, first = log2_ticks(p->y_min, p->y_max, 6, &step);
    for (int e = first; e <= p->y_max + 1e-9; e += step) {
        char label[PN_PAGE_TEXT];
        double y = pn_plot_y(p, e);
        pn_html(b,
                "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                "<text class=\"soft end\" x=\"%.1f\" y=\"%.1f\">%s</text>\n",
                p->left, p->left + p->width, y, y, p->left - 6, y + 4, text(exp2(e), label));
    }
    pn_html(b, "<text class=\"soft\" x=\"0\" y=\"12\">%s</text>\n", caption);
}

void pn_page_strip(pn_page *r, const pn_page_path *p) {
    double cell = p->n <= 16 ? 9 : p->n <= 64 ? 6 : 4;
    pn_html(r->out, "<svg role=\"img\" width=\"%.0f\" height=\"13\"><title>", p->n * cell + 1);
    for (int l = 0, run; l < p->n; l += run) {
        for (run = 1; l + run < p->n && !strcmp(p->name[l], p->name[l + run]);) run++;
        pn_html(r->out, run > 1 ? "%s%s \xc3\x97 %d" : "%s%s", l ? ", " : "", p->name[l], run);
    }
    pn_buf_text(r->out, "</title>");
    for (int l = 0; l < p->n; l++)
        pn_html(r->out, "<rect class=\"%s\" x=\"%.1f\" y=\"1.5\" width=\"%.0f\" height=\"10\"/>",
                pn_page_block_class(r, p->name[l]), l * cell + 0.5, cell - 2);
    pn_buf_text(r->out, "</svg>");
}

void pn_page_legend(pn_page *r, const bool *only) {
    const bool many = r->winner.n && r->n_blocks > 6; /* what later stages compared and left is shown there */
    pn_buf_text(r->out, "<ul class=\"legend\">\n");
    for (int i = 0; i < r->n_blocks; i++) {
        const char *name = r->block[i];
        if (only && !only[i]) continue;
        if (!only && many && !pn_page_path_count(&r->winner, name)) continue;
        pn_html(r->out,
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\">"
                "<rect class=\"%s\" x=\"1\" y=\"1\" width=\"12\" height=\"12\"/></svg>%s",
                pn_page_block_class(r, name), name);
        if (!only && r->winner.n) pn_html(r->out, " \xc3\x97 %d", pn_page_path_count(&r->winner, name));
        pn_buf_text(r->out, "</li>\n");
    }
    pn_buf_text(r->out, "</ul>\n");
}
