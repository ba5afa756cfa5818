/* What the strategies share that score every layer by itself: one path per layer is measured, which is the same path
 * with that layer changed, and then full attention goes to the layers of the largest scores.
 *
 * They place full attention and nothing else: the papers they are from score layers for that, and a score taken in an
 * all-linear or an all-attention model says nothing about a window beside what is placed already. */
#ifndef PN_SEARCH_LAYER_RANK_H
#define PN_SEARCH_LAYER_RANK_H

#include "search.h"

typedef struct pn_layer_rank {
    pn_path base; /* what the layers are changed in */
    int change;   /* choice number that a layer is changed to */
    int asked;    /* layers */
    bool finished;
} pn_layer_rank;

typedef enum pn_layer_rank_base {
    PN_RANK_ALL_LINEAR,   /* one layer at a time receives full attention */
    PN_RANK_ALL_ATTENTION /* one layer at a time receives the linear block */
} pn_layer_rank_base;

/* PN_USAGE when the space places anything else than full attention. */
pn_status pn_layer_rank_start(const pn_search *s, pn_layer_rank_base base, pn_layer_rank *d);
/* The strategy's ask: first the layers' paths, then, once all of them are told, the placement. score: per layer; read
 * for the placement only. Of equal scores the lower layer comes first. */
void pn_layer_rank_ask(const pn_search *s, pn_layer_rank *d, const double *score, pn_proposal *out, int room, int *n);
/* The layer that a told path belongs to; -1: it is the placement. */
int pn_layer_rank_layer(const pn_layer_rank *d, const pn_path *path);

#endif
