/* beam: start all-linear, place one more layer per round, keep the `width` best placements. The kinds of the space are
 * placed one after the other. greedy is a beam of width 1.
 *
 * Round 0 measures the path it starts from, and the first round of a kind every layer that is still linear: their
 * differences are the importance of each layer. With `expand`, later rounds of that kind look only at the most
 * important layers, which keeps deep models affordable; with `order: gates` the layers with the largest gates of a
 * gated super-network take their place, and the first round is as short as the others. */
#include "search.h"

#include <stdlib.h>
#include <string.h>

typedef enum beam_order { BY_IMPORTANCE, BY_GATES } beam_order;
static const char *const orders[] = { [BY_IMPORTANCE] = "importance", [BY_GATES] = "gates", NULL };

typedef struct options {
    int64_t width, expand, order; /* width: beam only */
} options;

#define EXPAND PN_OPT_INT(options, expand, 0, 0, PN_MAX_LAYERS, "of each kind only so many layers are tried; 0: all")
#define ORDER                                                                                                          \
    PN_OPT_ENUM(options, order, "importance", orders,                                                                  \
                "which layers expand tries: the best of the kind's first round, or those of the largest gates")

static const pn_option table[] = {
    PN_OPT_INT(options, width, 2, 1, 1000, "placements kept after each round"),
    EXPAND,
    ORDER,
    PN_OPT_END,
};
static const pn_option greedy_table[] = { EXPAND, ORDER, PN_OPT_END };

typedef struct scored {
    pn_path path;
    double loss;
    int number, parent; /* as proposals are counted */
} scored;

typedef struct state {
    int round, limit, placed; /* `placed` layers of the kind `limit` after this round */
    scored *beam, *proposal;
    int n_beam, n_proposals, asked, n_asked; /* asked: of this round; n_asked: of all */
    bool open[PN_MAX_LAYERS];                /* may receive the kind */
    bool finished;
} state;

static int64_t width_of(const pn_search *s) {
    const options *o = s->in.options;
    return s->type == &pn_search_greedy ? 1 : o->width;
}

static pn_status check_options(const pn_search *s) {
    const options *o = s->in.options;
    char order[64];
    for (int k = 0; k < s->in.space.n_limits; k++)
        PN_CHECK(!o->expand || o->expand >= s->in.space.limit[k].count, PN_USAGE,
                 "search.%s.expand %lld leaves too few layers for limits.%s %d; raise it, or use 0 for all",
                 s->type->name, (long long)o->expand, s->in.space.limit[k].name, s->in.space.limit[k].count);
    if (o->order != BY_GATES) return PN_OK;
    snprintf(order, sizeof order, "search.%s.order gates", s->type->name);
    PN_CHECK(o->expand, PN_USAGE, "%s changes nothing while every layer is tried; set expand to how many are", order);
    return pn_search_needs_gates(s, order);
}

static pn_status start(pn_search *s) {
    state *d = s->data;
    PN_TRY(check_options(s));
    size_t most = (size_t)width_of(s) * (size_t)s->in.space.start.n + 1;
    d->beam = calloc(most, sizeof *d->beam);
    d->proposal = calloc(most, sizeof *d->proposal);
    PN_CHECK(d->beam && d->proposal, PN_MEMORY, "out of memory");
    d->proposal[0] = (scored){ .path = s->in.space.start, .parent = -1 };
    d->n_proposals = 1;
    return PN_OK;
}

static int by_loss(const void *a_, const void *b_) {
    const scored *a = a_, *b = b_;
    if (a->loss != b->loss) return a->loss < b->loss ? -1 : 1;
    return memcmp(a->path.choice, b->path.choice, sizeof a->path.choice); /* the same order on every machine */
}

static void open_all(state *d) {
    for (int l = 0; l < PN_MAX_LAYERS; l++) d->open[l] = true;
}

/* After the first round of a kind, sorted: the layers that received it in the best `expand` placements. */
static void open_important(pn_search *s) {
    state *d = s->data;
    const options *o = s->in.options;
    memset(d->open, 0, sizeof d->open);
    for (int i = 0; i < d->n_beam && i < o->expand; i++)
        for (int l = 0; l < s->in.space.start.n; l++)
            if (d->beam[i].path.choice[l] == s->in.space.limit[d->limit].choice && pn_space_free(&s->in.space, l))
                d->open[l] = true;
}

