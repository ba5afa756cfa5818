/* beam: start all-linear, give one more layer full attention per round, keep the `width` best placements.
 *
 * Round 0 measures the all-linear path, round 1 every single layer: their differences are the importance of each layer.
 * Later rounds may look only at the `expand` most important layers, which keeps deep models affordable. After the
 * attention budget is spent, rounds for `none` remove mixers the same way. */
#include "search.h"

#include <stdlib.h>
#include <string.h>

typedef struct options {
    int64_t width, expand;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, width, 2, 1, 1000, "placements kept after each round"),
    PN_OPT_INT(options, expand, 0, 0, PN_MAX_LAYERS, "after round 1 only the most important layers are tried; 0: all"),
    PN_OPT_END,
};

typedef struct scored {
    pn_path path;
    double objective;
} scored;

typedef struct state {
    int round;
    scored *beam, *proposal;
    int n_beam, n_proposals, asked;
    bool layer_open[PN_MAX_LAYERS]; /* may receive attention in later rounds */
    bool finished;
} state;

static pn_status start(pn_search *s) {
    state *d = s->data;
    const options *o = s->options;
    PN_CHECK(!o->expand || o->expand >= s->space.full_attention, PN_USAGE,
             "search.beam.expand %lld leaves too few layers for limits.full_attention %d; raise it, or use 0 for all",
             (long long)o->expand, s->space.full_attention);
    size_t most = (size_t)o->width * (size_t)s->space.n_layers + 1;
    d->beam = calloc(most, sizeof *d->beam);
    d->proposal = calloc(most, sizeof *d->proposal);
    PN_CHECK(d->beam && d->proposal, PN_MEMORY, "out of memory");
    for (int l = 0; l < s->space.n_layers; l++) d->layer_open[l] = true;
    d->proposal[0].path = pn_space_all_linear(&s->space);
    d->n_proposals = 1;
    return PN_OK;
}

static int by_objective(const void *a_, const void *b_) {
    const scored *a = a_, *b = b_;
    if (a->objective != b->objective) return a->objective < b->objective ? -1 : 1;
    return memcmp(a->path.choice, b->path.choice, sizeof a->path.choice); /* the same order on every machine */
}

/* After round 1: rank layers by what attention there alone achieved. */
static void close_layers(pn_search *s) {
    state *d = s->data;
    const options *o = s->options;
    if (!o->expand || o->expand >= s->space.n_layers) return;
    memset(d->layer_open, 0, sizeof d->layer_open);
    for (int i = 0; i < d->n_beam && i < o->expand; i++)
        for (int l = 0; l < s->space.n_layers; l++)
            if (d->beam[i].path.choice[l] == s->space.attention) d->layer_open[l] = true;
}

static bool proposed(const state *d, const pn_path *p) {
    for (int i = 0; i < d->n_proposals; i++)
        if (pn_path_equal(&d->proposal[i].path, p)) return true;
    return false;
}

/* Turns the told round into the beam of the next and proposes its children. */
static void next_round(pn_search *s) {
    state *d = s->data;
    const options *o = s->options;
    memcpy(d->beam, d->proposal, (size_t)d->n_proposals * sizeof *d->beam);
    d->n_beam = d->n_proposals;
    qsort(d->beam, (size_t)d->n_beam, sizeof *d->beam, by_objective);
    if (d->round == 1) close_layers(s);
    if (d->n_beam > o->width) d->n_beam = (int)o->width;
    d->round++;
    d->n_proposals = d->asked = 0;
    int none_rounds = s->space.none < 0 ? 0 : s->space.max_none;
    if (d->round > s->space.full_attention + none_rounds) {
        d->finished = true;
        return;
    }
    bool attention = d->round <= s->space.full_attention;
    for (int i = 0; i < d->n_beam; i++) {
        for (int l = 0; l < s->space.n_layers; l++) {
            pn_path child = d->beam[i].path;
            if (child.choice[l] != s->space.linear || (attention && !d->layer_open[l])) continue;
            child.choice[l] = (uint8_t)(attention ? s->space.attention : s->space.none);
            if (!proposed(d, &child)) d->proposal[d->n_proposals++] = (scored){ .path = child };
        }
    }
    if (!d->n_proposals) d->finished = true;
}

static pn_status ask(pn_search *s, pn_path *out, int room, int *n) {
    state *d = s->data;
    if (d->asked == d->n_proposals && !d->finished) next_round(s);
    *n = 0;
    while (!d->finished && *n < room && d->asked < d->n_proposals) out[(*n)++] = d->proposal[d->asked++].path;
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double objective) {
    state *d = s->data;
    for (int i = 0; i < d->n_proposals; i++) {
        if (!pn_path_equal(&d->proposal[i].path, path)) continue;
        d->proposal[i].objective = objective;
        return PN_OK;
    }
    PN_FAIL(PN_USAGE, "beam: told the score of a path it did not propose");
}

static void stop(pn_search *s) {
    state *d = s->data;
    free(d->beam);
    free(d->proposal);
}

const pn_search_type pn_search_beam = {
    .name = "beam",
    .summary = "adds one full-attention layer per round, keeping the best few placements",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .tell = tell,
    .stop = stop,
};
