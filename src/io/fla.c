#include "fla_internal.h"

#include <string.h>

#include "hf_config.h"

/* ---- the model types ---- */

static const pn_fla_rule common[] = {
    { "attnres_block_size", "null", NULL, "layers that see earlier layers' outputs have no counterpart" },
    { "conv_bias", "false", NULL, "convolutions with biases have no counterpart" },
    { NULL },
};

#define PLAIN_OUTPUT                                                                                                   \
    { "feature_map", "null", NULL, "feature maps have no counterpart" },                                               \
        { "use_output_gate", "true", NULL, "layers without output gate have no counterpart" }, {                       \
        "elementwise_affine", "true", NULL, "output norms without weight have no counterpart"                          \
    }

static const pn_fla_kind kinds[] = {
    { .model_type = "retnet",
      .architecture = "RetNetForCausalLM",
      .block = &pn_block_retnet,
      .hidden_ratio = 2,
      .rule = { PLAIN_OUTPUT,
                { "use_short_conv", "false", NULL, "fla's RetNet model makes its layers without convolutions" } } },
    { .model_type = "gla",
      .architecture = "GLAForCausalLM",
      .block = &pn_block_gla,
      .hidden_ratio = 4,
      .rule = { PLAIN_OUTPUT,
                { "gate_low_rank_dim", "16", NULL, "fla's GLA model has rank 16 always" },
                { "gate_logit_normalizer", "16", NULL, "fla's GLA model divides by 16 always" } } },
    { .model_type = "delta_net",
      .architecture = "DeltaNetForCausalLM",
      .block = &pn_block_deltanet,
      .hidden_ratio = 4 },
    { .model_type = "gated_deltanet",
      .architecture = "GatedDeltaNetForCausalLM",
      .block = &pn_block_gated_deltanet,
      .hidden_ratio = 4,
      .has_head_dim = true,
      .rule = { { "use_short_conv", "true", NULL, "layers without convolutions have no counterpart" },
                { "output_gate_activation", "\"swish\"", "\"silu\"", "other gates have no counterpart" } } },
};

const pn_fla_kind *pn_fla_find(const char *model_type) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].model_type, model_type)) return &kinds[i];
    return NULL;
}

const char *pn_fla_model_type(const pn_fla_kind *kind) {
    return kind->model_type;
}

/* ---- rules ---- */

const pn_fla_rule *pn_fla_rule_of(const pn_fla_kind *kind, const char *key) {
    for (const pn_fla_rule *r = kind->rule; r->key; r++)
        if (!strcmp(r->key, key)) return r;
    for (const pn_fla_rule *r = common; r->key; r++)
        if (!strcmp(r->key, key)) return r;
    return NULL;
}

pn_status pn_fla_each_rule(const pn_fla_kind *kind, pn_status (*f)(void *ctx, const pn_fla_rule *r), void *ctx) {
    for (const pn_fla_rule *r = kind->rule; r->key; r++) PN_TRY(f(ctx, r));
    for (const pn_fla_rule *r = common; r->key; r++) PN_TRY(f(ctx, r));
    return PN_OK;
}

json_t *pn_fla_value(const char *text) {
    return json_loads(text, JSON_DECODE_ANY, NULL);
}

static bool is(const json_t *v, const char *text) {
    json_t *wanted = pn_fla_value(text);
    bool same = json_is_number(v) && json_is_number(wanted) ? json_number_value(v) == json_number_value(wanted)
                                                            : json_equal(v, wanted);
    json_decref(wanted);
    return same;
}

bool pn_fla_obeys(const pn_fla_rule *r, const json_t *v) {
    return is(v, r->value) || (r->alias && is(v, r->alias));
}

/* ---- which hybrids fit ---- */

#define INSTEAD "; write it as jet_nemotron"

static const struct {
    const pn_block_type *block;
    const char *why;
} strangers[] = {
    { &pn_block_none, "fla has no layer without a token mixer" },
    { &pn_block_jet, "fla has no JetBlock" },
    { &pn_block_mamba2, "fla's Mamba-2 model has neither MLPs nor attention layers" },
    { &pn_block_rwkv7, "fla's RWKV-7 model has layer norms and a feed-forward network of its own" },
};

static const pn_fla_kind *kind_of(const pn_block_type *block) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].block == block) return &kinds[i];
    return NULL;
}

static const char *why_not(const pn_block_type *block) {
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        if (strangers[i].block == block) return strangers[i].why;
    return "fla has no such block";
}

