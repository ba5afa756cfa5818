/* Objective against measured decode speed: which variants none beats in both. */
#include <math.h>
#include <string.h>

#include "report_variants.h"

/* Sizes in the drawing's units: of text as a narrow window shows it, of a dot; rings of places around a point; how many
 * points a lower drawing takes; steps that a line to a label is looked at in. */
enum {
    TEXT_MAX = 256,
    LABEL_MAX = 30,
    LABEL_HEIGHT = 17,
    RADIUS = 5,
    GAP = 10,
    RINGS = 6,
    SIDES = 8,
    FEW = 8,
    STEPS = 8
};
static const double letter = 9.2;

typedef struct box {
    double left, top, right, bottom;
} box;

typedef struct point {
    const pn_page_variant *variant;
    double rate, x, y; /* rate: tokens/s; x, y: in the drawing */
    bool front;
} point;

typedef struct front {
    point at[PN_PAGE_VARIANTS]; /* best objective first */
    int n;
    int order[PN_PAGE_VARIANTS]; /* those that none beats, the fastest first */
    int n_front;
    box taken[(4 + STEPS) * PN_PAGE_VARIANTS]; /* dots, lines of the front, labels with their lines */
    int n_taken, first_line, first_label;
} front;

/* ---- points ---- */

static bool better(const pn_page_objective *o, double a, double b) {
    return o->ascending ? a > b : a < b;
}

static void find_front(const pn_page_variants *v, front *f) {
    for (int i = 0; i < f->n; i++) {
        point *p = &f->at[i];
        p->front = true;
        for (int k = 0; k < f->n; k++) {
            const point *q = &f->at[k];
            bool as_good = !better(&v->objective, p->variant->objective, q->variant->objective);
            bool beats = better(&v->objective, q->variant->objective, p->variant->objective) || q->rate > p->rate;
            if (as_good && q->rate >= p->rate && beats) p->front = false;
        }
        if (!p->front) continue;
        int k = f->n_front++;
        for (; k > 0 && f->at[f->order[k - 1]].rate < p->rate; k--) f->order[k] = f->order[k - 1];
        f->order[k] = i;
    }
}

static void read_points(const pn_page_variants *v, const pn_page_context_at *c, front *f) {
    *f = (front){ 0 };
    for (int i = 0; i < v->n; i++) {
        double rate;
        if (pn_page_rate(v->at[i].speed, "decode", c, &rate)) f->at[f->n++] = (point){ &v->at[i], .rate = rate };
    }
    find_front(v, f);
}

/* ---- labels ---- */

static bool meet(const box *a, const box *b) {
    return a->left < b->right && b->left < a->right && a->top < b->bottom && b->top < a->bottom;
}

static void take(front *f, double x0, double y0, double x1, double y1) {
    f->taken[f->n_taken++] = (box){ fmin(x0, x1) - 1, fmin(y0, y1) - 1, fmax(x0, x1) + 1, fmax(y0, y1) + 1 };
}

/* Dots and the lines between those of the front. */
static void take_drawing(front *f) {
    for (int i = 0; i < f->n; i++)
        take(f, f->at[i].x - RADIUS, f->at[i].y - RADIUS, f->at[i].x + RADIUS, f->at[i].y + RADIUS);
    f->first_line = f->n_taken;
    for (int k = 1; k < f->n_front; k++) {
        const point *a = &f->at[f->order[k - 1]], *b = &f->at[f->order[k]];
        take(f, a->x, a->y, b->x, a->y);
        take(f, b->x, a->y, b->x, b->y);
    }
    f->first_label = f->n_taken;
}

/* Every other word of "name value name value": the names, or the values. */
static void words(const char *text, bool values, char out[TEXT_MAX]) {
    size_t n = 0;
    out[0] = '\0';
    for (int word = 0; *text; word++) {
        size_t length = strcspn(text, " ");
        if (word % 2 == values && n + length + 4 < TEXT_MAX)
            n += (size_t)snprintf(out + n, TEXT_MAX - n, "%s%.*s", n ? " / " : "", (int)length, text);
        text += length + strspn(text + length, " ");
    }
}

