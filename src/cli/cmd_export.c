#include <string.h>

#include "args.h"
#include "files.h"
#include "log.h"
#include "model_load.h"
#include "tokenizer.h"

typedef struct export_job {
    const char *source, *target;
    char model_dir[PN_PATH_MAX]; /* source, or its model/ when source is a run */
    pn_save_options save;
    bool check;
    pn_tokenizer *tokenizer;
    pn_model *model, *back;
} export_job;

/* The value of an option, as its index among the names. */
static pn_status choice(const pn_args *args, const char *option, const char *const *names, int *index) {
    const char *value = pn_args_value(args, option);
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], value)) continue;
        *index = i;
        return PN_OK;
    }
    PN_FAIL(PN_USAGE, "postnas export: --%s is %s; see postnas export --help", option, value);
}

static pn_status read_options(const pn_args *args, export_job *e) {
    static const char *const dtypes[] = { "f32", "bf16", "f16", NULL };
    static const pn_dtype dtype_of[] = { PN_F32, PN_BF16, PN_F16 };
    static const char *const kinds[] = { "auto", "qwen2", "llama", "jet_nemotron", "fla", NULL };
    static const pn_hf_kind kind_of[] = { PN_HF_AUTO, PN_HF_QWEN2, PN_HF_LLAMA, PN_HF_JET_NEMOTRON, PN_HF_FLA };
    int dtype, kind;
    double shard_gb;
    PN_TRY(choice(args, "dtype", dtypes, &dtype));
    PN_TRY(choice(args, "type", kinds, &kind));
    PN_TRY(pn_args_f64(args, "shard-gb", 0.001, 1e6, &shard_gb));
    e->save = (pn_save_options){ .dtype = dtype_of[dtype],
                                 .kind = kind_of[kind],
                                 .max_shard_bytes = (int64_t)(shard_gb * 1e9) };
    e->check = pn_args_has(args, "check");
    e->source = args->operand[0];
    e->target = args->operand[1];
    PN_TRY(pn_path_join(e->model_dir, e->source, "model"));
    if (!pn_is_directory(e->model_dir)) {
        PN_CHECK(strlen(e->source) < sizeof e->model_dir, PN_USAGE,
                 "postnas export: the path of the source is too long");
        strcpy(e->model_dir, e->source);
    }
    return PN_OK;
}

/* Every weight as it was written: the source's values rounded to the written type. */
static pn_status compare(const export_job *e, const char *dir) {
    for (int i = 0; i < e->model->params->n; i++) {
        const pn_param *p = e->model->params->item[i], *q = pn_params_find(e->back->params, p->name);
        PN_CHECK(q, PN_MISMATCH, "%s: weight %s did not come back", dir, p->name);
        pn_dtype as = p->keep_f32 ? PN_F32 : e->save.dtype;
        const float *a = pn_f32(p->value), *b = pn_f32(q->value);
        for (int64_t k = 0, n = pn_tensor_elems(p->value); k < n; k++) {
            uint32_t narrow = 0;
            float rounded;
            pn_convert(&narrow, as, &a[k], PN_F32, 1);
            pn_convert(&rounded, PN_F32, &narrow, as, 1);
            PN_CHECK(!memcmp(&rounded, &b[k], sizeof rounded), PN_MISMATCH, "%s: weight %s differs at value %lld", dir,
                     p->name, (long long)k);
        }
    }
    return PN_OK;
}

static pn_status run_job(export_job *e) {
    PN_TRY(pn_tokenizer_open(e->model_dir, &e->tokenizer));
    PN_TRY(pn_model_load(e->model_dir, PN_F32, &e->model));
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(e->target, &w));
    pn_status s = pn_model_save(e->model, w.temporary, &e->save);
    if (!s) s = pn_tokenizer_write_dir(e->tokenizer, w.temporary);
    if (!s && e->check) s = pn_model_load(w.temporary, PN_F32, &e->back);
    if (!s && e->check) s = compare(e, e->target);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    pn_info("wrote %s%s", e->target, e->check ? "; read back, every weight as written" : "");
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    export_job e = { 0 };
    PN_TRY(read_options(args, &e));
    pn_status s = run_job(&e);
    pn_model_destroy(&e.back);
    pn_model_destroy(&e.model);
    pn_tokenizer_destroy(&e.tokenizer);
    return s;
}

static const pn_flag flags[] = {
    { .name = "dtype", .value = "TYPE", .help = "of the matrices: f32, bf16 or f16", .def = "bf16" },
    { .name = "type",
      .value = "NAME",
      .help = "model type: jet_nemotron, qwen2, llama or auto",
      .def = "jet_nemotron" },
    { .name = "shard-gb", .value = "N", .help = "split weights into files of at most N gigabytes", .def = "5" },
    { .name = "check", .help = "read the result back and compare every weight before it appears" },
    PN_FLAG_END,
};

const pn_command pn_cmd_export = {
    .name = "export",
    .summary = "a run or model directory to a Hugging Face directory",
    .usage = "RUN|MODEL DIRECTORY [--dtype TYPE] [--type NAME] [--check]",
    .help =
        "Writes config.json, generation_config.json, safetensors and the tokenizer's files into a new directory.\n"
        "Layers of types that only postnas knows are named in its postnas.json; so are layers with an extension of\n"
        "postnas on (qkv_bias, rope), as TYPE_postnas. A base without QKV biases is written with zero ones as\n"
        "jet_nemotron, which is exact.\n"
        "\n"
        "    postnas export runs/quickstart hybrid --dtype f32 --check\n",
    .reads = "a run's directory (its model/), or a model directory\n",
    .writes = "a new directory, which appears when it is whole; an existing one is left alone\n",
    .see = "postnas import: the other way; postnas check model: logits of the result\n",
    .flags = flags,
    .min_operands = 2,
    .max_operands = 2,
    .run = run,
};
