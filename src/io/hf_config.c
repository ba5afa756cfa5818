#include "hf_config.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "fla.h"
#include "hf_internal.h"

enum { MAX_CONFIG_BYTES = 16 << 20 };

pn_status pn_in_file(const char *path, pn_status s) {
    if (!s) return PN_OK;
    PN_FAIL(s, "%s: %s", path, pn_error_message());
}

/* The value at a path; NULL also for null. */
static const json_t *given(const pn_hf_file *f, const char *path) {
    const json_t *v = pn_json_at(f->root, path);
    return json_is_null(v) ? NULL : v;
}

static pn_status find_model_type(const pn_hf_file *f, pn_hf_kind *kind) {
    static const pn_hf_kind known[] = { PN_HF_QWEN2, PN_HF_LLAMA, PN_HF_JET_NEMOTRON };
    *kind = PN_HF_FLA;
    if (pn_fla_find(f->model_type)) return PN_OK;
    for (int i = 0; i < 3; i++) {
        *kind = known[i];
        if (!strcmp(pn_hf_model_type(known[i]), f->model_type)) return PN_OK;
    }
    PN_FAIL(PN_UNSUPPORTED,
            "%s: model_type is \"%.100s\"; qwen2, llama, jet_nemotron and fla's retnet, gla, delta_net and "
            "gated_deltanet are read",
            f->path, f->model_type);
}

/* ---- rotary positions ---- */

/* rope_scaling (older) or rope_parameters (newer): absent, or of a type that scales nothing. */
static pn_status check_unscaled(const pn_hf_file *f, const char *section) {
    const json_t *v = given(f, section);
    if (!v) return PN_OK;
    PN_TRY(pn_json_get_object(f->root, f->path, section, &v));
    static const char *const names[] = { "rope_type", "type" };
    const char *type = NULL;
    for (int i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s.%s", section, names[i]);
        PN_TRY(pn_json_find_str(f->root, f->path, path, &type));
        PN_CHECK(!type || !strcmp(type, "default"), PN_UNSUPPORTED,
                 "%s: %s is \"%.100s\"; only unscaled rotary positions are supported", f->path, path, type);
    }
    PN_CHECK(type || !json_object_get(v, "factor"), PN_UNSUPPORTED,
             "%s: %s scales the rotary positions; only unscaled ones are supported", f->path, section);
    return PN_OK;
}

static pn_status read_rope(const pn_hf_file *f, double *theta) {
    PN_TRY(check_unscaled(f, "rope_scaling"));
    PN_TRY(check_unscaled(f, "rope_parameters"));
    *theta = 10000; /* the default of these model types */
    PN_TRY(pn_json_find_f64(f->root, f->path, "rope_theta", 1, 1e12, theta));
    double newer = *theta;
    PN_TRY(pn_json_find_f64(f->root, f->path, "rope_parameters.rope_theta", 1, 1e12, &newer));
    PN_CHECK(newer == *theta || !given(f, "rope_theta"), PN_FORMAT,
             "%s: rope_theta is %g, but rope_parameters.rope_theta is %g", f->path, *theta, newer);
    *theta = newer;
    static const char *const parts[] = { "partial_rotary_factor", "rope_parameters.partial_rotary_factor" };
    for (int i = 0; i < 2; i++) {
        double rotated = 1;
        PN_TRY(pn_json_find_f64(f->root, f->path, parts[i], 0, 1, &rotated));
        PN_CHECK(rotated == 1, PN_UNSUPPORTED, "%s: %s is %g; all channels of a head must rotate", f->path, parts[i],
                 rotated);
    }
    return PN_OK;
}

/* ---- sizes ---- */

static pn_status read_dims(const pn_hf_file *f, pn_dims *d) {
    const json_t *r = f->root;
    const int64_t most = INT32_MAX; /* pn_model_config_check knows closer bounds */
    PN_TRY(pn_json_get_i64(r, f->path, "hidden_size", 1, most, &d->hidden));
    PN_TRY(pn_json_get_i64(r, f->path, "intermediate_size", 1, most, &d->intermediate));
    PN_TRY(pn_json_get_i64(r, f->path, "num_attention_heads", 1, most, &d->heads));
    d->kv_heads = d->heads;
    PN_TRY(pn_json_find_i64(r, f->path, "num_key_value_heads", 1, most, &d->kv_heads));
    d->head_dim = d->hidden / d->heads;
    PN_CHECK(given(f, "head_dim") || d->head_dim * d->heads == d->hidden, PN_FORMAT,
             "%s: hidden_size %lld is not a multiple of num_attention_heads %lld, and head_dim is missing", f->path,
             (long long)d->hidden, (long long)d->heads);
    PN_TRY(pn_json_find_i64(r, f->path, "head_dim", 1, most, &d->head_dim));
    d->rms_norm_eps = 1e-6;
    PN_TRY(pn_json_find_f64(r, f->path, "rms_norm_eps", 0, 1, &d->rms_norm_eps));
    PN_TRY(read_rope(f, &d->rope_theta));
    /* llama's attention_bias puts one on o_proj as well: the loader takes that only where it is zero. */
    d->qkv_bias = strcmp(f->model_type, "llama") != 0;
    if (!d->qkv_bias) PN_TRY(pn_json_find_bool(r, f->path, "attention_bias", &d->qkv_bias));
    return PN_OK;
}

