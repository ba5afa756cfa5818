/* exhaustive: every placement that spends the budget. The oracle of the other strategies, for small spaces.
 *
 * Paths are counted through in lexicographic order of layer kinds (linear, then the limited ones), so neighbours share
 * long prefixes, which the evaluator computes once. */
#include "search.h"

typedef struct options {
    int64_t max_paths;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, max_paths, 5000, 1, 1e9, "refuse a space with more paths than this"),
    PN_OPT_END,
};

typedef struct state {
    pn_path next;
    bool finished;
} state;

static pn_status start(pn_search *s) {
    const options *o = s->in.options;
    state *d = s->data;
    double paths = pn_space_paths(&s->in.space);
    PN_CHECK(paths <= (double)o->max_paths, PN_USAGE,
             "exhaustive search has %.0f paths, more than max_paths %lld; use beam (and compare.exhaustive: false), or "
             "raise "
             "search.exhaustive.max_paths",
             paths, (long long)o->max_paths);
    d->next = s->in.space.start;
    return PN_OK;
}

/* The kinds in counting order: 0 is linear, k is limit k - 1. */
static int digit_of(const pn_space *s, int choice) {
    int digit = s->n_limits;
    while (digit > 0 && s->limit[digit - 1].choice != choice) digit--;
    return digit;
}

/* Counts up from `layer`: true while there is a next path. */
static bool bump(const pn_space *s, pn_path *p, int layer) {
    for (int l = layer; l >= 0; l--) {
        if (!pn_space_free(s, l)) continue;
        int digit = digit_of(s, p->choice[l]);
        if (digit < s->n_limits) {
            p->choice[l] = (uint8_t)s->limit[digit].choice;
            return true;
        }
        p->choice[l] = (uint8_t)s->linear;
    }
    return false;
}

/* The first layer at which p has overspent; -1: nowhere. */
static int overspent(const pn_space *s, const pn_path *p) {
    int n[PN_MAX_LIMITS] = { 0 };
    for (int l = 0; l < p->n; l++) {
        int digit = pn_space_free(s, l) ? digit_of(s, p->choice[l]) : 0;
        if (digit && ++n[digit - 1] > s->limit[digit - 1].count) return l;
    }
    return -1;
}

/* Moves to the next complete path at or after p, skipping subtrees that have already overspent. */
static bool seek(const pn_space *s, pn_path *p) {
    while (!pn_space_complete(s, p)) {
        int over = overspent(s, p), at = over < 0 ? p->n - 1 : over;
        for (int l = at + 1; l < p->n; l++) p->choice[l] = s->start.choice[l];
        if (!bump(s, p, at)) return false;
    }
    return true;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    state *d = s->data;
    const pn_space *space = &s->in.space;
    *n = 0;
    while (*n < room && !d->finished) {
        if (!seek(space, &d->next)) {
            d->finished = true;
            break;
        }
        out[(*n)++] = (pn_proposal){ d->next, 0, -1 };
        d->finished = !bump(space, &d->next, space->start.n - 1);
    }
    return PN_OK;
}

const pn_search_type pn_search_exhaustive = {
    .name = "exhaustive",
    .summary = "every placement of the budget: the oracle on small spaces",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
};
