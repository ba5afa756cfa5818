#include "recipe.h"

#include <string.h>

#include "finetune.h"

static const char *const dtypes[] = { "f32", "bf16", "f16", NULL };
static const pn_dtype dtype_of[] = { PN_F32, PN_BF16, PN_F16 };

static const pn_option top_table[] = {
    PN_OPT_STRING(pn_recipe_top, output, NULL, "directory of the run; the result is its model/", .example = "runs/base",
                  .incidental = true),
    PN_OPT_STRING(pn_recipe_top, model, NULL,
                  "model directory, or run of postnas search, to start from; without it, section random",
                  .example = "models/smollm2"),
    PN_OPT_STRING(pn_recipe_top, tokenizer, NULL,
                  "tokenizer directory, or bytes: 256 bytes and three special tokens; none: the model's",
                  .example = "bytes"),
    PN_OPT_INT(pn_recipe_top, seed, 1, 0, 9e15, "of weights and data"),
    PN_OPT_INT(pn_recipe_top, sequence_length, 512, 2, 1e9, "tokens of a row of packed documents"),
    PN_OPT_ENUM(pn_recipe_top, dtype, "bf16", dtypes, "of the matrices that are written"),
    PN_OPT_STRINGS(pn_recipe_top, trains, NULL, "glob patterns of the weights that train; none: all",
                   .example = "[\"*.self_attn.*\"]"),
    PN_OPT_STRINGS(pn_recipe_top, frozen, NULL, "glob patterns of weights that stay as they are",
                   .example = "[\"*.mlp.*\", \"*norm*\"]"),
    PN_OPT_FLOAT(pn_recipe_top, mfu_tflops, 0, 0, 1e9,
                 "peak TFLOP/s of the device, which MFU is a share of; 0: the dense BF16 peak of a GPU whose name is "
                 "known",
                 .incidental = true),
    PN_OPT_SECTION("random", "the model to make when none is given"),
    PN_OPT_SECTION("shape", "what `model` is: --plan then needs no files of it, and another model is refused"),
    PN_OPT_SECTION("hybrid", "other mixers in the model's layers, which begin with random weights"),
    PN_OPT_SECTION("stages", "what to train on, one after another"),
    PN_OPT_SECTION("ranks", "how those that train together meet (docs/many-ranks.md)", .incidental = true),
    PN_OPT_END,
};

static const pn_option shape_table[] = {
    PN_OPT_INT(pn_recipe_shape, hidden_size, 64, 2, 1048576, "width of the residual stream"),
    PN_OPT_INT(pn_recipe_shape, num_hidden_layers, 8, 1, PN_MAX_LAYERS, "layers"),
    PN_OPT_INT(pn_recipe_shape, num_attention_heads, 2, 1, 4096, "query heads"),
    PN_OPT_INT(pn_recipe_shape, num_key_value_heads, 1, 1, 4096, "key/value heads"),
    PN_OPT_INT(pn_recipe_shape, head_dim, 0, 0, 1024, "width of a head; 0: hidden_size over heads"),
    PN_OPT_INT(pn_recipe_shape, intermediate_size, 128, 1, 1048576, "width of the MLP"),
    PN_OPT_INT(pn_recipe_shape, vocab_size, 0, 0, 16777216, "rows of the embedding; 0: the tokenizer's"),
    PN_OPT_FLOAT(pn_recipe_shape, rope_theta, 10000, 1.001, 1e12, "base of the rotary positions"),
    PN_OPT_FLOAT(pn_recipe_shape, rms_norm_eps, 1e-6, 1e-12, 0.1, "epsilon of the layer norms"),
    PN_OPT_FLOAT(pn_recipe_shape, initializer_range, 0.02, 0, 10,
                 "standard deviation of matrices; o_proj and down_proj are divided by sqrt(2 layers)"),
    PN_OPT_BOOL(pn_recipe_shape, tie_word_embeddings, true, "the output matrix is the embedding"),
    PN_OPT_BOOL(pn_recipe_shape, attention_bias, true, "biases on q, k and v, as in Qwen2.5"),
    PN_OPT_END,
};

typedef struct hybrid_options {
    const char *layers;
} hybrid_options;

static const pn_option hybrid_table[] = {
    PN_OPT_STRING(
        hybrid_options, layers, NULL,
        "a block for each layer (`postnas list blocks`), repeats as *n; attention is the model's own; what is "
        "set of a block stands in a section of its name beside this key",
        .example = "\"gated_deltanet*3, attention, gated_deltanet*4\""),
    PN_OPT_END,
};

