#include "supernet.h"

#include <string.h>

#include "rng.h"

pn_status pn_supernet_build(pn_model *m, const pn_block_spec *blocks, int n_blocks, bool none, uint64_t seed) {
    pn_params_train(m->params, "*", false);
    int before = m->params->n, index;
    for (int l = 0; l < m->config.n_layers; l++) {
        for (int i = 0; i < n_blocks; i++) PN_TRY(pn_model_add_candidate(m, l, &blocks[i], &index));
        if (none) {
            pn_block_spec spec;
            PN_TRY(pn_block_spec_default(&pn_block_none, &spec));
            PN_TRY(pn_model_add_candidate(m, l, &spec, &index));
        }
    }
    for (int i = before; i < m->params->n; i++) {
        pn_param_init(m->params->item[i], seed);
        m->params->item[i]->value->wants_grad = true;
    }
    return PN_OK;
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
