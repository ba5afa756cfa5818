/* Exported directories, name by name: jet_nemotron against docs/blocks.md 1.2, 2, 3 and 10, fla against files that fla
 * wrote, and what no layout holds. */
#include "model_load.h"

#include "block_option.h"
#include "fla.h"
#include "io_fixture.h"
#include "json.h"
#include "random_weights.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden/"

/* ---- what a directory holds ---- */

typedef struct expected {
    const char *name; /* behind the layer's prefix */
    pn_dtype dtype;
    int64_t shape[3]; /* 0 ends */
} expected;

static void expect_tensor(const pn_weights *w, const char *prefix, const expected *e) {
    char name[256];
    snprintf(name, sizeof name, "%s%s", prefix, e->name);
    const pn_tensor_info *t = pn_weights_find(w, name);
    ck_assert_msg(t != NULL, "there is no %s", name);
    int rank = 0;
    while (rank < 3 && e->shape[rank]) rank++;
    ck_assert_msg(t->rank == rank && t->dtype == e->dtype, "%s: %s %s", name, pn_tensor_info_shape_text(t), t->type);
    for (int i = 0; i < rank; i++)
        ck_assert_msg(t->shape[i] == e->shape[i], "%s has shape %s", name, pn_tensor_info_shape_text(t));
}

/* Returns how many there were. */
static int64_t expect_tensors(const pn_weights *w, const char *prefix, const expected *list) {
    int64_t n = 0;
    for (; list[n].name; n++) expect_tensor(w, prefix, &list[n]);
    return n;
}

/* The value of a key of config.json, and as JSON what it must be; NULL: it must be absent. */
typedef struct field {
    const char *key, *value;
} field;

static void expect_fields(const char *dir, const field *fields) {
    char path[600];
    json_t *root;
    snprintf(path, sizeof path, "%s/config.json", dir);
    ck_ok(pn_json_load(path, 1 << 20, &root));
    for (; fields->key; fields++) {
        const json_t *v = pn_json_at(root, fields->key);
        json_t *want = fields->value ? json_loads(fields->value, JSON_DECODE_ANY, NULL) : NULL;
        char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
        ck_assert_msg(fields->value ? json_equal((json_t *)(uintptr_t)v, want) : !v, "%s is %s, not %s", fields->key,
                      text ? text : "absent", fields->value ? fields->value : "absent");
        free(text);
        json_decref(want);
    }
    json_decref(root);
}

/* ---- jet_nemotron ---- */

/* D 40, 4 heads of 10 with 2 for keys and values, I 72; jet: H 3, dk 8, dv 16, so V 48 and R 6; W 4. */
enum { D = 40, I = 72, QKV_Q = 40, QKV_K = 20, VOCAB = 64, LAYERS = 4 };

static pn_model_config hybrid(bool tied, bool qkv_bias) {
    static const char *const mixer[LAYERS] = { "jet", "attention", "jet", "swa" };
    pn_model_config c = { .dims = { .hidden = D,
                                    .heads = 4,
                                    .kv_heads = 2,
                                    .head_dim = 10,
                                    .intermediate = I,
                                    .rope_theta = 1e6,
                                    .rms_norm_eps = 1e-6,
                                    .qkv_bias = qkv_bias },
                          .vocab = VOCAB,
                          .n_layers = LAYERS,
                          .tied = tied,
                          .bos = 3,
                          .eos = 5,
                          .max_position = 32768,
                          .initializer_range = 0.02 };
    for (int l = 0; l < LAYERS; l++) ck_ok(pn_block_spec_default(pn_block_find(mixer[l]), &c.layer[l]));
    for (int l = 0; l < LAYERS; l += 2) {
        set_option(&c.layer[l], "num_heads", "3");
        set_option(&c.layer[l], "head_dim", "8");
    }
    set_option(&c.layer[3], "window_size", "9");
    return c;
}

