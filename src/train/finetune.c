#include "finetune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compute.h"
#include "log.h"
#include "memory.h"
#include "model_load.h"
#include "run_dir.h"
#include "trainer.h"

enum { MAX_STAGES = 64 };

typedef struct top_options {
    const char *output, *model, *tokenizer;
    int64_t seed, sequence_length, dtype;
    pn_string_list trains, frozen;
} top_options;

static const char *const dtypes[] = { "f32", "bf16", "f16", NULL };
static const pn_dtype dtype_of[] = { PN_F32, PN_BF16, PN_F16 };

static const pn_option top_table[] = {
    PN_OPT_STRING(top_options, output, NULL, "directory of the run; the result is its model/", .example = "runs/base"),
    PN_OPT_STRING(top_options, model, NULL, "model directory to start from; without it, section random",
                  .example = "models/smollm2"),
    PN_OPT_STRING(top_options, tokenizer, NULL,
                  "tokenizer directory, or bytes: 256 bytes and three special tokens; none: the model's",
                  .example = "bytes"),
    PN_OPT_INT(top_options, seed, 1, 0, 9e15, "of weights and data"),
    PN_OPT_INT(top_options, sequence_length, 512, 2, 1e9, "tokens of a row of packed documents"),
    PN_OPT_ENUM(top_options, dtype, "bf16", dtypes, "of the matrices that are written"),
    PN_OPT_STRINGS(top_options, trains, NULL, "glob patterns of the weights that train; none: all",
                   .example = "[\"*.self_attn.*\"]"),
    PN_OPT_STRINGS(top_options, frozen, NULL, "glob patterns of weights that stay as they are",
                   .example = "[\"*.mlp.*\", \"*norm*\"]"),
    PN_OPT_SECTION("random", "the model to make when none is given"),
    PN_OPT_SECTION("stages", "what to train on, one after another"),
    PN_OPT_END,
};

typedef struct random_options {
    int64_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
        vocab_size;
    double rope_theta, rms_norm_eps, initializer_range;
    bool tie_word_embeddings, attention_bias;
} random_options;

static const pn_option random_table[] = {
    PN_OPT_INT(random_options, hidden_size, 64, 2, 1048576, "width of the residual stream"),
    PN_OPT_INT(random_options, num_hidden_layers, 8, 1, PN_MAX_LAYERS, "layers"),
    PN_OPT_INT(random_options, num_attention_heads, 2, 1, 4096, "query heads"),
    PN_OPT_INT(random_options, num_key_value_heads, 1, 1, 4096, "key/value heads"),
    PN_OPT_INT(random_options, head_dim, 0, 0, 1024, "width of a head; 0: hidden_size over heads"),
    PN_OPT_INT(random_options, intermediate_size, 128, 1, 1048576, "width of the MLP"),
    PN_OPT_INT(random_options, vocab_size, 0, 0, 16777216, "rows of the embedding; 0: the tokenizer's"),
    PN_OPT_FLOAT(random_options, rope_theta, 10000, 1.001, 1e12, "base of the rotary positions"),
    PN_OPT_FLOAT(random_options, rms_norm_eps, 1e-6, 1e-12, 0.1, "epsilon of the layer norms"),
    PN_OPT_FLOAT(random_options, initializer_range, 0.02, 0, 10,
                 "standard deviation of matrices; o_proj and down_proj are divided by sqrt(2 layers)"),
    PN_OPT_BOOL(random_options, tie_word_embeddings, true, "the output matrix is the embedding"),
    PN_OPT_BOOL(random_options, attention_bias, true, "biases on q, k and v, as in Qwen2.5"),
    PN_OPT_END,
};

typedef struct stage {
    const char *name;
    pn_train_options train;
} stage;

static const pn_option stage_table[] = {
    PN_OPT_STRING(stage, name, NULL, "name of the stage", .example = "long"),
    PN_OPT_SECTION("mixture", "what it trains on"),
    PN_OPT_END,
};

typedef struct finetune {
    pn_config *config;
    top_options top;
    pn_compute_options compute;
    pn_compute on;
    random_options random;
    stage stages[MAX_STAGES];
    int n_stages;
    pn_tokenizer *tokenizer;
    pn_model *model;
    pn_run_dir run;
} finetune;

static pn_status read_mixture(finetune *f, int i, pn_mixture **out) {
    char path[64];
    snprintf(path, sizeof path, "stages.%d.mixture", i);
    const pn_mixture_config base = { .tokenizer = f->tokenizer,
                                     .frame = pn_doc_frame_default(f->tokenizer),
                                     .sequence_length = f->top.sequence_length,
                                     .seed = (uint64_t)f->top.seed };
    PN_TRY(pn_mixture_read(f->config, path, &base, out));
    return PN_OK;
}

static pn_status open_tokenizer(finetune *f) {
    static const char *const specials[] = { "<|endoftext|>", "<|bos|>", "<|pad|>" };
    const char *name = f->top.tokenizer ? f->top.tokenizer : f->top.model;
    PN_CHECK(name, PN_USAGE, "%s: give model (a directory), or tokenizer and random", pn_config_name(f->config));
    if (!strcmp(name, "bytes"))
        PN_TRY(pn_tokenizer_bytes(specials, 3, &f->tokenizer));
    else
        PN_TRY(pn_tokenizer_open(name, &f->tokenizer));
    return PN_OK;
}