static const void *option_field(const pn_block_spec *spec, const char *name) {
    const pn_option *row = pn_option_find(spec->type->options, name);
    return row ? spec->options + row->offset : NULL;
}

/* *linear: the layer whose block all linear layers have; -1: there is none. */
static pn_status one_linear_block(const char *where, const pn_model_config *c, int *linear) {
    *linear = -1;
    for (int l = 0; l < c->n_layers; l++) {
        const pn_block_spec *spec = &c->layer[l];
        if (spec->type->attention_weights) continue;
        PN_CHECK(kind_of(spec->type), PN_UNSUPPORTED, "%s: layer %d is %s, and %s" INSTEAD, where, l, spec->type->name,
                 why_not(spec->type));
        if (*linear < 0) *linear = l;
        const pn_block_spec *first = &c->layer[*linear];
        PN_CHECK(spec->type == first->type, PN_UNSUPPORTED,
                 "%s: layer %d is %s and layer %d %s, but a model of fla has one type of linear block" INSTEAD, where,
                 *linear, first->type->name, l, spec->type->name);
        PN_CHECK(pn_block_spec_equal(spec, first), PN_UNSUPPORTED,
                 "%s: layers %d and %d are both %s with different settings, but a model of fla has one setting" INSTEAD,
                 where, *linear, l, spec->type->name);
    }
    return PN_OK;
}

static pn_status block_fits(const char *where, const pn_model_config *c, const pn_fla_kind *kind,
                            const pn_block_spec *spec) {
    const char *name = spec->type->name;
    for (const pn_option *row = spec->type->options; row->name; row++) {
        PN_CHECK(!row->extension || !*(const bool *)(spec->options + row->offset), PN_UNSUPPORTED,
                 "%s: %s has %s, an extension of postnas that fla has not" INSTEAD, where, name, row->name);
        const pn_fla_rule *r = pn_fla_rule_of(kind, row->name);
        if (!r) continue;
        json_t *v = pn_hf_option_json(row, spec->options);
        bool obeys = pn_fla_obeys(r, v);
        json_decref(v);
        pn_buf text = { 0 };
        pn_option_text(row, spec->options, &text);
        pn_status s = PN_OK;
        if (!obeys)
            s = pn_fail_at(__FILE__, __LINE__, PN_UNSUPPORTED, "%s: %s of %s is %s, but %s" INSTEAD, where, row->name,
                           name, pn_buf_string(&text), r->why);
        pn_buf_free(&text);
        PN_TRY(s);
    }
    const double eps = *(const double *)option_field(spec, "norm_eps");
    PN_CHECK(eps == c->dims.rms_norm_eps, PN_UNSUPPORTED,
             "%s: norm_eps of %s is %g and the layers' rms_norm_eps is %g, but a model of fla has one for both" INSTEAD
             ", or train the blocks with norm_eps: %g",
             where, name, eps, c->dims.rms_norm_eps, c->dims.rms_norm_eps);
    return PN_OK;
}

pn_status pn_fla_fits(const char *where, const pn_model_config *c, const pn_fla_kind **out) {
    int linear;
    PN_TRY(one_linear_block(where, c, &linear));
    PN_CHECK(linear >= 0, PN_UNSUPPORTED,
             "%s: every layer is softmax attention; fla's hybrids have a linear block: write it as %s", where,
             pn_hf_model_type(pn_hf_kind_of(c, PN_HF_AUTO)));
    *out = kind_of(c->layer[linear].type);
    PN_TRY(block_fits(where, c, *out, &c->layer[linear]));
    const pn_dims *d = &c->dims;
    for (int l = 0; l < c->n_layers; l++)
        PN_CHECK(!c->layer[l].type->attention_weights || d->heads * d->head_dim == d->hidden, PN_UNSUPPORTED,
                 "%s: layer %d is attention of %lld heads of %lld, but fla's attention is as wide as the hidden size, "
                 "%lld" INSTEAD,
                 where, l, (long long)d->heads, (long long)d->head_dim, (long long)d->hidden);
    return PN_OK;
}

/* ---- config.json ---- */