static const expected backbone[] = {
    { "model.embed_tokens.weight", PN_BF16, { VOCAB, D } },
    { "model.norm.weight", PN_F32, { D } },
    { NULL, 0, { 0 } },
};
static const expected around[] = {
    { "input_layernorm.weight", PN_F32, { D } },   { "post_attention_layernorm.weight", PN_F32, { D } },
    { "mlp.gate_proj.weight", PN_BF16, { I, D } }, { "mlp.up_proj.weight", PN_BF16, { I, D } },
    { "mlp.down_proj.weight", PN_BF16, { D, I } }, { NULL, 0, { 0 } },
};
static const expected attention[] = {
    { "q_proj.weight", PN_BF16, { QKV_Q, D } }, { "q_proj.bias", PN_BF16, { QKV_Q } },
    { "k_proj.weight", PN_BF16, { QKV_K, D } }, { "k_proj.bias", PN_BF16, { QKV_K } },
    { "v_proj.weight", PN_BF16, { QKV_K, D } }, { "v_proj.bias", PN_BF16, { QKV_K } },
    { "o_proj.weight", PN_BF16, { D, QKV_Q } }, { NULL, 0, { 0 } },
};
static const expected jet[] = {
    { "q_proj.weight", PN_BF16, { 24, D } },
    { "k_proj.weight", PN_BF16, { 24, D } },
    { "v_proj.weight", PN_BF16, { 48, D } },
    { "g_proj.weight", PN_BF16, { 48, D } },
    { "b_proj.weight", PN_BF16, { 3, D } },
    { "a_proj.weight", PN_BF16, { 3, D } },
    { "A_log", PN_F32, { 3 } },
    { "dt_bias", PN_F32, { 3 } },
    { "dynamic_conv1d.kernel_generator.w1.weight", PN_BF16, { 6, D } },
    { "dynamic_conv1d.kernel_generator.w2.weight", PN_BF16, { 48 * 4, 6 } },
    { "dynamic_conv1d.kernel_generator.w2.bias", PN_F32, { 48 * 4 } },
    { "o_norm.weight", PN_F32, { 16 } },
    { "o_proj.weight", PN_BF16, { D, 48 } },
    { NULL, 0, { 0 } },
};
static const expected head[] = { { "lm_head.weight", PN_BF16, { VOCAB, D } }, { NULL, 0, { 0 } } };

static const field jet_fields[] = {
    { "architectures", "[\"JetNemotronForCausalLM\"]" },
    { "model_type", "\"jet_nemotron\"" },
    { "auto_map.AutoConfig", "\"jet-ai/Jet-Nemotron-2B--configuration_jet_nemotron.JetNemotronConfig\"" },
    { "auto_map.AutoModelForCausalLM", "\"jet-ai/Jet-Nemotron-2B--modeling_jet_nemotron.JetNemotronForCausalLM\"" },
    { "layer_types", "[\"jet\", \"attn\", \"jet\", \"swa\"]" },
    { "efficient_attention_config.swa", "{\"window_size\": 9}" },
    { "efficient_attention_config.jet",
      "{\"mode\": \"chunk\", \"num_heads\": 3, \"head_dim\": 8, \"expand_v\": 2.0, \"conv_size\": 4, "
      "\"dconv_generator_reduction\": 8, \"dconv_implementation\": \"triton\", \"norm_eps\": 1e-5}" },
    { "hidden_size", "40" },
    { "intermediate_size", "72" },
    { "num_hidden_layers", "4" },
    { "num_attention_heads", "4" },
    { "num_key_value_heads", "2" },
    { "head_dim", NULL }, /* D / heads */
    { "vocab_size", "64" },
    { "max_position_embeddings", "32768" },
    { "hidden_act", "\"silu\"" },
    { "rms_norm_eps", "1e-6" },
    { "rope_theta", "1e6" },
    { "rope_scaling", "null" },
    { "rope_parameters", NULL },
    { "attention_dropout", "0.0" },
    { "initializer_range", "0.02" },
    { "bos_token_id", "3" },
    { "eos_token_id", "5" },
    { "torch_dtype", "\"bfloat16\"" },
    { NULL, NULL },
};
static const field tied_field[] = { { "tie_word_embeddings", "true" }, { NULL, NULL } };
static const field untied_field[] = { { "tie_word_embeddings", "false" }, { NULL, NULL } };

