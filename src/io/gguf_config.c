#include <stdlib.h>
#include <string.h>

#include "gguf_model.h"
#include "hf_internal.h"

/* "llama" + ".block_count" in one of two rotating buffers. */
static const char *key_of(const char *architecture, const char *rest) {
    static _Thread_local char buffers[2][96];
    static _Thread_local unsigned next;
    char *b = buffers[next++ % 2];
    snprintf(b, sizeof buffers[0], "%s.%s", architecture, rest);
    return b;
}

typedef struct reader {
    const pn_gguf *f;
    const char *architecture;
} reader;

static pn_status integer(const reader *r, const char *rest, const int64_t *def, int64_t *out) {
    const char *key = key_of(r->architecture, rest);
    if (def && !pn_gguf_has(r->f, key)) {
        *out = *def;
        return PN_OK;
    }
    PN_TRY(pn_gguf_int(r->f, key, 1, INT32_MAX, out));
    return PN_OK;
}

static pn_status number(const reader *r, const char *rest, const double *def, double *out) {
    const char *key = key_of(r->architecture, rest);
    if (def && !pn_gguf_has(r->f, key)) {
        *out = *def;
        return PN_OK;
    }
    PN_TRY(pn_gguf_number(r->f, key, out));
    return PN_OK;
}

static pn_status check_equal(const reader *r, const char *rest, int64_t expected, const char *what) {
    int64_t x;
    PN_TRY(integer(r, rest, &expected, &x));
    PN_CHECK(x == expected, PN_UNSUPPORTED, "%s: key %s is %lld; only %lld, %s, is supported", pn_gguf_path(r->f),
             key_of(r->architecture, rest), (long long)x, (long long)expected, what);
    return PN_OK;
}

/* Settings that would change the mathematics; absent, or at the value that means "not used". */
static pn_status check_plain(const reader *r, const pn_dims *d) {
    const char *path = pn_gguf_path(r->f), *key = key_of(r->architecture, "rope.scaling.type"), *type;
    if (pn_gguf_has(r->f, key)) {
        PN_TRY(pn_gguf_string(r->f, key, &type));
        PN_CHECK(!strcmp(type, "none"), PN_UNSUPPORTED,
                 "%s: key %s is \"%.100s\"; only unscaled rotary positions are supported", path, key, type);
    } else {
        static const char *const factors[] = { "rope.scaling.factor", "rope.scale_linear" };
        for (int i = 0; i < 2; i++) {
            const double one = 1;
            double factor;
            PN_TRY(number(r, factors[i], &one, &factor));
            PN_CHECK(factor == 1 || factor == 0, PN_UNSUPPORTED,
                     "%s: key %s is %g; only unscaled rotary positions are supported", path,
                     key_of(r->architecture, factors[i]), factor);
        }
    }
    PN_CHECK(!pn_gguf_find(r->f, "rope_freqs.weight"), PN_UNSUPPORTED,
             "%s: tensor rope_freqs.weight scales the rotary positions; only unscaled ones are supported", path);
    PN_TRY(check_equal(r, "rope.dimension_count", d->head_dim, "the width of a head"));
    PN_TRY(check_equal(r, "attention.value_length", d->head_dim, "the width of a head"));
    static const char *const absent[] = { "expert_count", "attention.sliding_window" };
    for (int i = 0; i < 2; i++) {
        key = key_of(r->architecture, absent[i]);
        int64_t n = 0;
        if (pn_gguf_has(r->f, key)) PN_TRY(pn_gguf_int(r->f, key, 0, INT32_MAX, &n));
        PN_CHECK(n == 0, PN_UNSUPPORTED, "%s: key %s is %lld; postnas reads models without it", path, key,
                 (long long)n);
    }
    return PN_OK;
}

