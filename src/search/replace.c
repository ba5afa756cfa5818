#include "replace.h"

#include <stdlib.h>

/* ---- each ---- */

static pn_status ask_each(pn_search *s, pn_proposal *out, int room, int *n) {
    const pn_replace_options *o = s->in.options;
    int *asked = s->data;
    for (*n = 0; *n < room && *asked < o->n; (*n)++, (*asked)++) {
        pn_path path = o->from;
        for (int l = 0; l < path.n; l++)
            if (path.choice[l] == o->replaced) path.choice[l] = (uint8_t)o->choice[*asked];
        out[*n] = (pn_proposal){ path, 0, -1 };
    }
    return PN_OK;
}

const pn_search_type pn_search_each = {
    .name = "each",
    .summary = "one path per block",
    .options_bytes = sizeof(pn_replace_options),
    .data_bytes = sizeof(int),
    .ask = ask_each,
};

/* ---- mix ---- */

typedef struct place {
    pn_path path;
    double loss;
    int number; /* of its proposal; -1: the path that the search started from */
} place;

typedef struct mix {
    place *kept, *next; /* at most width, and width x choices; owned */
    int n_kept, n_next, asked;
    int layer, round, n_proposals; /* layer: whose choices `next` tries */
} mix;

static pn_status start_mix(pn_search *s) {
    const pn_replace_options *o = s->in.options;
    mix *d = s->data;
    d->kept = calloc((size_t)o->width, sizeof *d->kept);
    d->next = calloc((size_t)(o->width * o->n), sizeof *d->next);
    PN_CHECK(d->kept && d->next, PN_MEMORY, "out of memory");
    d->kept[d->n_kept++] = (place){ o->from, 0, -1 };
    d->layer = -1;
    return PN_OK;
}

static int by_loss(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->loss != y->loss) return x->loss < y->loss ? -1 : 1;
    return x->number - y->number;
}

static void keep_best(mix *d, int64_t width) {
    qsort(d->next, (size_t)d->n_next, sizeof *d->next, by_loss);
    d->n_kept = d->n_next < width ? d->n_next : (int)width;
    for (int i = 0; i < d->n_kept; i++) d->kept[i] = d->next[i];
}

/* The next layer to be searched, and the paths that try every choice there: false when there is none left. */
static bool next_layer(mix *d, const pn_replace_options *o) {
    if (d->n_next) keep_best(d, o->width);
    do d->layer++;
    while (d->layer < o->from.n && o->from.choice[d->layer] != o->replaced);
    d->n_next = d->asked = 0;
    if (d->layer >= o->from.n) return false;
    for (int i = 0; i < d->n_kept; i++) {
        for (int c = 0; c < o->n; c++) {
            pn_path path = d->kept[i].path;
            path.choice[d->layer] = (uint8_t)o->choice[c];
            d->next[d->n_next++] = (place){ path, 0, d->kept[i].number };
        }
    }
    d->round++;
    return true;
}

static pn_status ask_mix(pn_search *s, pn_proposal *out, int room, int *n) {
    mix *d = s->data;
    *n = 0;
    if (d->asked == d->n_next && !next_layer(d, s->in.options)) return PN_OK;
    for (; *n < room && d->asked < d->n_next; (*n)++) {
        place *p = &d->next[d->asked++];
        out[*n] = (pn_proposal){ p->path, d->round - 1, p->number };
        p->number = d->n_proposals++;
    }
    return PN_OK;
}

static pn_status tell_mix(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    (void)metrics;
    mix *d = s->data;
    for (int i = 0; i < d->n_next; i++)
        if (pn_path_equal(&d->next[i].path, path)) d->next[i].loss = loss;
    return PN_OK;
}

static void stop_mix(pn_search *s) {
    mix *d = s->data;
    free(d->kept);
    free(d->next);
}

const pn_search_type pn_search_mix = {
    .name = "mix",
    .summary = "beam search over blocks, layer by layer",
    .options_bytes = sizeof(pn_replace_options),
    .data_bytes = sizeof(mix),
    .start = start_mix,
    .ask = ask_mix,
    .tell = tell_mix,
    .stop = stop_mix,
};