START_TEST(jet_nemotron_is_as_published) {
    for (int plain = 0; plain < 2; plain++) { /* 1: a base without biases whose head is its own */
        const pn_model_config c = hybrid(!plain, !plain);
        pn_model *m;
        pn_weights *w;
        ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
        randomise(m->params);
        ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_BF16, .kind = PN_HF_JET_NEMOTRON }));
        expect_fields(scratch("."), jet_fields);
        expect_fields(scratch("."), plain ? untied_field : tied_field);
        ck_assert_int_ne(access(scratch("postnas.json"), F_OK), 0); /* the published code loads it */
        ck_ok(pn_weights_open(scratch("."), &w));
        int64_t n = expect_tensors(w, "", backbone) + (plain ? expect_tensors(w, "", head) : 0);
        for (int l = 0; l < LAYERS; l++) {
            char prefix[64];
            snprintf(prefix, sizeof prefix, "model.layers.%d.", l);
            n += expect_tensors(w, prefix, around);
            snprintf(prefix, sizeof prefix, "model.layers.%d.self_attn.", l);
            n += expect_tensors(w, prefix, l % 2 ? attention : jet);
        }
        ck_assert_int_eq(pn_weights_count(w), n); /* and nothing else */
        pn_weights_close(&w);
        pn_model_destroy(&m);
    }
}
END_TEST

/* ---- fla ---- */

static const char *const fla_types[] = { "retnet", "gla", "delta_net", "gated_deltanet" };

/* A file that fla wrote, loaded and written again: the same tensors, whose small ones are now F32, and the same values.
 */
static void expect_same_file(const char *theirs, const char *ours) {
    pn_weights *a, *b;
    pn_pool *pool;
    ck_ok(pn_weights_open(theirs, &a));
    ck_ok(pn_weights_open(ours, &b));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_assert_int_eq(pn_weights_count(a), pn_weights_count(b));
    for (int64_t i = 0; i < pn_weights_count(a); i++) {
        const pn_tensor_info *x = pn_weights_info(a, i), *y = pn_weights_info(b, i);
        ck_assert_str_eq(x->name, y->name);
        ck_assert_str_eq(pn_tensor_info_shape_text(x), pn_tensor_info_shape_text(y));
        pn_tensor *p, *q;
        ck_ok(pn_tensor_create(pool, PN_F32, x->rank, x->shape, &p));
        ck_ok(pn_tensor_create(pool, PN_F32, x->rank, x->shape, &q));
        ck_ok(pn_weights_read(a, x->name, p));
        ck_ok(pn_weights_read(b, x->name, q));
        ck_assert_mem_eq(pn_data(p), pn_data(q), pn_tensor_bytes(p));
        pn_tensor_release(&p);
        pn_tensor_release(&q);
    }
    pn_pool_destroy(&pool);
    pn_weights_close(&a);
    pn_weights_close(&b);
}

/* Every key that both configs have says the same; the keys of how a file was made aside. */
static void expect_same_config(const char *theirs, const char *ours) {
    char a_path[600], b_path[600];
    const char *key;
    json_t *a, *b, *v;
    int compared = 0;
    snprintf(a_path, sizeof a_path, "%s/config.json", theirs);
    snprintf(b_path, sizeof b_path, "%s/config.json", ours);
    ck_ok(pn_json_load(a_path, 1 << 20, &a));
    ck_ok(pn_json_load(b_path, 1 << 20, &b));
    json_object_foreach(b, key, v) {
        const json_t *x = json_object_get(a, key);
        bool aside = !strcmp(key, "hidden_ratio"); /* says nothing beside intermediate_size */
        if (!x || aside) continue;
        /* null heads of k and v are as many as the others */
        if (json_is_null(x) && (!strcmp(key, "num_kv_heads") || !strcmp(key, "num_v_heads")))
            x = json_object_get(a, "num_heads");
        char *p = json_dumps(x, JSON_ENCODE_ANY | JSON_SORT_KEYS), *q = json_dumps(v, JSON_ENCODE_ANY | JSON_SORT_KEYS);
        ck_assert_msg(json_is_number(x) && json_is_number(v) ? json_number_value(x) == json_number_value(v)
                                                             : !strcmp(p, q),
                      "%s: %s is %s, not %s", ours, key, q, p);
        compared++;
        free(p);
        free(q);
    }
    ck_assert_int_ge(compared, 20);
    /* and nothing of the model is left out */
    json_object_foreach(a, key, v) {
        static const char *const elsewhere[] = { "dtype",       "transformers_version", "fuse_norm",
                                                 "fuse_swiglu", "fuse_cross_entropy",   "fuse_linear_cross_entropy",
                                                 "use_l2warp",  "pad_token_id",         "use_gk",
                                                 "use_gv",      "use_output_norm" };
        bool known = json_object_get(b, key) != NULL;
        for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere && !known; i++) known = !strcmp(elsewhere[i], key);
        ck_assert_msg(known, "%s: %s is missing", ours, key);
    }
    json_decref(a);
    json_decref(b);
}

