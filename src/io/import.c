#include "import.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "gguf_model.h"

/* ---- the tokenizer of a GGUF file ---- */

static pn_status convert_tokenizer(const pn_gguf *f, const char *dir) {
    pn_tokenizer *t;
    PN_TRY(pn_gguf_tokenizer(f, &t));
    pn_status s = pn_tokenizer_write_dir(t, dir);
    pn_tokenizer_destroy(&t);
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
