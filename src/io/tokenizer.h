/* Byte-level BPE tokenizer: text in, token ids out, and back.
 *
 * Reads Hugging Face's tokenizer.json (BPE models over the GPT-2 byte alphabet, as Qwen2, Llama 3, SmolLM and GPT-2
 * use) or the same parts from GGUF metadata, and gives the ids that Hugging Face tokenizers gives. The way of a text:
 *
 *     1. added tokens ("<|im_start|>") are cut out          tokenizer_added.c
 *     2. what is left is normalised (NFC)                   tokenizer_normal.c
 *     3. and split into words by the file's regex           tokenizer_split.c, tokenizer_pattern.c
 *     4. whose bytes are merged pairwise, best rank first   tokenizer_bpe.c    (Sennrich et al., arXiv 1508.07909)
 *
 * No template is applied: the caller adds BOS or EOS (pn_tokenizer_adds_bos says what the file asks for). Truncation
 * and padding settings of the file are not applied either.
 *
 * A tokenizer is immutable once made: any number of threads may encode and decode with one at the same time. Each call
 * borrows scratch memory and a word cache from a pool that the tokenizer keeps. */
#ifndef PN_IO_TOKENIZER_H
#define PN_IO_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pn_tokenizer pn_tokenizer;

/* A growable list of token ids. Start from {0}; the owner frees it with pn_ids_free. */
typedef struct pn_ids {
    int32_t *ids; /* (n), owned */
    int64_t n, cap;
} pn_ids;

/* Makes room for n_more ids past n. PN_MEMORY. */
pn_status pn_ids_reserve(pn_ids *ids, int64_t n_more);
pn_status pn_ids_push(pn_ids *ids, int32_t id);
/* Accepts NULL and an empty list; leaves {0}. */
void pn_ids_free(pn_ids *ids);

/* dir_or_file: a directory holding tokenizer.json, or that file. The ids of BOS, EOS and PAD come from the files beside
 * it, the first that names them: tokenizer_config.json, special_tokens_map.json, config.json; without these, EOS and
 * PAD are an added token of a usual name ("<|endoftext|>", "</s>", "<pad>", ...), or none. PN_IO: not readable.
 * PN_FORMAT: not a valid tokenizer. PN_UNSUPPORTED: valid, but a component has no counterpart here; the message names
 * it. */
pn_status pn_tokenizer_open(const char *dir_or_file, pn_tokenizer **out);
/* The same from the text of a tokenizer.json, without files beside it; `name` stands for the file in messages. */
pn_status pn_tokenizer_parse(const char *name, const char *text, size_t n_bytes, pn_tokenizer **out);

/* A tokenizer's parts as GGUF metadata holds them (tokenizer.ggml.*). Everything is borrowed for the call only. */
typedef struct pn_tokenizer_parts {
    const char *pre;           /* tokenizer.ggml.pre: how text is split ("qwen2", "smollm", "default"; NULL: default) */
    const char *const *tokens; /* (n_tokens) UTF-8; ordinary tokens are written in the GPT-2 byte alphabet */
    const uint32_t *token_bytes; /* (n_tokens) length of each token; NULL: tokens end in NUL */
    const int32_t
        *token_type; /* (n_tokens) 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused; NULL: all normal */
    int64_t n_tokens;
    const char *const *merges;   /* (n_merges) "left right", best first */
    const uint32_t *merge_bytes; /* (n_merges) length of each merge; NULL: merges end in NUL */
    int64_t n_merges;
    int32_t bos, eos, pad, unk; /* -1: none */
    bool add_bos;
    const char *source; /* the file's name, for messages; NULL: "tokenizer parts" */
} pn_tokenizer_parts;

/* PN_FORMAT on inconsistent parts; PN_UNSUPPORTED, with the known names, on an unknown `pre`. */
pn_status pn_tokenizer_from_parts(const pn_tokenizer_parts *parts, pn_tokenizer **out);

/* The tokenizer that needs no training: byte b is token b, then the n special tokens in order. The first special token
 * is EOS; n may be 0. */