static pn_status read_all(finetune *f) {
    PN_TRY(pn_config_read(f->config, "", top_table, &f->top));
    PN_TRY(pn_config_read(f->config, "", pn_compute_option_table, &f->compute));
    if (!f->top.model) PN_TRY(pn_config_read(f->config, "random", random_table, &f->random));
    PN_TRY(pn_config_list_size(f->config, "stages", &f->n_stages));
    PN_CHECK(f->n_stages >= 1 && f->n_stages <= MAX_STAGES, PN_USAGE, "%s: stages must list 1 to %d stages",
             pn_config_name(f->config), MAX_STAGES);
    PN_TRY(open_tokenizer(f));
    for (int i = 0; i < f->n_stages; i++) {
        char path[64];
        snprintf(path, sizeof path, "stages.%d", i);
        PN_TRY(pn_config_read(f->config, path, stage_table, &f->stages[i]));
        PN_TRY(pn_config_read(f->config, path, pn_train_option_table, &f->stages[i].train));
        f->stages[i].train.loss = pn_loss_constant(&(pn_loss_weights){ .ce = 1, .temperature = 1 });
        pn_mixture *m;
        PN_TRY(read_mixture(f, i, &m));
        pn_status s = pn_train_options_check(&f->stages[i].train, m, pn_config_where(f->config, path));
        pn_mixture_destroy(&m);
        PN_TRY(s);
    }
    PN_TRY(pn_config_finish(f->config));
    return PN_OK;
}

static pn_status random_model(finetune *f) {
    const random_options *o = &f->random;
    int64_t vocab = pn_tokenizer_vocab(f->tokenizer);
    PN_CHECK(!o->vocab_size || o->vocab_size >= vocab, PN_USAGE,
             "%s: vocab_size %lld is smaller than the tokenizer's %lld",
             pn_config_where(f->config, "random.vocab_size"), (long long)o->vocab_size, (long long)vocab);
    pn_model_config c = { .dims = { .hidden = o->hidden_size,
                                    .heads = o->num_attention_heads,
                                    .kv_heads = o->num_key_value_heads,
                                    .head_dim = o->head_dim ? o->head_dim : o->hidden_size / o->num_attention_heads,
                                    .intermediate = o->intermediate_size,
                                    .rope_theta = o->rope_theta,
                                    .rms_norm_eps = o->rms_norm_eps,
                                    .qkv_bias = o->attention_bias },
                          .vocab = o->vocab_size ? o->vocab_size : vocab,
                          .n_layers = (int)o->num_hidden_layers,
                          .tied = o->tie_word_embeddings,
                          .bos = pn_tokenizer_bos(f->tokenizer),
                          .eos = pn_tokenizer_eos(f->tokenizer),
                          .max_position = f->top.sequence_length,
                          .initializer_range = o->initializer_range,
                          .file_dtype = dtype_of[f->top.dtype] };
    PN_CHECK(o->head_dim || o->hidden_size % o->num_attention_heads == 0, PN_USAGE,
             "%s: hidden_size %lld is not a multiple of num_attention_heads %lld; give head_dim",
             pn_config_where(f->config, "random"), (long long)o->hidden_size, (long long)o->num_attention_heads);
    for (int l = 0; l < c.n_layers; l++) PN_TRY(pn_block_spec_default(&pn_block_attention, &c.layer[l]));
    PN_TRY(pn_model_create(&c, PN_F32, NULL, &f->model));
    for (int i = 0; i < f->model->params->n; i++) {
        pn_param *p = f->model->params->item[i];
        if (p->init.kind == PN_INIT_NORMAL) {
            bool residual = strstr(p->name, "o_proj.weight") || strstr(p->name, "down_proj.weight");
            p->init.a = o->initializer_range / (residual ? sqrt(2.0 * c.n_layers) : 1);
        }
    }
    PN_TRY(pn_params_init(f->model->params, (uint64_t)f->top.seed));
    return PN_OK;
}

static pn_status make_model(finetune *f) {
    if (!f->top.model) return random_model(f);
    PN_TRY(pn_model_load(f->top.model, PN_F32, &f->model));
    PN_CHECK(pn_tokenizer_vocab(f->tokenizer) <= f->model->config.vocab, PN_USAGE,
             "%s: the tokenizer has %lld tokens, the model in %s only %lld; leave tokenizer out to use the model's own",
             pn_config_where(f->config, f->top.tokenizer ? "tokenizer" : "model"),
             (long long)pn_tokenizer_vocab(f->tokenizer), f->top.model, (long long)f->model->config.vocab);
    return PN_OK;
}

