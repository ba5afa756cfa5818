/* Stacks, layer by layer: the chosen one beside the base it came from. */
#include "report_internal.h"

#include <string.h>

enum { LABEL = 26, BOX = 138, GAP = 42, ROW = 22, HEAD = 24, TALLEST = 20 };

static void box(pn_page *r, const char *name, int layer, double x, double y, const char *whose) {
    char label[PN_PAGE_NAME], type[PN_PAGE_NAME];
    const char *k = pn_page_block_class(r, name);
    pn_html(r->out,
            "<g><title>layer %d, %s: %s</title><rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" "
            "rx=\"3\"/><text class=\"mid on-%s\" x=\"%.1f\" y=\"%.1f\">%s</text></g>\n",
            layer, whose, name, k, x, y, BOX, ROW - 4, k, x + BOX / 2.0, y + 13,
            pn_page_short(pn_page_type_name(name, type), 19, label));
}

/* Layers first .. last - 1 as one drawing. */
static void column(pn_page *r, const pn_page_path *w, const pn_page_path *base, int first, int last) {
    bool pair = base != NULL;
    double left = LABEL, right = pair ? LABEL + BOX + GAP : LABEL, height = HEAD + (last - first) * ROW;
    char title[PN_PAGE_TEXT];
    snprintf(title, sizeof title, "Token mixers of layers %d to %d", first, last - 1);
    pn_plot_open(r->out, right + BOX + 1, height, true, title);
    if (pair) pn_html(r->out, "<text class=\"mid soft\" x=\"%.1f\" y=\"14\">base</text>\n", left + BOX / 2.0);
    pn_html(r->out, "<text class=\"mid soft\" x=\"%.1f\" y=\"14\">hybrid</text>\n", right + BOX / 2.0);
    for (int l = first; l < last; l++) {
        double y = HEAD + (l - first) * ROW;
        pn_html(r->out, "<text class=\"end soft\" x=\"%d\" y=\"%.1f\">%d</text>\n", LABEL - 6, y + 13, l);
        if (pair) {
            pn_html(r->out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
                    strcmp(base->name[l], w->name[l]) ? "replaced" : "kept", left + BOX + 4, right - 4,
                    y + (ROW - 4) / 2.0, y + (ROW - 4) / 2.0);
            box(r, base->name[l], l, left, y, "base");
        }
        box(r, w->name[l], l, right, y, "hybrid");
    }
    pn_plot_close(r->out);
}

void pn_page_stack_columns(pn_page *r, const pn_page_path *path, const pn_page_path *base) {
    int n = path->n, columns = (n + TALLEST - 1) / TALLEST;
    for (int i = 0; i < columns; i++) column(r, path, base, i * n / columns, (i + 1) * n / columns);
}

void pn_page_stack(pn_page *r) {
    int n = r->winner.n;
    if (!n) return;
    bool pair = r->base.n == n;
    pn_page_section(r, "stack", "The chosen stack");
    pn_html(
        r->out,
        "<p class=\"how\">Layer 0 reads the token embeddings, the last layer feeds the output head; each box is the "
        "layer's token mixer%s.</p>\n",
        pair ? ", the base on the left, the hybrid on the right; a solid line joins a layer that stays, a dotted "
               "one a layer that was replaced"
             : "");
    pn_buf_text(r->out, "<div class=\"pair\">\n");
    pn_page_stack_columns(r, &r->winner, pair ? &r->base : NULL);
    pn_page_legend(r, NULL);
    pn_buf_text(r->out, "</div>\n");
    pn_page_section_end(r);
}
