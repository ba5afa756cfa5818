#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "fla.h"
#include "json.h"
#include "model_load.h"
#include "weights_writer.h"

/* ---- zero biases where the model type has them and the model has not ---- */

static bool needs_biases(const pn_model *m, pn_hf_kind kind, int layer) {
    return (kind == PN_HF_QWEN2 || kind == PN_HF_JET_NEMOTRON) && !m->config.dims.qkv_bias &&
           m->config.layer[layer].type->attention_weights;
}

static const char *const biased[] = { "q_proj.bias", "k_proj.bias", "v_proj.bias" };

static void bias_name(char *name, size_t n, int layer, int which) {
    snprintf(name, n, "model.layers.%d.self_attn.%s", layer, biased[which]);
}

static int64_t bias_length(const pn_dims *d, int which) {
    return (which == 0 ? d->heads : d->kv_heads) * d->head_dim;
}

static pn_status put_biases(const pn_model *m, int layer, pn_weights_writer *w) {
    for (int k = 0; k < 3; k++) {
        char name[PN_NAME_MAX];
        int64_t n = bias_length(&m->config.dims, k);
        pn_tensor *zero;
        bias_name(name, sizeof name, layer, k);
        PN_TRY(pn_tensor_zeros(m->params->pool, PN_F32, 1, &n, &zero));
        pn_status s = pn_weights_writer_put(w, name, zero);
        pn_tensor_release(&zero);
        PN_TRY(s);
    }
    return PN_OK;
}

/* ---- weights ---- */

/* Weights of further candidates belong to a super-network, not to the model. */
static bool is_own(const pn_param *p) {
    return !strstr(p->name, ".candidates.");
}

/* A weight's name in a file of this kind, at most as long as ours. */
static pn_status file_name(const pn_param *p, pn_hf_kind kind, char out[PN_NAME_MAX]) {
    pn_buf text = { 0 };
    if (kind == PN_HF_FLA)
        pn_fla_name(p->name, &text);
    else
        pn_buf_text(&text, p->name);
    pn_status s = pn_buf_status(&text);
    if (!s) snprintf(out, PN_NAME_MAX, "%s", pn_buf_string(&text));
    pn_buf_free(&text);
    return s;
}

static pn_status write_tensors(const pn_model *m, pn_hf_kind kind, pn_weights_writer *w) {
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        char name[PN_NAME_MAX];
        if (!is_own(p)) continue;
        PN_TRY(file_name(p, kind, name));
        PN_TRY(pn_weights_writer_put(w, name, p->value));
    }
    for (int l = 0; l < m->config.n_layers; l++)
        if (needs_biases(m, kind, l)) PN_TRY(put_biases(m, l, w));
    return pn_weights_writer_commit(w);
}

static pn_status write_weights(const pn_model *m, const char *dir, const pn_save_options *o, pn_hf_kind kind) {
    size_t n = 0, most = (size_t)m->params->n + 3 * (size_t)m->config.n_layers;
    pn_weight_decl *decl = calloc(most + 1, sizeof *decl);
    char(*name)[PN_NAME_MAX] = calloc(most + 1, sizeof *name);
    pn_weights_writer *w = NULL;
    pn_status s;
    if (!decl || !name) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (!is_own(p)) continue;
        PN_TRY_GOTO(s, file_name(p, kind, name[n]), done);
        decl[n] = (pn_weight_decl){ .name = name[n], .dtype = p->keep_f32 ? PN_F32 : o->dtype, .rank = p->value->rank };
        memcpy(decl[n++].shape, p->value->shape, sizeof decl->shape);
    }
    for (int l = 0; l < m->config.n_layers; l++) {
        if (!needs_biases(m, kind, l)) continue;
        for (int k = 0; k < 3; k++, n++) {
            bias_name(name[n], sizeof name[n], l, k);
            decl[n] = (pn_weight_decl){ .name = name[n], .dtype = o->dtype, .rank = 1 };
            decl[n].shape[0] = bias_length(&m->config.dims, k);
        }
    }
    int64_t shard = o->max_shard_bytes ? o->max_shard_bytes : PN_DEFAULT_SHARD_BYTES;
    PN_TRY_GOTO(s, pn_weights_writer_create(dir, decl, (int64_t)n, shard, &w), done);
    PN_TRY_GOTO(s, write_tensors(m, kind, w), done);
done:
    pn_weights_writer_destroy(&w);
    free(decl);
    free(name);
    return s;
}

/* ---- what config.json cannot say to its own readers ---- */

/* postnas.json: present when some layer is of a type that only postnas reads, and says so. */
static pn_status write_extensions(const pn_model *m, const char *dir) {
    json_t *types = json_array();
    for (int l = 0; l < m->config.n_layers; l++) {
        char name[PN_HF_LAYER_NAME];
        pn_hf_layer_name(&m->config, l, name);
        bool known = pn_hf_layer_published(name);
        for (size_t i = 0; i < json_array_size(types) && !known; i++)
            known = !strcmp(json_string_value(json_array_get(types, i)), name);
        if (!known) json_array_append_new(types, json_string(name));
    }
    char path[PN_PATH_MAX];
    pn_status s = PN_OK;
    if (json_array_size(types)) {
        json_t *root = json_pack(
            "{s:i, s:O, s:s}", "format", 1, "extended_layer_types", types, "note",
            "config.json uses layer_types that the published jet_nemotron modelling code does not know; postnas reads "
            "them (names and settings under efficient_attention_config), transformers cannot load this model yet");
        s = root ? pn_path_join(path, dir, "postnas.json") : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
        if (!s) s = pn_json_write(path, root);
        json_decref(root);
    }
    json_decref(types);
    return s;
}

pn_status pn_model_save(const pn_model *m, const char *dir, const pn_save_options *o) {
    PN_CHECK(o->dtype == PN_F32 || o->dtype == PN_BF16 || o->dtype == PN_F16, PN_USAGE,
             "%s: weights are written as f32, bf16 or f16, not as %s", dir, pn_dtype_name(o->dtype));
    pn_hf_kind kind = pn_hf_kind_of(&m->config, o->kind);
    pn_model_config config = m->config;
    config.file_dtype = o->dtype;
    char path[PN_PATH_MAX];
    PN_TRY(pn_path_join(path, dir, "config.json"));
    PN_TRY(pn_hf_config_write(path, &config, kind));
    PN_TRY(pn_path_join(path, dir, "generation_config.json"));
    PN_TRY(pn_hf_generation_config_write(path, &config));
    if (kind == PN_HF_JET_NEMOTRON) PN_TRY(write_extensions(m, dir));
    return write_weights(m, dir, o, kind);
}
