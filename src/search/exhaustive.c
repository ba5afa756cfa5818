/* exhaustive: every placement that spends the budget. The oracle of the other strategies, for small spaces.
 *
 * Paths are counted through in lexicographic order of layer kinds (linear, attention, none), so neighbours share long
 * prefixes, which the evaluator computes once. */
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

static double choose(int n, int k) {
    double r = 1;
    for (int i = 1; i <= k; i++) r = r * (n - k + i) / i;
    return r;
}

static pn_status start(pn_search *s) {
    const options *o = s->options;
    state *d = s->data;
    double paths = 0;
    for (int k = 0; k <= (s->space.none < 0 ? 0 : s->space.max_none); k++)
        paths +=
            choose(s->space.n_layers, s->space.full_attention) * choose(s->space.n_layers - s->space.full_attention, k);
    PN_CHECK(paths <= (double)o->max_paths, PN_USAGE,
             "exhaustive search has %.0f paths, more than max_paths %lld; use beam (and compare.exhaustive: false), or "
             "raise "
             "search.exhaustive.max_paths",
             paths, (long long)o->max_paths);
    d->next = pn_space_all_linear(&s->space);
    return PN_OK;
}

/* The kinds in counting order. */
static int digit_of(const pn_space *s, int choice) {
    return choice == s->linear ? 0 : choice == s->attention ? 1 : 2;
}
static uint8_t choice_of(const pn_space *s, int digit) {
    return (uint8_t)(digit == 0 ? s->linear : digit == 1 ? s->attention : s->none);
}

/* Counts up from `layer`: true while there is a next path. */
static bool bump(const pn_space *s, pn_path *p, int layer) {
    int kinds = s->none >= 0 && s->max_none > 0 ? 3 : 2;
    for (int l = layer; l >= 0; l--) {
        int digit = digit_of(s, p->choice[l]) + 1;
        if (digit < kinds) {
            p->choice[l] = choice_of(s, digit);
            return true;
        }
        p->choice[l] = (uint8_t)s->linear;
    }
    return false;
}

/* Moves to the next complete path at or after p, skipping subtrees that have already overspent. */
static bool seek(const pn_space *s, pn_path *p) {
    for (;;) {
        int attention = 0, none = 0, over = -1;
        for (int l = 0; l < p->n && over < 0; l++) {
            attention += p->choice[l] == s->attention;
            none += s->none >= 0 && p->choice[l] == s->none;
            if (attention > s->full_attention || (s->none >= 0 && none > s->max_none)) over = l;
        }
        if (over < 0 && attention == s->full_attention) return true;
        int at = over < 0 ? p->n - 1 : over;
        for (int l = at + 1; l < p->n; l++) p->choice[l] = (uint8_t)s->linear;
        if (!bump(s, p, at)) return false;
    }
}

static pn_status ask(pn_search *s, pn_path *out, int room, int *n) {
    state *d = s->data;
    *n = 0;
    while (*n < room && !d->finished) {
        if (!seek(&s->space, &d->next)) {
            d->finished = true;
            break;
        }
        out[(*n)++] = d->next;
        d->finished = !bump(&s->space, &d->next, s->space.n_layers - 1);
    }
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double objective) {
    (void)s, (void)path, (void)objective;
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
    .tell = tell,
};
