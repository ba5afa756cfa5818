#include "supernet.h"

#include <string.h>

/* Everything of the super-network that the hybrid uses as it is: all weights but the mixers'. */
static pn_status shared_weights(const pn_model *m, pn_params *out) {
    for (int i = 0; i < m->params->n; i++) {
        pn_param *p = m->params->item[i];
        if (!strstr(p->name, ".self_attn.") && !strstr(p->name, ".candidates.")) PN_TRY(pn_params_share(out, p));
    }
    return PN_OK;
}

pn_status pn_supernet_extract(const pn_model *m, const pn_path *path, pn_model **out) {
    pn_status s;
    pn_params *shared = NULL;
    pn_model *hybrid = NULL;
    pn_model_config config;
    pn_model_path_config(m, path, &config);
    PN_TRY_GOTO(s, pn_params_create_like(m->params, &shared), done);
    PN_TRY_GOTO(s, shared_weights(m, shared), done);
    PN_TRY_GOTO(s, pn_model_create(&config, m->params->dtype, shared, &hybrid), done);
    for (int l = 0; l < config.n_layers; l++)
        PN_TRY_GOTO(s,
                    pn_params_copy(m->params, m->layer[l].candidate[path->choice[l]]->prefix, hybrid->params,
                                   hybrid->layer[l].candidate[0]->prefix),
                    done);
    pn_params_train(hybrid->params, "*", false);
    pn_params_train(hybrid->params, "*.self_attn.*", true);
    *out = hybrid;
    hybrid = NULL;
done:
    pn_model_destroy(&hybrid);
    pn_params_destroy(&shared);
    return s;
}
