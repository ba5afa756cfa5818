/* The page of finetune: how far it is, held-out losses, and the losses of every stage. */
#include "report_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool pn_page_is_training(const json_t *result) {
    const char *kind = pn_page_string(result, "kind");
    return kind && !strcmp(kind, "finetune");
}

static const json_t *last_of(const json_t *stage, const char *list) {
    const json_t *points = json_object_get(stage, list);
    const size_t n = json_array_size(points);
    return n ? json_array_get(points, n - 1) : NULL;
}

/* Of all stages: trained on, and to train on. */
static void tokens_of(const pn_page *r, double *done, double *budget) {
    size_t i;
    const json_t *stage;
    *done = *budget = 0;
    json_array_foreach(json_object_get(r->root, "stages"), i, stage) {
        double at, of;
        if (pn_page_number(last_of(stage, "curve"), "tokens", &at)) *done += at;
        if (pn_page_number(stage, "tokens", &of)) *budget += of;
    }
}

void pn_page_training_summary(pn_page *r) {
    const char *model = pn_page_string(r->root, "model");
    const json_t *stages = json_object_get(r->root, "stages"), *stage, *latest = NULL;
    char a[PN_PAGE_TEXT], b[PN_PAGE_TEXT];
    double done, budget, weights, ce;
    size_t i;
    tokens_of(r, &done, &budget);
    json_array_foreach(stages, i, stage) if (last_of(stage, "heldout")) latest = last_of(stage, "heldout");
    pn_html(r->out, "<header>\n<h1>postnas finetune%s%s</h1>\n<ul class=\"tiles\">\n", model ? ": " : "",
            model ? model : "");
    pn_html(r->out, "<li><b>%s</b><span>of %s tokens in %ld stages</span></li>\n", pn_page_amount(done, a),
            pn_page_amount(budget, b), (long)json_array_size(stages));
    if (pn_page_number(latest, "ce", &ce))
        pn_html(r->out, "<li><b>%s</b><span>perplexity on held-out rows, at last</span></li>\n",
                pn_page_value("perplexity", exp(fmin(ce, 50)), a));
    if (pn_page_number(r->root, "weights", &weights))
        pn_html(r->out, "<li><b>%s</b><span>weights</span></li>\n", pn_page_amount(weights, a));
    pn_buf_text(r->out, "</ul>\n</header>\n");
}

static const char *name_of(const json_t *stage) {
    const char *name = pn_page_string(stage, "name");
    return name ? name : "";
}

static void heldout_row(pn_page *r, const char *name, const json_t *p) {
    char step[PN_PAGE_TEXT], tokens[PN_PAGE_TEXT], a[PN_PAGE_TEXT], b[PN_PAGE_TEXT], c[PN_PAGE_TEXT], d[PN_PAGE_TEXT];
    double v[5];
    static const char *const keys[] = { "step", "tokens", "loss", "ce", "kl" };
    for (int k = 0; k < 5; k++)
        if (!pn_page_number(p, keys[k], &v[k])) return;
    snprintf(step, sizeof step, "%.0f", v[0]);
    pn_html(r->out,
            "<tr><th scope=\"row\">%s</th><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
            name, step, pn_page_amount(v[1], tokens), pn_page_value("", v[2], a), pn_page_value("", v[3], b),
            pn_page_value("", v[4], c), pn_page_value("perplexity", exp(fmin(v[3], 50)), d));
}

void pn_page_training_heldout(pn_page *r) {
    size_t i, k, n = 0;
    const json_t *stage, *p, *stages = json_object_get(r->root, "stages");
    json_array_foreach(stages, i, stage) n += json_array_size(json_object_get(stage, "heldout"));
    if (!n) return;
    pn_page_section(r, "heldout", "Held-out losses");
    pn_buf_text(
        r->out,
        "<p class=\"how\">The same rows each time, which no step has seen; lower is better. The loss is that of "
        "the stage, with its weights at that step and without the feature distance.</p>\n"
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\" class=\"left\">stage</th>"
        "<th scope=\"col\">step</th><th scope=\"col\">tokens</th><th scope=\"col\">loss</th>"
        "<th scope=\"col\">cross-entropy</th><th scope=\"col\">KL to the teacher</th>"
        "<th scope=\"col\">perplexity</th></tr></thead>\n<tbody>\n");
    json_array_foreach(stages, i, stage) {
        json_array_foreach(json_object_get(stage, "heldout"), k, p) heldout_row(r, name_of(stage), p);
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
    pn_page_section_end(r);
}

void pn_page_training_curves(pn_page *r) {
    const json_t *root = r->root, *stage;
    size_t i;
    json_array_foreach(json_object_get(root, "stages"), i, stage) {
        char id[32], title[PN_PAGE_NAME + 32];
        snprintf(id, sizeof id, "stage-%d", (int)(i + 1) % 1000);
        snprintf(title, sizeof title, "Stage %d: %.60s", (int)(i + 1) % 1000, name_of(stage));
        r->root = stage;
        pn_page_curve(r, "curve", id, title);
    }
    r->root = root;
}
