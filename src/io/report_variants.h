/* The stages after the placement (`block`, `shape`), put together from result.json and speed.json for the sections that
 * show them. Everything is borrowed from those two. */
#ifndef PN_IO_REPORT_VARIANTS_H
#define PN_IO_REPORT_VARIANTS_H

#include "report_internal.h"

enum { PN_PAGE_VARIANTS = 64, PN_PAGE_CONTEXTS = 8 }; /* more are left out */

typedef struct pn_page_context_at { /* a context that speeds were measured at */
    double tokens;
    size_t index; /* of its number in every list of speeds */
} pn_page_context_at;

typedef struct pn_page_variant {
    const json_t *json;
    const char *text;
    char name[PN_PAGE_NAME]; /* as paths and local errors call it; "": unknown */
    const json_t *speed;     /* NULL: not measured */
    double objective;
    double start, last; /* local error before training and at its end, mean over the layers; NAN: unknown */
    bool chosen, front; /* front: none is better in objective and in decoding, all contexts together */
} pn_page_variant;

typedef struct pn_page_variants {
    const json_t *json;
    pn_page_objective objective;
    pn_page_variant at[PN_PAGE_VARIANTS]; /* best first */
    int n;
    size_t skip; /* bytes that every text begins with, when all are of one type: its name */
    pn_page_context_at context[PN_PAGE_CONTEXTS];
    int n_contexts;
    pn_page_path path; /* that the stage ended with; n 0: unknown */
    double ended;      /* its objective; NAN: unknown */
} pn_page_variants;

/* ---- report_variants_data.c ---- */

/* False when the result has no such stage, or nothing in it. */
bool pn_page_variants_read(const pn_page *r, const char *stage, pn_page_variants *out);
/* Whether the stage's path has several of its variants; used: those of its names, by block (pn_page_block). */
bool pn_page_variants_mixed(pn_page *r, const pn_page_variants *v, bool used[PN_PAGE_BLOCKS]);

/* ---- report_speed.c ---- */

int pn_page_contexts(const pn_page *r, pn_page_context_at out[PN_PAGE_CONTEXTS]);
/* What speed.json has of a stage's variant; NULL: nothing. */
const json_t *pn_page_speed_of(const pn_page *r, const char *stage, const char *text);
/* Tokens/s of pass "decode" or "prefill"; false: not measured. */
bool pn_page_rate(const json_t *speed, const char *pass, const pn_page_context_at *c, double *out);
/* A sentence on what the two passes are, as far as speed.json says. */
void pn_page_speed_setting(pn_page *r);

/* ---- report_front.c ---- */

/* Objective against decode speed, a plot per context at which two or more variants were measured. */
void pn_page_front(pn_page *r, const pn_page_variants *v);

#endif
