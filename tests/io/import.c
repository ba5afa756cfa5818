/* import: a GGUF file becomes a directory that loads to the same model and tokenizer; failures leave nothing behind. */
#include "import.h"

#include "gguf_build.h"
#include "tokenizer.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden/"

enum { HIDDEN = 32, WIDE = 64, VOCAB = 128, LETTERS = 94 };

static void random_bytes(unsigned char *p, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (unsigned char)(seed >> 24);
    }
}

/* rows of Q8_0 with the scale 2^-10 */
static void add_q8(gguf_build *g, const char *name, uint64_t rows, uint64_t cols) {
    size_t n = rows * cols / 32 * 34;
    unsigned char *p = malloc(n);
    random_bytes(p, n, (unsigned)(strlen(name) + rows));
    for (size_t b = 0; b < n; b += 34) memcpy(p + b, "\x00\x14", 2);
    add_tensor(g, name, 2, (uint64_t[]){ cols, rows }, 8, p, n);
    free(p);
}

static void add_ones(gguf_build *g, const char *name) {
    float ones[HIDDEN];
    for (int i = 0; i < HIDDEN; i++) ones[i] = 1;
    add_tensor(g, name, 1, (uint64_t[]){ HIDDEN }, 0, ones, sizeof ones);
}

/* One layer; tokens "!" .. "~", the space's letter, the pair "he" and a control token. */
static void build(gguf_build *g, const char *tokenizer_model) {
    static const struct {
        const char *key;
        uint32_t value;
    } ints[] = {
        { "llama.block_count", 1 },
        { "llama.context_length", 64 },
        { "llama.embedding_length", HIDDEN },
        { "llama.feed_forward_length", WIDE },
        { "llama.attention.head_count", 2 },
        { "llama.attention.head_count_kv", 1 },
        { "tokenizer.ggml.bos_token_id", LETTERS + 2 },
        { "tokenizer.ggml.eos_token_id", LETTERS + 2 },
    };
    memset(g, 0, sizeof *g);
    add_key_string(g, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) add_key_u32(g, ints[i].key, ints[i].value);
    add_key_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    static char letters[LETTERS][2];
    static const char *tokens[LETTERS + 3];
    int32_t types[LETTERS + 3];
    for (int i = 0; i < LETTERS; i++) {
        letters[i][0] = (char)('!' + i);
        tokens[i] = letters[i];
    }
    tokens[LETTERS] = "\xc4\xa0"; /* the byte alphabet's space */
    tokens[LETTERS + 1] = "he";
    tokens[LETTERS + 2] = "<|end|>";
    for (int i = 0; i < LETTERS + 3; i++) types[i] = i == LETTERS + 2 ? 3 : 1;
    add_key_string(g, "tokenizer.ggml.model", tokenizer_model);
    add_key_string(g, "tokenizer.ggml.pre", "smollm");
    add_key_strings(g, "tokenizer.ggml.tokens", tokens, LETTERS + 3);
    add_key_array(g, "tokenizer.ggml.token_type", GGUF_I32, LETTERS + 3, types, sizeof types);
    add_key_strings(g, "tokenizer.ggml.merges", (const char *const[]){ "h e" }, 1);
    add_key_string(g, "tokenizer.chat_template", "{{ messages }}");
    add_q8(g, "token_embd.weight", VOCAB, HIDDEN);
    add_ones(g, "output_norm.weight");
    add_ones(g, "blk.0.attn_norm.weight");
    add_ones(g, "blk.0.ffn_norm.weight");
    add_q8(g, "blk.0.attn_q.weight", HIDDEN, HIDDEN);
    add_q8(g, "blk.0.attn_k.weight", HIDDEN / 2, HIDDEN);
    add_q8(g, "blk.0.attn_v.weight", HIDDEN / 2, HIDDEN);
    add_q8(g, "blk.0.attn_output.weight", HIDDEN, HIDDEN);
    add_q8(g, "blk.0.ffn_gate.weight", WIDE, HIDDEN);
    add_q8(g, "blk.0.ffn_up.weight", WIDE, HIDDEN);
    add_q8(g, "blk.0.ffn_down.weight", HIDDEN, WIDE);
}

static void expect_same_weights(const char *a, const char *b) {
    pn_model *x, *y;
    ck_ok(pn_model_load(a, PN_F32, &x));
    ck_ok(pn_model_load(b, PN_F32, &y));
    ck_assert_int_eq(x->params->n, y->params->n);
    for (int i = 0; i < x->params->n; i++) {
        const pn_param *p = x->params->item[i], *q = pn_params_find(y->params, p->name);
        ck_assert_msg(q != NULL && pn_tensor_same_shape(p->value, q->value), "%s", p->name);
        ck_assert_msg(!memcmp(pn_data(p->value), pn_data(q->value), pn_tensor_bytes(p->value)), "%s", p->name);
    }
    pn_model_destroy(&x);
    pn_model_destroy(&y);
}

