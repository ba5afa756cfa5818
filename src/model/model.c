#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "add/add.h"
#include "add_rms_norm/add_rms_norm.h"
#include "embedding/embedding.h"
#include "linear/linear.h"
#include "range.h"
#include "rms_norm/rms_norm.h"

/* Sizes no machine has: refused before anything is multiplied or allocated. */
static const int64_t max_width = 1 << 20, max_vocab = 1 << 24;

static pn_status check_size(const char *name, int64_t value, int64_t max) {
    PN_CHECK(value >= 1 && value <= max, PN_USAGE, "model: %s is %lld; it must lie in 1 .. %lld", name,
             (long long)value, (long long)max);
    return PN_OK;
}

pn_status pn_model_config_check(const pn_model_config *c) {
    const pn_dims *d = &c->dims;
    PN_TRY(check_size("num_hidden_layers", c->n_layers, PN_MAX_LAYERS));
    PN_TRY(check_size("hidden_size", d->hidden, max_width));
    PN_TRY(check_size("intermediate_size", d->intermediate, max_width));
    PN_TRY(check_size("vocab_size", c->vocab, max_vocab));
    PN_TRY(check_size("num_attention_heads", d->heads, 4096));
    PN_TRY(check_size("num_key_value_heads", d->kv_heads, d->heads));
    PN_TRY(check_size("head_dim", d->head_dim, 1024));
    PN_CHECK(d->heads % d->kv_heads == 0, PN_USAGE,
             "model: num_attention_heads %lld is not a multiple of num_key_value_heads %lld", (long long)d->heads,
             (long long)d->kv_heads);
    PN_CHECK(d->head_dim % 2 == 0, PN_USAGE, "model: head_dim %lld is odd; rotary positions pair its channels",
             (long long)d->head_dim);
    PN_CHECK(d->rope_theta > 1 && d->rope_theta < 1e12, PN_USAGE, "model: rope_theta %g must lie between 1 and 1e12",
             d->rope_theta);
    PN_CHECK(d->rms_norm_eps > 0 && d->rms_norm_eps < 1, PN_USAGE, "model: rms_norm_eps %g must lie between 0 and 1",
             d->rms_norm_eps);
    for (int l = 0; l < c->n_layers; l++)
        PN_CHECK(c->layer[l].type && c->layer[l].type->role == PN_MIXER, PN_USAGE, "model: layer %d has no token mixer",
                 l);
    return PN_OK;
}

static pn_status declare(pn_model *m, const char *name, int rank, int64_t rows, int64_t cols, pn_tensor **out) {
    bool norm = rank == 1;
    pn_param_spec spec = { .name = name,
                           .rank = rank,
                           .shape = { rows, cols },
                           .init = norm ? (pn_init){ PN_INIT_ONES, 0, 0 }
                                        : (pn_init){ PN_INIT_NORMAL, m->config.initializer_range, 0 },
                           .decay = !norm,
                           .keep_f32 = norm };
    pn_param *p;
    PN_TRY(pn_params_declare(m->params, &spec, &p));
    *out = p->value;
    return PN_OK;
}

/* The sizes that blocks of layer l are made with. */
static pn_dims dims_at(const pn_model *m, int l) {
    pn_dims dims = m->config.dims;
    dims.place = (pn_place){ .layer = l, .n_layers = m->config.n_layers };
    for (int k = 0; k < l; k++)
        for (int c = 0; c < m->layer[k].n_candidates; c++)
            dims.place.carried = dims.place.carried || pn_block_spec_crosses_layers(&m->layer[k].candidate[c]->spec);
    return dims;
}

static pn_status create_layer(pn_model *m, int l) {
    pn_layer *layer = &m->layer[l];
    const pn_dims dims = dims_at(m, l);
    const int64_t D = dims.hidden;
    char name[PN_NAME_MAX];
    snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", l);
    PN_TRY(declare(m, name, 1, D, 0, &layer->input_norm));
    snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", l);
    PN_TRY(declare(m, name, 1, D, 0, &layer->post_norm));
    snprintf(name, sizeof name, "model.layers.%d.self_attn.", l);
    PN_TRY(pn_block_create(&m->config.layer[l], &dims, m->params, name, &layer->candidate[0]));
    layer->n_candidates = 1;
    m->config.layer[l] = layer->candidate[0]->spec; /* with its automatic options resolved */
    pn_block_spec mlp;
    PN_TRY(pn_block_spec_default(&pn_block_mlp, &mlp));
    snprintf(name, sizeof name, "model.layers.%d.mlp.", l);
    PN_TRY(pn_block_create(&mlp, &dims, m->params, name, &layer->mlp));
    return PN_OK;
}

