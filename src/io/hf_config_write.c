/* config.json as Hugging Face writes it for these model types. */
#include <math.h>
#include <string.h>

#include "files.h"
#include "fla.h"
#include "hf_config.h"
#include "hf_internal.h"

static bool is_full_attention(const pn_model_config *c) {
    for (int l = 0; l < c->n_layers; l++)
        if (strcmp(c->layer[l].type->hf_name, "attn") != 0) return false;
    return true;
}

pn_hf_kind pn_hf_kind_of(const pn_model_config *c, pn_hf_kind asked) {
    if (asked != PN_HF_AUTO) return asked;
    if (!is_full_attention(c)) return PN_HF_JET_NEMOTRON;
    return c->dims.qkv_bias ? PN_HF_QWEN2 : PN_HF_LLAMA;
}

static const struct {
    const char *model_type, *architecture;
} kinds[] = {
    [PN_HF_QWEN2] = { "qwen2", "Qwen2ForCausalLM" },
    [PN_HF_LLAMA] = { "llama", "LlamaForCausalLM" },
    [PN_HF_JET_NEMOTRON] = { "jet_nemotron", "JetNemotronForCausalLM" },
    [PN_HF_FLA] = { "fla", NULL }, /* the model type follows from the hybrid */
};

const char *pn_hf_model_type(pn_hf_kind kind) {
    return kinds[kind].model_type;
}

json_t *pn_hf_token(int32_t id) {
    return id < 0 ? json_null() : json_integer(id);
}

const char *pn_hf_dtype_name(pn_dtype t) {
    return t == PN_BF16 ? "bfloat16" : t == PN_F16 ? "float16" : "float32";
}

/* ---- the hybrid's layers ---- */

json_t *pn_hf_option_json(const pn_option *row, const void *options) {
    const void *field = (const char *)options + row->offset;
    switch (row->kind) {
    case PN_OPTION_BOOL: return json_boolean(*(const bool *)field);
    case PN_OPTION_INT: return json_integer(*(const int64_t *)field);
    case PN_OPTION_FLOAT: return json_real(*(const double *)field);
    case PN_OPTION_ENUM: return json_string(row->choices[*(const int64_t *)field]);
    case PN_OPTION_INTS: {
        json_t *list = json_array();
        for (int64_t i = 0; i < ((const pn_int_list *)field)->n; i++)
            json_array_append_new(list, json_integer(((const pn_int_list *)field)->item[i]));
        return list;
    }
    case PN_OPTION_STRING:
    case PN_OPTION_STRINGS:
    case PN_OPTION_RAMP:
    case PN_OPTION_SECTION: break;
    }
    PN_ASSERT(!"a block option of this kind");
}

static bool cuts_to(double expand, int64_t base, double width) {
    const double product = (double)base * expand;
    return floor(product) == width && product - width <= 1e-9 * width;
}

double pn_hf_expand(double expand, int64_t base, int64_t heads) {
    const double width = nearbyint((double)base * expand);
    if (width < 1) return expand; /* a head's width that is still open */
    if (cuts_to(expand, base, width) && cuts_to(expand, base * heads, width * (double)heads)) return expand;
    double ratio = width / (double)base;
    while (!cuts_to(ratio, base, width) || !cuts_to(ratio, base * heads, width * (double)heads))
        ratio = nextafter(ratio, INFINITY);
    return ratio;
}

/* As the published code takes them, which cuts products off (blocks.md 10.2). */
static void put_published(json_t *settings, const pn_block_spec *spec) {
    const pn_option *all = spec->type->options;
    const int64_t head_dim = *(const int64_t *)(spec->options + pn_option_find(all, "head_dim")->offset);
    const int64_t heads = *(const int64_t *)(spec->options + pn_option_find(all, "num_heads")->offset);
    const double expand = *(const double *)(spec->options + pn_option_find(all, "expand_v")->offset);
    json_object_set_new(settings, "expand_v", json_real(pn_hf_expand(expand, head_dim, heads)));
}

static json_t *settings_json(const pn_block_spec *spec) {
    json_t *settings = json_object();
    if (!strcmp(spec->type->hf_name, "jet")) { /* kernels of the published code */
        json_object_set_new(settings, "mode", json_string("chunk"));
        json_object_set_new(settings, "dconv_implementation", json_string("triton"));
    }
    const bool extended = pn_block_spec_extended(spec);
    for (const pn_option *row = spec->type->options; row->name; row++)
        if (extended || !row->extension)
            json_object_set_new(settings, row->name, pn_hf_option_json(row, spec->options));
    if (!strcmp(spec->type->hf_name, "jet")) put_published(settings, spec);
    return settings;
}

#define PUBLISHED_CODE "jet-ai/Jet-Nemotron-2B--"

