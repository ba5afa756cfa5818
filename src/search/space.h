/* The space of placements: every layer is the linear block unless a limited kind is spent on it. */
#ifndef PN_SEARCH_SPACE_H
#define PN_SEARCH_SPACE_H

#include "model.h"

enum { PN_MAX_LIMITS = 4 };

typedef struct pn_limit { /* a limited kind of layer: full attention, sliding windows, no mixer */
    const char *name;     /* its key under search.limits */
    int choice;           /* choice number, the same in every layer */
    int count;            /* layers to spend it on */
    bool exact;           /* exactly `count`; else at most */
} pn_limit;

typedef struct pn_space {
    pn_path start; /* the linear block everywhere, except in layers that an earlier placement has taken: those stay */
    int linear;    /* choice number of the linear block */
    int n_limits;
    pn_limit limit[PN_MAX_LIMITS]; /* in order of placement */
} pn_space;

/* A space of n layers, all free, with no limits yet. */
pn_space pn_space_all_free(int n_layers, int linear);
/* The part of a space that places limits first .. first + n - 1, after `placed`, which has the earlier ones. */
pn_space pn_space_part(const pn_space *s, int first, int n, const pn_path *placed);
/* PN_USAGE, naming the limits, when they do not fit the layers. */
pn_status pn_space_check(const pn_space *s);

bool pn_space_free(const pn_space *s, int layer);
int pn_space_count(const pn_path *path, int choice);
/* Every limit is spent as it asks, and nothing else differs from `start`. */
bool pn_space_complete(const pn_space *s, const pn_path *path);
/* How many complete paths there are. */
double pn_space_paths(const pn_space *s);
/* Ways to place limits `first` and later on n layers. */
double pn_space_ways(const pn_space *s, int first, int n);
/* n choose k. */
double pn_choose(int n, int k);

pn_path pn_space_all_linear(const pn_space *s);
/* Kind by kind, those of exactly k layers: of the m layers left, number floor((2 i + 1) m / (2 k)), i = 0 .. k - 1. */
pn_path pn_space_uniform(const pn_space *s);

#endif
