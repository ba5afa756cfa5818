/* Models from files: logits of published checkpoints' layouts, GGUF and safetensors alike, and files that do not fit.
 */
#include "model_load.h"

#include <math.h>

#include "block_option.h"
#include "gguf_build.h"
#include "gguf_model.h"
#include "json.h"
#include "safetensors.h"
#include "weights_writer.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden/"

/* Relative root mean square difference of the model's logits from the file's. */
static double logits_error(const pn_model *m, const char *expected) {
    pn_safetensors *f;
    pn_pool *pool;
    pn_tape *tape;
    pn_tensor *ids2, *ids, *want, *hidden, *logits;
    ck_ok(pn_safetensors_open(expected, &f));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tape_create(PN_CPU, &tape));
    pn_tape_record(tape, false);
    const pn_tensor_info *info = pn_safetensors_find(f, "input_ids");
    int64_t n = info->shape[0], T = info->shape[1], shape[] = { n, T, m->config.vocab };
    ck_ok(pn_tensor_create(pool, PN_I32, 2, info->shape, &ids2));
    ck_ok(pn_safetensors_read(f, "input_ids", ids2));
    ck_ok(pn_tape_new(tape, PN_I32, 1, &info->n_elems, &ids));
    memcpy(pn_data(ids), pn_data(ids2), pn_tensor_bytes(ids));
    ck_ok(pn_tensor_create(pool, PN_F32, 3, shape, &want));
    ck_ok(pn_safetensors_read(f, "logits", want));
    int64_t offset[] = { 0, T, 2 * T };
    ck_assert_int_eq(n, 2);
    ck_ok(pn_model_hidden(m, NULL, tape, ids, &(pn_docs){ .n = 2, .offset = offset }, &hidden));
    ck_ok(pn_model_logits(m, tape, hidden, &logits));
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < pn_tensor_elems(want); i++) {
        double w = pn_f32(want)[i], d = pn_f32(logits)[i] - w;
        diff += d * d;
        norm += w * w;
    }
    pn_tensor_release(&ids2);
    pn_tensor_release(&want);
    pn_tape_destroy(&tape);
    pn_pool_destroy(&pool);
    pn_safetensors_close(&f);
    return sqrt(diff / norm);
}

/* The limit for fp32 models of blocks.md 13. */
static const double limit = 1e-5;

static void expect_equal(const pn_model *a, const pn_model *b) {
    ck_assert_int_eq(a->params->n, b->params->n);
    for (int i = 0; i < a->params->n; i++) {
        const pn_param *x = a->params->item[i], *y = pn_params_find(b->params, x->name);
        ck_assert_msg(y != NULL, "%s is missing", x->name);
        ck_assert_msg(pn_tensor_same_shape(x->value, y->value) &&
                          !memcmp(pn_data(x->value), pn_data(y->value), pn_tensor_bytes(x->value)),
                      "%s differs", x->name);
    }
}

START_TEST(golden_logits) {
    static const char *const names[] = { "qwen2_tiny", "llama_tiny" };
    for (int i = 0; i < 2; i++) {
        char dir[512], expected[600];
        snprintf(dir, sizeof dir, GOLDEN "%s", names[i]);
        snprintf(expected, sizeof expected, "%s/expected_outputs.safetensors", dir);
        pn_model *m;
        ck_ok(pn_model_load(dir, PN_F32, &m));
        double error = logits_error(m, expected);
        ck_assert_msg(error <= limit, "%s: logits differ by %g", names[i], error);
        pn_model_destroy(&m);
    }
}
END_TEST

START_TEST(saved_and_loaded) {
    pn_model *m, *back;
    ck_ok(pn_model_load(GOLDEN "qwen2_tiny", PN_F32, &m));
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32, .max_shard_bytes = 200000 }));
    ck_assert_int_eq(access(scratch("model-00002-of-00005.safetensors"), F_OK), 0);
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    expect_equal(m, back);
    ck_assert_int_eq(back->config.file_dtype, PN_F32);
    pn_model_destroy(&back);

    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_BF16 }));
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    ck_assert_int_eq(back->config.file_dtype, PN_BF16);
    double error = logits_error(back, GOLDEN "qwen2_tiny/expected_outputs.safetensors");
    ck_assert_msg(error > 1e-4 && error < 2e-2, "rounding to bf16 changed the logits by %g", error);
    const pn_tensor *norm = pn_params_find(m->params, "model.norm.weight")->value;
    ck_assert_mem_eq(pn_data(norm), pn_data(pn_params_find(back->params, "model.norm.weight")->value),
                     pn_tensor_bytes(norm)); /* norms stay F32 */
    ck_refused(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_I32 }), PN_USAGE, "i32");
    pn_model_destroy(&m);
    pn_model_destroy(&back);
}
END_TEST

