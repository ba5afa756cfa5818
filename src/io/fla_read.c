/* config.json of fla's model types, in. */
#include <stdlib.h>
#include <string.h>

#include "fla_internal.h"

/* ---- sizes ---- */

/* fla's rule for a width of the MLP that is not given: two thirds of the ratio, up to a multiple of 256. */
static pn_status read_intermediate(const pn_hf_file *f, const pn_fla_kind *kind, pn_dims *d) {
    const json_t *given = json_object_get(f->root, "intermediate_size"), *ratio_given;
    if (given && !json_is_null(given))
        return pn_json_get_i64(f->root, f->path, "intermediate_size", 1, INT32_MAX, &d->intermediate);
    ratio_given = json_object_get(f->root, "hidden_ratio");
    int64_t ratio = json_is_null(ratio_given) ? 4 : kind->hidden_ratio;
    PN_TRY(pn_json_find_i64(f->root, f->path, "hidden_ratio", 1, 1024, &ratio));
    d->intermediate = (d->hidden * ratio * 2 / 3 + 255) / 256 * 256;
    return PN_OK;
}

/* `attn` is one object or a list: the path of the i-th, false past the last. */
static bool attention_path(const pn_hf_file *f, size_t i, char path[32]) {
    const json_t *attn = json_object_get(f->root, "attn");
    snprintf(path, 32, json_is_array(attn) ? "attn.%zu" : "attn", i);
    return json_is_array(attn) ? i < json_array_size(attn) : i == 0 && attn && !json_is_null(attn);
}

static pn_status read_attention(const pn_hf_file *f, const char *path, pn_dims *d) {
    char key[64];
    const json_t *o;
    PN_TRY(pn_json_get_object(f->root, f->path, path, &o));
    snprintf(key, sizeof key, "%s.num_heads", path);
    PN_TRY(pn_json_get_i64(f->root, f->path, key, 1, 4096, &d->heads));
    d->kv_heads = d->heads;
    snprintf(key, sizeof key, "%s.num_kv_heads", path);
    PN_TRY(pn_json_find_i64(f->root, f->path, key, 1, 4096, &d->kv_heads));
    PN_CHECK(d->hidden % d->heads == 0, PN_FORMAT, "%s: hidden_size %lld is not a multiple of %s.num_heads %lld",
             f->path, (long long)d->hidden, path, (long long)d->heads);
    d->head_dim = d->hidden / d->heads;
    d->qkv_bias = false;
    snprintf(key, sizeof key, "%s.qkv_bias", path);
    PN_TRY(pn_json_find_bool(f->root, f->path, key, &d->qkv_bias));
    d->rope_theta = 10000;
    snprintf(key, sizeof key, "%s.rope_theta", path);
    PN_TRY(pn_json_find_f64(f->root, f->path, key, 1, 1e12, &d->rope_theta));
    bool qk_norm = false;
    snprintf(key, sizeof key, "%s.qk_norm", path);
    PN_TRY(pn_json_find_bool(f->root, f->path, key, &qk_norm));
    PN_CHECK(!qk_norm, PN_UNSUPPORTED, "%s: %s is true; attention with norms on q and k has no counterpart in postnas",
             f->path, key);
    return PN_OK;
}

/* What the attention of a model without attention would be like: something that passes the checks. */
static void no_attention(pn_dims *d) {
    d->heads = d->kv_heads = 1;
    d->head_dim = 2;
    d->rope_theta = 10000;
    d->qkv_bias = false;
}

pn_status pn_fla_dims(const pn_hf_file *f, const pn_fla_kind *kind, pn_dims *d) {
    char path[32];
    PN_TRY(pn_json_get_i64(f->root, f->path, "hidden_size", 1, INT32_MAX, &d->hidden));
    PN_TRY(read_intermediate(f, kind, d));
    d->rms_norm_eps = 1e-6;
    PN_TRY(pn_json_find_f64(f->root, f->path, "norm_eps", 0, 1, &d->rms_norm_eps));
    no_attention(d);
    for (size_t i = 0; attention_path(f, i, path); i++) {
        const pn_dims first = *d;
        PN_TRY(read_attention(f, path, d));
        PN_CHECK(i == 0 || (first.heads == d->heads && first.kv_heads == d->kv_heads && first.qkv_bias == d->qkv_bias &&
                            first.rope_theta == d->rope_theta),
                 PN_UNSUPPORTED,
                 "%s: %s differs from attn.0 in more than layers and window_size; postnas has one kind "
                 "of attention in a model",
                 f->path, path);
    }
    return PN_OK;
}

