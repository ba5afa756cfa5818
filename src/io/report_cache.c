/* Bytes of decode state by context, for the base and the hybrid. */
#include "report_internal.h"

#include <math.h>

enum { POINTS_MAX = 64 };

typedef struct sizes {
    double context[POINTS_MAX], base[POINTS_MAX], hybrid[POINTS_MAX];
    int n;
} sizes;

static void read_sizes(const pn_page *r, sizes *s) {
    const json_t *list = json_object_get(r->root, "cache_bytes");
    s->n = 0;
    for (size_t i = 0; i < json_array_size(list) && s->n < POINTS_MAX; i++) {
        const json_t *o = json_array_get(list, i);
        s->n += pn_page_number(o, "context", &s->context[s->n]) && pn_page_number(o, "base", &s->base[s->n]) &&
                pn_page_number(o, "winner", &s->hybrid[s->n]);
    }
}

static void curve(pn_page *r, const sizes *s, const double *bytes, const char *name, const char *style,
                  const pn_plot *p) {
    char text[PN_PAGE_TEXT], context[PN_PAGE_TEXT];
    pn_html(r->out, "<polyline class=\"curve %s\" style=\"fill:none\" points=\"", style);
    for (int i = 0; i < s->n; i++)
        pn_html(r->out, "%.1f,%.1f ", pn_plot_x(p, log2(s->context[i])), pn_plot_y(p, log2(bytes[i])));
    pn_buf_text(r->out, "\"/>\n");
    for (int i = 0; i < s->n; i++)
        pn_html(r->out, "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\"><title>%s at %s: %s</title></circle>\n",
                style, pn_plot_x(p, log2(s->context[i])), pn_plot_y(p, log2(bytes[i])), name,
                pn_page_context(s->context[i], context), pn_page_bytes(bytes[i], text));
    pn_html(r->out, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", p->left + p->width + 8,
            pn_plot_y(p, log2(bytes[s->n - 1])) + 4, name);
}

/* Both axes logarithmic: a straight line that rises with the context is a cache that grows with it. */
static void plot(pn_page *r, const sizes *s) {
    pn_plot p = { INFINITY, -INFINITY, INFINITY, -INFINITY, 72, 28, 250, 170 };
    for (int i = 0; i < s->n; i++) {
        if (!(s->context[i] >= 1 && s->base[i] >= 1 && s->hybrid[i] >= 1)) return;
        p.x_min = fmin(p.x_min, log2(s->context[i]));
        p.x_max = fmax(p.x_max, log2(s->context[i]));
        p.y_min = fmin(p.y_min, log2(fmin(s->base[i], s->hybrid[i])));
        p.y_max = fmax(p.y_max, log2(fmax(s->base[i], s->hybrid[i])));
    }
    if (s->n < 2) return;
    pn_plot_settle(&p, true);
    pn_plot_open(r->out, p.left + p.width + 60, p.top + p.height + 40, true, "Decode state by context");
    pn_plot_y_axis_log2(r->out, &p, "decode state of one sequence", pn_page_bytes);
    pn_plot_x_axis_log2(r->out, &p, "context, tokens", pn_page_context);
    curve(r, s, s->base, "base", "k6", &p);
    curve(r, s, s->hybrid, "hybrid", "k0", &p);
    pn_plot_close(r->out);
}

static void row(pn_page *r, double context, double base, double hybrid) {
    char a[PN_PAGE_TEXT], b[PN_PAGE_TEXT], c[PN_PAGE_TEXT];
    pn_html(
        r->out,
        "<tr><th scope=\"row\" class=\"right\">%s</th><td title=\"%.0f bytes\">%s</td><td title=\"%.0f bytes\">%s</td>",
        pn_page_context(context, a), base, pn_page_bytes(base, b), hybrid, pn_page_bytes(hybrid, c));
    if (base > 0 && hybrid > 0 && base / hybrid < 1e6) {
        double part = hybrid / base, width = 80 * fmin(part, 1);
        pn_html(r->out,
                "<td>%.2f\xc3\x97</td><td class=\"left\"><svg class=\"bar\" role=\"img\" width=\"82\" "
                "height=\"12\"><title>%.1f %% of the base</title>"
                "<rect class=\"k6 faint\" x=\".5\" y=\".5\" width=\"81\" height=\"11\"/>"
                "<rect class=\"k0\" x=\"1\" y=\"1\" width=\"%.1f\" height=\"10\"/></svg> %.1f %%</td></tr>\n",
                base / hybrid, 100 * part, width, 100 * part);
    } else
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td><td class=\"left\">\xe2\x80\x93</td></tr>\n");
}

void pn_page_cache(pn_page *r) {
    sizes s;
    read_sizes(r, &s);
    if (!s.n) return;
    pn_page_section(r, "cache", "Decode state");
    pn_buf_text(r->out, "<p class=\"how\">Bytes one sequence keeps while decoding (keys and values of full attention, "
                        "windows, recurrent states), for the base and the hybrid; the bar is the hybrid's part of the "
                        "base. Both axes of the plot are logarithmic.</p>\n<div class=\"pair\">\n"
                        "<div class=\"scroll\"><table>\n<caption>Decode state by context</caption>\n<thead><tr>"
                        "<th scope=\"col\">context, tokens</th><th scope=\"col\">base</th>"
                        "<th scope=\"col\">hybrid</th><th scope=\"col\">base / hybrid</th>"
                        "<th scope=\"col\" class=\"left\">part of the base</th></tr></thead>\n<tbody>\n");
    for (int i = 0; i < s.n; i++) row(r, s.context[i], s.base[i], s.hybrid[i]);
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
    plot(r, &s);
    pn_buf_text(r->out, "</div>\n");
    pn_page_section_end(r);
}