/* jet_nemotron's attention always has biases: a base without them is written with zeros, and computes the same. */
START_TEST(hybrid_of_a_base_without_biases) {
    pn_model *m, *back;
    ck_ok(pn_model_load(GOLDEN "llama_tiny", PN_F32, &m));
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32, .kind = PN_HF_JET_NEMOTRON }));
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    ck_assert(back->config.dims.qkv_bias);
    ck_assert_int_eq(back->params->n, m->params->n + 3 * m->config.n_layers);
    double error = logits_error(back, GOLDEN "llama_tiny/expected_outputs.safetensors");
    ck_assert_msg(error <= limit, "logits differ by %g", error);
    pn_model_destroy(&back);
    pn_model_destroy(&m);
}
END_TEST

/* The same tensors under a window: saved for the published code (no postnas.json), and another function once texts are
 * longer than it. */
START_TEST(windowed_layers_are_saved_and_loaded) {
    for (int window = 75; window >= 74; window--) { /* the golden texts have 75 tokens */
        pn_model *base, *m, *back;
        char text[8];
        ck_ok(pn_model_load(GOLDEN "qwen2_tiny", PN_F32, &base));
        pn_model_config config = base->config;
        snprintf(text, sizeof text, "%d", window);
        for (int l = 0; l < config.n_layers; l++) {
            ck_ok(pn_block_spec_default(&pn_block_swa, &config.layer[l]));
            set_option(&config.layer[l], "window_size", text);
        }
        ck_ok(pn_model_create(&config, PN_F32, base->params, &m));
        ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32 }));
        ck_assert_int_ne(access(scratch("postnas.json"), F_OK), 0);
        ck_ok(pn_model_load(scratch("."), PN_F32, &back));
        expect_equal(m, back);
        for (int l = 0; l < config.n_layers; l++)
            ck_assert(pn_block_spec_equal(&back->config.layer[l], &config.layer[l]));
        double error = logits_error(back, GOLDEN "qwen2_tiny/expected_outputs.safetensors");
        ck_assert_msg(window == 75 ? error <= limit : error > limit, "window %d: logits differ by %g", window, error);
        pn_model_destroy(&back);
        pn_model_destroy(&m);
        pn_model_destroy(&base);
    }
}
END_TEST

/* A hybrid with a layer of every token mixer: the same weights and settings come back. */
START_TEST(every_block_saved_and_loaded) {
    pn_model_config *c = calloc(1, sizeof *c);
    *c = (pn_model_config){ .tied = true, .vocab = 50, .max_position = 64, .bos = -1, .eos = -1 };
    c->initializer_range = 0.02;
    c->dims = (pn_dims){ .hidden = 32,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .intermediate = 48,
                         .rope_theta = 1e6,
                         .rms_norm_eps = 1e-6,
                         .qkv_bias = true };
    int n_types;
    const pn_block_type *const *types = pn_block_types(&n_types);
    char norm[64] = "";
    for (int i = 0; i < n_types; i++) {
        if (types[i]->role != PN_MIXER) continue;
        pn_block_spec *spec = &c->layer[c->n_layers++];
        ck_ok(pn_block_spec_default(types[i], spec));
        if (types[i] == &pn_block_swa) set_option(spec, "window_size", "5");
        if (types[i] != &pn_block_gla) continue;
        snprintf(norm, sizeof norm, "model.layers.%d.self_attn.g_norm.weight", c->n_layers - 1);
        set_option(spec, "num_heads", "2"); /* settings of every kind */
        set_option(spec, "expand_k", "0.75");
        set_option(spec, "clamp_min", "-4.5");
        set_option(spec, "use_short_conv", "true");
        set_option(spec, "fuse_norm", "false");
    }
    pn_model *m, *back;
    ck_ok(pn_model_create(c, PN_F32, NULL, &m));
    ck_ok(pn_params_init(m->params, 20));
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32 }));
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    expect_equal(m, back);
    ck_assert_int_eq(back->config.n_layers, m->config.n_layers);
    for (int l = 0; l < m->config.n_layers; l++)
        ck_assert_msg(pn_block_spec_equal(&m->config.layer[l], &back->config.layer[l]), "%s",
                      m->config.layer[l].type->name);
    ck_assert_ptr_nonnull(pn_params_find(back->params, norm));
    json_t *extensions;
    ck_ok(pn_json_load(scratch("postnas.json"), 4096, &extensions));
    char *listed = json_dumps(json_object_get(extensions, "extended_layer_types"), JSON_COMPACT);
    ck_assert_ptr_nonnull(strstr(listed, "\"gla\""));
    ck_assert_ptr_null(strstr(listed, "\"attn\""));
    free(listed);
    json_decref(extensions);
    pn_model_destroy(&m);
    pn_model_destroy(&back);
    free(c);
}
END_TEST