static const pn_option stage_table[] = {
    PN_OPT_STRING(pn_recipe_stage, name, NULL, "name of the stage", .example = "long"),
    PN_OPT_STRING(pn_recipe_stage, teacher, "none",
                  "whom kl and feature follow: base, the model that the hybrid was made from; a model directory; none"),
    PN_OPT_STRING(pn_recipe_stage, teacher_logits, NULL,
                  "directory of what the teacher said of this stage's rows (`postnas teach`): kl follows that, and the "
                  "teacher does not run; none: it does",
                  .example = "teach/distil"),
    PN_OPT_INT_OR(pn_recipe_stage, sequence_length, "top", "top", 2, 1e9,
                  "tokens of a row in this stage; top: as the top level says"),
    PN_OPT_STRINGS(pn_recipe_stage, trains, NULL,
                   "glob patterns of the weights that train in this stage; none, and no frozen: as the top level says",
                   .example = "[\"*.self_attn.*\"]"),
    PN_OPT_STRINGS(pn_recipe_stage, frozen, NULL, "glob patterns of weights that stay as they are in this stage",
                   .example = "[\"*.mlp.*\"]"),
    PN_OPT_SECTION("mixture", "what it trains on"),
    PN_OPT_END,
};

const pn_config_section pn_finetune_sections[] = {
    { .path = "", .table = top_table },
    { .path = "", .table = pn_compute_option_table },
    { .path = "ranks", .table = pn_world_option_table },
    { .path = "random", .table = shape_table },
    { .path = "shape", .table = shape_table },
    { .path = "hybrid", .table = hybrid_table },
    { .path = "hybrid.BLOCK", .kind = "blocks" },
    { .path = "stages[]", .table = stage_table },
    { .path = "stages[]", .table = pn_train_stage_table },
    { .path = "stages[].mixture[]", .table = pn_mixture_keys },
    { .path = "stages[].mixture[]", .kind = "skills" },
    { .path = NULL },
};

/* ---- hybrid ---- */

/* The block of a name, with what section hybrid.NAME sets. *own: nothing is set of it. */
static pn_status read_block(pn_config *c, const char *name, pn_block_spec *out, bool *own) {
    char section[128];
    const pn_block_type *type = pn_block_find(name);
    PN_CHECK(type && type->role == PN_MIXER, PN_USAGE, "%s: no token mixer is named \"%s\"; see `postnas list blocks`",
             pn_config_where(c, "hybrid.layers"), name);
    snprintf(section, sizeof section, "hybrid.%s", name);
    *own = !pn_config_has(c, section);
    PN_TRY(pn_block_spec_default(type, out));
    if (type->options) PN_TRY(pn_config_read(c, section, type->options, out->options));
    return PN_OK;
}

/* "name*3" at *text, which moves behind it and its comma. */
static pn_status next_name(pn_config *c, const char **text, char name[64], int64_t *repeat) {
    const char *p = *text + strspn(*text, " ");
    const size_t n = strcspn(p, ",* ");
    int used = 0;
    PN_CHECK(n > 0 && n < 64, PN_USAGE, "%s: expected a block's name at \"%.32s\"", pn_config_where(c, "hybrid.layers"),
             p);
    snprintf(name, 64, "%.*s", (int)n, p);
    p += n;
    p += strspn(p, " ");
    *repeat = 1;
    if (*p == '*') {
        long long given;
        PN_CHECK(sscanf(p, "* %4lld%n", &given, &used) == 1 && given >= 1 && given <= PN_MAX_LAYERS, PN_USAGE,
                 "%s: expected 1 to %d repeats at \"%.32s\"", pn_config_where(c, "hybrid.layers"), PN_MAX_LAYERS, p);
        *repeat = given;
        p += used;
        p += strspn(p, " ");
    }
    PN_CHECK(!*p || *p == ',', PN_USAGE, "%s: expected a comma at \"%.32s\"", pn_config_where(c, "hybrid.layers"), p);
    *text = *p ? p + 1 : p;
    return PN_OK;
}

static pn_status read_layers(pn_config *c, pn_recipe_layers *out) {
    hybrid_options o;
    PN_TRY(pn_config_read(c, "hybrid", hybrid_table, &o));
    out->n = 0;
    const char *const *keys;
    PN_CHECK(o.layers || pn_config_keys(c, "hybrid", &keys) <= 1, PN_USAGE, /* the one is layers */
             "%s: give layers, a block for each", pn_config_where(c, "hybrid"));
    for (const char *p = o.layers; p && *p;) {
        char name[64];
        int64_t repeat;
        pn_block_spec spec;
        bool own;
        PN_TRY(next_name(c, &p, name, &repeat));
        PN_TRY(read_block(c, name, &spec, &own));
        PN_CHECK(out->n + repeat <= PN_MAX_LAYERS, PN_USAGE, "%s: more than %d layers",
                 pn_config_where(c, "hybrid.layers"), PN_MAX_LAYERS);
        for (; repeat > 0; repeat--, out->n++) {
            out->spec[out->n] = spec;
            out->own[out->n] = own;
        }
    }
    return PN_OK;
}

/* ---- all of it ---- */

/* Weights go from one end to the other in a line: between two sums above 0 there is none of 0. */
static pn_status check_losses(const pn_train_options *o, const char *where) {
    const int64_t steps = pn_train_steps(o);
    for (int end = 0; end < 2; end++) {
        const pn_loss_weights w = pn_loss_at(&o->loss, end ? steps - 1 : 0, steps);
        PN_CHECK(w.ce + w.kl + w.feature > 0, PN_USAGE,
                 "%s: every loss has weight 0 at the stage's %s: there set ce, kl or feature above 0", where,
                 end ? "end" : "start");
    }
    return PN_OK;
}

