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

/* Copies a candidate's weights into the hybrid's mixer, name by name below their prefixes. */
static pn_status copy_mixer(const pn_model *from, const pn_block *source, pn_model *to, const pn_block *target) {
    size_t n = strlen(source->prefix);
    for (int i = 0; i < from->params->n; i++) {
        const pn_param *p = from->params->item[i];
        if (strncmp(p->name, source->prefix, n)) continue;
        char name[2 * PN_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", target->prefix, p->name + n);
        pn_param *q = pn_params_find(to->params, name);
        PN_ASSERT(q);
        PN_TRY(pn_tensor_copy(q->value, p->value));
    }
    return PN_OK;
}

pn_status pn_supernet_extract(const pn_model *m, const pn_path *path, pn_model **out) {
    pn_status s;
    pn_params *shared = NULL;
    pn_model *hybrid = NULL;
    pn_model_config config = m->config;
    for (int l = 0; l < config.n_layers; l++) config.layer[l] = m->layer[l].candidate[path->choice[l]]->spec;
    PN_TRY_GOTO(s, pn_params_create(m->params->dtype, &shared), done);
    PN_TRY_GOTO(s, shared_weights(m, shared), done);
    PN_TRY_GOTO(s, pn_model_create(&config, m->params->dtype, shared, &hybrid), done);
    for (int l = 0; l < config.n_layers; l++)
        PN_TRY_GOTO(s, copy_mixer(m, m->layer[l].candidate[path->choice[l]], hybrid, hybrid->layer[l].candidate[0]),
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
