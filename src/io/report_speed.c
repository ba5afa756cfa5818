/* Speed: what speed.json says of a stage's variants, and whole models, the base against the hybrid. */
#include <math.h>
#include <string.h>

#include "report_variants.h"

enum { MODELS = 2, ROWS_MAX = 2 * PN_PAGE_CONTEXTS };

static const char *const models[MODELS] = { "base", "PostNAS" };
static const char *const passes[] = { "decode", "prefill" };

/* ---- reading ---- */

int pn_page_contexts(const pn_page *r, pn_page_context_at out[PN_PAGE_CONTEXTS]) {
    const json_t *list = json_object_get(r->speed, "contexts");
    int n = 0;
    for (size_t i = 0; i < json_array_size(list) && n < PN_PAGE_CONTEXTS; i++) {
        double tokens = json_number_value(json_array_get(list, i)); /* 0: no number */
        if (tokens >= 1 && tokens < 1e15) out[n++] = (pn_page_context_at){ tokens, i };
    }
    return n;
}

const json_t *pn_page_speed_of(const pn_page *r, const char *stage, const char *text) {
    const json_t *stages = json_object_get(r->speed, "stages");
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const json_t *o = json_array_get(stages, i), *list = json_object_get(o, "variants");
        const char *name = pn_page_string(o, "stage");
        for (size_t k = 0; name && !strcmp(name, stage) && k < json_array_size(list); k++) {
            const char *have = pn_page_string(json_array_get(list, k), "text");
            if (have && !strcmp(have, text)) return json_array_get(list, k);
        }
    }
    return NULL;
}

static bool is_rate(double v) {
    return v > 1e-9 && v < 1e15;
}

bool pn_page_rate(const json_t *speed, const char *pass, const pn_page_context_at *c, double *out) {
    *out = json_number_value(json_array_get(json_object_get(speed, pass), c->index));
    return is_rate(*out);
}

typedef struct speed { /* of one model in one pass at one context */
    double predicted, measured, error;
    bool known, has_error;
} speed;

typedef struct comparison { /* a row */
    const char *pass;
    double context;
    speed model[MODELS];
} comparison;

typedef struct comparisons {
    comparison at[ROWS_MAX];
    int n;
} comparisons;

static int index_of(const char *const *names, int n, const char *name) {
    for (int i = 0; name && i < n; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}

static comparison *row_of(comparisons *c, const char *pass, double context) {
    for (int i = 0; i < c->n; i++)
        if (c->at[i].pass == pass && c->at[i].context == context) return &c->at[i];
    if (c->n == ROWS_MAX) return NULL;
    c->at[c->n] = (comparison){ .pass = pass, .context = context };
    return &c->at[c->n++];
}

static void read_models(const pn_page *r, comparisons *c) {
    const json_t *list = json_object_get(r->speed, "models");
    c->n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        int model = index_of(models, MODELS, pn_page_string(o, "model"));
        int pass = index_of(passes, 2, pn_page_string(o, "pass"));
        double context;
        speed s = { .known = true };
        if (model < 0 || pass < 0 || !pn_page_number(o, "context", &context) || context < 1) continue;
        if (!pn_page_number(o, "predicted", &s.predicted) || !pn_page_number(o, "measured", &s.measured)) continue;
        if (!is_rate(s.predicted) || !is_rate(s.measured)) continue;
        s.has_error = pn_page_number(o, "error", &s.error);
        comparison *row = row_of(c, passes[pass], context);
        if (row) row->model[model] = s;
    }
}

/* Of a pass at the largest context where both models were measured; NULL: none. */
static const comparison *longest(const comparisons *c, const char *pass) {
    const comparison *found = NULL;
    for (int i = 0; i < c->n; i++) {
        const comparison *x = &c->at[i];
        bool both = x->model[0].known && x->model[1].known;
        if (both && !strcmp(x->pass, pass) && (!found || x->context > found->context)) found = x;
    }
    return found;
}

/* ---- the head of the page ---- */

/* Of measured speeds: the hybrid's over the base's. */
static double gain_of(const comparison *x) {
    return x->model[1].measured / x->model[0].measured;
}

void pn_page_speed_sentence(pn_page *r) {
    static const char *const words[] = { "at %s tokens of context it decodes", "it reads a prompt of %s tokens with" };
    char context[PN_PAGE_TEXT], base[PN_PAGE_TEXT], hybrid[PN_PAGE_TEXT];
    comparisons c;
    const char *join = "Measured: ";
    read_models(r, &c);
    for (int k = 0; k < 2; k++) {
        const comparison *x = longest(&c, passes[k]);
        if (!x) continue;
        pn_buf_text(r->out, join);
        pn_html(r->out, words[k], pn_page_context(x->context, context));
        pn_html(r->out, " %s tokens/s instead of %s (%.2f\xc3\x97)", pn_page_amount(x->model[1].measured, hybrid),
                pn_page_amount(x->model[0].measured, base), gain_of(x));
        join = "; ";
    }
    if (*join == ';') pn_buf_text(r->out, ".");
}

