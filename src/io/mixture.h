/* A mixture: skills and token shards in given shares, as an endless list of packed rows of exactly T tokens.
 *
 * Row i of a split depends on (seed, parts, split, i) alone, so a run resumes from a row number and any number of
 * ranks can share the list. A row comes from one part; in every 1,000 rows each part has its share of them, rounded, in
 * an order drawn from the seed.
 *
 * Where weights change, the rows of the train split that the mixture was made for are divided into up to 64 segments of
 * constant shares; what rounding takes from a part in one of them it has in the next. Rows beyond are as in the last
 * segment. The other splits have the shares of the middle, so that evaluations can be compared.
 *
 *   - A skill part fills a row with documents; what no document fits into is padding, a document of its own without
 *     weight.
 *   - A shard part reads windows of T tokens in an order drawn from the seed, anew each time all have been read;
 *     documents are cut where windows end. Only sets made for the split asked for are read. */
#ifndef PN_IO_MIXTURE_H
#define PN_IO_MIXTURE_H

#include "config.h"
#include "skills.h"
#include "token_shards.h"

typedef struct pn_mixture pn_mixture;

typedef struct pn_mixture_part {
    pn_ramp weight;                      /* share of the rows, relative to the other parts, at the first and last */
    double class_weight[PN_CLASS_COUNT]; /* of a target token in the loss, by its class */
    const pn_skill_type *skill;          /* NULL: token shards */
    const void *options;                 /* the skill's options struct; NULL: defaults */
    int64_t document_min, document_max;  /* bytes of a skill's document; 0: what the row has room for */
    const char *const *shards; /* (n_shards) directories: a set, or one that holds sets train, search, heldout */
    int64_t n_shards;
    const char *where; /* starts messages about this part; NULL: "mixture" */
} pn_mixture_part;

typedef struct pn_mixture_config {
    const pn_tokenizer *tokenizer; /* borrowed by the mixture */
    pn_doc_frame frame;            /* around every document of a skill */
    int64_t sequence_length;       /* T */
    uint64_t seed;
    int64_t rows; /* of the train split that will be asked for: what weights change over; 0: they must not change */
    const pn_mixture_part *parts; /* (n_parts) */
    int64_t n_parts;
} pn_mixture_config;

/* PN_USAGE: no parts, contradictory options, another tokenizer's shards. PN_IO, PN_FORMAT: from shards. */
pn_status pn_mixture_create(const pn_mixture_config *config, pn_mixture **out);

/* The same from a config, whose list `path` has one mapping per part: the keys of pn_mixture_keys, and for a skill its
 * own options beside them. base: everything but parts. The config must outlive the mixture.
 *
 *     mixture:
 *       - { skill: recall, weight: 3, pairs_max: 24 }
 *       - { shards: [data/web], weight: 1 }                                                                      */
pn_status pn_mixture_read(pn_config *config, const char *path, const pn_mixture_config *base, pn_mixture **out);
extern const pn_option pn_mixture_keys[];
/* Reads the keys alone, and opens nothing. */
pn_status pn_mixture_read_keys(pn_config *config, const char *path);

void pn_mixture_destroy(pn_mixture **m);
/* One line per part: its share of the rows, at first and at last where it changes, and what it is. */
void pn_mixture_print(const pn_mixture *m, pn_split split, FILE *out);
/* T, and a hash of everything rows depend on (seed, parts, tokenizer): two mixtures of equal hash give equal rows. */
int64_t pn_mixture_row_tokens(const pn_mixture *m);
uint64_t pn_mixture_hash(const pn_mixture *m);
/* Whether some part has rows for this split. */
bool pn_mixture_has(const pn_mixture *m, pn_split split);

/* One row; start from {0}. The row owns its arrays and reuses them; pn_row_free gives them back. */
typedef struct pn_row {
    int64_t n_tokens;     /* T */
    int32_t *tokens;      /* (T) */
    int32_t *targets;     /* (T) the next token of the same document; -1: none */
    float *weights;       /* (T) of each target in the loss; 0 where there is none */
    uint8_t *token_class; /* (T) pn_token_class of tokens */
    int64_t n_docs;
    int64_t *doc_offsets; /* (n_docs + 1) 0 to T */
    pn_answer *answers;   /* (n_answers) of a skill part, positions in the row; choices are not listed */
    int64_t n_answers, cap_answers;
    int64_t part; /* index of the part it came from */
} pn_row;

/* PN_USAGE: no part has rows for the split. One thread at a time. */
pn_status pn_mixture_row(pn_mixture *m, pn_split split, int64_t index, pn_row *row);
void pn_row_free(pn_row *row);

/* Document `index` of a corpus made of skills, with the choices of its answers: parts take turns as for rows, a
 * document has document_min to document_max bytes, or as many as a row holds. PN_USAGE: the part it falls to is token
 * shards. */
pn_status pn_mixture_document(pn_mixture *m, pn_split split, int64_t index, pn_token_doc *out);

#endif
