/* config.json: every field of three model types in both generations of names, what is refused, and the way back. */
#include "hf_config.h"

#include "io_fixture.h"

static pn_model_config c;

static pn_status read_text(const char *json) {
    write_text(scratch("config.json"), json);
    return pn_hf_config_read(scratch("."), &c);
}

/* A small valid llama config: the extra fields, then the usual ones but for `without`. */
static pn_status read_llama(const char *extra, const char *without) {
    static const char *const fields[][2] = {
        { "model_type", "\"llama\"" }, { "hidden_size", "24" },        { "intermediate_size", "40" },
        { "num_hidden_layers", "2" },  { "num_attention_heads", "3" }, { "vocab_size", "100" },
    };
    char json[2048] = "{";
    strcat(json, extra);
    for (int i = 0; i < 6; i++) {
        if (without && !strcmp(without, fields[i][0])) continue;
        snprintf(json + strlen(json), sizeof json - strlen(json), "%s\"%s\": %s", strlen(json) > 1 ? ", " : "",
                 fields[i][0], fields[i][1]);
    }
    strcat(json, "}");
    return read_text(json);
}
#define refused(status, extra, without, ...) ck_refused(read_llama(extra, without), status, "config.json", __VA_ARGS__)

START_TEST(qwen2_of_today) {
    ck_ok(pn_hf_config_read(POSTNAS_SOURCE_DIR "/tests/data/golden/qwen2_tiny", &c));
    ck_assert_int_eq(c.dims.hidden, 64);
    ck_assert_int_eq(c.dims.intermediate, 160);
    ck_assert_int_eq(c.dims.heads, 4);
    ck_assert_int_eq(c.dims.kv_heads, 2);
    ck_assert_int_eq(c.dims.head_dim, 16);
    ck_assert_int_eq(c.n_layers, 4);
    ck_assert_int_eq(c.vocab, 512);
    ck_assert(c.tied && c.dims.qkv_bias);
    ck_assert_double_eq(c.dims.rope_theta, 1e6); /* from rope_parameters */
    ck_assert_double_eq(c.dims.rms_norm_eps, 1e-6);
    ck_assert_int_eq(c.bos, -1);
    ck_assert_int_eq(c.eos, -1);
    ck_assert_int_eq(c.max_position, 256);
    ck_assert_int_eq(c.file_dtype, PN_F32);
    for (int l = 0; l < 4; l++) ck_assert_str_eq(c.layer[l].type->name, "attention");
}
END_TEST

START_TEST(llama_of_old) {
    ck_ok(pn_hf_config_read(POSTNAS_SOURCE_DIR "/tests/data/golden/llama_tiny/config.json", &c));
    ck_assert_int_eq(c.dims.head_dim, 20);
    ck_assert_int_eq(c.dims.kv_heads, 1);
    ck_assert_double_eq(c.dims.rope_theta, 1e5);
    ck_assert_double_eq(c.dims.rms_norm_eps, 1e-5);
    ck_assert(!c.dims.qkv_bias && c.tied);
    ck_assert_int_eq(c.bos, 0);
    ck_assert_int_eq(c.eos, 0);
    ck_ok(read_llama("", NULL)); /* defaults */
    ck_assert_int_eq(c.dims.head_dim, 8);
    ck_assert_int_eq(c.dims.kv_heads, 3);
    ck_assert_double_eq(c.dims.rope_theta, 1e4);
    ck_assert_double_eq(c.dims.rms_norm_eps, 1e-6);
    ck_assert(!c.tied && !c.dims.qkv_bias);
    ck_assert_int_eq(c.bos, -1);
    ck_ok(
        read_llama("\"attention_bias\": true, \"head_dim\": 12, \"num_key_value_heads\": 1, \"eos_token_id\": [7, 9], "
                   "\"torch_dtype\": \"bfloat16\", \"rope_scaling\": {\"type\": \"default\"}",
                   NULL));
    ck_assert(c.dims.qkv_bias);
    ck_assert_int_eq(c.dims.head_dim, 12);
    ck_assert_int_eq(c.eos, 7);
    ck_assert_int_eq(c.file_dtype, PN_BF16);
    ck_ok(read_llama("\"torch_dtype\": \"bfloat16\", \"dtype\": \"float16\"", NULL));
    ck_assert_int_eq(c.file_dtype, PN_F16);
}
END_TEST