static pn_status read_dims(const reader *r, pn_dims *d) {
    const double base = 10000; /* the format's default */
    PN_TRY(integer(r, "embedding_length", NULL, &d->hidden));
    PN_TRY(integer(r, "feed_forward_length", NULL, &d->intermediate));
    PN_TRY(integer(r, "attention.head_count", NULL, &d->heads));
    PN_TRY(integer(r, "attention.head_count_kv", &d->heads, &d->kv_heads));
    int64_t head_dim = d->hidden / d->heads;
    PN_CHECK(head_dim * d->heads == d->hidden || pn_gguf_has(r->f, key_of(r->architecture, "attention.key_length")),
             PN_FORMAT, "%s: embedding_length %lld is not a multiple of head_count %lld, and key_length is missing",
             pn_gguf_path(r->f), (long long)d->hidden, (long long)d->heads);
    PN_TRY(integer(r, "attention.key_length", &head_dim, &d->head_dim));
    PN_TRY(number(r, "attention.layer_norm_rms_epsilon", NULL, &d->rms_norm_eps));
    PN_TRY(number(r, "rope.freq_base", &base, &d->rope_theta));
    d->qkv_bias = !strcmp(r->architecture, "qwen2") || pn_gguf_find(r->f, "blk.0.attn_q.bias");
    return check_plain(r, d);
}

static pn_status read_token(const pn_gguf *f, const char *key, int64_t vocab, int32_t *out) {
    int64_t id = -1;
    if (pn_gguf_has(f, key)) PN_TRY(pn_gguf_int(f, key, 0, vocab - 1, &id));
    *out = (int32_t)id;
    return PN_OK;
}

/* Rows of the embedding: the tokens, and padding where the model has more rows than tokens. */
static pn_status read_vocab(const pn_gguf *f, pn_model_config *c) {
    const pn_tensor_info *embed = pn_gguf_find(f, "token_embd.weight");
    PN_CHECK(embed && embed->rank == 2, PN_FORMAT, "%s: tensor token_embd.weight is missing or not a matrix",
             pn_gguf_path(f));
    c->vocab = embed->shape[0];
    const char **text;
    uint32_t *n_bytes;
    int64_t n = 0;
    if (pn_gguf_has(f, "tokenizer.ggml.tokens")) {
        PN_TRY(pn_gguf_strings(f, "tokenizer.ggml.tokens", &text, &n_bytes, &n));
        free(text);
        free(n_bytes);
    }
    PN_CHECK(n <= c->vocab, PN_FORMAT, "%s: %lld tokens, but the embedding has %lld rows", pn_gguf_path(f),
             (long long)n, (long long)c->vocab);
    c->tied = !pn_gguf_find(f, "output.weight");
    PN_TRY(read_token(f, "tokenizer.ggml.bos_token_id", c->vocab, &c->bos));
    PN_TRY(read_token(f, "tokenizer.ggml.eos_token_id", c->vocab, &c->eos));
    return PN_OK;
}

static pn_dtype dtype_of_matrices(const pn_gguf *f) {
    pn_dtype common = PN_DTYPES;
    for (int64_t i = 0; i < pn_gguf_count(f); i++) {
        const pn_tensor_info *t = pn_gguf_info(f, i);
        if (t->rank < 2) continue;
        if (common == PN_DTYPES) common = t->dtype;
        if (t->dtype != common || common == PN_DTYPES) return PN_F32;
    }
    return common == PN_BF16 || common == PN_F16 ? common : PN_F32;
}

pn_status pn_gguf_config(const pn_gguf *f, pn_model_config *c) {
    memset(c, 0, sizeof *c);
    const char *architecture, *path = pn_gguf_path(f);
    PN_TRY(pn_gguf_string(f, "general.architecture", &architecture));
    PN_CHECK(!strcmp(architecture, "llama") || !strcmp(architecture, "qwen2"), PN_UNSUPPORTED,
             "%s: general.architecture is \"%.100s\"; llama and qwen2 are read", path, architecture);
    reader r = { f, architecture };
    int64_t layers;
    const int64_t positions = 32768;
    PN_TRY(integer(&r, "block_count", NULL, &layers));
    PN_CHECK(layers <= PN_MAX_LAYERS, PN_FORMAT, "%s: key %s is %lld; at most %d layers are possible", path,
             key_of(architecture, "block_count"), (long long)layers, PN_MAX_LAYERS);
    c->n_layers = (int)layers;
    PN_TRY(read_dims(&r, &c->dims));
    PN_TRY(read_vocab(f, c));
    PN_TRY(integer(&r, "context_length", &positions, &c->max_position));
    c->initializer_range = 0.02;
    c->file_dtype = dtype_of_matrices(f);
    for (int l = 0; l < c->n_layers; l++) PN_TRY(pn_block_spec_default(&pn_block_attention, &c->layer[l]));
    return pn_in_file(path, pn_model_config_check(c));
}