START_TEST(fla_is_as_fla_writes_it) {
    for (int i = 0; i < 4; i++) {
        char theirs[512];
        pn_model *m, *back;
        snprintf(theirs, sizeof theirs, GOLDEN "fla_%s", fla_types[i]);
        ck_ok(pn_model_load(theirs, PN_F32, &m));
        ck_assert_int_eq(m->config.file_dtype, PN_BF16);
        ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_BF16, .kind = PN_HF_FLA }));
        expect_same_file(theirs, scratch("."));
        expect_same_config(theirs, scratch("."));
        ck_assert_int_ne(access(scratch("postnas.json"), F_OK), 0);
        ck_ok(pn_model_load(scratch("."), PN_F32, &back));
        for (int l = 0; l < m->config.n_layers; l++)
            ck_assert(pn_block_spec_equal(&m->config.layer[l], &back->config.layer[l]));
        pn_model_destroy(&back);
        pn_model_destroy(&m);
    }
}
END_TEST

/* fla and the published JetBlock refuse an expand_v that gives no whole width when cut off: what is written always
 * does. */
START_TEST(expansions_are_written_exactly) {
    static const char *const given[] = { "2.6666666667", "2.66666666", "0.3333333", "1.0000001", "1.6666699" };
    for (size_t i = 0; i < 2 * sizeof given / sizeof *given; i++) {
        const bool jet_layers = i % 2;
        const char *text = given[i / 2];
        pn_model_config c = hybrid(true, true), back;
        for (int l = 0; l < LAYERS; l += 2) {
            if (!jet_layers) ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &c.layer[l]));
            set_option(&c.layer[l], "num_heads", "3");
            if (!jet_layers) set_option(&c.layer[l], "num_v_heads", "3");
            set_option(&c.layer[l], "head_dim", "96");
            set_option(&c.layer[l], "norm_eps", "1e-6");
            set_option(&c.layer[l], "expand_v", text);
        }
        double written;
        json_t *root;
        ck_ok(pn_hf_config_write(scratch("config.json"), &c, jet_layers ? PN_HF_JET_NEMOTRON : PN_HF_FLA));
        ck_ok(pn_json_load(scratch("config.json"), 1 << 20, &root));
        ck_ok(pn_json_get_f64(root, "config.json", jet_layers ? "efficient_attention_config.jet.expand_v" : "expand_v",
                              0, 10, &written));
        json_decref(root);
        const int64_t width = (int64_t)(96 * atof(text) + 0.5);
        ck_assert_int_eq((int64_t)(96 * written), width);
        ck_assert_int_eq((int64_t)(3 * 96 * written), 3 * width);
        ck_assert(i / 2 || written == atof(text)); /* the released files' number stays */
        ck_ok(pn_hf_config_read(scratch("config.json"), &back));
    }
}
END_TEST

typedef struct unfit {
    const char *block, *option, *value; /* of the linear layers */
    int kind;                           /* 0: as it is; more: below */
    const char *words[2];
} unfit;