START_TEST(refuses_other_mathematics) {
    refused(PN_UNSUPPORTED, "\"model_type\": \"qwen3\"", "model_type", "\"qwen3\"", "jet_nemotron");
    refused(PN_FORMAT, "", "model_type", "model_type is missing");
    refused(PN_UNSUPPORTED, "\"hidden_act\": \"gelu\"", NULL, "hidden_act", "gelu");
    refused(PN_UNSUPPORTED, "\"mlp_bias\": true", NULL, "mlp_bias");
    refused(PN_UNSUPPORTED, "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}", NULL,
            "rope_scaling.rope_type is \"llama3\"");
    refused(PN_UNSUPPORTED, "\"rope_scaling\": {\"type\": \"linear\"}", NULL, "rope_scaling.type is \"linear\"");
    refused(PN_UNSUPPORTED, "\"rope_scaling\": {\"factor\": 2}", NULL, "rope_scaling");
    refused(PN_UNSUPPORTED, "\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 10}", NULL, "\"yarn\"");
    refused(PN_FORMAT, "\"rope_scaling\": 2", NULL, "rope_scaling");
    refused(PN_FORMAT, "\"rope_theta\": 1e6, \"rope_parameters\": {\"rope_theta\": 1e5}", NULL, "1e+06", "100000");
    refused(PN_UNSUPPORTED, "\"partial_rotary_factor\": 0.5", NULL, "partial_rotary_factor is 0.5");
    refused(PN_UNSUPPORTED, "\"rope_parameters\": {\"partial_rotary_factor\": 0.25}", NULL, "0.25");
}
END_TEST

START_TEST(refuses_wrong_values) {
    refused(PN_FORMAT, "", "hidden_size", "hidden_size is missing");
    refused(PN_FORMAT, "\"hidden_size\": \"24\"", "hidden_size", "hidden_size must be a whole number");
    refused(PN_FORMAT, "\"hidden_size\": 24.0", "hidden_size", "hidden_size must be a whole number");
    refused(PN_FORMAT, "\"hidden_size\": 0", "hidden_size", "hidden_size");
    refused(PN_FORMAT, "\"hidden_size\": 25", "hidden_size", "25 is not a multiple of num_attention_heads 3");
    refused(PN_FORMAT, "\"rms_norm_eps\": \"1e-5\"", NULL, "rms_norm_eps must be a number");
    refused(PN_FORMAT, "\"vocab_size\": 1e30", "vocab_size", "vocab_size");
    refused(PN_FORMAT, "\"num_hidden_layers\": 1000000", "num_hidden_layers", "num_hidden_layers", "128");
    refused(PN_FORMAT, "\"tie_word_embeddings\": 1", NULL, "tie_word_embeddings must be true or false");
    refused(PN_FORMAT, "\"bos_token_id\": 100", NULL, "bos_token_id");
    refused(PN_FORMAT, "\"eos_token_id\": [\"a\"]", NULL, "eos_token_id.0");
    refused(PN_FORMAT, "\"bos_token_id\": 1, \"bos_token_id\": 2", NULL, "duplicate");
    refused(PN_USAGE, "\"intermediate_size\": 2000000000", "intermediate_size", "intermediate_size is 2000000000");
    refused(PN_USAGE, "\"vocab_size\": 2000000000", "vocab_size", "vocab_size is 2000000000");
    refused(PN_USAGE, "\"num_key_value_heads\": 2", NULL, "num_attention_heads 3 is not a multiple");
    refused(PN_USAGE, "\"head_dim\": 7", NULL, "head_dim 7 is odd");
    ck_refused(read_text("[]"), PN_FORMAT, "config.json", "model_type");
    ck_refused(read_text("{"), PN_FORMAT, "config.json:1:", "not valid JSON");
    ck_refused(pn_hf_config_read(scratch("absent"), &c), PN_IO, "absent");
}
END_TEST

static pn_status read_jet(const char *types, const char *settings) {
    char json[4096];
    snprintf(
        json, sizeof json,
        "{\"model_type\": \"jet_nemotron\", \"hidden_size\": 24, \"intermediate_size\": 40, \"num_hidden_layers\": 3, "
        "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\": 100, \"max_window_layers\": 28, "
        "\"tie_word_embeddings\": true%s%s%s%s}",
        types ? ", \"layer_types\": " : "", types ? types : "", settings ? ", \"efficient_attention_config\": " : "",
        settings ? settings : "");
    return read_text(json);
}

static void expect_layers(const char *a, const char *b, const char *third) {
    ck_assert_str_eq(c.layer[0].type->name, a);
    ck_assert_str_eq(c.layer[1].type->name, b);
    ck_assert_str_eq(c.layer[2].type->name, third);
}