/* Whether all are of one type and give the same options, several of them: then labels are the values alone. */
static bool same_options(const pn_page_variants *v, char names[TEXT_MAX]) {
    char others[TEXT_MAX];
    words(v->at[0].text + v->skip, false, names);
    for (int i = 1; i < v->n; i++) {
        words(v->at[i].text + v->skip, false, others);
        if (strcmp(names, others)) return false;
    }
    return v->skip && strstr(names, " / ");
}

static void label_of(const pn_page_variants *v, const pn_page_variant *x, char *out, size_t size) {
    char names[TEXT_MAX], values[TEXT_MAX], text[PN_PAGE_NAME];
    bool alone = same_options(v, names);
    if (alone) words(x->text + v->skip, true, values);
    snprintf(out, size, "%s%s", pn_page_short(alone ? values : x->text + v->skip, LABEL_MAX, text),
             x->chosen ? " (chosen)" : "");
}

static double width_of(const char *text) {
    int n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return letter * n;
}

static bool is_free(const front *f, const pn_plot *p, const box *b, bool over_lines) {
    if (b->left < p->left + 2 || b->right > p->left + p->width + 26) return false;
    if (b->top < p->top - 4 || b->bottom > p->top + p->height - 2) return false;
    for (int i = 0; i < f->n_taken; i++)
        if (!(over_lines && i >= f->first_line && i < f->first_label) && meet(b, &f->taken[i])) return false;
    return true;
}

/* Where the line from a point to a label away from it ends. */
static double end_of(const point *at, const box *b) {
    return b->right <= at->x ? b->right : b->left >= at->x ? b->left : at->x;
}

static box step_of(const point *at, const box *b, int i) {
    double part = (i + 1.0) / (STEPS + 1), to = (b->top + b->bottom) / 2 < at->y ? b->bottom : b->top;
    double x = at->x + part * (end_of(at, b) - at->x), y = at->y + part * (to - at->y);
    return (box){ x - 1, y - 1, x + 1, y + 1 };
}

/* Whether the line touches neither a label nor another dot, but for one that lies on the point's own. */
static bool is_clear(const front *f, const point *at, const box *b) {
    const box *own = &f->taken[at - f->at];
    for (int i = 0; i < STEPS; i++) {
        box step = step_of(at, b, i);
        for (int k = 0; k < f->n_taken; k++) {
            bool counts = k < f->n ? !meet(own, &f->taken[k]) : k >= f->first_label;
            if (counts && meet(&step, &f->taken[k])) return false;
        }
    }
    return true;
}

/* Beside the point or around it, `ring` steps away. */
static bool find_side(const front *f, const pn_plot *p, const point *at, double width, int ring, bool over_lines,
                      box *out) {
    static const int side[SIDES][2] = { { 1, 0 },  { -1, 0 },  { 1, -1 }, { 1, 1 },
                                        { -1, 1 }, { -1, -1 }, { 0, -1 }, { 0, 1 } };
    double away = GAP + 15.0 * ring;
    for (int i = 0; i < SIDES; i++) {
        const int *to = side[i];
        double x = at->x + to[0] * away - (to[0] < 0 ? width : to[0] ? 0 : width / 2);
        double y = at->y + to[1] * (away + LABEL_HEIGHT / 2.0 - (to[0] ? GAP / 2.0 : 0));
        *out = (box){ x, y - LABEL_HEIGHT / 2.0, x + width, y + LABEL_HEIGHT / 2.0 };
        if (is_free(f, p, out, over_lines) && (!ring || is_clear(f, at, out))) return true;
    }
    return false;
}