static pn_status choose_trained(finetune *f) {
    const pn_string_list *lists[] = { &f->top.trains, &f->top.frozen };
    pn_params_train(f->model->params, "*", f->top.trains.n == 0);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < lists[k]->n; i++)
            PN_CHECK(pn_params_train(f->model->params, lists[k]->item[i], k == 0), PN_USAGE,
                     "%s: no weight is called \"%s\"", pn_config_where(f->config, k ? "frozen" : "trains"),
                     lists[k]->item[i]);
    return PN_OK;
}

static const char *stage_name(const finetune *f, int i, char *name, size_t n) {
    snprintf(name, n, "stage %d/%d %s", i + 1, f->n_stages, f->stages[i].name ? f->stages[i].name : "");
    return name;
}

/* Every stage, before the first begins. */
static pn_status check_memory(finetune *f) {
    for (int i = 0; i < f->n_stages; i++) {
        char name[96];
        pn_mixture *mixture;
        PN_TRY(read_mixture(f, i, &mixture));
        const pn_train_job job = { .name = stage_name(f, i, name, sizeof name),
                                   .options = &f->stages[i].train,
                                   .mixture = mixture,
                                   .student = f->model };
        pn_status s = pn_train_fits(&job, &(pn_recompute){ 0 });
        pn_mixture_destroy(&mixture);
        PN_TRY(s);
    }
    return PN_OK;
}

static pn_status train(finetune *f) {
    uint64_t start;
    PN_TRY(pn_params_hash(f->model->params, &start));
    for (int i = 0; i < f->n_stages; i++) {
        char state[PN_PATH_MAX], name[96], part[64];
        snprintf(part, sizeof part, "state/stage-%d", i + 1);
        stage_name(f, i, name, sizeof name);
        PN_TRY(pn_run_dir_file(&f->run, part, state));
        pn_mixture *mixture;
        PN_TRY(read_mixture(f, i, &mixture));
        const pn_train_job job = { .name = name,
                                   .options = &f->stages[i].train,
                                   .mixture = mixture,
                                   .student = f->model,
                                   .identity = start,
                                   .state_dir = state };
        pn_status s = pn_train_run(&job, NULL);
        pn_mixture_destroy(&mixture);
        PN_TRY(s);
    }
    return PN_OK;
}

static pn_status write_model(finetune *f) {
    char path[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(&f->run, "model", path));
    pn_directory_writer w = { 0 };
    PN_TRY(pn_directory_writer_open(path, &w));
    const pn_save_options save = { .dtype = dtype_of[f->top.dtype], .kind = PN_HF_AUTO };
    pn_status s = pn_model_save(f->model, w.temporary, &save);
    if (!s) s = pn_tokenizer_write_dir(f->tokenizer, w.temporary);
    if (!s) s = pn_directory_writer_commit(&w);
    pn_directory_writer_abort(&w);
    PN_TRY(s);
    pn_info("wrote %s", path);
    return PN_OK;
}

static pn_status run(finetune *f) {
    char done[PN_PATH_MAX];
    PN_TRY(read_all(f));
    PN_TRY(pn_compute_open(&f->compute, pn_config_where(f->config, "precision"), &f->on));
    PN_TRY(make_model(f));
    PN_TRY(choose_trained(f));
    PN_TRY(pn_params_move(f->model->params, f->on.backend, f->on.dtype));
    PN_TRY(check_memory(f));
    PN_TRY(pn_run_dir_open(f->top.output, f->config, NULL, 0,
                           &f->run)); /* the input is good: now something may be written */
    PN_TRY(pn_compute_tell(&f->on));
    PN_TRY(pn_run_dir_file(&f->run, "model", done));
    if (pn_is_directory(done)) {
        pn_info("%s is already there: nothing to do", done);
        return PN_OK;
    }
    pn_info("%lld weights, %lld of them train", (long long)pn_params_count(f->model->params, false),
            (long long)pn_params_count(f->model->params, true));
    PN_TRY(train(f));
    PN_TRY(write_model(f));
    return PN_OK;
}

static void finetune_free(finetune *f) {
    pn_run_dir_close(&f->run);
    pn_model_destroy(&f->model);
    pn_tokenizer_destroy(&f->tokenizer);
    free(f);
}

pn_status pn_finetune_read_config(pn_config *c) {
    finetune *f = calloc(1, sizeof *f);
    PN_CHECK(f, PN_MEMORY, "out of memory");
    f->config = c;
    pn_status s = read_all(f);
    finetune_free(f);
    return s;
}

pn_status pn_finetune_run(pn_config *c) {
    finetune *f = calloc(1, sizeof *f);
    PN_CHECK(f, PN_MEMORY, "out of memory");
    f->config = c;
    pn_status s = run(f);
    finetune_free(f);
    return s;
}

const pn_config_section pn_finetune_sections[] = {
    { .path = "", .table = top_table },
    { .path = "", .table = pn_compute_option_table },
    { .path = "random", .table = random_table },
    { .path = "stages[]", .table = stage_table },
    { .path = "stages[]", .table = pn_train_option_table },
    { .path = "stages[].mixture[]", .table = pn_mixture_keys },
    { .path = "stages[].mixture[]", .kind = "skills" },
    { .path = NULL },
};