static pn_status create(const pn_model_config *config, pn_dtype dtype, const pn_params *share,
                        const pn_param_guard *guard, pn_model **out) {
    PN_TRY(pn_model_config_check(config));
    pn_status s;
    pn_model *m = calloc(1, sizeof *m);
    PN_CHECK(m, PN_MEMORY, "out of memory");
    m->config = *config;
    m->layer = calloc((size_t)config->n_layers, sizeof *m->layer);
    if (!m->layer) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    if (share)
        PN_TRY_GOTO(s, pn_params_create_like(share, &m->params), fail);
    else
        PN_TRY_GOTO(s, pn_params_create(dtype, &m->params), fail);
    m->params->lender = share;
    m->params->guard = guard;
    const int64_t V = config->vocab, D = config->dims.hidden;
    PN_TRY_GOTO(s, declare(m, "model.embed_tokens.weight", 2, V, D, &m->embed), fail);
    for (int l = 0; l < config->n_layers; l++) PN_TRY_GOTO(s, create_layer(m, l), fail);
    PN_TRY_GOTO(s, declare(m, "model.norm.weight", 1, D, 0, &m->norm), fail);
    m->head = m->embed;
    if (!config->tied) PN_TRY_GOTO(s, declare(m, "lm_head.weight", 2, V, D, &m->head), fail);
    m->params->lender = NULL;
    m->params->guard = NULL;
    *out = m;
    return PN_OK;
fail:
    pn_model_destroy(&m);
    return s;
}

pn_status pn_model_create(const pn_model_config *config, pn_dtype dtype, const pn_params *share, pn_model **out) {
    return create(config, dtype, share, NULL, out);
}

pn_status pn_model_create_guarded(const pn_model_config *config, pn_dtype dtype, const pn_param_guard *guard,
                                  pn_model **out) {
    return create(config, dtype, NULL, guard, out);
}

void pn_model_destroy(pn_model **mp) {
    if (!mp || !*mp) return;
    pn_model *m = *mp;
    for (int l = 0; m->layer && l < m->config.n_layers; l++) {
        for (int i = 0; i < m->layer[l].n_candidates; i++) pn_block_destroy(&m->layer[l].candidate[i]);
        pn_block_destroy(&m->layer[l].mlp);
    }
    free(m->layer);
    pn_params_destroy(&m->params);
    free(m);
    *mp = NULL;
}

pn_status pn_model_add_candidate(pn_model *m, int l, const pn_block_spec *spec, int *index) {
    pn_layer *layer = &m->layer[l];
    PN_CHECK(layer->n_candidates < PN_MAX_CANDIDATES, PN_USAGE, "layer %d: more than %d candidates", l,
             PN_MAX_CANDIDATES);
    int twins = 0; /* the same block type with other options gets a number */
    for (int i = 1; i < layer->n_candidates; i++) twins += layer->candidate[i]->spec.type == spec->type;
    char prefix[PN_NAME_MAX], number[16] = "";
    if (twins) snprintf(number, sizeof number, "_%d", twins + 1);
    snprintf(prefix, sizeof prefix, "model.layers.%d.candidates.%s%s.", l, spec->type->name, number);
    const pn_dims dims = dims_at(m, l);
    PN_TRY(pn_block_create(spec, &dims, m->params, prefix, &layer->candidate[layer->n_candidates]));
    *index = layer->n_candidates++;
    return PN_OK;
}

pn_path pn_model_own_path(const pn_model *m) {
    return (pn_path){ .n = m->config.n_layers };
}

void pn_model_path_config(const pn_model *m, const pn_path *path, pn_model_config *out) {
    *out = m->config;
    for (int l = 0; l < out->n_layers; l++) out->layer[l] = m->layer[l].candidate[path ? path->choice[l] : 0]->spec;
}

pn_status pn_model_embed(const pn_model *m, pn_tape *t, pn_tensor *ids, pn_tensor **h) {
    PN_TRY(pn_embedding(t, ids, m->embed, h));
    return PN_OK;
}

pn_status pn_model_mixer_input(const pn_model *m, int l, pn_tape *t, pn_tensor *h, pn_tensor **x) {
    PN_TRY(pn_rms_norm(t, h, m->layer[l].input_norm, m->config.dims.rms_norm_eps, x));
    return PN_OK;
}

pn_status pn_model_mlp_half(const pn_model *m, int l, pn_tape *t, pn_tensor *h, pn_tensor *y, pn_tensor **out) {
    pn_tensor *x, *z, *w = m->layer[l].post_norm;
    const double eps = m->config.dims.rms_norm_eps;
    /* In backward one op gains nothing, and a norm alone can be made again from its input. */
    if (y && !pn_tape_differentiates(t)) {
        PN_TRY(pn_add_rms_norm(t, h, y, w, eps, &h, &x));
    } else {
        if (y) PN_TRY(pn_add(t, h, y, &h));
        PN_TRY(pn_rms_norm(t, h, w, eps, &x));
    }
    pn_docs none = { 0 };
    PN_TRY(m->layer[l].mlp->spec.type->forward(m->layer[l].mlp, t, x, &none, NULL, NULL, &z));
    PN_TRY(pn_add(t, h, z, out));
    return PN_OK;
}