void pn_page_speed_tile(pn_page *r) {
    char context[PN_PAGE_TEXT];
    comparisons c;
    read_models(r, &c);
    const comparison *x = longest(&c, "decode");
    if (!x || !(gain_of(x) > 1e-3 && gain_of(x) < 1e6)) return;
    double gain = gain_of(x);
    pn_html(r->out, "<li><b>%.1f\xc3\x97</b><span>%s decoding at %s tokens, measured</span></li>\n",
            gain >= 1 ? gain : 1 / gain, gain >= 1 ? "faster" : "slower", pn_page_context(x->context, context));
}

/* ---- the section ---- */

static void speed_cells(pn_page *r, const speed *s) {
    char predicted[PN_PAGE_TEXT], measured[PN_PAGE_TEXT];
    if (!s->known) {
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td><td>\xe2\x80\x93</td><td>\xe2\x80\x93</td>");
        return;
    }
    pn_html(r->out, "<td title=\"%.10g\">%s</td><td title=\"%.10g\">%s</td>", s->predicted,
            pn_page_amount(s->predicted, predicted), s->measured, pn_page_amount(s->measured, measured));
    if (s->has_error && fabs(s->error) < 1e4)
        pn_html(r->out, "<td>%s%.1f\xc2\xa0%%</td>", s->error < 0 ? "\xe2\x88\x92" : "+", 100 * fabs(s->error));
    else
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td>");
}

static void gain_cell(pn_page *r, double base, double hybrid, bool known) {
    double gain = known ? hybrid / base : 0;
    if (gain > 1e-3 && gain < 1e6)
        pn_html(r->out, "<td>%.2f\xc3\x97</td>", gain);
    else
        pn_buf_text(r->out, "<td>\xe2\x80\x93</td>");
}

static void table(pn_page *r, const comparisons *c) {
    pn_buf_text(r->out,
                "<div class=\"scroll\"><table>\n<caption>Speed of the whole models</caption>\n<thead>\n<tr><td></td>"
                "<th scope=\"colgroup\" colspan=\"3\">base, tokens/s</th>"
                "<th scope=\"colgroup\" colspan=\"3\">PostNAS, tokens/s</th>"
                "<th scope=\"colgroup\" colspan=\"2\">PostNAS / base</th></tr>\n"
                "<tr><th scope=\"col\" class=\"left\">pass, context</th>");
    for (int i = 0; i < MODELS; i++)
        pn_buf_text(r->out, "<th scope=\"col\">predicted</th><th scope=\"col\">measured</th>"
                            "<th scope=\"col\">error</th>");
    pn_buf_text(r->out, "<th scope=\"col\">predicted</th><th scope=\"col\">measured</th></tr>\n</thead>\n<tbody>\n");
    for (int i = 0; i < c->n; i++) {
        const comparison *x = &c->at[i];
        const speed *base = &x->model[0], *hybrid = &x->model[1];
        char context[PN_PAGE_TEXT];
        pn_html(r->out, "<tr><th scope=\"row\">%s, %s</th>", x->pass, pn_page_context(x->context, context));
        speed_cells(r, base);
        speed_cells(r, hybrid);
        gain_cell(r, base->predicted, hybrid->predicted, base->known && hybrid->known);
        gain_cell(r, base->measured, hybrid->measured, base->known && hybrid->known);
        pn_buf_text(r->out, "</tr>\n");
    }
    pn_buf_text(r->out, "</tbody>\n</table></div>\n");
}

void pn_page_speed_setting(pn_page *r) {
    double batch, chunk;
    if (!pn_page_number(r->speed, "batch", &batch) || !pn_page_number(r->speed, "chunk", &chunk)) return;
    if (!(batch >= 1 && batch < 1e9 && chunk >= 1 && chunk < 1e9)) return;
    pn_html(r->out,
            " Decode is one more token for each of %.0f sequence%s of that context, prefill one prompt of that length "
            "in pieces of %.0f tokens.",
            batch, batch == 1 ? "" : "s", chunk);
}

void pn_page_speed(pn_page *r) {
    comparisons c;
    read_models(r, &c);
    if (!c.n) return;
    pn_page_section(r, "speed", "Speed of the whole models");
    pn_buf_text(r->out, "<p class=\"how\">Tokens per second of the base and of the chosen hybrid on the machine that "
                        "searched. Measured: the whole model ran. Predicted: put together from the latency table of "
                        "single blocks; the error is how much longer (+) or shorter (\xe2\x88\x92) the predicted "
                        "time is than the measured one.");
    pn_page_speed_setting(r);
    pn_buf_text(r->out, "</p>\n");
    table(r, &c);
    pn_page_section_end(r);
}
