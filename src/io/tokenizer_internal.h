/* Inside the tokenizer: what its source files share and nobody else includes. */
#ifndef PN_IO_TOKENIZER_INTERNAL_H
#define PN_IO_TOKENIZER_INTERNAL_H

#include <pthread.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "tokenizer.h"

/* Limits on what a file may ask for: far above real tokenizers, far below what would exhaust memory. */
enum {
    PN_TOK_MAX_IDS = 1 << 23,         /* ids */
    PN_TOK_MAX_TOKEN_BYTES = 1 << 16, /* one token's text */
    PN_TOK_MAX_STEPS = 16,            /* pre-tokenizer steps */
    PN_TOK_MAX_PATTERN_BYTES = 1 << 16
};

/* ---- vocabulary ---- */
typedef enum pn_tok_state {
    PN_TOK_HOLE,     /* no token has this id */
    PN_TOK_ORDINARY, /* written in the byte alphabet; stands for bytes */
    PN_TOK_ADDED     /* written as it is */
} pn_tok_state;

typedef struct pn_tok_token {
    uint32_t text_at, n_text;   /* in t->text: as the file writes it */
    uint32_t bytes_at, n_bytes; /* in t->bytes: what it stands for */
    uint8_t state;              /* pn_tok_state */
    bool special;               /* added tokens only */
    bool in_model;              /* belongs to the BPE model's vocabulary, not only to the added tokens */
} pn_tok_token;

typedef struct pn_tok_arena {
    char *data;
    size_t n, cap;
} pn_tok_arena;

typedef struct pn_tok_added {
    int32_t id;
    uint32_t n_match;
    char *match; /* owned: the content, normalised where `normalized` */
    bool normalized, lstrip, rstrip, single_word;
} pn_tok_added;

/* Added tokens of one kind, sorted by their text so that a search narrows a range byte by byte. */
typedef struct pn_tok_added_set {
    pn_tok_added *row; /* (n), owned */
    int64_t n, cap;
    int64_t first[257]; /* rows first[b] .. first[b+1]-1 begin with byte b */
} pn_tok_added_set;

/* ---- merges ---- */
typedef struct pn_tok_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
    uint32_t rank; /* lower merges first */
    int32_t id;    /* what the pair becomes */
} pn_tok_merge;

/* ---- pre-tokenizer ---- */
typedef enum pn_tok_step_kind { PN_TOK_SPLIT, PN_TOK_DIGITS, PN_TOK_BYTE_LEVEL } pn_tok_step_kind;

typedef struct pn_tok_step {
    pn_tok_step_kind kind;
    char *pattern;         /* owned; PN_TOK_SPLIT: as the file writes it */
    bool literal;          /* PN_TOK_SPLIT: the pattern is text, not a regex */
    bool individual;       /* PN_TOK_DIGITS: each digit alone */
    bool use_regex;        /* PN_TOK_BYTE_LEVEL: split by GPT-2's pattern */
    bool add_prefix_space; /* PN_TOK_BYTE_LEVEL: only as the only step */
    pcre2_code *code;      /* NULL: no regex in this step */
    bool jit;
} pn_tok_step;

typedef struct pn_tok_encoder pn_tok_encoder;

typedef struct pn_tok_pool {
    pthread_mutex_t lock;
    pn_tok_encoder *idle; /* linked by ->next */
} pn_tok_pool;

struct pn_tokenizer {
    char *source; /* file name for messages */

    pn_tok_token *token; /* (n_ids) */
    int64_t n_ids, cap_ids;
    pn_tok_arena text, bytes;
    size_t longest_token; /* bytes */
    int32_t *by_text;     /* (text_slots) open addressing: token text -> id, -1 free; slots a power of two */
    int64_t text_slots, n_in_map;
    int32_t byte_id[256]; /* the token of a single byte; -1 none */

    pn_tok_merge *merge;   /* (merge_slots) open addressing */
    uint64_t *merge_order; /* (n_merges) pairs by rank, for writing and hashing */
    int64_t merge_slots, n_merges, cap_merges;

    pn_tok_added_set raw;    /* looked for in the text as given */
    pn_tok_added_set normal; /* looked for in the normalised text */

    bool nfc, ignore_merges;
    pn_tok_step step[PN_TOK_MAX_STEPS];
    int n_steps;

    int32_t bos, eos, pad;
    bool add_bos, add_eos;
    uint64_t hash;
    pn_tok_pool *pool; /* the one mutable part, behind its lock */
};

