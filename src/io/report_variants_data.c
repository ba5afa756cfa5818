/* Reading the stages after the placement: their variants, best first, with what training and timing found of them. */
#include <math.h>
#include <string.h>

#include "report_variants.h"

typedef struct trained { /* local errors of one block, over the layers */
    char name[PN_PAGE_NAME];
    double start, last; /* sums */
    int n_start, n_last;
} trained;

typedef struct trainings {
    trained at[PN_PAGE_VARIANTS];
    int n;
} trainings;

static trained *find(trainings *t, const char *name) {
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->at[i].name, name)) return &t->at[i];
    return NULL;
}

static void add(double value, double *sum, int *n) {
    *sum += value;
    ++*n;
}

static void read_trainings(const json_t *list, trainings *t) {
    t->n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *block = pn_page_string(o, "block");
        char name[PN_PAGE_NAME];
        double value;
        if (!block) continue;
        trained *x = find(t, pn_page_short(block, PN_PAGE_NAME, name));
        if (!x && t->n == PN_PAGE_VARIANTS) continue;
        if (!x) {
            x = &t->at[t->n++];
            *x = (trained){ 0 };
            strcpy(x->name, name);
        }
        if (pn_page_number(o, "start", &value)) add(value, &x->start, &x->n_start);
        if (pn_page_number(o, "last", &value)) add(value, &x->last, &x->n_last);
    }
}

static const json_t *history_row(const pn_page *r, const json_t *o, const char *key) {
    double row;
    if (!pn_page_number(o, key, &row) || row < 0 || row != floor(row) || row > 1e9) return NULL;
    return json_array_get(json_object_get(r->root, "history"), (size_t)row);
}

/* Paths call a variant by its name in the super-network, not by its text: it is the one block of the variant's own path
 * that the stage has trained. */
static void find_training(const pn_page *r, trainings *t, pn_page_variant *x) {
    pn_page_path path;
    const trained *own = NULL;
    pn_page_path_read(history_row(r, x->json, "row"), &path);
    for (int l = 0; l < path.n; l++) {
        const trained *here = find(t, path.name[l]);
        if (here && own && here != own) return;
        if (here) own = here;
    }
    if (!own) return;
    strcpy(x->name, own->name);
    if (own->n_start) x->start = own->start / own->n_start;
    if (own->n_last) x->last = own->last / own->n_last;
}

/* Equal ones stay in the order of the configuration. */
static void sort(pn_page_variants *v) {
    for (int i = 1; i < v->n; i++) {
        pn_page_variant x = v->at[i];
        int k = i;
        for (; k > 0; k--) {
            double before = v->at[k - 1].objective;
            if (v->objective.ascending ? before >= x.objective : before <= x.objective) break;
            v->at[k] = v->at[k - 1];
        }
        v->at[k] = x;
    }
}

/* Labels do without the name of a type that all have. */
static size_t common_type(const pn_page_variants *v) {
    size_t n = v->n ? strcspn(v->at[0].text, " ") : 0;
    for (int i = 0; i < v->n; i++)
        if (strncmp(v->at[i].text, v->at[0].text, n) || v->at[i].text[n] != ' ' || !v->at[i].text[n + 1]) return 0;
    return n ? n + 1 : 0;
}

static const json_t *find_stage(const pn_page *r, const char *stage) {
    const json_t *list = json_object_get(r->root, "variants");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = pn_page_string(json_array_get(list, i), "stage");
        if (name && !strcmp(name, stage)) return json_array_get(list, i);
    }
    return NULL;
}

bool pn_page_variants_read(const pn_page *r, const char *stage, pn_page_variants *v) {
    trainings t;
    double chosen = -1;
    *v = (pn_page_variants){ .json = find_stage(r, stage), .ended = NAN };
    const json_t *list = json_object_get(v->json, "variants");
    read_trainings(json_object_get(v->json, "local_errors"), &t);
    pn_page_objective_read(v->json, &v->objective);
    pn_page_number(v->json, "chosen", &chosen);
    for (size_t i = 0; i < json_array_size(list) && v->n < PN_PAGE_VARIANTS; i++) {
        pn_page_variant x = { .json = json_array_get(list, i), .start = NAN, .last = NAN };
        x.text = pn_page_string(x.json, "text");
        if (!x.text || !pn_page_number(x.json, "objective", &x.objective)) continue;
        x.speed = pn_page_speed_of(r, stage, x.text);
        x.front = json_is_true(json_object_get(x.speed, "front"));
        x.chosen = (double)i == chosen;
        find_training(r, &t, &x);
        v->at[v->n++] = x;
    }
    sort(v);
    v->skip = common_type(v);
    v->n_contexts = pn_page_contexts(r, v->context);
    pn_page_path_read(v->json, &v->path);
    if (!pn_page_number(history_row(r, v->json, "winner"), "objective", &v->ended)) v->ended = NAN;
    return v->n > 0;
}

bool pn_page_variants_mixed(pn_page *r, const pn_page_variants *v, bool used[PN_PAGE_BLOCKS]) {
    const char *first = NULL;
    bool mixed = false;
    for (int l = 0; l < v->path.n; l++) {
        used[pn_page_block(r, v->path.name[l])] = true;
        for (int i = 0; i < v->n; i++) {
            if (strcmp(v->at[i].name, v->path.name[l])) continue;
            mixed |= first && strcmp(first, v->at[i].name);
            first = v->at[i].name;
        }
    }
    return mixed;
}
