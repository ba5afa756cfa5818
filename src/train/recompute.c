#include "recompute.h"

#include <stdbool.h>
#include <stdio.h>

const char *const pn_recompute_names[] = { "none", "cheap", "cores", "layers", "auto", NULL };

pn_recompute_level pn_recompute_at(const pn_recompute *r, int layer) {
    return r->level + (layer < r->more);
}

pn_again pn_recompute_again(pn_recompute_level level) {
    static const pn_again again[] = { PN_AGAIN_NEVER, PN_AGAIN_CHEAP, PN_AGAIN_CORE, PN_AGAIN_NEVER };
    return again[level];
}

/* All choices in order: a layer more, then a level more. */
static pn_recompute rung(int i, int n_layers) {
    return (pn_recompute){ .level = i / n_layers, .more = i % n_layers };
}

pn_status pn_recompute_fit(int n_layers, double most, pn_recompute_bytes bytes, void *ctx, pn_recompute *out) {
    int low = 0, high = n_layers * PN_RECOMPUTE_LAYERS;
    for (bool first = true; low < high; first = false) {
        const int middle = first ? 0 : (low + high) / 2; /* most models fit as they are: asked first */
        const pn_recompute r = rung(middle, n_layers);
        double need;
        PN_TRY(bytes(ctx, &r, &need));
        if (need <= most)
            high = middle;
        else
            low = middle + 1;
    }
    *out = rung(low, n_layers);
    return PN_OK;
}

const char *pn_recompute_text(const pn_recompute *r) {
    static const char *const what[] = { "nothing", "activations and norms", "activations, norms and cores",
                                        "whole layers" };
    static _Thread_local char text[128];
    if (!r->more) return what[r->level];
    snprintf(text, sizeof text, "%s, in the first %d layers %s", what[r->level], r->more, what[r->level + 1]);
    return text;
}
