#include "model_load.h"

#include <string.h>

#include "files.h"
#include "gguf_model.h"

/* ---- open ---- */

/* Memory is taken by what config.json says before any tensor is read, so it must agree with what is there. */
static pn_status check_shape(const pn_weights *w, const char *name, int64_t rows, int64_t cols) {
    const pn_tensor_info *t = pn_weights_find(w, name);
    PN_CHECK(t, PN_FORMAT, "%s: there is no tensor %s in it", pn_weights_path(w), name);
    PN_CHECK(t->rank == 2 && t->shape[0] == rows && t->shape[1] == cols, PN_FORMAT,
             "%s: tensor %s has shape %s, its config says [%lld, %lld]", pn_weights_path(w), name,
             pn_tensor_info_shape_text(t), (long long)rows, (long long)cols);
    return PN_OK;
}

static pn_status check_sizes(const pn_model_files *files) {
    const pn_model_config *c = &files->config;
    const pn_dims *d = &c->dims;
    PN_TRY(check_shape(files->weights, "model.embed_tokens.weight", c->vocab, d->hidden));
    for (int l = 0; l < c->n_layers; l++) {
        char name[PN_NAME_MAX];
        snprintf(name, sizeof name, "model.layers.%d.mlp.gate_proj.weight", l);
        PN_TRY(check_shape(files->weights, name, d->intermediate, d->hidden));
        if (!c->layer[l].type->attention_weights) continue;
        snprintf(name, sizeof name, "model.layers.%d.self_attn.q_proj.weight", l);
        PN_TRY(check_shape(files->weights, name, d->heads * d->head_dim, d->hidden));
        snprintf(name, sizeof name, "model.layers.%d.self_attn.k_proj.weight", l);
        PN_TRY(check_shape(files->weights, name, d->kv_heads * d->head_dim, d->hidden));
    }
    return PN_OK;
}

static pn_status open_directory(const char *path, pn_model_files *files) {
    PN_TRY(pn_hf_config_read(path, &files->config));
    PN_TRY(pn_weights_open(path, &files->weights));
    const pn_tensor_info *embed = pn_weights_find(files->weights, "model.embed_tokens.weight");
    pn_dtype stored = embed ? embed->dtype : PN_F32;
    files->config.file_dtype = stored == PN_BF16 || stored == PN_F16 ? stored : PN_F32;
    return check_sizes(files);
}

static pn_status open_gguf(const char *path, pn_model_files *files) {
    PN_TRY(pn_gguf_open(path, &files->gguf));
    PN_TRY(pn_gguf_config(files->gguf, &files->config));
    PN_TRY(pn_gguf_weights(files->gguf, &files->config, &files->weights));
    return check_sizes(files);
}

pn_status pn_model_files_open(const char *path, pn_model_files *out) {
    memset(out, 0, sizeof *out);
    PN_CHECK(pn_file_exists(path), PN_IO, "%s: there is no such directory or file", path);
    pn_status s = pn_is_directory(path) ? open_directory(path, out) : open_gguf(path, out);
    if (s) pn_model_files_close(out);
    return s;
}

void pn_model_files_close(pn_model_files *files) {
    pn_weights_close(&files->weights);
    pn_gguf_close(&files->gguf);
    memset(files, 0, sizeof *files);
}

/* ---- load ---- */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* llama's attention_bias puts a bias on o_proj too; one of zeros changes nothing. */
static pn_status check_zero(const pn_weights *w, const pn_tensor_info *t) {
    pn_pool *pool;
    pn_tensor *x = NULL;
    pn_status s;
    PN_TRY(pn_pool_create(PN_POOL_HOST, &pool));
    PN_TRY_GOTO(s, pn_tensor_create(pool, PN_F32, t->rank, t->shape, &x), done);
    PN_TRY_GOTO(s, pn_weights_read(w, t->name, x), done);
    for (int64_t i = 0; i < t->n_elems; i++)
        if (pn_f32(x)[i] != 0)
            PN_FAIL_GOTO(s, PN_UNSUPPORTED, done, "%s: tensor %.200s is not zero; postnas has no bias on o_proj",
                         pn_weights_path(w), t->name);
done:
    pn_tensor_release(&x);
    pn_pool_destroy(&pool);
    return s;
}

/* Every stored tensor has a place in the model, or is known to change nothing. */
static pn_status check_all_used(const pn_weights *w, const pn_model *m) {
    for (int64_t i = 0; i < pn_weights_count(w); i++) {
        const pn_tensor_info *t = pn_weights_info(w, i);
        if (pn_params_find(m->params, t->name)) continue;
        if (m->config.tied && !strcmp(t->name, "lm_head.weight")) continue;
        if (ends_with(t->name, ".rotary_emb.inv_freq")) continue; /* follows from rope_theta */
        PN_CHECK(ends_with(t->name, ".self_attn.o_proj.bias") && t->rank == 1, PN_FORMAT,
                 "%s: tensor %.200s is in it, but the model its config describes has no place for it",
                 pn_weights_path(w), t->name);
        PN_TRY(check_zero(w, t));
    }
    return PN_OK;
}

static pn_status read_weights(const pn_weights *w, pn_model *m) {
    PN_TRY(check_all_used(w, m));
    for (int i = 0; i < m->params->n; i++)
        PN_TRY(pn_weights_read(w, m->params->item[i]->name, m->params->item[i]->value));
    return PN_OK;
}

pn_status pn_model_load_files(const pn_model_files *files, pn_dtype dtype, pn_model **out) {
    *out = NULL;
    pn_model *m;
    PN_TRY(pn_model_create(&files->config, dtype, NULL, &m));
    pn_status s = read_weights(files->weights, m);
    if (s)
        pn_model_destroy(&m);
    else
        *out = m;
    return s;
}

pn_status pn_model_load(const char *path, pn_dtype dtype, pn_model **out) {
    *out = NULL;
    pn_model_files files;
    PN_TRY(pn_model_files_open(path, &files));
    pn_status s = pn_model_load_files(&files, dtype, out);
    pn_model_files_close(&files);
    return s;
}