/* ---- mixers ---- */

static pn_status check_rule(void *file, const pn_fla_rule *r) {
    const pn_hf_file *f = file;
    const json_t *v = json_object_get(f->root, r->key);
    if (!v || pn_fla_obeys(r, v)) return PN_OK;
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    pn_status s = pn_fail_at(__FILE__, __LINE__, PN_UNSUPPORTED, "%s: %s is %.100s; only %s is supported, because %s",
                             f->path, r->key, text ? text : "", r->value, r->why);
    free(text);
    return s;
}

static pn_status read_linear(const pn_hf_file *f, const pn_fla_kind *kind, const pn_dims *d, pn_block_spec *out) {
    int64_t ignored;
    PN_TRY(pn_json_get_i64(f->root, f->path, "num_heads", 1, INT32_MAX, &ignored));
    if (kind->has_head_dim) PN_TRY(pn_json_get_i64(f->root, f->path, "head_dim", 1, INT32_MAX, &ignored));
    PN_TRY(pn_fla_each_rule(kind, check_rule, (void *)(uintptr_t)f));
    PN_TRY(pn_block_spec_default(kind->block, out));
    for (const pn_option *row = kind->block->options; row->name; row++) {
        const pn_fla_rule *r = pn_fla_rule_of(kind, row->name);
        const json_t *v = json_object_get(f->root, row->name);
        if (!strcmp(row->name, "norm_eps")) {
            *(double *)(out->options + row->offset) = d->rms_norm_eps; /* one for all; its default is the model's */
        } else if (r) {
            json_t *fixed = pn_fla_value(r->value);
            pn_status s = pn_hf_read_option(f->path, row, fixed, out->options);
            json_decref(fixed);
            PN_TRY(s);
        } else if (v && !json_is_null(v) && !row->extension) {
            PN_TRY(pn_hf_read_option(f->path, row, v, out->options));
        }
    }
    return pn_in_file(f->path, kind->block->resolve(out->options, d));
}

static pn_status attention_spec(const pn_hf_file *f, const char *path, const pn_dims *d, pn_block_spec *out) {
    char key[64];
    int64_t window = 0;
    snprintf(key, sizeof key, "%s.window_size", path);
    PN_TRY(pn_json_find_i64(f->root, f->path, key, 1, INT32_MAX, &window));
    if (window) return pn_hf_window_spec(f, window, d, out);
    PN_TRY(pn_block_spec_default(&pn_block_attention, out));
    return PN_OK;
}

static pn_status put_attention(const pn_hf_file *f, const char *path, pn_model_config *c) {
    char key[64];
    const json_t *layers;
    pn_block_spec spec;
    PN_TRY(attention_spec(f, path, &c->dims, &spec));
    snprintf(key, sizeof key, "%s.layers", path);
    PN_TRY(pn_json_get_array(f->root, f->path, key, 0, PN_MAX_LAYERS, &layers));
    for (size_t i = 0; i < json_array_size(layers); i++) {
        int64_t l;
        snprintf(key, sizeof key, "%s.layers.%zu", path, i);
        PN_TRY(pn_json_get_i64(f->root, f->path, key, 0, c->n_layers - 1, &l));
        PN_CHECK(!c->layer[l].type->attention_weights, PN_FORMAT, "%s: %s is %lld, which is named before", f->path, key,
                 (long long)l);
        c->layer[l] = spec;
    }
    return PN_OK;
}

pn_status pn_fla_layers(const pn_hf_file *f, const pn_fla_kind *kind, pn_model_config *c) {
    char path[32];
    pn_block_spec linear;
    PN_TRY(read_linear(f, kind, &c->dims, &linear));
    for (int l = 0; l < c->n_layers; l++) c->layer[l] = linear;
    for (size_t i = 0; attention_path(f, i, path); i++) PN_TRY(put_attention(f, path, c));
    return PN_OK;
}
