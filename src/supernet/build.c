#include "supernet.h"

#include <string.h>

#include "rng.h"
#include "swa.h"

/* A candidate that has attention's weights starts from the base's, as a copy that trains (blocks.md 11.2). first: the
 * first new candidate of each layer. */
static pn_status start_from_attention(pn_model *m, const int *first) {
    for (int l = 0; l < m->config.n_layers; l++) {
        pn_block *const *candidate = m->layer[l].candidate;
        for (int c = first[l]; c < m->layer[l].n_candidates; c++)
            if (candidate[0]->spec.type->attention_weights && candidate[c]->spec.type->attention_weights)
                PN_TRY(pn_params_copy(m->params, candidate[0]->prefix, m->params, candidate[c]->prefix));
    }
    return PN_OK;
}

pn_status pn_supernet_build(pn_model *m, const pn_block_spec *blocks, int n_blocks, bool none, uint64_t seed) {
    pn_params_train(m->params, "*", false);
    int before = m->params->n, index, first[PN_MAX_LAYERS];
    for (int l = 0; l < m->config.n_layers; l++) {
        first[l] = m->layer[l].n_candidates;
        for (int i = 0; i < n_blocks; i++) {
            pn_block_spec spec = blocks[i];
            PN_TRY(pn_swa_settle(&spec, blocks, n_blocks, &m->config.dims));
            PN_TRY(pn_model_add_candidate(m, l, &spec, &index));
        }
        if (none) {
            pn_block_spec spec;
            PN_TRY(pn_block_spec_default(&pn_block_none, &spec));
            PN_TRY(pn_model_add_candidate(m, l, &spec, &index));
        }
    }
    PN_TRY(pn_params_init_since(m->params, before, seed));
    for (int i = before; i < m->params->n; i++) m->params->item[i]->value->wants_grad = true;
    return start_from_attention(m, first);
}

pn_path pn_supernet_sample(const pn_model *m, uint64_t seed, int64_t step) {
    pn_rng rng;
    pn_rng_stream(seed, "supernet.path", (uint64_t)step, &rng);
    pn_path path = pn_model_own_path(m);
    for (bool trains = false; !trains;) {
        for (int l = 0; l < path.n; l++) {
            path.choice[l] = (uint8_t)pn_rng_below(&rng, (uint64_t)m->layer[l].n_candidates);
            trains = trains || (path.choice[l] && m->layer[l].candidate[path.choice[l]]->spec.type->build);
        }
    }
    return path;
}