/* Extensions: other names in config.json, listed in postnas.json even for a block that is published without them. */
START_TEST(extended_blocks_saved_and_loaded) {
    pn_model *base, *m, *back;
    ck_ok(pn_model_load(GOLDEN "qwen2_tiny", PN_F32, &base));
    pn_model_config config = base->config;
    for (int l = 0; l < config.n_layers; l++) {
        ck_ok(pn_block_spec_default(l % 2 ? &pn_block_gla : &pn_block_jet, &config.layer[l]));
        set_option(&config.layer[l], l % 2 ? "qkv_bias" : "rope", "true");
    }
    ck_ok(pn_model_create(&config, PN_F32, NULL, &m));
    pn_params_init(m->params, 21);
    pn_tensor *bias = pn_params_find(m->params, "model.layers.1.self_attn.q_proj.bias")->value;
    for (int64_t i = 0; i < pn_tensor_elems(bias); i++) pn_f32(bias)[i] = (float)i;
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32 }));
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    expect_equal(m, back);
    for (int l = 0; l < config.n_layers; l++)
        ck_assert(pn_block_spec_equal(&back->config.layer[l], &m->config.layer[l]));
    json_t *extensions;
    ck_ok(pn_json_load(scratch("postnas.json"), 4096, &extensions));
    char *listed = json_dumps(json_object_get(extensions, "extended_layer_types"), JSON_COMPACT);
    ck_assert_str_eq(listed, "[\"jet_postnas\",\"gla_postnas\"]");
    free(listed);
    json_decref(extensions);
    pn_model_destroy(&back);
    pn_model_destroy(&m);
    pn_model_destroy(&base);
}
END_TEST

/* ---- GGUF ---- */

/* llama_tiny as llama.cpp's converter writes it: rows of q and k taken as [heads, 2, d/2] and stored as [heads, d/2,
 * 2]. */
static void store_permuted(float *out, const float *in, int64_t heads, int64_t d, int64_t cols) {
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < d / 2; i++)
            for (int64_t half = 0; half < 2; half++, out += cols)
                memcpy(out, in + ((h * 2 + half) * (d / 2) + i) * cols, (size_t)cols * sizeof *out);
}

static void add_weight(gguf_build *g, const char *gguf_name, const pn_model *m, const char *hf_name, int64_t heads) {
    const pn_param *p = pn_params_find(m->params, hf_name);
    ck_assert_msg(p != NULL, "%s", hf_name);
    const pn_tensor *t = p->value;
    int64_t cols = t->rank == 2 ? t->shape[1] : 1;
    uint64_t dims[] = { (uint64_t)(t->rank == 2 ? cols : t->shape[0]), (uint64_t)t->shape[0] };
    float *bytes = malloc(pn_tensor_bytes(t));
    if (heads)
        store_permuted(bytes, pn_f32(t), heads, t->shape[0] / heads, cols);
    else
        memcpy(bytes, pn_data(t), pn_tensor_bytes(t));
    add_tensor(g, gguf_name, (uint32_t)t->rank, dims, 0, bytes, pn_tensor_bytes(t));
    free(bytes);
}

