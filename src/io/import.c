#include "import.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "tokenizer.h"

/* ---- the tokenizer of a GGUF file ---- */

static pn_status token_id(const pn_gguf *f, const char *key, int32_t *out) {
    int64_t id = -1;
    if (pn_gguf_has(f, key)) PN_TRY(pn_gguf_int(f, key, 0, INT32_MAX, &id));
    *out = (int32_t)id;
    return PN_OK;
}

typedef struct parts {
    pn_tokenizer_parts p;
    const char **tokens, **merges; /* owned, with their lengths and types */
    uint32_t *token_bytes, *merge_bytes;
    int32_t *types;
} parts;

static pn_status read_parts(const pn_gguf *f, parts *out) {
    const char *model;
    pn_tokenizer_parts *p = &out->p;
    p->source = pn_gguf_path(f);
    PN_TRY(pn_gguf_string(f, "tokenizer.ggml.model", &model));
    PN_CHECK(!strcmp(model, "gpt2"), PN_UNSUPPORTED,
             "%s: its tokenizer is of type \"%.100s\"; only byte-level BPE (\"gpt2\") is supported", p->source, model);
    if (pn_gguf_has(f, "tokenizer.ggml.pre")) PN_TRY(pn_gguf_string(f, "tokenizer.ggml.pre", &p->pre));
    PN_TRY(pn_gguf_strings(f, "tokenizer.ggml.tokens", &out->tokens, &out->token_bytes, &p->n_tokens));
    PN_TRY(pn_gguf_strings(f, "tokenizer.ggml.merges", &out->merges, &out->merge_bytes, &p->n_merges));
    if (pn_gguf_has(f, "tokenizer.ggml.token_type")) {
        int64_t n;
        PN_TRY(pn_gguf_ints(f, "tokenizer.ggml.token_type", &out->types, &n));
        PN_CHECK(n == p->n_tokens, PN_FORMAT, "%s: %lld token types for %lld tokens", p->source, (long long)n,
                 (long long)p->n_tokens);
    }
    PN_TRY(token_id(f, "tokenizer.ggml.bos_token_id", &p->bos));
    PN_TRY(token_id(f, "tokenizer.ggml.eos_token_id", &p->eos));
    PN_TRY(token_id(f, "tokenizer.ggml.padding_token_id", &p->pad));
    PN_TRY(token_id(f, "tokenizer.ggml.unknown_token_id", &p->unk));
    if (pn_gguf_has(f, "tokenizer.ggml.add_bos_token"))
        PN_TRY(pn_gguf_bool(f, "tokenizer.ggml.add_bos_token", &p->add_bos));
    p->tokens = out->tokens;
    p->token_bytes = out->token_bytes;
    p->token_type = out->types;
    p->merges = out->merges;
    p->merge_bytes = out->merge_bytes;
    return PN_OK;
}

static pn_status convert_tokenizer(const pn_gguf *f, const char *dir) {
    parts read = { 0 };
    pn_tokenizer *t = NULL;
    pn_status s = read_parts(f, &read);
    if (!s) s = pn_tokenizer_from_parts(&read.p, &t);
    if (!s) s = pn_tokenizer_write_dir(t, dir);
    pn_tokenizer_destroy(&t);
    free(read.tokens);
    free(read.merges);
    free(read.token_bytes);
    free(read.merge_bytes);
    free(read.types);
    PN_TRY(s);
    if (!pn_gguf_has(f, "tokenizer.chat_template")) return PN_OK;
    const char *template;
    char path[PN_PATH_MAX];
    PN_TRY(pn_gguf_string(f, "tokenizer.chat_template", &template));
    PN_TRY(pn_path_join(path, dir, "chat_template.jinja"));
    return pn_file_write(path, template, strlen(template));
}

/* ---- the tokenizer of a directory ---- */

static const char *const tokenizer_files[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",     "chat_template.jinja",   "generation_config.json",
};

static pn_status copy_tokenizer(const char *source, const char *dir) {
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files; i++) {
        char from[PN_PATH_MAX], to[PN_PATH_MAX], *data;
        size_t n;
        PN_TRY(pn_path_join(from, source, tokenizer_files[i]));
        if (!pn_file_exists(from)) continue;
        PN_TRY(pn_path_join(to, dir, tokenizer_files[i]));
        PN_TRY(pn_file_read(from, 1 << 30, &data, &n));
        pn_status s = pn_file_write(to, data, n);
        free(data);
        PN_TRY(s);
    }
    return PN_OK;
}

/* ---- all of it ---- */

static bool is_quantised(const pn_weights *w) {
    for (int64_t i = 0; i < pn_weights_count(w); i++)
        if (pn_weights_info(w, i)->dtype == PN_DTYPES) return true;
    return false;
}

static pn_status write_model(const pn_model_files *files, const char *dir, const pn_import_options *o,
                             pn_import_report *report) {
    pn_model *m;
    pn_dtype dtype = o->dtype == PN_DTYPES ? files->config.file_dtype : o->dtype;
    PN_TRY(pn_model_load_files(files, PN_F32, &m));
    if (report)
        *report = (pn_import_report){ .parameters = pn_params_count(m->params, false),
                                      .n_layers = m->config.n_layers,
                                      .dtype = dtype,
                                      .quantised = is_quantised(files->weights),
                                      .kind = pn_hf_model_type(pn_hf_kind_of(&m->config, PN_HF_AUTO)) };
    pn_status s = pn_model_save(m, dir, &(pn_save_options){ .dtype = dtype, .max_shard_bytes = o->max_shard_bytes });
    pn_model_destroy(&m);
    return s;
}

pn_status pn_import(const char *source, const char *dir, const pn_import_options *options, pn_import_report *report) {
    pn_model_files files;
    pn_directory_writer w;
    PN_TRY(pn_model_files_open(source, &files));
    pn_status s;
    PN_TRY_GOTO(s, pn_directory_writer_open(dir, &w), close);
    PN_TRY_GOTO(s, write_model(&files, w.temporary, options, report), abort);
    if (files.gguf)
        PN_TRY_GOTO(s, convert_tokenizer(files.gguf, w.temporary), abort);
    else
        PN_TRY_GOTO(s, copy_tokenizer(source, w.temporary), abort);
    PN_TRY_GOTO(s, pn_directory_writer_commit(&w), abort);
abort:
    pn_directory_writer_abort(&w);
close:
    pn_model_files_close(&files);
    return s;
}
