#include <string.h>
#include <sys/stat.h>

#include "args.h"
#include "export_card.h"
#include "export_check.h"
#include "files.h"
#include "log.h"
#include "model_load.h"
#include "recipe.h"
#include "run_dir.h"
#include "tokenizer.h"
#include "unfinished.h"

typedef struct export_job {
    const char *source, *target;
    char model_dir[PN_PATH_MAX]; /* source, or its model/ when source is a run */
    char run[PN_PATH_MAX];       /* the run that made it; "": none */
    bool is_result;              /* it is that run's model/, which the run's scores are of */
    int stage;                   /* it is that run's stages/1 ..; 0: it is not */
    bool unfinished;             /* the run has no model/ yet: its newest checkpoint is taken */
    pn_unfinished found;         /* there */
    const char *scores;
    pn_save_options save;
    bool check;
    pn_tokenizer *tokenizer;
    pn_model *model;
    pn_export_check checked;
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

static bool same_directory(const char *a, const char *b) {
    struct stat s, t;
    return !stat(a, &s) && !stat(b, &t) && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

/* Whether dir is a run, as `postnas search` and `finetune` leave them. */
static pn_status is_run(const char *dir, bool *yes) {
    char config[PN_PATH_MAX], state[PN_PATH_MAX];
    PN_TRY(pn_path_join(config, dir, "config.yaml"));
    PN_TRY(pn_path_join(state, dir, "state"));
    *yes = pn_file_exists(config) && pn_is_directory(state);
    return PN_OK;
}

/* Which of RUN/PART/1 .. it is; 0: none. */
static pn_status number_of(const export_job *e, const char *part, int *n) {
    char name[64], path[PN_PATH_MAX];
    for (int i = 1; i <= PN_RECIPE_STAGES; i++) {
        snprintf(name, sizeof name, "%s%d", part, i);
        PN_TRY(pn_path_join(path, e->run, name));
        *n = i;
        if (same_directory(path, e->model_dir)) return PN_OK;
    }
    *n = 0;
    return PN_OK;
}

/* RUN, RUN/model, another model below RUN, or any model. */
static pn_status find_source(export_job *e) {
    enum { UP = 3 };
    char path[PN_PATH_MAX], config[PN_PATH_MAX];
    bool in_run = false;
    int state = 0;
    PN_TRY(pn_path_join(path, e->source, "config.yaml"));
    PN_TRY(pn_path_join(config, e->source, "config.json"));
    PN_TRY(pn_path_join(e->model_dir, e->source, "model"));
    e->unfinished = pn_file_exists(path) && !pn_file_exists(config) && !pn_is_directory(e->model_dir);
    if (!pn_is_directory(e->model_dir)) strcpy(e->model_dir, e->source);
    if (e->unfinished) {
        strcpy(e->run, e->source);
        return PN_OK;
    }
    strcpy(e->run, e->model_dir);
    for (int i = 0; i < UP && !in_run; i++) {
        PN_TRY(pn_path_join(path, e->run, ".."));
        strcpy(e->run, path);
        PN_TRY(is_run(e->run, &in_run));
    }
    if (!in_run) e->run[0] = '\0';
    PN_TRY(pn_path_join(path, e->run, "model"));
    e->is_result = in_run && same_directory(path, e->model_dir);
    if (in_run) PN_TRY(number_of(e, PN_RUN_STAGES, &e->stage));
    if (in_run) PN_TRY(number_of(e, PN_RUN_STATE, &state));
    PN_CHECK(!in_run || !state, PN_USAGE,
             "%s: is the state of a run, no model by itself: export the run, whose newest state is taken until it has "
             "a model",
             e->source);
    return PN_OK;
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
    e->scores = pn_args_value(args, "scores");
    return find_source(e);
}

static pn_status write_card(const export_job *e, const char *dir) {
    const pn_export_card card = { .run = e->run[0] ? e->run : NULL,
                                  .is_result = e->is_result,
                                  .stage = e->unfinished ? e->found.stage + 1 : e->stage,
                                  .step = e->unfinished ? e->found.step : 0,
                                  .scores = e->scores,
                                  .config = &e->model->config,
                                  .parameters = pn_params_count(e->model->params, false),
                                  .kind = e->save.kind,
                                  .target = e->target };
    return pn_export_card_write(&card, dir);
}

static void tell_check(const export_job *e) {
    const pn_export_check *c = &e->checked;
    pn_info("read back: every weight as written, the same logits on %lld tokens", (long long)c->tokens);
    if (e->save.dtype != PN_F32)
        pn_info(
            "rounding to %s changed the logits by %.2g of their size (limit %.2g), one by %.2g at most; mean KL %.2g",
            pn_dtype_name(e->save.dtype), c->rms, c->limit, c->worst, c->kl);
}

static pn_status open_model(export_job *e) {
    if (!e->unfinished) {
        PN_TRY(pn_tokenizer_open(e->model_dir, &e->tokenizer));
        PN_TRY(pn_model_load(e->model_dir, PN_F32, &e->model));
        return PN_OK;
    }
    PN_TRY(pn_unfinished_open(e->run, &e->found));
    e->tokenizer = e->found.tokenizer;
    e->model = e->found.model;
    pn_warn("%s: this run is not finished: its newest checkpoint is taken, of step %lld of %lld of stage %d of %d",
            e->run, (long long)e->found.step, (long long)e->found.steps, e->found.stage + 1, e->found.n_stages);
    return PN_OK;
}

static pn_status run_job(export_job *e) {
    PN_TRY(open_model(e));
    PN_TRY(pn_hf_config_fits(e->target, &e->model->config, e->save.kind));
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(e->target, &w));
    pn_status s = pn_model_save(e->model, w.temporary, &e->save);
    if (!s) s = pn_tokenizer_write_dir(e->tokenizer, w.temporary);
    if (!s) s = write_card(e, w.temporary);
    if (!s && e->check)
        s = pn_export_check_run(e->model, e->tokenizer, w.temporary, e->target, e->save.dtype, &e->checked);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    if (e->check) tell_check(e);
    pn_info("wrote %s", e->target);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    export_job e = { 0 };
    PN_TRY(read_options(args, &e));
    pn_status s = run_job(&e);
    if (!e.unfinished) pn_model_destroy(&e.model);
    if (!e.unfinished) pn_tokenizer_destroy(&e.tokenizer);
    pn_unfinished_close(&e.found);
    return s;
}

static const pn_flag flags[] = {
    { .name = "dtype", .value = "TYPE", .help = "of the matrices: f32, bf16 or f16", .def = "bf16" },
    { .name = "type",
      .value = "NAME",
      .help = "model type: jet_nemotron, fla, qwen2, llama or auto",
      .def = "jet_nemotron" },
    { .name = "shard-gb", .value = "N", .help = "split weights into files of at most N gigabytes", .def = "5" },
    { .name = "scores",
      .value = "FILE",
      .help = "scores for the model card, of postnas eval --output; without it, those of the run" },
    { .name = "check", .help = "read the result back and compare weights, settings and logits before it appears" },
    PN_FLAG_END,
};

const pn_command pn_cmd_export = {
    .name = "export",
    .summary = "a run or model directory to a Hugging Face directory",
    .usage = "RUN|MODEL DIRECTORY [--dtype TYPE] [--type NAME] [--check]",
    .help =
        "Writes config.json, generation_config.json, safetensors, the tokenizer's files and a model card (README.md:\n"
        "base, architecture, recipe, measured scores) into a new directory.\n"
        "\n"
        "jet_nemotron is the layout of Jet-Nemotron's files and takes every hybrid. Layers of types that only postnas\n"
        "knows are named in its postnas.json: also layers with an extension of postnas on (qkv_bias, rope), as\n"
        "TYPE_postnas, and a second setting of one type, as TYPE_2. A base without QKV biases is written with zero\n"
        "ones, which is exact.\n"
        "\n"
        "fla is the layout of flash-linear-attention, as its model type retnet, gla, delta_net or gated_deltanet: for\n"
        "hybrids of attention and one of these blocks, in one setting, whose norm_eps is the base's rms_norm_eps and\n"
        "that have no extension on. Full attention beside sliding windows needs fla 0.6. What does not fit is refused\n"
        "with the reason.\n"
        "\n"
        "--check reads the directory back: weights and settings must be the model's, and the logits of three built-in\n"
        "texts must be, bit for bit, those of the model with its weights rounded alike. How far rounding moved them\n"
        "is said; it must be at most 3 times what random errors of rounding's size do. With --dtype f32 nothing "
        "moves.\n"
        "\n"
        "Of a finetune run that is not finished the newest checkpoint is taken, and the model card says which step it\n"
        "is of. It needs the model that the run began with, and nothing of the run changes.\n"
        "\n"
        "    postnas export runs/quickstart hybrid --dtype f32 --check\n"
        "    postnas export runs/mine hybrid-fla --type fla --check\n"
        "    postnas export runs/recipe/stages/1 after-stage-1\n",
    .reads = "a run's directory (its model/, config.yaml and result.json; without model/ its state/), or a model "
             "directory, in\n"
             "a run or not\n",
    .writes = "a new directory, which appears when it is whole; an existing one is left alone\n",
    .see = "postnas import: the other way; postnas eval: scores of the result\n"
           "postnas check model: logits of the result against another program's\n",
    .flags = flags,
    .min_operands = 2,
    .max_operands = 2,
    .run = run,
};
