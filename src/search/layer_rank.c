#include "layer_rank.h"

#include <string.h>

pn_status pn_layer_rank_start(const pn_search *s, pn_layer_rank_base base, pn_layer_rank *d) {
    const pn_space *space = &s->in.space;
    for (int k = 0; k < space->n_limits; k++)
        PN_CHECK(!strcmp(space->limit[k].name, "full_attention"), PN_USAGE,
                 "strategy %s places full attention only; set search.limits.%s to 0, or use beam", s->type->name,
                 space->limit[k].name);
    int attention = space->limit[0].choice;
    *d = (pn_layer_rank){ .base = space->start, .change = attention };
    if (base == PN_RANK_ALL_LINEAR) return PN_OK;
    d->change = space->linear;
    memset(d->base.choice, attention, (size_t)d->base.n);
    return PN_OK;
}

static pn_path placement(const pn_space *space, const double *score) {
    pn_path path = space->start;
    const pn_limit *limit = &space->limit[0];
    for (int i = 0; i < limit->count; i++) {
        int best = -1;
        for (int l = 0; l < path.n; l++)
            if (path.choice[l] == space->linear && (best < 0 || score[l] > score[best])) best = l;
        PN_ASSERT(best >= 0); /* the limits fit the layers */
        path.choice[best] = (uint8_t)limit->choice;
    }
    return path;
}

void pn_layer_rank_ask(const pn_search *s, pn_layer_rank *d, const double *score, pn_proposal *out, int room, int *n) {
    *n = 0;
    if (d->finished) return;
    if (d->asked == d->base.n) {
        d->finished = true;
        out[(*n)++] = (pn_proposal){ placement(&s->in.space, score), 1, -1 };
        return;
    }
    for (; *n < room && d->asked < d->base.n; d->asked++) {
        pn_path path = d->base;
        path.choice[d->asked] = (uint8_t)d->change;
        out[(*n)++] = (pn_proposal){ path, 0, -1 };
    }
}

int pn_layer_rank_layer(const pn_layer_rank *d, const pn_path *path) {
    int layer = 0;
    while (!d->finished && layer < path->n && path->choice[layer] == d->base.choice[layer]) layer++;
    return d->finished || layer == path->n ? -1 : layer;
}