static json_t *option_value(const pn_option *row, const pn_block_spec *spec, const pn_fla_kind *kind,
                            const pn_dims *d) {
    const double number = row->kind == PN_OPTION_FLOAT ? *(const double *)(spec->options + row->offset) : 0;
    if (!strncmp(row->name, "expand_", 7))
        return json_real(
            pn_hf_expand(number, kind->has_head_dim ? *(const int64_t *)option_field(spec, "head_dim") : d->hidden, 1));
    if (!strcmp(row->name, "clamp_min") && number <= row->min) return json_null(); /* no limit */
    return pn_hf_option_json(row, spec->options);
}

static void put_block(json_t *o, const pn_block_spec *spec, const pn_fla_kind *kind, const pn_dims *d) {
    for (const pn_option *row = spec->type->options; row->name; row++)
        if (!row->extension && strcmp(row->name, "norm_eps") && !pn_fla_rule_of(kind, row->name))
            json_object_set_new(o, row->name, option_value(row, spec, kind, d));
}

static pn_status put_rule(void *o, const pn_fla_rule *r) {
    json_object_set_new(o, r->key, pn_fla_value(r->value));
    return PN_OK;
}

/* Of a layer of attention; 0: it sees everything. */
static int64_t window_of(const pn_block_spec *spec) {
    const int64_t *window = option_field(spec, "window_size");
    return window ? *window : 0;
}

/* The attention layers of one window, first to last. */
static json_t *attention_json(const pn_model_config *c, int64_t window) {
    json_t *layers = json_array();
    for (int l = 0; l < c->n_layers; l++)
        if (c->layer[l].type->attention_weights && window_of(&c->layer[l]) == window)
            json_array_append_new(layers, json_integer(l));
    json_t *o = json_pack("{s:o, s:I, s:I, s:b}", "layers", layers, "num_heads", (json_int_t)c->dims.heads,
                          "num_kv_heads", (json_int_t)c->dims.kv_heads, "qkv_bias", (int)c->dims.qkv_bias);
    json_object_set_new(o, "window_size", window ? json_integer(window) : json_null());
    json_object_set_new(o, "rope_theta", json_real(c->dims.rope_theta));
    return o;
}

/* null; an object; or, where windows differ, a list of them. */
static json_t *attn_json(const pn_model_config *c) {
    json_t *list = json_array();
    for (int l = 0; l < c->n_layers; l++) {
        if (!c->layer[l].type->attention_weights) continue;
        bool seen = false;
        for (int k = 0; k < l && !seen; k++)
            seen = c->layer[k].type->attention_weights && window_of(&c->layer[k]) == window_of(&c->layer[l]);
        if (!seen) json_array_append_new(list, attention_json(c, window_of(&c->layer[l])));
    }
    if (json_array_size(list) > 1) return list;
    json_t *only = json_array_size(list) ? json_incref(json_array_get(list, 0)) : json_null();
    json_decref(list);
    return only;
}

json_t *pn_fla_config_json(const pn_model_config *c, const pn_fla_kind *kind) {
    const pn_dims *d = &c->dims;
    int linear = 0;
    while (c->layer[linear].type != kind->block) linear++;
    json_t *o = json_pack("{s:[s], s:s, s:s}", "architectures", kind->architecture, "model_type", kind->model_type,
                          "attn_mode", "chunk");
    if (!o) return NULL;
    json_object_set_new(o, "hidden_size", json_integer(d->hidden));
    json_object_set_new(o, "hidden_ratio", json_null()); /* intermediate_size says it */
    json_object_set_new(o, "intermediate_size", json_integer(d->intermediate));
    json_object_set_new(o, "num_hidden_layers", json_integer(c->n_layers));
    put_block(o, &c->layer[linear], kind, d);
    pn_fla_each_rule(kind, put_rule, o);
    json_object_set_new(o, "norm_eps", json_real(d->rms_norm_eps));
    json_object_set_new(o, "attn", attn_json(c));
    json_object_set_new(o, "hidden_act", json_string("swish"));
    json_object_set_new(o, "max_position_embeddings", json_integer(c->max_position));
    json_object_set_new(o, "vocab_size", json_integer(c->vocab));
    json_object_set_new(o, "tie_word_embeddings", json_boolean(c->tied));
    json_object_set_new(o, "initializer_range", json_real(c->initializer_range));
    json_object_set_new(o, "bos_token_id", pn_hf_token(c->bos));
    json_object_set_new(o, "eos_token_id", pn_hf_token(c->eos));
    json_object_set_new(o, "use_cache", json_true());
    json_object_set_new(o, "torch_dtype", json_string(pn_hf_dtype_name(c->file_dtype)));
    return o;
}
