/* The tokenizer in a GGUF file's metadata (tokenizer.ggml.*). */
#include <stdlib.h>
#include <string.h>

#include "gguf_model.h"

static pn_status token_id(const pn_gguf *f, const char *key, int32_t *out) {
    int64_t id = -1;
    if (pn_gguf_has(f, key)) PN_TRY(pn_gguf_int(f, key, 0, INT32_MAX, &id));
    *out = (int32_t)id;
    return PN_OK;
}

typedef struct parts {
    pn_tokenizer_parts p;
    const char **tokens, **merges; /* owned, with their lengths and types */
    uint32_t *token_bytes, *merge_bytes;
    int32_t *types;
} parts;

static pn_status read_parts(const pn_gguf *f, parts *out) {
    const char *model;
    pn_tokenizer_parts *p = &out->p;
    p->source = pn_gguf_path(f);
    PN_TRY(pn_gguf_string(f, "tokenizer.ggml.model", &model));
    PN_CHECK(!strcmp(model, "gpt2"), PN_UNSUPPORTED,
             "%s: its tokenizer is of type \"%.100s\"; only byte-level BPE (\"gpt2\") is supported", p->source, model);
    if (pn_gguf_has(f, "tokenizer.ggml.pre")) PN_TRY(pn_gguf_string(f, "tokenizer.ggml.pre", &p->pre));
    PN_TRY(pn_gguf_strings(f, "tokenizer.ggml.tokens", &out->tokens, &out->token_bytes, &p->n_tokens));
    PN_TRY(pn_gguf_strings(f, "tokenizer.ggml.merges", &out->merges, &out->merge_bytes, &p->n_merges));
    if (pn_gguf_has(f, "tokenizer.ggml.token_type")) {
        int64_t n;
        PN_TRY(pn_gguf_ints(f, "tokenizer.ggml.token_type", &out->types, &n));
        PN_CHECK(n == p->n_tokens, PN_FORMAT, "%s: %lld token types for %lld tokens", p->source, (long long)n,
                 (long long)p->n_tokens);
    }
    PN_TRY(token_id(f, "tokenizer.ggml.bos_token_id", &p->bos));
    PN_TRY(token_id(f, "tokenizer.ggml.eos_token_id", &p->eos));
    PN_TRY(token_id(f, "tokenizer.ggml.padding_token_id", &p->pad));
    PN_TRY(token_id(f, "tokenizer.ggml.unknown_token_id", &p->unk));
    if (pn_gguf_has(f, "tokenizer.ggml.add_bos_token"))
        PN_TRY(pn_gguf_bool(f, "tokenizer.ggml.add_bos_token", &p->add_bos));
    p->tokens = out->tokens;
    p->token_bytes = out->token_bytes;
    p->token_type = out->types;
    p->merges = out->merges;
    p->merge_bytes = out->merge_bytes;
    return PN_OK;
}

pn_status pn_gguf_tokenizer(const pn_gguf *f, pn_tokenizer **out) {
    *out = NULL;
    parts read = { 0 };
    pn_status s = read_parts(f, &read);
    if (!s) s = pn_tokenizer_from_parts(&read.p, out);
    free(read.tokens);
    free(read.merges);
    free(read.token_bytes);
    free(read.merge_bytes);
    free(read.types);
    return s;
}