static void add_config(gguf_build *g, const char *architecture, const pn_model_config *c) {
    const struct {
        const char *key;
        int64_t value;
    } ints[] = {
        { "block_count", c->n_layers },
        { "context_length", c->max_position },
        { "embedding_length", c->dims.hidden },
        { "feed_forward_length", c->dims.intermediate },
        { "attention.head_count", c->dims.heads },
        { "attention.head_count_kv", c->dims.kv_heads },
        { "attention.key_length", c->dims.head_dim },
        { "rope.dimension_count", c->dims.head_dim },
    };
    char key[100];
    add_key_string(g, "general.architecture", architecture);
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, ints[i].key);
        add_key_u32(g, key, (uint32_t)ints[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    add_key_f32(g, key, (float)c->dims.rms_norm_eps);
    snprintf(key, sizeof key, "%s.rope.freq_base", architecture);
    add_key_f32(g, key, (float)c->dims.rope_theta);
    add_key_u32(g, "tokenizer.ggml.eos_token_id", 3);
}

/* skip: a tensor to leave out; NULL: none. */
static void build_gguf(gguf_build *g, const char *architecture, const pn_model *m, const char *skip) {
    static const struct {
        const char *gguf, *hf;
        int heads; /* 1: of q, 2: of k */
    } layer[] = {
        { "attn_norm.weight", "input_layernorm.weight", 0 },
        { "ffn_norm.weight", "post_attention_layernorm.weight", 0 },
        { "attn_q.weight", "self_attn.q_proj.weight", 1 },
        { "attn_k.weight", "self_attn.k_proj.weight", 2 },
        { "attn_v.weight", "self_attn.v_proj.weight", 0 },
        { "attn_output.weight", "self_attn.o_proj.weight", 0 },
        { "ffn_gate.weight", "mlp.gate_proj.weight", 0 },
        { "ffn_up.weight", "mlp.up_proj.weight", 0 },
        { "ffn_down.weight", "mlp.down_proj.weight", 0 },
        { "attn_q.bias", "self_attn.q_proj.bias", 1 },
        { "attn_k.bias", "self_attn.k_proj.bias", 2 },
        { "attn_v.bias", "self_attn.v_proj.bias", 0 },
    };
    const int64_t heads[] = { 0, m->config.dims.heads, m->config.dims.kv_heads };
    bool permuted = !strcmp(architecture, "llama");
    memset(g, 0, sizeof *g);
    add_config(g, architecture, &m->config);
    add_weight(g, "token_embd.weight", m, "model.embed_tokens.weight", 0);
    add_weight(g, "output_norm.weight", m, "model.norm.weight", 0);
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = 0; i < (m->config.dims.qkv_bias ? 12 : 9); i++) {
            char gguf[100], hf[100];
            snprintf(gguf, sizeof gguf, "blk.%d.%s", l, layer[i].gguf);
            snprintf(hf, sizeof hf, "model.layers.%d.%s", l, layer[i].hf);
            if (!skip || strcmp(skip, gguf) != 0) add_weight(g, gguf, m, hf, permuted ? heads[layer[i].heads] : 0);
        }
}

START_TEST(gguf_is_the_same_model) {
    static const struct {
        const char *name, *architecture;
    } cases[] = { { "llama_tiny", "llama" }, { "qwen2_tiny", "qwen2" }, { "qwen2_tiny", "llama" } };
    for (int i = 0; i < 3; i++) {
        char dir[512], expected[600];
        snprintf(dir, sizeof dir, GOLDEN "%s", cases[i].name);
        snprintf(expected, sizeof expected, "%s/expected_outputs.safetensors", dir);
        pn_model *m, *from_gguf;
        gguf_build g;
        ck_ok(pn_model_load(dir, PN_F32, &m));
        build_gguf(&g, cases[i].architecture, m, NULL);
        const char *path = scratch("m.gguf");
        gguf_write(&g, path);
        ck_ok(pn_model_load(path, PN_F32, &from_gguf));
        expect_equal(m, from_gguf);
        const pn_model_config *c = &from_gguf->config;
        ck_assert_double_eq(c->dims.rms_norm_eps, m->config.dims.rms_norm_eps);
        ck_assert_double_eq(c->dims.rope_theta, m->config.dims.rope_theta);
        ck_assert_int_eq(c->dims.head_dim, m->config.dims.head_dim);
        ck_assert_int_eq(c->max_position, 256);
        ck_assert_int_eq(c->eos, 3);
        ck_assert_int_eq(c->bos, -1);
        ck_assert(c->tied);
        double error = logits_error(from_gguf, expected);
        ck_assert_msg(error <= limit, "%s as %s: logits differ by %g", cases[i].name, cases[i].architecture, error);
        pn_model_destroy(&m);
        pn_model_destroy(&from_gguf);
    }
}
END_TEST

