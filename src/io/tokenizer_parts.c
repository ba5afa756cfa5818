/* Tokenizers that do not come from tokenizer.json: from GGUF's parts, and the one of plain bytes. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- GGUF's pre-tokenizer names ---- */
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
static const char llama3_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char gpt4o_pattern[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char tekken_pattern[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

#define BYTES                                                                                                          \
    { .kind = PN_TOK_BYTE_LEVEL }
#define GPT2                                                                                                           \
    { .kind = PN_TOK_BYTE_LEVEL, .use_regex = true }
#define DIGITS                                                                                                         \
    { .kind = PN_TOK_DIGITS, .individual = true }
#define SPLIT(rx)                                                                                                      \
    { .kind = PN_TOK_SPLIT, .pattern = (char *)(rx) }
#define MAX_OF_PRE 6

/* What each name of tokenizer.ggml.pre stands for, in the terms of the tokenizer.json that it was made from. `default`
 * is what GGUF's reference implementation does for files that name nothing. Twin of the list in pn_tok_apply_pre's
 * message, which is made from this table. */
static const struct {
    const char *name;
    bool nfc, ignore_merges;
    int n_steps;
    pn_tok_step step[MAX_OF_PRE];
} pre_table[] = {
    { .name = "default",
      .n_steps = 5,
      .step = { SPLIT("[\\p{P}\\$\\+<=>\\^~\\|]+"),
                SPLIT("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"),
                SPLIT("\\p{N}+"), SPLIT("[0-9][0-9][0-9]"), BYTES } },
    { .name = "gpt-2", .n_steps = 1, .step = { GPT2 } },
    { .name = "phi-2", .n_steps = 1, .step = { GPT2 } },
    { .name = "qwen2", .nfc = true, .n_steps = 2, .step = { SPLIT(qwen2_pattern), BYTES } },
    { .name = "llama-bpe", .ignore_merges = true, .n_steps = 2, .step = { SPLIT(llama3_pattern), BYTES } },
    { .name = "llama3", .ignore_merges = true, .n_steps = 2, .step = { SPLIT(llama3_pattern), BYTES } },
    { .name = "llama-v3", .ignore_merges = true, .n_steps = 2, .step = { SPLIT(llama3_pattern), BYTES } },
    { .name = "smollm", .n_steps = 2, .step = { DIGITS, GPT2 } },
    { .name = "starcoder", .n_steps = 2, .step = { DIGITS, GPT2 } },
    { .name = "deepseek-coder",
      .n_steps = 6,
      .step = { SPLIT("[\r\n]"), SPLIT("\\s?\\p{L}+"), SPLIT("\\s?\\p{P}+"),
                SPLIT("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), DIGITS, BYTES } },
    { .name = "deepseek-v3",
      .n_steps = 4,
      .step = { SPLIT("\\p{N}{1,3}"), SPLIT("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
                SPLIT("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                      " ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
                BYTES } },
    { .name = "gpt-4o", .n_steps = 2, .step = { SPLIT(gpt4o_pattern), BYTES } },
    { .name = "tekken", .ignore_merges = true, .n_steps = 2, .step = { SPLIT(tekken_pattern), BYTES } },
};

pn_status pn_tok_apply_pre(pn_tokenizer *t, const char *pre) {
    if (!pre || pre[0] == '\0') pre = "default";
    for (size_t i = 0; i < sizeof pre_table / sizeof *pre_table; i++) {
        if (strcmp(pre, pre_table[i].name) != 0) continue;
        t->nfc = pre_table[i].nfc;
        t->ignore_merges = pre_table[i].ignore_merges;
        for (int k = 0; k < pre_table[i].n_steps; k++) PN_TRY(pn_tok_add_step(t, &pre_table[i].step[k]));
        return PN_OK;
    }
    char known[512] = "", show[128];
    size_t n = 0;
    for (size_t i = 0; i < sizeof pre_table / sizeof *pre_table && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", pre_table[i].name);
    PN_FAIL(
        PN_UNSUPPORTED,
        "%s: tokenizer.ggml.pre is \"%s\", which is not known here (known: %s): put the model's tokenizer.json beside "
        "the file instead",
        t->source, pn_tok_show(pre, strlen(pre), show), known);
}

/* ---- GGUF's parts ---- */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

static int type_of(const pn_tokenizer_parts *p, int64_t id) {
    return p->token_type ? p->token_type[id] : TYPE_NORMAL;
}

static pn_status set_tokens(pn_tokenizer *t, const pn_tokenizer_parts *p) {
    /* Ordinary tokens first: an added token must not take the place of one. The model's own vocabulary ends where no
     * ordinary token follows, and what comes after is only added, as tokenizer.json has it. */
    int64_t end_of_model = 0;
    bool holes = false;
    for (int64_t id = 0; id < t->n_ids; id++) {
        int type = type_of(p, id);
        PN_CHECK(type >= TYPE_NORMAL && type <= TYPE_BYTE, PN_FORMAT, "%s: token %lld has the unknown type %d",
                 t->source, (long long)id, type);
        PN_CHECK(
            type != TYPE_BYTE, PN_UNSUPPORTED,
            "%s: token %lld is of type byte, which SentencePiece vocabularies have: only byte-level BPE is supported",
            t->source, (long long)id);
        PN_CHECK(p->tokens[id], PN_FORMAT, "%s: token %lld has no text", t->source, (long long)id);
        if (type == TYPE_NORMAL) end_of_model = id + 1;
        holes = holes || type == TYPE_UNUSED;
    }
    for (int pass = 0; pass < 2; pass++)
        for (int64_t id = 0; id < t->n_ids; id++) {
            int type = type_of(p, id);
            size_t n = p->token_bytes ? p->token_bytes[id] : strlen(p->tokens[id]);
            if (pass == 0 && type == TYPE_NORMAL) PN_TRY(pn_tok_set_token(t, id, p->tokens[id], n));
            if (pass == 1 && type != TYPE_NORMAL && type != TYPE_UNUSED) {
                pn_tok_added row = { .id = (int32_t)id };
                PN_CHECK(pn_tok_lookup(t, p->tokens[id], n) < 0, PN_FORMAT,
                         "%s: the text of token %lld is also that of %d", t->source, (long long)id,
                         pn_tok_lookup(t, p->tokens[id], n));
                PN_TRY(pn_tok_set_added(t, p->tokens[id], n, type != TYPE_USER_DEFINED, &row));
                t->token[id].in_model = id < end_of_model || holes;
            }
        }
    return PN_OK;
}

static pn_status set_merges(pn_tokenizer *t, const pn_tokenizer_parts *p) {
    PN_TRY(pn_tok_reserve_merges(t, p->n_merges));
    for (int64_t i = 0; i < p->n_merges; i++) {
        const char *m = p->merges[i], *space = NULL;
        PN_CHECK(m, PN_FORMAT, "%s: merge %lld has no text", t->source, (long long)i);
        size_t n = p->merge_bytes ? p->merge_bytes[i] : strlen(m);
        space = memchr(m, ' ', n);
        char show[128];
        PN_CHECK(space && !memchr(space + 1, ' ', n - (size_t)(space + 1 - m)), PN_FORMAT,
                 "%s: merge %lld \"%s\" is not two tokens with a space between them", t->source, (long long)i,
                 pn_tok_show(m, n, show));
        PN_TRY(pn_tok_add_merge(t, m, (size_t)(space - m), space + 1, n - (size_t)(space + 1 - m)));
    }
    return PN_OK;
}

static pn_status build_parts(pn_tokenizer *t, const pn_tokenizer_parts *p) {
    PN_TRY(pn_tok_apply_pre(t, p->pre));
    PN_TRY(set_tokens(t, p));
    PN_TRY(pn_tok_finish_vocab(t));
    PN_TRY(set_merges(t, p));
    t->bos = p->bos < 0 ? -1 : p->bos;
    t->eos = p->eos < 0 ? -1 : p->eos;
    t->pad = p->pad < 0 ? -1 : p->pad;
    PN_CHECK(!p->add_bos || t->bos >= 0, PN_FORMAT, "%s: BOS is asked for before every text, but there is no BOS token",
             t->source);
    t->add_bos = p->add_bos;
    PN_TRY(pn_tok_finish(t));
    return PN_OK;
}

pn_status pn_tokenizer_from_parts(const pn_tokenizer_parts *parts, pn_tokenizer **out) {
    *out = NULL;
    const char *source = parts->source ? parts->source : "tokenizer parts";
    int64_t n_ids = parts->n_tokens;
    PN_CHECK(n_ids >= 1 && n_ids <= PN_TOK_MAX_IDS && parts->tokens, PN_FORMAT, "%s: %lld tokens; 1 to %d is accepted",
             source, (long long)n_ids, PN_TOK_MAX_IDS);
    PN_CHECK(parts->n_merges >= 0 && (parts->merges || parts->n_merges == 0), PN_FORMAT, "%s: %lld merges", source,
             (long long)parts->n_merges);
    while (n_ids > 1 && type_of(parts, n_ids - 1) == TYPE_UNUSED) n_ids--; /* the embedding's padding rows */
    pn_tokenizer *t;
    PN_TRY(pn_tok_create(source, n_ids, &t));
    pn_status s = build_parts(t, parts);
    if (s != PN_OK) {
        pn_tokenizer_destroy(&t);
        return pn_trace_at(__FILE__, __LINE__, s, "build_parts");
    }
    *out = t;
    return PN_OK;
}

/* ---- plain bytes ---- */
static pn_status build_bytes(pn_tokenizer *t, const char *const *specials, int64_t n) {
    for (int b = 0; b < 256; b++) {
        char text[4];
        int len = pn_tok_put_utf8(pn_tok_byte_to_char((unsigned)b), text);
        PN_TRY(pn_tok_set_token(t, b, text, (size_t)len));
    }
    for (int64_t i = 0; i < n; i++) {
        char show[128];
        PN_CHECK(specials[i] && pn_tok_lookup(t, specials[i], strlen(specials[i])) < 0, PN_USAGE,
                 "special token %lld \"%s\" stands there twice or is a byte's own token", (long long)i,
                 specials[i] ? pn_tok_show(specials[i], strlen(specials[i]), show) : "(null)");
        PN_TRY(
            pn_tok_set_added(t, specials[i], strlen(specials[i]), true, &(pn_tok_added){ .id = (int32_t)(256 + i) }));
    }
    if (n > 0) t->eos = 256;
    PN_TRY(pn_tok_add_step(t, &(pn_tok_step)BYTES));
    PN_TRY(pn_tok_finish_vocab(t));
    PN_TRY(pn_tok_reserve_merges(t, 0));
    PN_TRY(pn_tok_finish(t));
    return PN_OK;
}

pn_status pn_tokenizer_bytes(const char *const *specials, int64_t n, pn_tokenizer **out) {
    *out = NULL;
    PN_CHECK(n >= 0 && n <= 4096, PN_USAGE, "%lld special tokens; 0 to 4096 is accepted", (long long)n);
    pn_tokenizer *t;
    PN_TRY(pn_tok_create("byte tokenizer", 256 + n, &t));
    pn_status s = build_bytes(t, specials, n);
    if (s != PN_OK) {
        pn_tokenizer_destroy(&t);
        return pn_trace_at(__FILE__, __LINE__, s, "build_bytes");
    }
    *out = t;
    return PN_OK;
}
