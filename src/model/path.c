/* Paths as text: candidate names joined by commas, runs as name*count. */
#include "model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(PN_PATH_TEXT_MAX >= PN_MAX_LAYERS * 64, "a path's text has room for every layer's name");

/* "jet", or "jet_2" for the second candidate of the same type. */
static void candidate_name(const pn_layer *layer, int choice, char *out, size_t n) {
    const pn_block_type *type = layer->candidate[choice]->spec.type;
    int twins = 0;
    for (int i = 0; i < choice; i++) twins += layer->candidate[i]->spec.type == type;
    if (twins)
        snprintf(out, n, "%s_%d", type->name, twins + 1);
    else
        snprintf(out, n, "%s", type->name);
}

const char *pn_candidate_text(const pn_model *m, int l, int choice, char *buffer, size_t n) {
    candidate_name(&m->layer[l], choice, buffer, n);
    return buffer;
}

bool pn_path_equal(const pn_path *a, const pn_path *b) {
    return a->n == b->n && !memcmp(a->choice, b->choice, (size_t)a->n);
}

const char *pn_path_text(const pn_model *m, const pn_path *path, char *buffer, size_t n) {
    size_t len = 0;
    buffer[0] = '\0';
    for (int l = 0; l < path->n;) {
        char name[64], next[64];
        candidate_name(&m->layer[l], path->choice[l], name, sizeof name);
        int run = 1;
        for (; l + run < path->n; run++) {
            candidate_name(&m->layer[l + run], path->choice[l + run], next, sizeof next);
            if (strcmp(name, next)) break;
        }
        char count[16] = "";
        if (run > 1) snprintf(count, sizeof count, "*%d", run);
        int wrote = snprintf(buffer + len, n - len, "%s%s%s", len ? "," : "", name, count);
        if (wrote < 0 || (size_t)wrote >= n - len) break;
        len += (size_t)wrote;
        l += run;
    }
    return buffer;
}

pn_status pn_path_parse(const pn_model *m, const char *text, pn_path *out) {
    *out = (pn_path){ 0 };
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, ",*");
        char name[64];
        PN_CHECK(len && len < sizeof name, PN_USAGE, "path: no block name at \"%.20s\"", p);
        memcpy(name, p, len);
        name[len] = '\0';
        p += len;
        long count = 1;
        if (*p == '*') {
            char *end;
            PN_CHECK(isdigit((unsigned char)p[1]), PN_USAGE, "path: no count after %s*", name);
            count = strtol(p + 1, &end, 10);
            p = end;
        }
        PN_CHECK(*p == ',' || !*p, PN_USAGE, "path: \"%.20s\" after %s; names are joined by commas", p, name);
        if (*p) p++;
        PN_CHECK(count >= 1 && count <= m->config.n_layers - out->n, PN_USAGE, "path: more than the model's %d layers",
                 m->config.n_layers);
        for (; count > 0; count--) {
            const pn_layer *layer = &m->layer[out->n];
            int choice = -1;
            for (int i = 0; i < layer->n_candidates && choice < 0; i++) {
                char have[64];
                candidate_name(layer, i, have, sizeof have);
                if (!strcmp(name, have)) choice = i;
            }
            PN_CHECK(choice >= 0, PN_USAGE, "path: layer %d has no candidate %s", out->n, name);
            out->choice[out->n++] = (uint8_t)choice;
        }
    }
    PN_CHECK(out->n == m->config.n_layers, PN_USAGE, "path: %d layers named, the model has %d", out->n,
             m->config.n_layers);
    return PN_OK;
}