/* What a pairing of the wrong channels would give: the test above must be able to fail. */
START_TEST(the_permutation_matters) {
    pn_model *m, *wrong;
    gguf_build g;
    ck_ok(pn_model_load(GOLDEN "llama_tiny", PN_F32, &m));
    build_gguf(&g, "qwen2", m, NULL); /* rows as they are, names of qwen2, which wants biases */
    m->config.dims.qkv_bias = false;
    const char *path = scratch("m.gguf");
    gguf_write(&g, path);
    ck_refused(pn_model_load(path, PN_F32, &wrong), PN_FORMAT, "m.gguf", "q_proj.bias");
    build_gguf(&g, "llama", m, NULL);
    pn_tensor *q = pn_params_find(m->params, "model.layers.1.self_attn.q_proj.weight")->value;
    gguf_write(&g, path);
    float *permuted = malloc(pn_tensor_bytes(q));
    store_permuted(permuted, pn_f32(q), 3, 20, 60);
    memcpy(pn_data(q), permuted, pn_tensor_bytes(q));
    free(permuted);
    double error = logits_error(m, GOLDEN "llama_tiny/expected_outputs.safetensors");
    ck_assert_msg(error > 10 * limit, "permuted rows go unnoticed: %g", error);
    pn_model_destroy(&m);
}
END_TEST

static void refused_gguf(gguf_build *g, pn_status status, const char *word, const char *other) {
    pn_model *m;
    const char *path = scratch("m.gguf");
    gguf_write(g, path);
    ck_refused(pn_model_load(path, PN_F32, &m), status, "m.gguf", word, other);
    ck_assert_ptr_null(m);
}

START_TEST(refuses_other_gguf_models) {
    pn_model *m;
    gguf_build g;
    ck_ok(pn_model_load(GOLDEN "llama_tiny", PN_F32, &m));
    build_gguf(&g, "gpt2", m, NULL);
    refused_gguf(&g, PN_UNSUPPORTED, "general.architecture is \"gpt2\"", "qwen2");
    build_gguf(&g, "llama", m, "blk.1.attn_v.weight");
    refused_gguf(&g, PN_FORMAT, "no tensor model.layers.1.self_attn.v_proj.weight", "");
    build_gguf(&g, "llama", m, "blk.2.ffn_gate.weight");
    refused_gguf(&g, PN_FORMAT, "no tensor model.layers.2.mlp.gate_proj.weight", "");
    build_gguf(&g, "llama", m, NULL);
    add_tensor(&g, "blk.0.attn_q_norm.weight", 1, (uint64_t[]){ 1 }, 0, "abcd", 4);
    refused_gguf(&g, PN_UNSUPPORTED, "blk.0.attn_q_norm.weight", "no counterpart");
    build_gguf(&g, "llama", m, NULL);
    add_tensor(&g, "blk.3.attn_norm.weight", 1, (uint64_t[]){ 1 }, 0, "abcd", 4);
    refused_gguf(&g, PN_UNSUPPORTED, "blk.3.attn_norm.weight", "3 layers");
    build_gguf(&g, "llama", m, NULL);
    add_tensor(&g, "rope_freqs.weight", 1, (uint64_t[]){ 1 }, 0, "abcd", 4);
    refused_gguf(&g, PN_UNSUPPORTED, "rope_freqs.weight", "unscaled");
    static const struct {
        const char *key, *text;
        uint32_t value;
        const char *word;
    } keys[] = {
        { "llama.rope.scaling.type", "yarn", 0, "\"yarn\"" },
        { "llama.rope.scaling.factor", NULL, 4, "llama.rope.scaling.factor is 4" },
        { "llama.attention.value_length", NULL, 16, "llama.attention.value_length is 16" },
        { "llama.expert_count", NULL, 8, "llama.expert_count is 8" },
        { "llama.attention.sliding_window", NULL, 512, "llama.attention.sliding_window is 512" },
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        build_gguf(&g, "llama", m, NULL);
        if (keys[i].text)
            add_key_string(&g, keys[i].key, keys[i].text);
        else
            add_key_u32(&g, keys[i].key, keys[i].value);
        refused_gguf(&g, PN_UNSUPPORTED, keys[i].word, "");
    }
    build_gguf(&g, "llama", m, NULL);
    add_key_u32(&g, "tokenizer.ggml.bos_token_id", 384);
    refused_gguf(&g, PN_FORMAT, "tokenizer.ggml.bos_token_id is 384", "383");
    build_gguf(&g, "llama", m, NULL);
    static const char *tokens[385];
    for (int i = 0; i < 385; i++) tokens[i] = "t";
    add_key_strings(&g, "tokenizer.ggml.tokens", tokens, 385);
    refused_gguf(&g, PN_FORMAT, "385 tokens", "384 rows");
    pn_model_destroy(&m);
}
END_TEST