/* Before the first round of a kind: of the layers that the best placement has left linear, those of the largest gates.
 */
static void open_by_gates(pn_search *s) {
    state *d = s->data;
    const options *o = s->in.options;
    int choice = s->in.space.limit[d->limit].choice;
    memset(d->open, 0, sizeof d->open);
    for (int64_t i = 0; i < o->expand; i++) {
        int best = -1;
        for (int l = 0; l < s->in.space.start.n; l++)
            if (d->beam[0].path.choice[l] == s->in.space.linear && !d->open[l] &&
                (best < 0 || s->in.gates->p[l][choice] > s->in.gates->p[best][choice]))
                best = l;
        if (best >= 0) d->open[best] = true;
    }
}

/* Counts on to the next layer to place: false when everything is. */
static bool next_layer(pn_search *s) {
    state *d = s->data;
    const options *o = s->in.options;
    while (d->limit < s->in.space.n_limits && d->placed == s->in.space.limit[d->limit].count) {
        d->limit++;
        d->placed = 0;
    }
    if (d->limit == s->in.space.n_limits) return false;
    if (!d->placed) {
        open_all(d);
        if (o->order == BY_GATES) open_by_gates(s);
    }
    d->placed++;
    d->round++;
    return true;
}

static bool proposed(const state *d, const pn_path *p) {
    for (int i = 0; i < d->n_proposals; i++)
        if (pn_path_equal(&d->proposal[i].path, p)) return true;
    return false;
}

static void propose_children(pn_search *s) {
    state *d = s->data;
    d->n_proposals = d->asked = 0;
    for (int i = 0; i < d->n_beam; i++) {
        for (int l = 0; l < s->in.space.start.n; l++) {
            pn_path child = d->beam[i].path;
            if (child.choice[l] != s->in.space.linear || !d->open[l]) continue;
            child.choice[l] = (uint8_t)s->in.space.limit[d->limit].choice;
            if (!proposed(d, &child))
                d->proposal[d->n_proposals++] = (scored){ .path = child, .parent = d->beam[i].number };
        }
    }
}

/* Turns the told round into the beam of the next and proposes its children. */
static void next_round(pn_search *s) {
    state *d = s->data;
    const options *o = s->in.options;
    memcpy(d->beam, d->proposal, (size_t)d->n_proposals * sizeof *d->beam);
    d->n_beam = d->n_proposals;
    qsort(d->beam, (size_t)d->n_beam, sizeof *d->beam, by_loss);
    if (o->expand && o->order == BY_IMPORTANCE && d->placed == 1) open_important(s);
    if (d->n_beam > width_of(s)) d->n_beam = (int)width_of(s);
    d->finished = !next_layer(s);
    if (d->finished) return;
    propose_children(s);
    if (d->n_proposals) return;
    open_all(d); /* the open layers were of other placements than the ones kept */
    propose_children(s);
    d->finished = !d->n_proposals;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    state *d = s->data;
    if (d->asked == d->n_proposals && !d->finished) next_round(s);
    *n = 0;
    while (!d->finished && *n < room && d->asked < d->n_proposals) {
        scored *p = &d->proposal[d->asked++];
        p->number = d->n_asked++;
        out[(*n)++] = (pn_proposal){ p->path, d->round, p->parent };
    }
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    (void)metrics;
    state *d = s->data;
    for (int i = 0; i < d->n_proposals; i++) {
        if (!pn_path_equal(&d->proposal[i].path, path)) continue;
        d->proposal[i].loss = loss;
        return PN_OK;
    }
    PN_FAIL(PN_USAGE, "%s: told the score of a path it did not propose", s->type->name);
}

static void stop(pn_search *s) {
    state *d = s->data;
    free(d->beam);
    free(d->proposal);
}

const pn_search_type pn_search_beam = {
    .name = "beam",
    .summary = "places one layer per round, keeping the best few placements",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .tell = tell,
    .stop = stop,
};

const pn_search_type pn_search_greedy = {
    .name = "greedy",
    .summary = "places one layer per round, always the one that helps most: a beam of width 1",
    .options = greedy_table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .tell = tell,
    .stop = stop,
};
