#include "arena.h"

#include <stdbool.h>
#include <stdlib.h>

struct pn_arena_part {
    size_t at, n_bytes;
    bool taken;
    pn_arena_part *before, *after;           /* by address: parts follow each other without gaps */
    pn_arena_part *free_before, *free_after; /* the free ones, in no order */
};

struct pn_arena {
    pn_arena_part *first, *last;
    pn_arena_part *free_first;
    pn_arena_part *spare; /* shells, linked by `after` */
};

pn_status pn_arena_create(pn_arena **out) {
    *out = calloc(1, sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return PN_OK;
}

static void free_parts(pn_arena_part *p) {
    for (pn_arena_part *next; p; p = next) {
        next = p->after;
        free(p);
    }
}

void pn_arena_destroy(pn_arena **a) {
    if (!a || !*a) return;
    free_parts((*a)->first);
    free_parts((*a)->spare);
    free(*a);
    *a = NULL;
}

static void list_free(pn_arena *a, pn_arena_part *p) {
    p->taken = false;
    p->free_before = NULL;
    p->free_after = a->free_first;
    if (a->free_first) a->free_first->free_before = p;
    a->free_first = p;
}

static void unlist_free(pn_arena *a, pn_arena_part *p) {
    *(p->free_before ? &p->free_before->free_after : &a->free_first) = p->free_after;
    if (p->free_after) p->free_after->free_before = p->free_before;
    p->taken = true;
}

/* Behind `before`; NULL: as the first. */
static pn_status insert(pn_arena *a, pn_arena_part *before, size_t at, size_t n_bytes, pn_arena_part **out) {
    pn_arena_part *p = a->spare;
    if (p)
        a->spare = p->after;
    else
        p = malloc(sizeof *p);
    PN_CHECK(p, PN_MEMORY, "out of memory");
    *p = (pn_arena_part){ .at = at, .n_bytes = n_bytes, .taken = true, .before = before };
    pn_arena_part **link = before ? &before->after : &a->first;
    p->after = *link;
    *link = p;
    *(p->after ? &p->after->before : &a->last) = p;
    *out = p;
    return PN_OK;
}

/* A part that is not on the free list. */
static void take_out(pn_arena *a, pn_arena_part *p) {
    *(p->before ? &p->before->after : &a->first) = p->after;
    *(p->after ? &p->after->before : &a->last) = p->before;
    p->after = a->spare;
    a->spare = p;
}

static pn_arena_part *best_fit(const pn_arena *a, size_t n_bytes) {
    pn_arena_part *best = NULL;
    for (pn_arena_part *p = a->free_first; p; p = p->free_after)
        if (p->n_bytes >= n_bytes &&
            (!best || p->n_bytes < best->n_bytes || (p->n_bytes == best->n_bytes && p->at < best->at)))
            best = p;
    return best;
}

/* A free part of so many bytes at the end. */
static pn_status grow(pn_arena *a, size_t n_bytes, pn_arena_part **out) {
    if (a->last && !a->last->taken) {
        a->last->n_bytes = n_bytes;
        *out = a->last;
        return PN_OK;
    }
    PN_TRY(insert(a, a->last, pn_arena_end(a), n_bytes, out));
    list_free(a, *out);
    return PN_OK;
}

pn_status pn_arena_take(pn_arena *a, size_t n_bytes, pn_arena_part **out, size_t *at) {
    PN_ASSERT(n_bytes > 0);
    n_bytes = (n_bytes + PN_ARENA_GRAIN - 1) / PN_ARENA_GRAIN * PN_ARENA_GRAIN;
    pn_arena_part *p = best_fit(a, n_bytes), *rest;
    if (!p) PN_TRY(grow(a, n_bytes, &p));
    if (p->n_bytes > n_bytes) {
        PN_TRY(insert(a, p, p->at + n_bytes, p->n_bytes - n_bytes, &rest));
        list_free(a, rest);
        p->n_bytes = n_bytes;
    }
    unlist_free(a, p);
    *out = p;
    *at = p->at;
    return PN_OK;
}

/* p takes in the part behind it. */
static void join(pn_arena *a, pn_arena_part *p) {
    p->n_bytes += p->after->n_bytes;
    take_out(a, p->after);
}

void pn_arena_give(pn_arena *a, pn_arena_part *p) {
    PN_ASSERT(p->taken);
    if (p->after && !p->after->taken) {
        unlist_free(a, p->after);
        join(a, p);
    }
    if (p->before && !p->before->taken)
        join(a, p->before);
    else
        list_free(a, p);
}

size_t pn_arena_end(const pn_arena *a) {
    return a->last ? a->last->at + a->last->n_bytes : 0;
}

void pn_arena_trim(pn_arena *a) {
    if (!a->last || a->last->taken) return;
    pn_arena_part *p = a->last;
    unlist_free(a, p);
    take_out(a, p);
}