static void put_hybrid(json_t *o, const pn_model_config *c) {
    json_object_set_new(o, "auto_map",
                        json_pack("{s:s, s:s}", "AutoConfig",
                                  PUBLISHED_CODE "configuration_jet_nemotron.JetNemotronConfig", "AutoModelForCausalLM",
                                  PUBLISHED_CODE "modeling_jet_nemotron.JetNemotronForCausalLM"));
    json_t *types = json_array(), *settings = json_object();
    for (int l = 0; l < c->n_layers; l++) {
        char name[PN_HF_LAYER_NAME];
        pn_hf_layer_name(c, l, name);
        json_array_append_new(types, json_string(name));
        if (c->layer[l].type->options && !json_object_get(settings, name))
            json_object_set_new(settings, name, settings_json(&c->layer[l]));
    }
    json_object_set_new(o, "layer_types", types);
    json_object_set_new(o, "efficient_attention_config", settings);
}

/* ---- the file ---- */

static json_t *config_json(const pn_model_config *c, pn_hf_kind kind) {
    const pn_dims *d = &c->dims;
    json_t *o =
        json_pack("{s:[s], s:s}", "architectures", kinds[kind].architecture, "model_type", kinds[kind].model_type);
    if (!o) return NULL;
    if (kind == PN_HF_JET_NEMOTRON) put_hybrid(o, c);
    json_object_set_new(o, "hidden_size", json_integer(d->hidden));
    json_object_set_new(o, "intermediate_size", json_integer(d->intermediate));
    json_object_set_new(o, "num_hidden_layers", json_integer(c->n_layers));
    json_object_set_new(o, "num_attention_heads", json_integer(d->heads));
    json_object_set_new(o, "num_key_value_heads", json_integer(d->kv_heads));
    if (d->head_dim * d->heads != d->hidden) json_object_set_new(o, "head_dim", json_integer(d->head_dim));
    json_object_set_new(o, "vocab_size", json_integer(c->vocab));
    json_object_set_new(o, "max_position_embeddings", json_integer(c->max_position));
    json_object_set_new(o, "hidden_act", json_string("silu"));
    json_object_set_new(o, "rms_norm_eps", json_real(d->rms_norm_eps));
    json_object_set_new(o, "rope_theta", json_real(d->rope_theta));
    json_object_set_new(o, "rope_scaling", json_null());
    json_object_set_new(o, "attention_dropout", json_real(0));
    if (kind == PN_HF_LLAMA) {
        json_object_set_new(o, "attention_bias", json_false());
        json_object_set_new(o, "mlp_bias", json_false());
    } else {
        json_object_set_new(o, "use_sliding_window", json_false());
    }
    json_object_set_new(o, "initializer_range", json_real(c->initializer_range));
    json_object_set_new(o, "tie_word_embeddings", json_boolean(c->tied));
    json_object_set_new(o, "bos_token_id", pn_hf_token(c->bos));
    json_object_set_new(o, "eos_token_id", pn_hf_token(c->eos));
    json_object_set_new(o, "use_cache", json_true());
    json_object_set_new(o, "torch_dtype", json_string(pn_hf_dtype_name(c->file_dtype)));
    return o;
}

static pn_status write_json(const char *path, json_t *o) {
    PN_CHECK(o, PN_MEMORY, "out of memory");
    pn_status s = pn_json_write(path, o);
    json_decref(o);
    return s;
}

pn_status pn_hf_config_fits(const char *where, const pn_model_config *c, pn_hf_kind asked) {
    pn_hf_kind kind = pn_hf_kind_of(c, asked);
    const pn_fla_kind *fla;
    if (kind == PN_HF_FLA) return pn_fla_fits(where, c, &fla);
    PN_CHECK(kind == PN_HF_JET_NEMOTRON || is_full_attention(c), PN_UNSUPPORTED,
             "%s: %s has full attention in every layer, this model has not; write it as jet_nemotron", where,
             kinds[kind].model_type);
    PN_CHECK(kind != PN_HF_LLAMA || !c->dims.qkv_bias, PN_UNSUPPORTED,
             "%s: llama has no biases on q, k and v alone, this model has; write it as qwen2 or jet_nemotron", where);
    return PN_OK;
}

pn_status pn_hf_config_write(const char *path, const pn_model_config *c, pn_hf_kind asked) {
    pn_hf_kind kind = pn_hf_kind_of(c, asked);
    PN_TRY(pn_hf_config_fits(path, c, kind));
    if (kind != PN_HF_FLA) return write_json(path, config_json(c, kind));
    const pn_fla_kind *fla;
    PN_TRY(pn_fla_fits(path, c, &fla));
    return write_json(path, pn_fla_config_json(c, fla));
}

pn_status pn_hf_generation_config_write(const char *path, const pn_model_config *c) {
    json_t *o = json_pack("{s:b}", "_from_model_config", 1);
    if (o && c->bos >= 0) json_object_set_new(o, "bos_token_id", pn_hf_token(c->bos));
    if (o && c->eos >= 0) json_object_set_new(o, "eos_token_id", pn_hf_token(c->eos));
    return write_json(path, o);
}