static pn_status read_stage(pn_recipe *r, int i) {
    pn_recipe_stage *s = &r->stage[i];
    char path[64], mixture[80];
    snprintf(path, sizeof path, "stages.%d", i);
    snprintf(mixture, sizeof mixture, "%s.mixture", path);
    PN_TRY(pn_config_read(r->config, path, stage_table, s));
    PN_TRY(pn_config_read(r->config, path, pn_train_stage_table, &s->train));
    pn_train_stage_settle(&s->train);
    if (!s->sequence_length) s->sequence_length = r->top.sequence_length;
    if (!s->trains.n && !s->frozen.n) {
        s->trains = r->top.trains;
        s->frozen = r->top.frozen;
    }
    PN_TRY(pn_mixture_read_keys(r->config, mixture));
    PN_TRY(pn_train_options_check_rows(&s->train, s->sequence_length, pn_config_where(r->config, path)));
    const pn_loss_weights most = pn_loss_most(&s->train.loss);
    const bool taught = strcmp(s->teacher, "none") || s->teacher_logits, follows = most.kl > 0 || most.feature > 0;
    PN_CHECK(taught || !follows, PN_USAGE, "%s: kl and feature need a teacher: set teacher: base, or a model directory",
             pn_config_where(r->config, path));
    PN_CHECK(!taught || follows, PN_USAGE,
             "%s: a teacher without kl or feature teaches nothing: set one of them above 0, or teacher: none",
             pn_config_where(r->config, path));
    PN_CHECK(!s->teacher_logits || most.feature == 0, PN_USAGE,
             "%s: teacher_logits hold words, and feature compares layer by layer: set feature: 0, or leave "
             "teacher_logits out, so that the teacher runs",
             pn_config_where(r->config, path));
    return check_losses(&s->train, pn_config_where(r->config, path));
}

pn_status pn_recipe_read(pn_config *c, pn_recipe *out) {
    *out = (pn_recipe){ .config = c };
    PN_TRY(pn_config_read(c, "", top_table, &out->top));
    PN_TRY(pn_config_read(c, "", pn_compute_option_table, &out->compute));
    PN_TRY(pn_config_read(c, "ranks", pn_world_option_table, &out->ranks));
    out->shaped = out->top.model && pn_config_has(c, "shape");
    if (!out->top.model || out->shaped)
        PN_TRY(pn_config_read(c, out->shaped ? "shape" : "random", shape_table, &out->shape));
    PN_TRY(read_layers(c, &out->layers));
    PN_TRY(pn_config_list_size(c, "stages", &out->n_stages));
    PN_CHECK(out->n_stages >= 1 && out->n_stages <= PN_RECIPE_STAGES, PN_USAGE, "%s: stages must list 1 to %d stages",
             pn_config_name(c), PN_RECIPE_STAGES);
    for (int i = 0; i < out->n_stages; i++) PN_TRY(read_stage(out, i));
    PN_TRY(pn_config_finish(c));
    PN_CHECK(out->top.tokenizer || out->top.model, PN_USAGE, "%s: give model (a directory), or tokenizer and random",
             pn_config_name(c));
    return PN_OK;
}

const char *pn_recipe_stage_name(const pn_recipe *r, int i, char *buffer, size_t n) {
    snprintf(buffer, n, "stage %d/%d %s", i + 1, r->n_stages, r->stage[i].name ? r->stage[i].name : "");
    return buffer;
}

pn_dtype pn_recipe_dtype(const pn_recipe *r) {
    return dtype_of[r->top.dtype];
}

pn_status pn_recipe_mixture(const pn_recipe *r, int i, const pn_tokenizer *tokenizer, pn_mixture **out) {
    char path[64];
    const pn_recipe_stage *stage = &r->stage[i];
    snprintf(path, sizeof path, "stages.%d.mixture", i);
    const pn_mixture_config base = { .tokenizer = tokenizer,
                                     .frame = pn_doc_frame_default(tokenizer),
                                     .sequence_length = stage->sequence_length,
                                     .seed = (uint64_t)r->top.seed,
                                     .rows = stage->train.tokens / stage->sequence_length };
    PN_TRY(pn_mixture_read(r->config, path, &base, out));
    return PN_OK;
}

pn_status pn_recipe_tokenizer(const pn_recipe *r, pn_tokenizer **out) {
    static const char *const specials[] = { "<|endoftext|>", "<|bos|>", "<|pad|>" };
    char model[PN_PATH_MAX];
    if (r->top.tokenizer && !strcmp(r->top.tokenizer, "bytes")) return pn_tokenizer_bytes(specials, 3, out);
    PN_TRY(pn_recipe_model_path(r, model));
    PN_TRY(pn_tokenizer_open(r->top.tokenizer ? r->top.tokenizer : model, out));
    return PN_OK;
}
