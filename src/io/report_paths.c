/* Every path the search measured, in columns: the search's rounds, or else equal numbers of attention and none. */
#include "report_internal.h"

#include <limits.h>
#include <stdlib.h>

/* Columns there can be. */
enum { KINDS = PN_MAX_LAYERS + 1, ROUNDS = 1024, KEYS = KINDS * KINDS > ROUNDS ? KINDS *KINDS : ROUNDS };

static int by_value(const void *a_, const void *b_) {
    const pn_page_entry *a = a_, *b = b_;
    if (a->objective != b->objective) return a->objective < b->objective ? -1 : 1;
    return a->order - b->order;
}

static int by_value_descending(const void *a_, const void *b_) {
    const pn_page_entry *a = a_, *b = b_;
    if (a->objective != b->objective) return a->objective > b->objective ? -1 : 1;
    return a->order - b->order;
}

static bool whole_number(const json_t *o, const char *key, int least, int most, int *out) {
    double v;
    if (!pn_page_number(o, key, &v) || v < least || v > most || v != (int)v) return false;
    *out = (int)v;
    return true;
}

static bool read_entry(const pn_page_paths *h, const json_t *o, int order, pn_page_entry *e) {
    pn_page_path path;
    *e = (pn_page_entry){ .json = o, .order = order, .round = -1, .parent = -1, .cache = -1 };
    if (!pn_page_number(o, "objective", &e->objective) || !pn_page_path_read(o, &path)) return false;
    e->attention = pn_page_path_count(&path, "attention");
    e->none = pn_page_path_count(&path, "none");
    e->complete = json_is_true(json_object_get(o, "complete"));
    e->chosen = h->chosen.n && pn_page_path_equal(&path, &h->chosen);
    double cache;
    if (pn_page_number(o, "cache_bytes", &cache) && cache > 0) e->cache = cache;
    whole_number(o, "round", 0, ROUNDS - 1, &e->round);
    whole_number(o, "parent", 0, order - 1, &e->parent); /* a path comes after the one it grew from */
    return true;
}

static int key_of(const pn_page_paths *h, const pn_page_entry *e) {
    return h->has_rounds ? e->round : e->none * KINDS + e->attention;
}

/* h->round has a place for every key; those in use move to its front, in the order of their keys. */
static void find_rounds(pn_page_paths *h) {
    for (size_t i = 0; i < h->n; i++) { /* best first: the first of a column is its best */
        const pn_page_entry *e = &h->at[i];
        pn_page_round *r = &h->round[key_of(h, e)];
        if (!r->n++) *r = (pn_page_round){ e->attention, e->none, e->order, e->order, 1, 0, e };
        if (e->order < r->first_order) r->first_order = e->order;
        if (e->order > r->last_order) r->last_order = e->order;
    }
    for (int key = 0; key < KEYS; key++)
        if (h->round[key].n) h->round[key].column = h->n_rounds++;
    for (size_t i = 0; i < h->n; i++) h->at[i].column = h->round[key_of(h, &h->at[i])].column;
    for (int key = 0; key < KEYS; key++)
        if (h->round[key].n) h->round[h->round[key].column] = h->round[key];
}

/* A path is kept when another grew from it, or when the stage chose it; that one's ancestors are its line. */
static void find_kept(pn_page_paths *h) {
    for (size_t i = 0; i < h->n; i++) {
        pn_page_entry *e = &h->at[i], *parent = pn_page_entry_of(h, e->parent);
        h->has_parents |= parent != NULL;
        if (parent) parent->kept = true;
        if (!e->chosen || h->last) continue;
        h->last = e;
        for (; e; e = pn_page_entry_of(h, e->parent)) e->kept = e->line = true;
    }
}

pn_page_entry *pn_page_entry_of(const pn_page_paths *h, int order) {
    return order < 0 || order >= h->n_by_order ? NULL : h->by_order[order];
}

/* Rows of history that belong to the stage; `stage` -1: all. */
static void read_stage(pn_page *r, int stage, pn_page_paths *h) {
    const json_t *list = json_object_get(r->root, "history");
    size_t n = json_array_size(list);
    h->has_rounds = true;
    if (!n || n > INT_MAX / 2) return;
    h->at = calloc(n, sizeof *h->at);
    h->by_order = calloc(n, sizeof *h->by_order);
    h->round = calloc(KEYS, sizeof *h->round);
    if (!h->at || !h->by_order || !h->round) {
        r->out->failed = true;
        return;
    }
    h->n_by_order = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(list, i);
        pn_page_entry *e = &h->at[h->n];
        int of = -1;
        if (stage >= 0 && (!whole_number(o, "stage", 0, INT_MAX / 2, &of) || of != stage)) continue;
        if (!read_entry(h, o, (int)i, e)) continue;
        h->has_rounds &= e->round >= 0;
        h->has_cache |= e->cache > 0;
        h->any_none |= e->none > 0;
        h->any_complete |= e->complete;
        h->n++;
    }
    qsort(h->at, h->n, sizeof *h->at, h->objective.ascending ? by_value_descending : by_value);
    for (size_t i = 0; i < h->n; i++) h->by_order[h->at[i].order] = &h->at[i];
    find_rounds(h);
    find_kept(h);
}

void pn_page_paths_read(pn_page *r) {
    const json_t *stages = json_object_get(r->root, "stages");
    size_t n = json_array_size(stages);
    r->n_stages = n < 1 ? 1 : n < PN_PAGE_STAGES ? (int)n : PN_PAGE_STAGES;
    for (int i = 0; i < r->n_stages; i++) {
        pn_page_paths *h = &r->stage[i];
        h->stage = json_array_get(stages, (size_t)i);
        h->objective = r->objective;
        h->chosen = r->winner;
        if (pn_page_string(h->stage, "objective")) pn_page_objective_read(h->stage, &h->objective);
        if (n > 1) pn_page_path_read(h->stage, &h->chosen);
        read_stage(r, n > 1 ? i : -1, h);
    }
}

void pn_page_paths_free(pn_page *r) {
    for (int i = 0; i < r->n_stages; i++) {
        free(r->stage[i].at);
        free(r->stage[i].by_order);
        free(r->stage[i].round);
    }
}

void pn_page_stage_heading(pn_page *r, int stage) {
    const pn_page_paths *h = &r->stage[stage];
    const json_t *kinds = json_object_get(h->stage, "kinds");
    if (r->n_stages < 2) return;
    pn_html(r->out, "<h3>Stage %d", stage + 1);
    for (size_t i = 0; i < json_array_size(kinds); i++) {
        const char *kind = json_string_value(json_array_get(kinds, i));
        pn_html(r->out, "%s%s", i ? " and " : ": ", kind ? kind : "?");
    }
    if (h->objective.text) pn_html(r->out, ", by %s", h->objective.text);
    pn_buf_text(r->out, "</h3>\n");
}
