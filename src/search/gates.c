/* gates: what a gated super-network says by itself, without measuring anything: every limited kind goes where its gate
 * is largest among the layers still free, and a kind that need not be spent only where its gate beats the linear
 * block's. */
#include "search.h"

typedef struct state {
    bool asked;
} state;

static pn_status start(pn_search *s) {
    return pn_search_needs_gates(s, "strategy gates");
}

/* The free layer with the largest gate for a kind; -1 when none is left that the kind may take. */
static int best_layer(const pn_search_input *in, const pn_path *path, const pn_limit *limit) {
    int best = -1;
    for (int l = 0; l < path->n; l++) {
        const double *p = in->gates->p[l];
        if (path->choice[l] != in->space.linear || (!limit->exact && p[limit->choice] <= p[in->space.linear])) continue;
        if (best < 0 || p[limit->choice] > in->gates->p[best][limit->choice]) best = l;
    }
    return best;
}

static pn_path by_gates(const pn_search_input *in) {
    pn_path path = in->space.start;
    for (int k = 0; k < in->space.n_limits; k++) {
        const pn_limit *limit = &in->space.limit[k];
        for (int i = 0, l; i < limit->count && (l = best_layer(in, &path, limit)) >= 0; i++)
            path.choice[l] = (uint8_t)limit->choice;
    }
    return path;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    (void)room;
    state *d = s->data;
    *n = d->asked ? 0 : 1;
    if (!d->asked) out[0] = (pn_proposal){ by_gates(&s->in), 0, -1 };
    d->asked = true;
    return PN_OK;
}

const pn_search_type pn_search_gates = {
    .name = "gates",
    .summary = "the layers with the largest gates of a gated super-network; evaluates one path",
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
};