START_TEST(what_fla_has_not_is_refused) {
    static const unfit table[] = {
        { "jet", NULL, NULL, 0, { "layer 0 is jet", "fla has no JetBlock" } },
        { "none", NULL, NULL, 0, { "layer 0 is none", "no layer without a token mixer" } },
        { "mamba2", "head_dim", "20", 0, { "layer 0 is mamba2", "neither MLPs nor attention" } },
        { "rwkv7", "head_dim", "20", 0, { "layer 0 is rwkv7", "a feed-forward network of its own" } },
        { "attention", NULL, NULL, 0, { "every layer is softmax attention", "write it as jet_nemotron" } },
        { "gla", NULL, NULL, 0, { "norm_eps of gla is 1e-05", "train the blocks with norm_eps: 1e-06" } },
        { "gla", "gate_low_rank_dim", "8", 1, { "gate_low_rank_dim of gla is 8", "rank 16 always" } },
        { "gla", "gate_logit_normalizer", "8", 1, { "gate_logit_normalizer of gla is 8", "divides by 16" } },
        { "gla", "qkv_bias", "true", 1, { "gla has qkv_bias", "an extension of postnas" } },
        { "retnet", "use_short_conv", "true", 1, { "use_short_conv of retnet is true", "without convolutions" } },
        { "gated_deltanet", "rope", "true", 1, { "gated_deltanet has rope", "write it as jet_nemotron" } },
        { "deltanet", NULL, NULL, 2, { "layer 0 is deltanet and layer 2 gla", "one type of linear block" } },
        { "deltanet", NULL, NULL, 3, { "layers 0 and 2 are both deltanet", "one setting" } },
        { "gated_deltanet", NULL, NULL, 4, { "layer 1 is attention of 4 heads of 12", "the hidden size, 40" } },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const unfit *u = &table[i];
        pn_model_config c = hybrid(true, true);
        for (int l = 0; l < LAYERS; l += 2) {
            ck_ok(pn_block_spec_default(pn_block_find(u->block), &c.layer[l]));
            if (u->kind) set_option(&c.layer[l], "norm_eps", "1e-6");
            if (u->option) set_option(&c.layer[l], u->option, u->value);
        }
        if (u->kind == 2) ck_ok(pn_block_spec_default(&pn_block_gla, &c.layer[2]));
        if (u->kind == 3) set_option(&c.layer[2], "use_gate", "true");
        if (u->kind == 4) c.dims.head_dim = 12;
        ck_refused(pn_hf_config_fits("out", &c, PN_HF_FLA), PN_UNSUPPORTED, "out: ", u->words[0], u->words[1]);
        ck_refused(pn_hf_config_write(scratch("no.json"), &c, PN_HF_FLA), PN_UNSUPPORTED, u->words[0]);
        ck_assert_int_ne(access(scratch("no.json"), F_OK), 0);
    }
}
END_TEST

/* The config of a golden model with keys replaced; NULL as the value: taken out. */
static pn_status read_changed(const char *type, const char *key, const char *value, pn_model_config *c) {
    char path[512];
    json_t *root;
    snprintf(path, sizeof path, GOLDEN "fla_%s/config.json", type);
    ck_ok(pn_json_load(path, 1 << 20, &root));
    if (value)
        json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(root, key);
    ck_ok(pn_json_write(scratch("config.json"), root));
    json_decref(root);
    return pn_hf_config_read(scratch("config.json"), c);
}

START_TEST(settings_of_fla_that_are_not_ours) {
    static const struct {
        const char *type, *key, *value;
        pn_status status;
        const char *words[2];
    } table[] = {
        { "retnet", "feature_map", "\"relu\"", PN_UNSUPPORTED, { "feature_map is \"relu\"", "only null" } },
        { "retnet", "use_short_conv", "true", PN_UNSUPPORTED, { "use_short_conv is true", "without convolutions" } },
        { "retnet", "use_output_gate", "false", PN_UNSUPPORTED, { "use_output_gate is false", "output gate" } },
        { "gla", "elementwise_affine", "false", PN_UNSUPPORTED, { "elementwise_affine", "without weight" } },
        { "gla", "hidden_act", "\"powlu\"", PN_UNSUPPORTED, { "hidden_act is \"powlu\"", "silu" } },
        { "gla", "num_heads", NULL, PN_FORMAT, { "num_heads is missing", "" } },
        { "gla", "num_heads", "3", PN_USAGE, { "config.json", "num_kv_heads" } },
        { "gla", "expand_k", "\"1\"", PN_FORMAT, { "expand_k is of the wrong JSON type", "" } },
        { "gla", "attnres_block_size", "2", PN_UNSUPPORTED, { "attnres_block_size is 2", "earlier layers" } },
        { "delta_net", "qk_norm", "\"sum\"", PN_USAGE, { "qk_norm is \"sum\"", "l2" } },
        { "delta_net", "attn", "7", PN_FORMAT, { "attn", "" } },
        { "delta_net", "attn", "{\"layers\": [0]}", PN_FORMAT, { "attn.num_heads is missing", "" } },
        { "delta_net", "attn", "{\"num_heads\": 2}", PN_FORMAT, { "attn.layers is missing", "" } },
        { "delta_net", "attn", "{\"layers\": [4], \"num_heads\": 2}", PN_FORMAT, { "attn.layers.0", "3" } },
        { "delta_net", "attn", "{\"layers\": [1, 1], \"num_heads\": 2}", PN_FORMAT, { "attn.layers.1", "before" } },
        { "delta_net", "attn", "{\"layers\": [1], \"num_heads\": 3}", PN_FORMAT, { "32 is not a multiple", "3" } },
        { "delta_net", "attn", "{\"layers\": [1], \"num_heads\": 2, \"window_size\": 0}", PN_FORMAT, { "window", "" } },
        { "delta_net",
          "attn",
          "{\"layers\": [1], \"num_heads\": 2, \"qk_norm\": true}",
          PN_UNSUPPORTED,
          { "qk_norm", "" } },
        { "delta_net",
          "attn",
          "[{\"layers\": [1], \"num_heads\": 2}, {\"layers\": [2], \"num_heads\": 1}]",
          PN_UNSUPPORTED,
          { "attn.1 differs from attn.0", "one kind of attention" } },
        { "gated_deltanet", "use_short_conv", "false", PN_UNSUPPORTED, { "use_short_conv is false", "only true" } },
        { "gated_deltanet", "output_gate_activation", "\"sigmoid\"", PN_UNSUPPORTED, { "\"sigmoid\"", "swish" } },
        { "gated_deltanet", "head_dim", NULL, PN_FORMAT, { "head_dim is missing", "" } },
    };
    pn_model_config c;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        ck_refused(read_changed(table[i].type, table[i].key, table[i].value, &c), table[i].status, "config.json",
                   table[i].words[0], table[i].words[1]);
    ck_ok(read_changed("gated_deltanet", "output_gate_activation", "\"silu\"", &c));
    ck_ok(read_changed("gla", "norm_eps", NULL, &c)); /* fla's default */
    ck_assert_double_eq(c.dims.rms_norm_eps, 1e-6);
    /* a width that fla makes itself: two thirds of the ratio, up to a multiple of 256 */
    ck_ok(read_changed("gla", "intermediate_size", "null", &c));
    ck_assert_int_eq(c.dims.intermediate, 256);
    ck_ok(read_changed("retnet", "attn", "null", &c));
    for (int l = 0; l < 4; l++) ck_assert_str_eq(c.layer[l].type->name, "retnet");
}
END_TEST

