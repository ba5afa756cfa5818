/* random: different placements, each as likely as any other. What a search has to beat at an equal number of paths. */
#include "search.h"

#include <stdlib.h>

#include "rng.h"

typedef struct options {
    int64_t samples;
} options;

static const pn_option table[] = {
    PN_OPT_INT(options, samples, 32, 1, 10000, "placements to draw, all different"),
    PN_OPT_END,
};

typedef struct state {
    pn_rng rng;
    pn_path *drawn; /* samples; owned */
    int64_t n;
} state;

static pn_status start(pn_search *s) {
    const options *o = s->in.options;
    state *d = s->data;
    double paths = pn_space_paths(&s->in.space);
    PN_CHECK((double)o->samples <= paths, PN_USAGE,
             "search.random.samples %lld is more than the %.0f placements there are; lower it, or use exhaustive",
             (long long)o->samples, paths);
    d->drawn = malloc((size_t)o->samples * sizeof *d->drawn);
    PN_CHECK(d->drawn, PN_MEMORY, "out of memory");
    pn_rng_stream(s->in.seed, "search.random", 0, &d->rng);
    return PN_OK;
}

/* How many of n free layers a kind takes: as likely as the number of paths that go on from there. */
static int draw_count(const pn_space *s, int limit, int n, pn_rng *rng) {
    if (s->limit[limit].exact) return s->limit[limit].count;
    double at = pn_rng_uniform(rng) * pn_space_ways(s, limit, n);
    int k = 0;
    for (; k < s->limit[limit].count; k++) {
        at -= pn_choose(n, k) * pn_space_ways(s, limit + 1, n - k);
        if (at < 0) break;
    }
    return k;
}

static pn_path draw(const pn_space *s, pn_rng *rng) {
    pn_path path = s->start;
    int layer[PN_MAX_LAYERS], n = 0;
    for (int l = 0; l < path.n; l++)
        if (pn_space_free(s, l)) layer[n++] = l;
    for (int k = 0; k < s->n_limits; k++) {
        for (int count = draw_count(s, k, n, rng); count > 0; count--) {
            int i = (int)pn_rng_below(rng, (uint64_t)n);
            path.choice[layer[i]] = (uint8_t)s->limit[k].choice;
            layer[i] = layer[--n];
        }
    }
    return path;
}

static bool known(const state *d, const pn_path *path) {
    for (int64_t i = 0; i < d->n; i++)
        if (pn_path_equal(&d->drawn[i], path)) return true;
    return false;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    const options *o = s->in.options;
    state *d = s->data;
    for (*n = 0; *n < room && d->n < o->samples; (*n)++) {
        pn_path path;
        do path = draw(&s->in.space, &d->rng);
        while (known(d, &path));
        d->drawn[d->n++] = path;
        out[*n] = (pn_proposal){ path, 0, -1 };
    }
    return PN_OK;
}

static void stop(pn_search *s) {
    state *d = s->data;
    free(d->drawn);
}

const pn_search_type pn_search_random = {
    .name = "random",
    .summary = "placements drawn evenly, the best of them wins",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .stop = stop,
};