/* ---- building (tokenizer.c): the readers call these in this order ---- */
pn_status pn_tok_create(const char *source, int64_t n_ids, pn_tokenizer **out);
/* A token of the model's vocabulary. PN_FORMAT on a duplicate id or text. */
pn_status pn_tok_set_token(pn_tokenizer *t, int64_t id, const char *text, size_t n_bytes);
/* An added token: one that the vocabulary has already, or a new one. `row` gives the flags; row->match is ignored. */
pn_status pn_tok_set_added(pn_tokenizer *t, const char *text, size_t n_bytes, bool special, const pn_tok_added *row);
/* After the last token: what each token stands for. */
pn_status pn_tok_finish_vocab(pn_tokenizer *t);
pn_status pn_tok_reserve_merges(pn_tokenizer *t, int64_t n);
pn_status pn_tok_add_merge(pn_tokenizer *t, const char *left, size_t n_left, const char *right, size_t n_right);
/* Copies the step, its pattern included. */
pn_status pn_tok_add_step(pn_tokenizer *t, const pn_tok_step *step);
/* Compiles patterns, sorts added tokens, hashes. */
pn_status pn_tok_finish(pn_tokenizer *t);
/* Token text -> id, -1 none. */
int32_t pn_tok_lookup(const pn_tokenizer *t, const char *text, size_t n_bytes);
/* The steps, normaliser and ignore_merges that a GGUF pre-tokenizer name stands for (tokenizer_pre.c). */
pn_status pn_tok_apply_pre(pn_tokenizer *t, const char *pre);

/* ---- byte alphabet (tokenizer_alphabet.c) ---- */
/* GPT-2's bijection between bytes and printable code points: the character of byte b, and the byte of a character or
 * -1. */
uint32_t pn_tok_byte_to_char(unsigned b);
int pn_tok_char_to_byte(uint32_t c);
/* Writes c as UTF-8, returns 1 to 4. */
int pn_tok_put_utf8(uint32_t c, char out[4]);
/* Reads one character of valid UTF-8; returns its length. */
int pn_tok_get_utf8(const char *s, uint32_t *c);

/* ---- Unicode classes of the regex engine that Hugging Face uses (tokenizer_pattern.c) ---- */
bool pn_tok_is_space(uint32_t c);
bool pn_tok_is_number(uint32_t c);
bool pn_tok_is_word(uint32_t c);
/* Rewrites an Oniguruma pattern so that PCRE2 gives the same matches. The caller frees *out. PN_UNSUPPORTED on syntax
 * that has no counterpart. `where` names the place for messages. */
pn_status pn_tok_translate(const char *where, const char *pattern, bool literal, char **out);

/* ---- added tokens (tokenizer_added.c) ---- */
pn_status pn_tok_added_push(pn_tok_added_set *set, const pn_tok_added *row, const char *match, size_t n_match);
void pn_tok_added_sort(pn_tok_added_set *set);
void pn_tok_added_free(pn_tok_added_set *set);
/* The next added token in text[at..n): leftmost, then longest; it takes [*begin, *end), white space that it strips
 * included. NULL when there is none. `at` is the end of the previous one, which lstrip does not reach behind. */
const pn_tok_added *pn_tok_added_next(const pn_tokenizer *t, const pn_tok_added_set *set, const char *text, size_t n,
                                      size_t at, bool parse_special, size_t *begin, size_t *end);

/* ---- normalisation (tokenizer_normal.c) ---- */
/* *out is text itself when it is in NFC already, else the encoder's buffer. */
pn_status pn_tok_nfc(const char *text, size_t n, pn_tok_arena *buffer, const char **out, size_t *n_out);

/* ---- encoding ---- */
typedef struct pn_tok_cached pn_tok_cached;

struct pn_tok_encoder {
    const pn_tokenizer *t;
    pn_tok_encoder *next;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; /* NULL until a match needs more than the default */
    pn_tok_arena normalised, prefixed, spelled;
    pn_tok_cached *cache;             /* NULL: no cache */
    int32_t *symbol, *before, *after; /* (symbol_cap) scratch of long words: ids and a linked list */
    int64_t symbol_cap;
    uint64_t *heap;
    int64_t heap_cap;
    pn_ids *out;
};

pn_status pn_tok_encoder_create(const pn_tokenizer *t, bool cached, pn_tok_encoder **out);
void pn_tok_encoder_destroy(pn_tok_encoder **e);
/* The whole way of a text (tokenizer_encode.c); appends to e->out. */
pn_status pn_tok_encode_text(pn_tok_encoder *e, const char *text, size_t n, bool parse_special);
/* Steps 3 and 4 for text without added tokens (tokenizer_split.c). */
pn_status pn_tok_compile(pn_tokenizer *t);
pn_status pn_tok_split(pn_tok_encoder *e, const char *text, size_t n);
/* Step 4 for one word (tokenizer_bpe.c). */
pn_status pn_tok_word(pn_tok_encoder *e, const char *word, size_t n);
pn_status pn_tok_cache_create(pn_tok_cached **out);
/* The slot of a pair in t->merge, or the free slot where it belongs. */
pn_tok_merge *pn_tok_merge_slot(const pn_tokenizer *t, uint64_t pair);

/* ---- small help (tokenizer.c) ---- */
pn_status pn_tok_append(pn_tok_arena *a, const char *bytes, size_t n);
/* Token text made fit for a message: at most 60 characters, control characters escaped. */
const char *pn_tok_show(const char *text, size_t n, char buffer[128]);

#endif
