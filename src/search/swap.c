/* swap: the refinement after any strategy. Each round measures every path in which two layers have changed places, goes
 * to the best of them, and ends when none is better. It finds what strategies that only ever add cannot: that a layer
 * chosen early is of no more use beside those chosen later. */
#include "search.h"

#include <stdlib.h>

typedef struct place {
    pn_path path;
    double loss;
    int number; /* of its proposal; -1: the path that the refinement started from */
} place;

typedef struct state {
    place now, *next; /* next: neighbours of now; owned */
    int n_next, asked, round, n_proposals;
} state;

static pn_status start(pn_search *s) {
    const pn_swap_options *o = s->in.options;
    state *d = s->data;
    d->next = calloc((size_t)(o->from.n * o->from.n + 1), sizeof *d->next);
    PN_CHECK(d->next, PN_MEMORY, "out of memory");
    d->now = (place){ o->from, o->loss, -1 };
    return PN_OK;
}

static void find_neighbours(pn_search *s) {
    state *d = s->data;
    const pn_space *space = &s->in.space;
    d->n_next = d->asked = 0;
    for (int a = 0; a < space->start.n; a++) {
        for (int b = a + 1; b < space->start.n; b++) {
            pn_path p = d->now.path;
            if (p.choice[a] == p.choice[b] || !pn_space_free(space, a) || !pn_space_free(space, b)) continue;
            uint8_t swapped = p.choice[a];
            p.choice[a] = p.choice[b];
            p.choice[b] = swapped;
            d->next[d->n_next++] = (place){ p, 0, -1 };
        }
    }
}

/* Goes to the best neighbour: false when none is better, or the rounds are spent. */
static bool next_round(pn_search *s) {
    state *d = s->data;
    const pn_swap_options *o = s->in.options;
    const place *best = &d->now;
    for (int i = 0; i < d->n_next; i++)
        if (d->next[i].loss < best->loss) best = &d->next[i];
    bool better = best != &d->now;
    d->now = *best;
    if ((d->round && !better) || d->round == o->rounds) return false;
    d->round++;
    find_neighbours(s);
    return true;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    state *d = s->data;
    *n = 0;
    if (d->asked == d->n_next && !next_round(s)) return PN_OK;
    for (; *n < room && d->asked < d->n_next; (*n)++) {
        d->next[d->asked].number = d->n_proposals++;
        out[*n] = (pn_proposal){ d->next[d->asked++].path, d->round - 1, d->now.number };
    }
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    (void)metrics;
    state *d = s->data;
    for (int i = 0; i < d->n_next; i++)
        if (pn_path_equal(&d->next[i].path, path)) d->next[i].loss = loss;
    return PN_OK;
}

static void stop(pn_search *s) {
    state *d = s->data;
    free(d->next);
}

const pn_search_type pn_search_swap = {
    .name = "swap",
    .summary = "exchanges two layers while that helps",
    .options_bytes = sizeof(pn_swap_options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .tell = tell,
    .stop = stop,
};