START_TEST(layer_types_in_every_form) {
    ck_ok(read_jet(NULL, NULL));
    expect_layers("attention", "attention", "attention");
    ck_assert(c.dims.qkv_bias);
    ck_ok(read_jet("null", NULL));
    ck_ok(read_jet("[\"attn\", \"none\", \"attn\"]", NULL));
    expect_layers("attention", "none", "attention");
    ck_ok(read_jet("\"['none', 'attn', 'none']\"", NULL));
    expect_layers("none", "attention", "none");
    ck_ok(read_jet("\" [ \\\"attn\\\" ,'none','attn', ] \"", NULL));
    expect_layers("attention", "none", "attention");

    static const char *const broken[] = {
        "\"\"",         "\"attn\"",        "\"['attn', 'attn', 'attn'\"", "\"['attn' 'attn', 'attn']\"",
        "\"['attn, \"", "\"[attn,attn]\"", "\"['a\\\\\\\\x']\"",          "\"['attn','attn','attn'] x\"",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        ck_refused(read_jet(broken[i], NULL), PN_FORMAT, "config.json", "layer_types is a string");
    ck_refused(read_jet("\"[]\"", NULL), PN_FORMAT, "layer_types has 0 entries for num_hidden_layers 3");
    ck_refused(read_jet("[\"attn\"]", NULL), PN_FORMAT, "layer_types has 1 entries");
    ck_refused(read_jet("7", NULL), PN_FORMAT, "layer_types");
    ck_refused(read_jet("[\"attn\", 1, \"attn\"]", NULL), PN_FORMAT, "layer_types.1");
    ck_refused(read_jet("[\"attn\", \"hyena\", \"attn\"]", NULL), PN_UNSUPPORTED, "\"hyena\"", "attn");
    ck_refused(read_jet("[\"attn\", \"attention\", \"attn\"]", NULL), PN_UNSUPPORTED, "\"attention\"");
    ck_refused(read_jet("[\"attn\", \"mlp\", \"attn\"]", NULL), PN_UNSUPPORTED, "\"mlp\"");
}
END_TEST

static const char jet_settings[] =
    "{\"mode\": \"chunk\", \"num_heads\": 12, \"head_dim\": 96, \"expand_v\": 2.6666666667, "
    "\"conv_size\": 4, \"dconv_generator_reduction\": 8, "
    "\"dconv_implementation\": \"triton\", \"norm_eps\": \"1e-5\"}";

static pn_status read_with_jet(const char *settings) {
    char all[1024];
    snprintf(all, sizeof all, "{\"jet\": %s}", settings);
    return read_jet("[\"jet\", \"attn\", \"jet\"]", all);
}

static double option_of(int layer, const char *name) {
    const pn_option *row = pn_option_find(c.layer[layer].type->options, name);
    ck_assert_msg(row != NULL, "%s", name);
    const void *field = c.layer[layer].options + row->offset;
    return row->kind == PN_OPTION_FLOAT ? *(const double *)field : (double)*(const int64_t *)field;
}

START_TEST(settings_of_linear_blocks) {
    ck_ok(read_with_jet(jet_settings));
    expect_layers("jet", "attention", "jet");
    ck_assert_double_eq(option_of(2, "num_heads"), 12);
    ck_assert_double_eq(option_of(2, "head_dim"), 96);
    ck_assert_double_eq(option_of(2, "expand_v"), 2.6666666667);
    ck_assert_double_eq(option_of(2, "norm_eps"), 1e-5);
    ck_assert(pn_block_spec_equal(&c.layer[0], &c.layer[2]));
    ck_ok(read_with_jet("{\"norm_eps\": 1e-6, \"expand_v\": 2, \"num_heads\": null}"));
    ck_assert_double_eq(option_of(0, "norm_eps"), 1e-6);
    ck_assert_double_eq(option_of(0, "num_heads"), 2); /* resolved from the attention's */
    ck_assert_double_eq(option_of(0, "conv_size"), 4);

    ck_refused(read_jet("[\"jet\", \"attn\", \"attn\"]", NULL), PN_FORMAT, "config.json", "no settings for it");
    ck_refused(read_jet("[\"jet\", \"attn\", \"attn\"]", "{\"gdn\": {}}"), PN_FORMAT, "\"jet\"", "no settings for it");
    ck_refused(read_with_jet("{\"num_heads\": \"12\"}"), PN_FORMAT, "efficient_attention_config.jet: num_heads");
    ck_refused(read_with_jet("{\"num_heads\": 12.5}"), PN_FORMAT, "efficient_attention_config.jet: num_heads");
    ck_refused(read_with_jet("{\"num_heads\": 12000}"), PN_USAGE, "config.json", "jet: num_heads is 12000");
    ck_refused(read_with_jet("{\"expand_v\": \"2\"}"), PN_FORMAT, "efficient_attention_config.jet: expand_v");
    ck_refused(read_with_jet("{\"norm_eps\": \"small\"}"), PN_USAGE, "config.json", "norm_eps is \"small\"");
    ck_refused(read_with_jet("{\"norm_eps\": true}"), PN_FORMAT, "efficient_attention_config.jet: norm_eps");
    ck_refused(read_with_jet("{\"head_dims\": 96}"), PN_UNSUPPORTED, "head_dims has no counterpart",
               "did you mean head_dim");
    ck_refused(read_with_jet("{\"head_dim\": 96, \"expand_v\": 2.665}"), PN_USAGE, "config.json", "expand_v");
}
END_TEST

START_TEST(sliding_windows) {
    static const char types[] = "[\"swa\", \"attn\", \"swa\"]";
    ck_ok(read_jet(types, "{\"swa\": {\"window_size\": 1152}}"));
    expect_layers("swa", "attention", "swa");
    ck_assert_double_eq(option_of(2, "window_size"), 1152);
    ck_refused(read_jet(types, NULL), PN_FORMAT, "\"swa\"", "no settings for it");
    ck_refused(read_jet(types, "{\"swa\": {}}"), PN_USAGE, "config.json", "write a number");
    ck_refused(read_jet(types, "{\"swa\": {\"window_size\": \"auto\"}}"), PN_FORMAT,
               "efficient_attention_config.swa: window_size");
    ck_refused(read_jet(types, "{\"swa\": {\"window_size\": 0}}"), PN_USAGE, "window_size is 0");
    ck_refused(read_jet(types, "{\"swa\": {\"window\": 5}}"), PN_UNSUPPORTED, "did you mean window_size");

    ck_ok(read_llama("\"use_sliding_window\": true, \"sliding_window\": 6, \"max_window_layers\": 1", NULL));
    ck_assert_str_eq(c.layer[0].type->name, "attention");
    ck_assert_str_eq(c.layer[1].type->name, "swa");
    ck_assert_double_eq(option_of(1, "window_size"), 6);
    ck_ok(read_llama("\"use_sliding_window\": true, \"sliding_window\": 7, "
                     "\"layer_types\": [\"sliding_attention\", \"full_attention\"]",
                     NULL));
    ck_assert_str_eq(c.layer[0].type->name, "swa");
    ck_assert_str_eq(c.layer[1].type->name, "attention");
    ck_assert_double_eq(option_of(0, "window_size"), 7);
    refused(PN_FORMAT, "\"use_sliding_window\": true, \"max_window_layers\": 1", NULL, "sliding_window is missing");
}
END_TEST

static pn_status read_with(const char *block, const char *settings) {
    char types[64], all[1024];
    snprintf(types, sizeof types, "[\"%s\", \"attn\", \"%s\"]", block, block);
    snprintf(all, sizeof all, "{\"%s\": %s}", block, settings);
    return read_jet(types, all);
}

/* What only postnas has is read under a name of its own, so that no other program takes it for the published block. */
START_TEST(extensions_of_postnas) {
    ck_ok(read_with("gdn_postnas", "{\"rope\": true, \"qkv_bias\": true, \"expand_v\": 2}"));
    expect_layers("gated_deltanet", "attention", "gated_deltanet");
    ck_ok(read_with("jet_postnas", "{\"rope\": false, \"qkv_bias\": true}"));
    ck_refused(read_with("gdn", "{\"rope\": true}"), PN_UNSUPPORTED,
               "efficient_attention_config.gdn: rope is an extension of postnas", "name such layers gdn_postnas");
    ck_refused(read_with("retnet", "{\"qkv_bias\": false}"), PN_UNSUPPORTED, "name such layers retnet_postnas");
    ck_refused(read_with("retnet_postnas", "{\"rope\": true}"), PN_UNSUPPORTED, "rope has no counterpart");
    ck_refused(read_with("gdn_postnas", "{\"rope\": false}"), PN_FORMAT,
               "layer_types names \"gdn_postnas\", but its settings have no extension of postnas on; name such layers "
               "gdn");
    ck_refused(read_with("attn_postnas", "{}"), PN_FORMAT, "name such layers attn");
    ck_refused(read_with("gdn_postnas2", "{}"), PN_UNSUPPORTED, "layer_types names \"gdn_postnas2\"; known are");
    ck_refused(read_with("gdn_postnas", "{\"rope\": true, \"head_dim\": 3}"), PN_USAGE,
               "gated_deltanet: rope turns channels in pairs, but keys have 3 in a head");
}
END_TEST

START_TEST(settings_of_gla) {
    ck_ok(read_with("gla", "{\"mode\": \"chunk\", \"num_heads\": 4, \"num_kv_heads\": 2, \"expand_k\": 0.5, "
                           "\"expand_v\": 1.0, \"feature_map\": null, \"clamp_min\": null, \"norm_eps\": 1e-6}"));
    expect_layers("gla", "attention", "gla");
    ck_assert_double_eq(option_of(2, "num_kv_heads"), 2);
    ck_assert_double_eq(option_of(2, "gate_low_rank_dim"), 16);
    ck_assert_double_eq(option_of(2, "gate_logit_normalizer"), 16);
    ck_assert_double_eq(option_of(2, "norm_eps"), 1e-6);
    ck_assert_double_le(option_of(2, "clamp_min"), -1e30);
    ck_ok(read_with("gla", "{}"));
    ck_assert_double_eq(option_of(0, "num_heads"), 2); /* resolved from the attention's */
    ck_assert_double_eq(option_of(0, "num_kv_heads"), 2);
    ck_refused(read_with("gla", "{\"num_heads\": 4, \"num_kv_heads\": 3}"), PN_USAGE, "config.json",
               "num_heads 4 is not a multiple of num_kv_heads 3");
    ck_refused(read_with("gla", "{\"expand_k\": 0.7}"), PN_USAGE, "config.json", "hidden size 24 times expand_k 0.7",
               "2 heads do not share");
    ck_refused(read_with("gla", "{\"expand_v\": 0.5, \"num_heads\": 8}"), PN_USAGE, "8 heads do not share");
    ck_refused(read_with("gla", "{\"clamp_min\": 0.5}"), PN_USAGE, "clamp_min");
    ck_refused(read_with("gla", "{\"use_output_gate\": true}"), PN_UNSUPPORTED, "use_output_gate has no counterpart");
}
END_TEST

START_TEST(settings_of_deltanet) {
    ck_ok(read_with("deltanet", "{\"mode\": \"chunk\", \"num_heads\": 4, \"expand_k\": 1.0, \"expand_v\": 2, "
                                "\"use_beta\": true, \"use_gate\": true, \"use_short_conv\": false, \"conv_size\": 4, "
                                "\"qk_activation\": \"identity\", \"qk_norm\": \"l2\", \"allow_neg_eigval\": true, "
                                "\"norm_eps\": 1e-6}"));
    expect_layers("deltanet", "attention", "deltanet");
    ck_assert_double_eq(option_of(2, "num_heads"), 4);
    ck_assert_double_eq(option_of(2, "expand_v"), 2);
    ck_assert_double_eq(option_of(2, "qk_activation"), 1);
    ck_assert_double_eq(option_of(2, "norm_eps"), 1e-6);
    ck_ok(read_with("deltanet", "{}"));
    ck_assert_double_eq(option_of(0, "num_heads"), 2); /* resolved from the attention's */
    ck_assert_double_eq(option_of(0, "conv_size"), 4);
    ck_assert_double_eq(option_of(0, "qk_activation"), 0);
    ck_refused(read_with("deltanet", "{\"qk_activation\": \"relu\"}"), PN_USAGE, "config.json",
               "qk_activation is \"relu\"", "it must be one of: silu, identity");
    ck_refused(read_with("deltanet", "{\"qk_norm\": \"sum\"}"), PN_USAGE, "config.json",
               "qk_norm is \"sum\"; it must be one of: l2");
    ck_refused(read_with("deltanet", "{\"conv_bias\": true}"), PN_UNSUPPORTED, "conv_bias has no counterpart");
    ck_refused(read_with("deltanet", "{\"use_output_norm\": false}"), PN_UNSUPPORTED,
               "use_output_norm has no counterpart");
    ck_refused(read_with("deltanet", "{\"expand_k\": 0.7}"), PN_USAGE, "config.json",
               "deltanet: hidden size 24 times expand_k 0.7", "2 heads do not share");
    ck_refused(read_with("deltanet", "{\"num_heads\": 1, \"expand_k\": 11}"), PN_USAGE, "config.json",
               "264 channels per head; at most 256");
}
END_TEST

START_TEST(settings_of_retnet) {
    ck_ok(read_with("retnet", "{\"mode\": \"chunk\", \"num_heads\": 4, \"num_kv_heads\": 2, \"expand_k\": 1.0, "
                              "\"expand_v\": 2.0, \"feature_map\": null, \"use_short_conv\": true, "
                              "\"conv_size\": 3, \"fuse_norm\": false, \"norm_eps\": 1e-6}"));
    expect_layers("retnet", "attention", "retnet");
    ck_assert_double_eq(option_of(2, "num_kv_heads"), 2);
    ck_assert_double_eq(option_of(2, "conv_size"), 3);
    ck_assert_double_eq(option_of(2, "norm_eps"), 1e-6);
    ck_ok(read_with("retnet", "{\"num_kv_heads\": null}"));
    ck_assert_double_eq(option_of(0, "num_heads"), 2); /* resolved from the attention's */
    ck_assert_double_eq(option_of(0, "num_kv_heads"), 2);
    ck_assert_double_eq(option_of(0, "expand_v"), 2);
    ck_refused(read_with("retnet", "{\"num_heads\": 4, \"num_kv_heads\": 3}"), PN_USAGE, "config.json",
               "retnet: num_heads 4 is not a multiple of num_kv_heads 3");
    ck_refused(read_with("retnet", "{\"expand_v\": 0.7}"), PN_USAGE, "hidden size 24 times expand_v 0.7");
    ck_refused(read_with("retnet", "{\"num_heads\": 8}"), PN_USAGE, "config.json", "3 channels per head",
               "must be even");
    ck_refused(read_with("retnet", "{\"num_heads\": 1, \"expand_k\": 11}"), PN_USAGE, "264 channels per head",
               "at most 256");
    ck_refused(read_with("retnet", "{\"feature_map\": \"relu\"}"), PN_UNSUPPORTED, "feature_map has no counterpart");
    ck_refused(read_with("retnet", "{\"gate_fn\": \"gelu\"}"), PN_UNSUPPORTED, "gate_fn has no counterpart");
}
END_TEST

static pn_status read_with_mamba2(const char *settings) {
    char all[1024];
    snprintf(all, sizeof all, "{\"mamba2\": %s}", settings);
    return read_jet("[\"mamba2\", \"attn\", \"mamba2\"]", all);
}

START_TEST(settings_of_mamba2) {
    ck_ok(read_with_mamba2("{\"expand\": 2, \"head_dim\": 8, \"state_size\": 16, \"n_groups\": 3, \"conv_kernel\": 3, "
                           "\"chunk_size\": 256, \"use_bias\": false, \"norm_eps\": 1e-6}"));
    expect_layers("mamba2", "attention", "mamba2");
    ck_assert_double_eq(option_of(2, "n_groups"), 3);
    ck_assert_double_eq(option_of(2, "conv_kernel"), 3);
    ck_assert_double_eq(option_of(2, "norm_eps"), 1e-6);
    ck_assert(pn_block_spec_equal(&c.layer[0], &c.layer[2]));
    ck_ok(read_with_mamba2("{\"expand\": 1.5, \"head_dim\": 12, \"time_step_limit_max\": 0.25}"));
    ck_assert_double_eq(option_of(0, "expand"), 1.5);
    ck_assert_double_eq(option_of(0, "state_size"), 128);
    ck_assert_double_eq(option_of(0, "time_step_limit_max"), 0.25);
    ck_refused(read_with_mamba2("{}"), PN_USAGE, "config.json", "hidden size 24 times expand 2 is 48",
               "no whole number of heads of head_dim 64");
    ck_refused(read_with_mamba2("{\"expand\": 0.7, \"head_dim\": 1}"), PN_USAGE, "times expand 0.7 is 16.8");
    ck_refused(read_with_mamba2("{\"head_dim\": 12, \"n_groups\": 3}"), PN_USAGE,
               "4 heads are no multiple of n_groups 3");
    ck_refused(read_with_mamba2("{\"head_dim\": 12, \"time_step_limit_min\": 0.5, \"time_step_limit_max\": 0.1}"),
               PN_USAGE, "time_step_limit_min 0.5 is above time_step_limit_max 0.1");
    ck_refused(read_with_mamba2("{\"head_dim\": 12, \"state_size\": 0}"), PN_USAGE, "state_size");
    ck_refused(read_with_mamba2("{\"head_dim\": 12, \"time_step_limit\": [0.0, 1.0]}"), PN_UNSUPPORTED,
               "time_step_limit has no counterpart", "did you mean time_step_limit_m");
    ck_refused(read_with_mamba2("{\"head_dim\": 12, \"norm_before_gate\": true}"), PN_UNSUPPORTED,
               "norm_before_gate has no counterpart");
}
END_TEST

/* Parameters of one layer of the present config, and of the final norm. */
static int64_t parameters_of(int layer) {
    pn_model_config one = c;
    pn_model *m;
    one.n_layers = 1;
    one.vocab = 1;
    one.layer[0] = c.layer[layer];
    ck_ok(pn_model_create(&one, PN_F32, NULL, &m));
    int64_t n = pn_params_count(m->params, false) - 2 * c.dims.hidden; /* one row of the embedding, the final norm */
    pn_model_destroy(&m);
    return n;
}

/* The sizes of Jet-Nemotron-2B add up to its published total; sliding-window layers hold what attention layers hold. */
START_TEST(published_parameter_total) {
    char json[4096] = "{\"model_type\": \"jet_nemotron\", \"hidden_size\": 1536, \"intermediate_size\": 8960, "
                      "\"num_hidden_layers\": 28, \"num_attention_heads\": 12, \"num_key_value_heads\": 2, "
                      "\"vocab_size\": 151936, \"rope_theta\": 1000000.0, \"tie_word_embeddings\": true, "
                      "\"torch_dtype\": \"bfloat16\", \"efficient_attention_config\": "
                      "{\"swa\": {\"window_size\": 1152}, \"jet\": ";
    strcat(json, jet_settings);
    strcat(json, "}, \"layer_types\": \"[");
    for (int l = 0; l < 28; l++)
        strcat(json, l == 14 || l == 19 ? "'attn', " : l == 20 || l == 21 ? "'swa', " : "'jet', ");
    strcat(json, "]\"}");
    ck_ok(read_text(json));
    ck_assert_int_eq(c.file_dtype, PN_BF16);
    int64_t embedding = 151936 * 1536, norm = 1536;
    ck_assert_int_eq(embedding + norm + 24 * parameters_of(0) + 2 * parameters_of(14) + 2 * parameters_of(20),
                     1964806208);
}
END_TEST

START_TEST(plain_models_have_plain_layers) {
    ck_ok(read_llama("\"layer_types\": [\"full_attention\", \"full_attention\"]", NULL));
    refused(PN_FORMAT, "\"layer_types\": [\"full_attention\"]", NULL, "layer_types has 1 entries");
    refused(PN_FORMAT, "\"layer_types\": [\"full_attention\", \"none\"]", NULL, "layer_types.1 is \"none\"");
    refused(PN_FORMAT, "\"layer_types\": [\"full_attention\", \"sliding_attention\"], \"sliding_window\": 4", NULL,
            "layer_types.1", "use_sliding_window is false");
    ck_ok(read_llama("\"use_sliding_window\": false, \"sliding_window\": 4096, \"max_window_layers\": 1", NULL));
    ck_assert_str_eq(c.layer[1].type->name, "attention");
}
END_TEST

static void expect_same(const pn_model_config *a, const pn_model_config *b) {
    ck_assert_int_eq(a->dims.hidden, b->dims.hidden);
    ck_assert_int_eq(a->dims.intermediate, b->dims.intermediate);
    ck_assert_int_eq(a->dims.heads, b->dims.heads);
    ck_assert_int_eq(a->dims.kv_heads, b->dims.kv_heads);
    ck_assert_int_eq(a->dims.head_dim, b->dims.head_dim);
    ck_assert_double_eq(a->dims.rope_theta, b->dims.rope_theta);
    ck_assert_double_eq(a->dims.rms_norm_eps, b->dims.rms_norm_eps);
    ck_assert_int_eq(a->dims.qkv_bias, b->dims.qkv_bias);
    ck_assert_int_eq(a->vocab, b->vocab);
    ck_assert_int_eq(a->n_layers, b->n_layers);
    ck_assert_int_eq(a->tied, b->tied);
    ck_assert_int_eq(a->bos, b->bos);
    ck_assert_int_eq(a->eos, b->eos);
    ck_assert_int_eq(a->max_position, b->max_position);
    ck_assert_double_eq(a->initializer_range, b->initializer_range);
    ck_assert_int_eq(a->file_dtype, b->file_dtype);
    for (int l = 0; l < a->n_layers; l++) ck_assert(pn_block_spec_equal(&a->layer[l], &b->layer[l]));
}

/* Written, read, the same; and the file says `needle`. */
static void round_trip(pn_hf_kind kind, const char *needle) {
    const pn_model_config before = c;
    ck_ok(pn_hf_config_write(scratch("config.json"), &before, kind));
    ck_ok(pn_hf_config_read(scratch("config.json"), &c));
    expect_same(&before, &c);
    char text[8192];
    FILE *f = fopen(scratch("config.json"), "rb");
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    ck_assert_msg(strstr(text, needle) != NULL, "no %s in %s", needle, text);
    ck_assert_ptr_null(strstr(text, "rope_parameters"));
}

START_TEST(written_as_it_was_read) {
    ck_ok(pn_hf_config_read(POSTNAS_SOURCE_DIR "/tests/data/golden/qwen2_tiny", &c));
    round_trip(PN_HF_AUTO, "\"Qwen2ForCausalLM\"");
    round_trip(PN_HF_JET_NEMOTRON, "\"jet-ai/Jet-Nemotron-2B--modeling_jet_nemotron.JetNemotronForCausalLM\"");
    ck_refused(pn_hf_config_write(scratch("no.json"), &c, PN_HF_LLAMA), PN_UNSUPPORTED, "no.json", "biases");
    ck_ok(pn_hf_config_read(POSTNAS_SOURCE_DIR "/tests/data/golden/llama_tiny", &c));
    c.file_dtype = PN_BF16;
    c.eos = -1;
    c.initializer_range = 0.1 + 0.2; /* not a short decimal */
    round_trip(PN_HF_AUTO, "\"llama\"");
    ck_ok(read_jet("[\"attn\", \"none\", \"attn\"]", NULL));
    round_trip(PN_HF_AUTO, "\"jet_nemotron\"");
    ck_ok(read_jet("[\"attn\", \"swa\", \"swa\"]", "{\"swa\": {\"window_size\": 1152}}"));
    round_trip(PN_HF_AUTO, "\"window_size\": 1152");
    ck_ok(read_with_jet(jet_settings));
    round_trip(PN_HF_AUTO, "\"expand_v\": 2.6666666667");
    const pn_model_config jets = c;
    ck_ok(read_with("deltanet", "{\"qk_activation\": \"identity\", \"use_beta\": false}"));
    round_trip(PN_HF_AUTO, "\"qk_activation\": \"identity\"");
    ck_ok(
        read_with_mamba2("{\"head_dim\": 12, \"n_groups\": 2, \"D_has_hdim\": true, \"time_step_limit_min\": 0.001}"));
    round_trip(PN_HF_AUTO, "\"D_has_hdim\": true");
    /* two settings of one block, whose second has a name of its own */
    ck_ok(read_with_jet("{\"num_heads\": 1}"));
    const pn_block_spec other = c.layer[2];
    c = jets;
    c.layer[2] = other;
    round_trip(PN_HF_AUTO, "\"layer_types\": [\"jet\", \"attn\", \"jet_2\"]");
    ck_ok(read_with("gdn_postnas", "{\"rope\": true}"));
    const pn_block_spec turned = c.layer[2];
    ck_ok(read_with("gdn", "{\"num_heads\": 2}"));
    const pn_block_spec second = c.layer[2];
    ck_ok(read_with("gdn", "{\"num_heads\": 1}"));
    c.layer[1] = turned;
    c.layer[2] = second;
    round_trip(PN_HF_AUTO, "\"layer_types\": [\"gdn\", \"gdn_postnas\", \"gdn_2\"]");
    ck_refused(read_with("gdn_x", "{}"), PN_UNSUPPORTED, "\"gdn_x\"");
    ck_refused(read_with("gdn_", "{}"), PN_UNSUPPORTED, "\"gdn_\"");
    ck_refused(read_with("attn_2", "{}"), PN_UNSUPPORTED, "\"attn_2\"");
    ck_refused(read_with("gdn_2_postnas", "{\"rope\": true}"), PN_UNSUPPORTED, "\"gdn_2_postnas\"");
    c = jets;
    ck_refused(pn_hf_config_write(scratch("no.json"), &c, PN_HF_QWEN2), PN_UNSUPPORTED, "no.json",
               "full attention in every layer");
    ck_assert_int_ne(access(scratch("no.json"), F_OK), 0);
}
END_TEST

TEST_MAIN("hf_config", qwen2_of_today, llama_of_old, refuses_other_mathematics, refuses_wrong_values,
          layer_types_in_every_form, settings_of_linear_blocks, extensions_of_postnas, settings_of_gla,
          settings_of_deltanet, settings_of_retnet, settings_of_mamba2, sliding_windows, published_parameter_total,
          plain_models_have_plain_layers, written_as_it_was_read)