START_TEST(refuses_gguf_configs_that_do_not_fit) {
    pn_model *m;
    gguf_build g;
    ck_ok(pn_model_load(GOLDEN "llama_tiny", PN_F32, &m));
    static const struct {
        size_t offset;
        int64_t value;
        pn_status status;
        const char *word;
    } cases[] = {
        { offsetof(pn_model_config, dims.hidden), 64, PN_FORMAT, "config says [384, 64]" },
        { offsetof(pn_model_config, dims.intermediate), 4096, PN_FORMAT, "config says [4096, 60]" },
        { offsetof(pn_model_config, dims.intermediate), 1 << 30, PN_USAGE, "intermediate_size is 1073741824" },
        { offsetof(pn_model_config, dims.heads), 6, PN_FORMAT, "config says [120, 60]" },
        { offsetof(pn_model_config, dims.kv_heads), 3, PN_FORMAT, "k_proj.weight has shape [20, 60]" },
        { offsetof(pn_model_config, dims.kv_heads), 2, PN_USAGE, "not a multiple" },
        { offsetof(pn_model_config, dims.head_dim), 1022, PN_FORMAT, "not made of heads of 1022" },
    };
    const pn_model_config good = m->config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy((char *)&m->config + cases[i].offset, &cases[i].value, sizeof cases[i].value);
        memset(&g, 0, sizeof g);
        add_config(&g, "llama", &m->config);
        gguf_build weights;
        m->config = good;
        build_gguf(&weights, "llama", m, NULL);
        g.tensors = weights.tensors;
        g.data = weights.data;
        g.n_tensors = weights.n_tensors;
        free(weights.keys.p);
        refused_gguf(&g, cases[i].status, cases[i].word, "");
    }
    m->config.n_layers = 129;
    memset(&g, 0, sizeof g);
    add_config(&g, "llama", &m->config);
    refused_gguf(&g, PN_FORMAT, "llama.block_count is 129", "128");
    m->config = good;
    memset(&g, 0, sizeof g);
    add_config(&g, "llama", &m->config);
    refused_gguf(&g, PN_FORMAT, "token_embd.weight", "missing");
    pn_model_destroy(&m);
}
END_TEST

/* ---- directories ---- */