static bool has(const char *path) {
    return access(path, F_OK) == 0;
}

START_TEST(quantised_gguf) {
    gguf_build g;
    pn_import_report r;
    build(&g, "gpt2");
    char source[256], out[256];
    strcpy(source, scratch("m.gguf"));
    strcpy(out, scratch("new/model"));
    gguf_write(&g, source);
    ck_ok(pn_import(source, out, &(pn_import_options){ .dtype = PN_DTYPES }, &r));
    ck_assert_int_eq(r.parameters, VOCAB * HIDDEN + 3 * HIDDEN * (HIDDEN + WIDE) + 3 * HIDDEN);
    ck_assert(r.quantised);
    ck_assert_int_eq(r.dtype, PN_F32); /* 8 bits times an f16 scale: exact in nothing narrower */
    ck_assert_int_eq(r.n_layers, 1);
    ck_assert_str_eq(r.kind, "llama");
    expect_same_weights(source, out);
    ck_assert(has(scratch("new/model/generation_config.json")) && has(scratch("new/model/tokenizer_config.json")));
    ck_assert(!has(scratch("new/model.tmp")));
    char text[64] = "";
    FILE *f = fopen(scratch("new/model/chat_template.jinja"), "rb");
    ck_assert_ptr_nonnull(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    ck_assert_str_eq(text, "{{ messages }}");

    pn_tokenizer *t;
    pn_ids ids = { 0 };
    ck_ok(pn_tokenizer_open(out, &t));
    ck_ok(pn_tokenizer_encode(t, "he <|end|>", 10, true, &ids));
    ck_assert_int_eq(ids.n, 3);
    ck_assert(ids.ids[0] == LETTERS + 1 && ids.ids[1] == LETTERS && ids.ids[2] == LETTERS + 2);
    ck_assert_int_eq(pn_tokenizer_eos(t), LETTERS + 2);
    pn_ids_free(&ids);
    pn_tokenizer_destroy(&t);

    ck_refused(pn_import(source, out, &(pn_import_options){ .dtype = PN_DTYPES }, NULL), PN_USAGE, "new/model",
               "not an empty directory");
    ck_ok(pn_import(source, scratch("half"), &(pn_import_options){ .dtype = PN_BF16 }, &r));
    ck_assert_int_eq(r.dtype, PN_BF16);
}
END_TEST

START_TEST(directory) {
    pn_import_report r;
    char dir[256];
    strcpy(dir, scratch("copy"));
    ck_ok(pn_import(GOLDEN "qwen2_tiny", dir, &(pn_import_options){ .dtype = PN_DTYPES }, &r));
    ck_assert(!r.quantised);
    ck_assert_str_eq(r.kind, "qwen2");
    ck_assert_int_eq(r.dtype, PN_F32);
    expect_same_weights(GOLDEN "qwen2_tiny", dir);
    char ours[512] = "", theirs[512] = "";
    FILE *a = fopen(scratch("copy/generation_config.json"), "rb");
    FILE *b = fopen(GOLDEN "qwen2_tiny/generation_config.json", "rb");
    ck_assert(a && b);
    size_t n = fread(ours, 1, sizeof ours, a), m = fread(theirs, 1, sizeof theirs, b);
    fclose(a);
    fclose(b);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(ours, theirs, n);
}
END_TEST

START_TEST(failures_leave_nothing) {
    gguf_build g;
    char source[256], out[256];
    strcpy(source, scratch("m.gguf"));
    strcpy(out, scratch("out"));
    const pn_import_options keep = { .dtype = PN_DTYPES };
    build(&g, "llama");
    gguf_write(&g, source);
    ck_refused(pn_import(source, out, &keep, NULL), PN_UNSUPPORTED, "m.gguf", "\"llama\"", "byte-level BPE");
    build(&g, "gpt2");
    add_key_array(&g, "tokenizer.ggml.scores", GGUF_F32, 0, NULL, 0); /* ignored */
    add_key_u32(&g, "tokenizer.ggml.padding_token_id", 5000);
    gguf_write(&g, source);
    ck_refused(pn_import(source, out, &keep, NULL), PN_FORMAT, "m.gguf");
    build(&g, "gpt2");
    gguf_write(&g, source);
    ck_refused(pn_import(source, out, &(pn_import_options){ .dtype = PN_I64 }, NULL), PN_USAGE, "i64");
    ck_refused(pn_import(scratch("absent"), out, &keep, NULL), PN_IO, "absent");
    ck_assert(!has(out) && !has(scratch("out.tmp")));
    ck_ok(pn_import(source, out, &keep, NULL));
    ck_assert(has(out));
}
END_TEST

TEST_MAIN("import", quantised_gguf, directory, failures_leave_nothing)