static pn_status check_activation(const pn_hf_file *f) {
    const char *act = "silu";
    bool mlp_bias = false;
    PN_TRY(pn_json_find_str(f->root, f->path, "hidden_act", &act));
    PN_CHECK(!strcmp(act, "silu") || !strcmp(act, "swish"), PN_UNSUPPORTED,
             "%s: hidden_act is \"%.100s\"; only silu is supported", f->path, act);
    PN_TRY(pn_json_find_bool(f->root, f->path, "mlp_bias", &mlp_bias));
    PN_CHECK(!mlp_bias, PN_UNSUPPORTED, "%s: mlp_bias is true; only MLPs without biases are supported", f->path);
    return PN_OK;
}

/* ---- the rest ---- */

/* A number, a list whose first is taken (several ends of text), or null. */
static pn_status read_token(const pn_hf_file *f, const char *key, int64_t vocab, int32_t *out) {
    char first[64];
    snprintf(first, sizeof first, "%s.0", key);
    int64_t id = -1;
    PN_TRY(pn_json_find_i64(f->root, f->path, json_is_array(given(f, key)) ? first : key, -1, vocab - 1, &id));
    *out = (int32_t)id;
    return PN_OK;
}

static pn_status read_dtype(const pn_hf_file *f, pn_dtype *out) {
    const char *name = "float32";
    PN_TRY(pn_json_find_str(f->root, f->path, "torch_dtype", &name));
    PN_TRY(pn_json_find_str(f->root, f->path, "dtype", &name));
    *out = !strcmp(name, "bfloat16") ? PN_BF16 : !strcmp(name, "float16") ? PN_F16 : PN_F32;
    return PN_OK;
}

static pn_status read_config(pn_hf_file *f, pn_model_config *c, pn_hf_kind *kind) {
    int64_t layers;
    const json_t *r = f->root;
    PN_TRY(pn_json_get_str(r, f->path, "model_type", &f->model_type));
    PN_TRY(find_model_type(f, kind));
    const pn_fla_kind *fla = pn_fla_find(f->model_type); /* NULL: another's */
    PN_TRY(pn_json_get_i64(r, f->path, "num_hidden_layers", 1, PN_MAX_LAYERS, &layers));
    c->n_layers = (int)layers;
    PN_TRY(pn_json_get_i64(r, f->path, "vocab_size", 1, INT32_MAX, &c->vocab));
    PN_TRY(fla ? pn_fla_dims(f, fla, &c->dims) : read_dims(f, &c->dims));
    PN_TRY(check_activation(f));
    PN_TRY(pn_json_find_bool(r, f->path, "tie_word_embeddings", &c->tied));
    PN_TRY(read_token(f, "bos_token_id", c->vocab, &c->bos));
    PN_TRY(read_token(f, "eos_token_id", c->vocab, &c->eos));
    c->max_position = 32768;
    PN_TRY(pn_json_find_i64(r, f->path, "max_position_embeddings", 1, INT64_MAX, &c->max_position));
    c->initializer_range = 0.02;
    PN_TRY(pn_json_find_f64(r, f->path, "initializer_range", 0, 1, &c->initializer_range));
    PN_TRY(read_dtype(f, &c->file_dtype));
    PN_TRY(fla ? pn_fla_layers(f, fla, c) : pn_hf_layers(f, c));
    return pn_in_file(f->path, pn_model_config_check(c));
}

static pn_status parse(const char *name, const char *text, size_t n_bytes, pn_model_config *out, pn_hf_kind *kind) {
    memset(out, 0, sizeof *out);
    json_t *root;
    PN_TRY(pn_json_parse(name, text, n_bytes, &root));
    pn_status s = read_config(&(pn_hf_file){ .path = name, .root = root }, out, kind);
    json_decref(root);
    return s;
}

pn_status pn_hf_config_parse(const char *name, const char *text, size_t n_bytes, pn_model_config *out) {
    pn_hf_kind kind;
    return parse(name, text, n_bytes, out, &kind);
}

pn_status pn_hf_config_read(const char *path, pn_model_config *out) {
    pn_hf_kind kind;
    return pn_hf_config_read_kind(path, out, &kind);
}

pn_status pn_hf_config_read_kind(const char *path, pn_model_config *out, pn_hf_kind *kind) {
    char file[PN_PATH_MAX], *text;
    size_t n_bytes;
    if (pn_is_directory(path)) {
        PN_TRY(pn_path_join(file, path, "config.json"));
        path = file;
    }
    PN_TRY(pn_file_read(path, MAX_CONFIG_BYTES, &text, &n_bytes));
    pn_status s = parse(path, text, n_bytes, out, kind);
    free(text);
    return s;
}