/* llama_tiny's weights with one tensor left out, and one added. */
static void write_weights(const pn_model *m, const char *skip, const char *extra, int rank, const float *values) {
    pn_weight_decl decl[64];
    pn_weights_writer *w;
    int n = 0;
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (skip && !strcmp(skip, p->name)) continue;
        decl[n] = (pn_weight_decl){ .name = p->name, .dtype = PN_F32, .rank = p->value->rank };
        memcpy(decl[n++].shape, p->value->shape, sizeof decl->shape);
    }
    if (extra) decl[n++] = (pn_weight_decl){ .name = extra, .dtype = PN_F32, .rank = rank, .shape = { 2, 1 } };
    ck_ok(pn_weights_writer_create(scratch("."), decl, n, PN_DEFAULT_SHARD_BYTES, &w));
    for (int i = 0; i < n - (extra ? 1 : 0); i++)
        ck_ok(pn_weights_writer_put(w, decl[i].name, pn_params_find(m->params, decl[i].name)->value));
    if (extra) {
        pn_tensor *t;
        ck_ok(pn_tensor_create(m->params->pool, PN_F32, rank, (int64_t[]){ 2, 1 }, &t));
        memcpy(pn_data(t), values, 8);
        ck_ok(pn_weights_writer_put(w, extra, t));
        pn_tensor_release(&t);
    }
    ck_ok(pn_weights_writer_commit(w));
    pn_weights_writer_destroy(&w);
}

START_TEST(refuses_directories_that_do_not_fit) {
    pn_model *m, *x;
    ck_ok(pn_model_load(GOLDEN "llama_tiny", PN_F32, &m));
    ck_refused(pn_model_load(scratch("absent"), PN_F32, &x), PN_IO, "absent", "no such directory or file");
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_IO, "config.json");
    ck_ok(pn_hf_config_write(scratch("config.json"), &m->config, PN_HF_AUTO));
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_IO, "neither model.safetensors");
    write_text(scratch("x.gguf"), "{\"a\": 1, \"and\": \"more than a header\"}");
    ck_refused(pn_model_load(scratch("x.gguf"), PN_F32, &x), PN_FORMAT, "x.gguf", "not a GGUF file");

    static const float zeros[2] = { 0, 0 }, ones[2] = { 0, 1 };
    write_weights(m, "model.norm.weight", NULL, 0, NULL);
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_FORMAT, "no tensor model.norm.weight");
    ck_assert_ptr_null(x);
    write_weights(m, "model.layers.0.mlp.gate_proj.weight", NULL, 0, NULL);
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_FORMAT, "no tensor model.layers.0.mlp.gate_proj.weight");
    write_weights(m, NULL, "model.layers.0.self_attn.q_norm.weight", 1, ones);
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_FORMAT, "q_norm.weight", "no place for it");
    write_weights(m, NULL, "model.layers.0.self_attn.o_proj.bias", 1, ones);
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_UNSUPPORTED, "o_proj.bias is not zero");
    static const struct {
        const char *name;
        int rank;
        const float *values;
    } harmless[] = { { "model.layers.0.self_attn.o_proj.bias", 1, zeros },
                     { "model.layers.0.self_attn.rotary_emb.inv_freq", 1, ones },
                     { "lm_head.weight", 2, ones } };
    for (int i = 0; i < 3; i++) {
        write_weights(m, NULL, harmless[i].name, harmless[i].rank, harmless[i].values);
        ck_ok(pn_model_load(scratch("."), PN_F32, &x));
        expect_equal(m, x);
        pn_model_destroy(&x);
    }
    /* Sizes that only the config claims are refused before memory is taken for them. */
    ck_assert_int_eq(m->config.dims.intermediate, 152);
    m->config.dims.intermediate = 1 << 20;
    ck_ok(pn_hf_config_write(scratch("config.json"), &m->config, PN_HF_AUTO));
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_FORMAT, "gate_proj.weight has shape [152, 60]",
               "its config says [1048576, 60]");
    m->config.dims.intermediate = 152;
    m->config.tied = false; /* now the head is no longer spare */
    ck_ok(pn_hf_config_write(scratch("config.json"), &m->config, PN_HF_AUTO));
    ck_refused(pn_model_load(scratch("."), PN_F32, &x), PN_FORMAT, "lm_head.weight", "[2, 1]", "[384, 60]");
    pn_model_destroy(&m);
}
END_TEST

TEST_MAIN("model_load", golden_logits, saved_and_loaded, every_block_saved_and_loaded, extended_blocks_saved_and_loaded,
          windowed_layers_are_saved_and_loaded, hybrid_of_a_base_without_biases, gguf_is_the_same_model,
          the_permutation_matters, refuses_other_gguf_models, refuses_gguf_configs_that_do_not_fit,
          refuses_directories_that_do_not_fit)