/* One layer, training (state NULL) or decoding. */
static pn_status layer(const pn_model *m, int l, int choice, pn_tape *t, pn_tensor *h, const pn_docs *docs,
                       pn_state *state, pn_carry *carry, pn_tensor **out) {
    PN_ASSERT(choice < m->layer[l].n_candidates);
    pn_scope scope = pn_scope_open(t);
    pn_block *mixer = m->layer[l].candidate[choice];
    pn_tensor *y = NULL;
    if (mixer->spec.type != &pn_block_none) {
        pn_tensor *x;
        PN_TRY(pn_model_mixer_input(m, l, t, h, &x));
        if (state)
            PN_TRY(pn_block_extend(mixer, t, x, docs, state, carry, &y));
        else
            PN_TRY(pn_block_forward(mixer, t, x, docs, carry, &y));
    }
    PN_TRY(pn_model_mlp_half(m, l, t, h, y, out));
    pn_tensor *keep[] = { *out, carry ? carry->v_first : NULL };
    pn_scope_close(t, scope, keep, 2);
    return PN_OK;
}

/* The same, with a name in profilers. */
static pn_status named_layer(const pn_model *m, int l, int choice, pn_tape *t, pn_tensor *h, const pn_docs *docs,
                             pn_state *state, pn_carry *carry, pn_tensor **out) {
    pn_range_begin("layer", l);
    pn_status s = layer(m, l, choice, t, h, docs, state, carry, out);
    pn_range_end();
    return s;
}

pn_status pn_model_layer(const pn_model *m, int l, int choice, pn_tape *t, pn_tensor *h, const pn_docs *docs,
                         pn_carry *carry, pn_tensor **out) {
    return named_layer(m, l, choice, t, h, docs, NULL, carry, out);
}

pn_status pn_model_final(const pn_model *m, pn_tape *t, pn_tensor *h, pn_tensor **hidden) {
    PN_TRY(pn_rms_norm(t, h, m->norm, m->config.dims.rms_norm_eps, hidden));
    return PN_OK;
}

static pn_status hidden_states(const pn_model *m, const pn_path *path, pn_cache *cache, pn_tape *t, pn_tensor *ids,
                               const pn_docs *docs, pn_tensor **hidden) {
    pn_scope scope = pn_scope_open(t);
    pn_tensor *h;
    pn_carry carry = { 0 };
    PN_TRY(pn_model_embed(m, t, ids, &h));
    for (int l = 0; l < m->config.n_layers; l++) {
        pn_tensor *next;
        PN_TRY(
            named_layer(m, l, path ? path->choice[l] : 0, t, h, docs, cache ? cache->layer[l] : NULL, &carry, &next));
        pn_tensor *keep[] = { next, carry.v_first };
        pn_scope_close(t, scope, keep, 2);
        h = next;
    }
    PN_TRY(pn_model_final(m, t, h, hidden));
    pn_scope_close(t, scope, hidden, 1);
    return PN_OK;
}

pn_status pn_model_hidden(const pn_model *m, const pn_path *path, pn_tape *t, pn_tensor *ids, const pn_docs *docs,
                          pn_tensor **hidden) {
    return hidden_states(m, path, NULL, t, ids, docs, hidden);
}

pn_status pn_model_logits(const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tensor **logits) {
    PN_TRY(pn_linear(t, hidden, m->head, NULL, logits));
    return PN_OK;
}

/* ---- decoding ---- */

pn_status pn_cache_create(const pn_model *m, const pn_path *path, int64_t n_sequences, pn_cache **out) {
    pn_status s;
    pn_cache *c = calloc(1, sizeof *c);
    PN_CHECK(c, PN_MEMORY, "out of memory");
    c->n_layers = m->config.n_layers;
    c->path = path ? *path : pn_model_own_path(m);
    c->layer = calloc((size_t)c->n_layers, sizeof *c->layer);
    if (!c->layer) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, pn_pool_create(pn_backend_pool(m->params->backend), &c->pool), fail);
    for (int l = 0; l < c->n_layers; l++)
        PN_TRY_GOTO(s,
                    pn_state_create(m->layer[l].candidate[c->path.choice[l]], n_sequences, c->pool, m->params->dtype,
                                    &c->layer[l]),
                    fail);
    *out = c;
    return PN_OK;
fail:
    pn_cache_destroy(&c);
    return s;
}

void pn_cache_destroy(pn_cache **c) {
    if (!c || !*c) return;
    for (int l = 0; (*c)->layer && l < (*c)->n_layers; l++) pn_state_destroy(&(*c)->layer[l]);
    free((*c)->layer);
    pn_pool_destroy(&(*c)->pool);
    free(*c);
    *c = NULL;
}

pn_status pn_model_extend(const pn_model *m, pn_cache *c, pn_tape *t, pn_tensor *ids, const pn_docs *docs,
                          pn_tensor **hidden) {
    return hidden_states(m, &c->path, c, t, ids, docs, hidden);
}

double pn_model_cache_bytes(const pn_model *m, const pn_path *path, int64_t context, size_t activation_bytes) {
    double bytes = 0;
    for (int l = 0; l < m->config.n_layers; l++)
        bytes += pn_block_cache_bytes(m->layer[l].candidate[path ? path->choice[l] : 0], context, activation_bytes);
    return bytes;
}
