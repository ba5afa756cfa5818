/* How much of a forward pass is kept for backward and how much is made again: less memory for more time, never another
 * bit. */
#ifndef PN_TRAIN_RECOMPUTE_H
#define PN_TRAIN_RECOMPUTE_H

#include "op.h"

/* Each makes more again than the one before, and costs more time. */
typedef enum pn_recompute_level {
    PN_RECOMPUTE_NONE,
    PN_RECOMPUTE_CHEAP, /* activations and norms (PN_AGAIN_CHEAP) */
    PN_RECOMPUTE_CORES, /* convolutions and recurrences too (PN_AGAIN_CORE): what is left are products and attention */
    PN_RECOMPUTE_LAYERS /* everything: only what enters a layer is kept */
} pn_recompute_level;

/* What a configuration says: a level, or the least that fits the memory. */
enum { PN_RECOMPUTE_AUTO = PN_RECOMPUTE_LAYERS + 1 };
extern const char *const pn_recompute_names[]; /* NULL-ended, by level, then auto */

typedef struct pn_recompute { /* {0}: keep everything */
    pn_recompute_level level;
    int more; /* the first so many layers are one level above it */
} pn_recompute;

pn_recompute_level pn_recompute_at(const pn_recompute *r, int layer);
/* What the tape does at a level below PN_RECOMPUTE_LAYERS. */
pn_again pn_recompute_again(pn_recompute_level level);

/* The least recompute of n_layers layers for which bytes(), which says what a step takes, is within `most`; else the
 * most there is. */
typedef pn_status (*pn_recompute_bytes)(void *ctx, const pn_recompute *r, double *bytes);
pn_status pn_recompute_fit(int n_layers, double most, pn_recompute_bytes bytes, void *ctx, pn_recompute *out);

/* For people: "activations and norms, in the first 5 layers activations, norms and cores". The text is static. */
const char *pn_recompute_text(const pn_recompute *r);

#endif