START_TEST(names_go_both_ways) {
    static const char *const pairs[][2] = {
        { "model.embed_tokens.weight", "model.embeddings.weight" },
        { "model.layers.3.input_layernorm.weight", "model.layers.3.attn_norm.weight" },
        { "model.layers.27.post_attention_layernorm.weight", "model.layers.27.mlp_norm.weight" },
        { "model.layers.0.self_attn.gk_proj.1.bias", "model.layers.0.attn.gk_proj.1.bias" },
        { "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight" },
        { "model.norm.weight", "model.norm.weight" },
        { "lm_head.weight", "lm_head.weight" },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        pn_buf theirs = { 0 }, ours = { 0 };
        pn_fla_name(pairs[i][0], &theirs);
        pn_fla_our_name(pairs[i][1], &ours);
        ck_assert_str_eq(pn_buf_string(&theirs), pairs[i][1]);
        ck_assert_str_eq(pn_buf_string(&ours), pairs[i][0]);
        pn_buf_free(&theirs);
        pn_buf_free(&ours);
    }
}
END_TEST

/* A missing tensor is named as the file would name it, and a weight under both names is refused. */
START_TEST(messages_have_the_files_names) {
    pn_model *m, *back;
    char text[1 << 14];
    ck_ok(pn_model_load(GOLDEN "fla_gla", PN_F32, &m));
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_BF16, .kind = PN_HF_FLA }));
    static const char from[] = "model.layers.2.attn.g_proj.weight", to[] = "model.layers.2.attn.x_proj.weight";
    FILE *f = fopen(scratch("model.safetensors"), "r+b");
    size_t n = fread(text, 1, sizeof text, f);
    char *at = memmem(text, n, from, sizeof from - 1);
    ck_assert_ptr_nonnull(at);
    fseek(f, at - text, SEEK_SET);
    fwrite(to, 1, sizeof from - 1, f);
    fclose(f);
    ck_refused(pn_model_load(scratch("."), PN_F32, &back), PN_FORMAT,
               "there is no tensor model.layers.2.attn.g_proj.weight");
    pn_model_destroy(&m);
}
END_TEST

TEST_MAIN("exported", jet_nemotron_is_as_published, fla_is_as_fla_writes_it, expansions_are_written_exactly,
          what_fla_has_not_is_refused, settings_of_fla_that_are_not_ours, names_go_both_ways,
          messages_have_the_files_names)
