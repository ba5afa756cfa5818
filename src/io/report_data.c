/* Reading a result: tolerant of what is missing, exact about what is there. */
#include "report_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool pn_page_number(const json_t *object, const char *key, double *out) {
    const json_t *v = json_object_get(object, key);
    if (!json_is_number(v)) return false;
    double x = json_number_value(v);
    if (!(fabs(x) < 1e100)) return false;
    *out = fabs(x) < 1e-100 ? 0 : x;
    return true;
}

const char *pn_page_string(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static void push(pn_page_path *p, const char *name, size_t n_bytes) {
    if (p->n == PN_MAX_LAYERS) return;
    char whole[256];
    snprintf(whole, sizeof whole, "%.*s", n_bytes < 255 ? (int)n_bytes : 255, name);
    pn_page_short(whole, PN_PAGE_NAME, p->name[p->n++]);
}

bool pn_page_path_read(const json_t *object, pn_page_path *out) {
    out->n = 0;
    const char *text = pn_page_string(object, "path");
    for (const char *p = text; p && *p && out->n < PN_MAX_LAYERS;) {
        size_t item = strcspn(p, ","), name = strcspn(p, ",*");
        long count = p[name] == '*' && isdigit((unsigned char)p[name + 1]) ? strtol(p + name + 1, NULL, 10) : 1;
        for (long i = 0; name && i < count && out->n < PN_MAX_LAYERS; i++) push(out, p, name);
        p += item + (p[item] == ',');
    }
    if (out->n) return true;
    const json_t *layers = json_object_get(object, "layers");
    for (size_t i = 0; i < json_array_size(layers) && i < PN_MAX_LAYERS; i++) {
        const char *name = json_string_value(json_array_get(layers, i));
        push(out, name ? name : "?", name ? strlen(name) : 1);
    }
    return out->n > 0;
}

bool pn_page_path_equal(const pn_page_path *a, const pn_page_path *b) {
    if (a->n != b->n) return false;
    for (int l = 0; l < a->n; l++)
        if (strcmp(a->name[l], b->name[l])) return false;
    return true;
}

int pn_page_path_count(const pn_page_path *p, const char *block) {
    int n = 0;
    for (int l = 0; l < p->n; l++) n += !strcmp(p->name[l], block);
    return n;
}

int pn_page_block(pn_page *r, const char *name) {
    char kept[PN_PAGE_NAME];
    pn_page_short(name, PN_PAGE_NAME, kept);
    for (int i = 0; i < r->n_blocks; i++)
        if (!strcmp(r->block[i], kept)) return i;
    if (r->n_blocks == PN_PAGE_BLOCKS) return PN_PAGE_BLOCKS - 1;
    strcpy(r->block[r->n_blocks], kept);
    return r->n_blocks++;
}

static bool has_own_colour(const char *block) {
    return !strcmp(block, "attention") || !strcmp(block, "none");
}

/* Full attention is always the first colour, no mixer an empty box; the others share six. */
const char *pn_page_block_class(pn_page *r, const char *name) {
    static const char *const colour[] = { "k1", "k2", "k3", "k4", "k5", "k6" };
    if (!strcmp(name, "attention")) return "k0";
    if (!strcmp(name, "none")) return "kn";
    int others = 0;
    for (int i = pn_page_block(r, name) - 1; i >= 0; i--) others += !has_own_colour(r->block[i]);
    return colour[others % 6];
}

const json_t *pn_page_cell_values(const json_t *row, const char *task, const char *metric) {
    return json_object_get(json_object_get(json_object_get(json_object_get(row, "tasks"), task), metric), "values");
}

bool pn_page_cell_read(const json_t *row, const char *task, const char *metric, pn_page_cell *out) {
    const json_t *m = json_object_get(json_object_get(json_object_get(row, "tasks"), task), metric);
    if (!pn_page_number(m, "mean", &out->mean)) return false;
    if (!pn_page_number(m, "min", &out->min)) out->min = out->mean;
    if (!pn_page_number(m, "max", &out->max)) out->max = out->mean;
    out->n_samples = (int)json_array_size(pn_page_cell_values(row, task, metric));
    return true;
}

bool pn_page_ascending(const char *metric) {
    return pn_page_is_share(metric);
}

bool pn_page_is_share(const char *metric) {
    return !strncmp(metric, "accuracy", 8) || !strcmp(metric, "top1");
}

bool pn_page_is_chance(const char *metric) {
    size_t n = strlen(metric);
    return n >= 7 && !strcmp(metric + n - 7, "_chance");
}

const json_t *pn_page_row(const pn_page *r, const char *name, bool distilled) {
    const json_t *table = json_object_get(r->root, "table");
    for (size_t i = 0; i < json_array_size(table); i++) {
        const json_t *row = json_array_get(table, i);
        const char *have = pn_page_string(row, "name");
        size_t n = strlen(name);
        if (have && !strncmp(have, name, n) && (!have[n] || have[n] == ',') &&
            json_is_true(json_object_get(row, "distilled")) == distilled)
            return row;
    }
    return NULL;
}

void pn_page_objective_read(const json_t *object, pn_page_objective *out) {
    *out = (pn_page_objective){ .text = pn_page_string(object, "objective") };
    const char *dot = out->text ? strrchr(out->text, '.') : NULL;
    bool plain = dot && !strpbrk(out->text, " +*") && !json_is_true(json_object_get(object, "normalised")) &&
                 dot - out->text < PN_PAGE_NAME && strlen(dot + 1) < PN_PAGE_NAME;
    if (plain) {
        snprintf(out->task, sizeof out->task, "%.*s", (int)(dot - out->text), out->text);
        snprintf(out->metric, sizeof out->metric, "%s", dot + 1);
    }
    const json_t *ascending = json_object_get(object, "ascending");
    out->ascending = json_is_boolean(ascending) ? json_is_true(ascending) : pn_page_ascending(out->metric);
}

void pn_page_objective_caption(const pn_page_objective *o, char *buffer, size_t n) {
    char text[PN_PAGE_NAME];
    snprintf(buffer, n, "%s, %s is better", o->text ? pn_page_short(o->text, PN_PAGE_NAME, text) : "objective",
             o->ascending ? "higher" : "lower");
}