pn_status pn_tokenizer_bytes(const char *const *specials, int64_t n, pn_tokenizer **out);

/* Accepts NULL and leaves NULL. No call that uses the tokenizer may be running. */
void pn_tokenizer_destroy(pn_tokenizer **t);

/* Writes Hugging Face's tokenizer.json: written aside, then renamed, so a file that exists is whole. */
pn_status pn_tokenizer_write_json(const pn_tokenizer *t, const char *path);
/* Writes tokenizer.json and tokenizer_config.json (which names BOS, EOS and PAD) into an existing directory. */
pn_status pn_tokenizer_write_dir(const pn_tokenizer *t, const char *dir);

/* Appends the ids of text (n_bytes of UTF-8; NUL bytes are text) to `out`, which is unchanged on failure.
 * parse_special: special tokens written in the text become their id; otherwise they are text like any other. Added
 * tokens that are not special ("<tool_call>") become their id in both cases, as in Hugging Face tokenizers.
 * PN_FORMAT: the text is not valid UTF-8 (the message says at which byte; pn_text_repair makes any bytes valid) or has
 * a byte for which the vocabulary has no token. PN_USAGE: a text of 512 MiB or more. */
pn_status pn_tokenizer_encode(const pn_tokenizer *t, const char *text, size_t n_bytes, bool parse_special, pn_ids *out);

/* The bytes that n ids stand for, as they are: ids that end inside a character give an incomplete one (pn_text_repair).
 * The caller frees *text, which ends in a NUL that n_bytes does not count. skip_special leaves special tokens out.
 * PN_FORMAT on an id that is not in the vocabulary. */
pn_status pn_tokenizer_decode(const pn_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, char **text,
                              size_t *n_bytes);

/* Highest id + 1. A model's embedding may have more rows (padding). */
int64_t pn_tokenizer_vocab(const pn_tokenizer *t);
/* -1: none. */
int32_t pn_tokenizer_bos(const pn_tokenizer *t);
int32_t pn_tokenizer_eos(const pn_tokenizer *t);
int32_t pn_tokenizer_pad(const pn_tokenizer *t);
/* Whether the file asks for BOS (EOS) around every text. */
bool pn_tokenizer_adds_bos(const pn_tokenizer *t);
bool pn_tokenizer_adds_eos(const pn_tokenizer *t);
bool pn_tokenizer_is_special(const pn_tokenizer *t, int32_t id);
/* The bytes of one token, borrowed from the tokenizer (not NUL-terminated); NULL and 0 where id is no token. */
const char *pn_tokenizer_token(const pn_tokenizer *t, int32_t id, size_t *n_bytes);
/* The id of a token as the vocabulary writes it ("<|im_end|>", "\u0120the"); -1 where there is none. */
int32_t pn_tokenizer_find(const pn_tokenizer *t, const char *token);
/* xxh3-64 over everything that decides which ids a text gets: the same for tokenizer.json and for GGUF parts that say
 * the same, and after a write and a read. Data shards carry it. */
uint64_t pn_tokenizer_hash(const pn_tokenizer *t);

/* Whether n_bytes of text are valid UTF-8; if not and bad_at is not NULL, *bad_at is the offset of the first bad byte.
 */
bool pn_text_is_utf8(const char *text, size_t n_bytes, size_t *bad_at);
/* A copy in which each maximal invalid part is U+FFFD (Unicode 15, section 3.9). The caller frees *out. */
pn_status pn_text_repair(const char *text, size_t n_bytes, char **out, size_t *n_out);

/* Encodes and decodes every line of expected_jsonl ({"text", "ids", "decoded"}; special tokens recognised) and prints
 * the first mismatches, the speed of encoding on the ASCII lines, and last "N passed, M failed". PN_MISMATCH when M >
 * 0. */
pn_status pn_tokenizer_check(const char *dir, const char *expected_jsonl, FILE *out);

#ifdef __cplusplus
}
#endif
#endif
