#include "model_load.h"

#include <string.h>

#include "files.h"
#include "fla.h"
#include "gguf_model.h"

/* ---- open ---- */

static pn_status open_directory(const char *path, pn_model_files *files) {
    PN_TRY(pn_hf_config_read_kind(path, &files->config, &files->kind));
    PN_TRY(pn_weights_open(path, &files->weights));
    if (files->kind == PN_HF_FLA) PN_TRY(pn_weights_rename(files->weights, pn_fla_our_name));
    const pn_tensor_info *embed = pn_weights_find(files->weights, "model.embed_tokens.weight");
    pn_dtype stored = embed ? embed->dtype : PN_F32;
    files->config.file_dtype = stored == PN_BF16 || stored == PN_F16 ? stored : PN_F32;
    return PN_OK;
}

static pn_status open_gguf(const char *path, pn_model_files *files) {
    PN_TRY(pn_gguf_open(path, &files->gguf));
    PN_TRY(pn_gguf_config(files->gguf, &files->config));
    return pn_gguf_weights(files->gguf, &files->config, &files->weights);
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

enum { SHOWN_MAX = 256 };

/* One of our names as the files have it, for messages; returns buffer. */
static const char *shown(const pn_model_files *files, const char *name, char buffer[SHOWN_MAX]) {
    pn_buf text = { 0 };
    if (files->kind == PN_HF_FLA)
        pn_fla_name(name, &text);
    else
        pn_buf_text(&text, name);
    snprintf(buffer, SHOWN_MAX, "%.200s", pn_buf_string(&text));
    pn_buf_free(&text);
    return buffer;
}

/* A config asks for memory before any tensor is read, so each weight it describes must be there in that shape. */
static pn_status is_stored(const void *context, const pn_param_spec *spec) {
    const pn_model_files *files = context;
    const pn_weights *w = files->weights;
    const pn_tensor_info *t = pn_weights_find(w, spec->name);
    char name[SHOWN_MAX];
    PN_CHECK(t, PN_FORMAT, "%s: there is no tensor %s in it", pn_weights_path(w), shown(files, spec->name, name));
    pn_tensor_info wanted = { .rank = spec->rank };
    memcpy(wanted.shape, spec->shape, sizeof spec->shape);
    bool same = t->rank == spec->rank;
    for (int i = 0; same && i < t->rank; i++) same = t->shape[i] == spec->shape[i];
    PN_CHECK(same, PN_FORMAT, "%s: tensor %s has shape %s, its config says %s", pn_weights_path(w),
             shown(files, spec->name, name), pn_tensor_info_shape_text(t), pn_tensor_info_shape_text(&wanted));
    /* The readers cannot tell the size of a type they do not know; whatever it is, a value takes a bit. */
    PN_CHECK((uint64_t)t->n_elems / 8 <= t->n_bytes, PN_UNSUPPORTED,
             "%s: tensor %s is of type %.40s, whose values postnas cannot read", pn_weights_path(w),
             shown(files, spec->name, name), t->type);
    return PN_OK;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* llama's attention_bias puts a bias on o_proj too; one of zeros changes nothing. */
static pn_status check_zero(const pn_model_files *files, const pn_tensor_info *t) {
    const pn_weights *w = files->weights;
    char name[SHOWN_MAX];
    pn_pool *pool;
    pn_tensor *x = NULL;
    pn_status s;
    PN_TRY(pn_pool_create(PN_POOL_HOST, &pool));
    PN_TRY_GOTO(s, pn_tensor_create(pool, PN_F32, t->rank, t->shape, &x), done);
    PN_TRY_GOTO(s, pn_weights_read(w, t->name, x), done);
    for (int64_t i = 0; i < t->n_elems; i++)
        if (pn_f32(x)[i] != 0)
            PN_FAIL_GOTO(s, PN_UNSUPPORTED, done, "%s: tensor %.200s is not zero; postnas has no bias on o_proj",
                         pn_weights_path(w), shown(files, t->name, name));
done:
    pn_tensor_release(&x);
    pn_pool_destroy(&pool);
    return s;
}

/* Every stored tensor has a place in the model, or is known to change nothing. */
static pn_status check_all_used(const pn_model_files *files, const pn_model *m) {
    const pn_weights *w = files->weights;
    char name[SHOWN_MAX];
    for (int64_t i = 0; i < pn_weights_count(w); i++) {
        const pn_tensor_info *t = pn_weights_info(w, i);
        if (pn_params_find(m->params, t->name)) continue;
        if (m->config.tied && !strcmp(t->name, "lm_head.weight")) continue;
        if (ends_with(t->name, ".rotary_emb.inv_freq")) continue; /* follows from rope_theta */
        PN_CHECK(ends_with(t->name, ".self_attn.o_proj.bias") && t->rank == 1, PN_FORMAT,
                 "%s: tensor %.200s is in it, but the model its config describes has no place for it",
                 pn_weights_path(w), shown(files, t->name, name));
        PN_TRY(check_zero(files, t));
    }
    return PN_OK;
}

static pn_status read_weights(const pn_model_files *files, pn_model *m) {
    PN_TRY(check_all_used(files, m));
    for (int i = 0; i < m->params->n; i++)
        PN_TRY(pn_weights_read(files->weights, m->params->item[i]->name, m->params->item[i]->value));
    return PN_OK;
}

pn_status pn_model_load_files(const pn_model_files *files, pn_dtype dtype, pn_model **out) {
    *out = NULL;
    pn_model *m;
    const pn_param_guard guard = { is_stored, files };
    PN_TRY(pn_model_create_guarded(&files->config, dtype, &guard, &m));
    pn_status s = read_weights(files, m);
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