/* Near places first; across the front's line where the two nearest rings have no other. */
static bool find_place(const front *f, const pn_plot *p, const point *at, double width, box *out, int *ring) {
    for (int near = 0; near < RINGS; near += 2)
        for (int over_lines = 0; over_lines < 2; over_lines++)
            for (*ring = near; *ring < near + 2; ++*ring)
                if (find_side(f, p, at, width, *ring, over_lines, out)) return true;
    return false;
}

static void draw_label(pn_page *r, const point *at, const box *b, bool leads, const char *text) {
    bool on_left = b->right <= at->x, on_right = b->left >= at->x, chosen = at->variant->chosen;
    double x = end_of(at, b), y = (b->top + b->bottom) / 2;
    const char *anchor = on_left ? " end" : on_right ? "" : " mid", *rest = at->front || chosen ? "" : " soft";
    if (leads)
        pn_html(r->out, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", at->x, x, at->y, y);
    pn_html(r->out, "<text class=\"halo%s%s\" style=\"font-weight:%d\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", anchor, rest,
            chosen ? 600 : 400, x, y + 4, text);
}

/* Returns whether there was room. */
static bool label(pn_page *r, const pn_page_variants *v, front *f, const pn_plot *p, const point *at) {
    char whole[PN_PAGE_NAME + 16];
    box b;
    int ring;
    label_of(v, at->variant, whole, sizeof whole);
    if (!find_place(f, p, at, width_of(whole), &b, &ring)) return false;
    take(f, b.left, b.top, b.right, b.bottom);
    for (int i = 0; i < STEPS && ring; i++) f->taken[f->n_taken++] = step_of(at, &b, i);
    draw_label(r, at, &b, ring > 0, whole);
    return true;
}

/* The chosen one's label first, then those of the front, so that the others give way; how many found no room. */
static int labels(pn_page *r, const pn_page_variants *v, front *f, const pn_plot *p) {
    int left_out = 0;
    for (int rank = 0; rank < 3; rank++)
        for (int i = 0; i < f->n; i++)
            if (rank == (f->at[i].variant->chosen ? 0 : f->at[i].front ? 1 : 2))
                left_out += !label(r, v, f, p, &f->at[i]);
    return left_out;
}

/* ---- the drawing ---- */

static void line(pn_page *r, const front *f) {
    if (f->n_front < 2) return;
    pn_buf_text(r->out, "<path class=\"frontier\" d=\"");
    for (int k = 0; k < f->n_front; k++) {
        const point *p = &f->at[f->order[k]];
        pn_html(r->out, k ? "H%.1fV%.1f" : "M%.1f %.1f", p->x, p->y);
    }
    pn_buf_text(r->out, "\"><title>none beats these</title></path>\n");
}

static void dots(pn_page *r, const pn_page_variants *v, const front *f) {
    char rate[PN_PAGE_TEXT], text[PN_PAGE_TEXT];
    for (int i = f->n; i-- > 0;) { /* the best on top */
        const point *p = &f->at[i];
        pn_page_amount(p->rate, rate);
        pn_page_value(v->objective.metric, p->variant->objective, text);
        if (p->variant->chosen)
            pn_html(r->out,
                    "<path class=\"k0 best\" d=\"M%.1f %.1fl7 7l-7 7l-7 -7z\"><title>%s, chosen: %s, %s tokens/s"
                    "</title></path>\n",
                    p->x, p->y - 7, p->variant->text, text, rate);
        else
            pn_html(r->out,
                    "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>%s: %s, %s tokens/s</title>"
                    "</circle>\n",
                    p->front ? "k1" : "open", p->x, p->y, RADIUS - 1, p->variant->text, text, rate);
    }
}

/* For those who cannot see the drawing. */
static void describe(pn_page *r, const pn_page_variants *v, const front *f) {
    char rate[PN_PAGE_TEXT], text[PN_PAGE_TEXT];
    pn_buf_text(r->out, "<desc>On the front, from the fastest: ");
    for (int k = 0; k < f->n_front; k++) {
        const point *p = &f->at[f->order[k]];
        pn_html(r->out, "%s%s: %s at %s tokens/s", k ? "; " : "", p->variant->text,
                pn_page_value(v->objective.metric, p->variant->objective, text), pn_page_amount(p->rate, rate));
    }
    pn_buf_text(r->out, ".</desc>\n");
}

static void plot(pn_page *r, const pn_page_variants *v, const pn_page_context_at *c, front *f) {
    char context[PN_PAGE_TEXT], caption[2 * PN_PAGE_NAME], below[PN_PAGE_TEXT + 64];
    pn_plot p = { INFINITY, -INFINITY, INFINITY, -INFINITY, 56, 28, 640, f->n <= FEW ? 240 : 360 };
    for (int i = 0; i < f->n; i++) {
        p.x_min = fmin(p.x_min, f->at[i].rate);
        p.x_max = fmax(p.x_max, f->at[i].rate);
        p.y_min = fmin(p.y_min, f->at[i].variant->objective);
        p.y_max = fmax(p.y_max, f->at[i].variant->objective);
    }
    double margin = 0.06 * (p.x_max - p.x_min), room = 0.09 * (p.y_max - p.y_min); /* for labels */
    p.x_min -= margin;
    p.x_max += margin;
    p.y_min -= room;
    p.y_max += room;
    pn_plot_settle(&p, true);
    for (int i = 0; i < f->n; i++) {
        f->at[i].x = pn_plot_x(&p, f->at[i].rate);
        f->at[i].y = pn_plot_y(&p, f->at[i].variant->objective);
    }
    pn_page_context(c->tokens, context);
    pn_page_objective_caption(&v->objective, caption, sizeof caption);
    snprintf(below, sizeof below, "decode at a context of %s, tokens/s of one layer's block", context);
    pn_plot_open(r->out, p.left + p.width + 30, p.top + p.height + 40, true, "Objective against decode speed");
    describe(r, v, f);
    pn_plot_y_axis(r->out, &p, caption);
    pn_plot_x_axis(r->out, &p, below);
    line(r, f);
    take_drawing(f);
    int left_out = labels(r, v, f, &p);
    dots(r, v, f);
    pn_plot_close(r->out);
    if (left_out)
        pn_html(r->out, "<p class=\"how\">%d point%s had no room for a name; the table has all.</p>\n", left_out,
                left_out == 1 ? "" : "s");
}

static void legend(pn_page *r, const pn_page_variants *v) {
    char names[TEXT_MAX];
    pn_buf_text(r->out,
                "<h3>Objective against decode speed</h3>\n<ul class=\"legend\">\n"
                "<li><svg width=\"16\" height=\"16\" aria-hidden=\"true\"><path class=\"k0 best\" d=\"M8 1l7 7l-7 7l-7 "
                "-7z\"/></svg>chosen</li>\n"
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"k1\" cx=\"7\" cy=\"7\" "
                "r=\"4\"/></svg>on the front</li>\n"
                "<li><svg width=\"14\" height=\"14\" aria-hidden=\"true\"><circle class=\"open\" cx=\"7\" cy=\"7\" "
                "r=\"4\"/></svg>beaten by another</li>\n"
                "<li><svg width=\"30\" height=\"10\" aria-hidden=\"true\"><path class=\"frontier\" d=\"M0 5L30 5\"/>"
                "</svg>Pareto front at that context</li>\n</ul>\n");
    if (same_options(v, names)) pn_html(r->out, "<p class=\"how\">Points are labelled %s.</p>\n", names);
}

void pn_page_front(pn_page *r, const pn_page_variants *v) {
    front f;
    bool any = false;
    for (int i = 0; i < v->n_contexts; i++) {
        read_points(v, &v->context[i], &f);
        if (f.n < 2) continue;
        if (!any) legend(r, v);
        any = true;
        plot(r, v, &v->context[i], &f);
    }
}
