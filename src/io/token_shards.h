/* Token shards: a corpus as token ids on disk, read at random places and verified before it is believed.
 *
 *     <dir>/manifest.json      what the set is, and per shard its size and hash
 *     <dir>/shard-00000.h5     HDF5:
 *         /tokens              (n_tokens)   uint16 where the vocabulary has at most 65,536 ids, else uint32
 *         /doc_offsets         (n_docs + 1) int64, from 0 to n_tokens; a document lies within one shard
 *         /token_class         (n_tokens)   uint8, pn_token_class; only in sets that say so
 *         /answers/...         one column per field of pn_answer, by document; only in sets that say so
 *         /choices/begin       (n_choices + 1) int64;   /choices/tokens as /tokens
 *     <dir>/shard-00001.h5 ...
 *
 * Every dataset is chunked and checksummed. A set is written aside and renamed when whole: a directory that exists is a
 * whole set. Aside, the manifest names the finished shards, so that a writer can go on after them. The same input gives
 * the same bytes, written at once or resumed.
 *
 * A reader checks every shard's size when the set is opened and its xxh3-64 when it is first read, before HDF5 opens
 * it; the shards it has open are bounded. Writers and readers are for one thread at a time each. */
#ifndef PN_IO_TOKEN_SHARDS_H
#define PN_IO_TOKEN_SHARDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"
#include "token_doc.h"

typedef struct pn_token_writer pn_token_writer;
typedef struct pn_token_set pn_token_set;

enum { PN_SHARD_TOKENS = 1 << 26 }; /* default size of a shard: 128 MiB of uint16 */

/* Everything is borrowed until the writer is closed. */
typedef struct pn_token_writer_config {
    const char *dir;           /* must not exist, or be empty */
    uint64_t tokenizer_hash;   /* pn_tokenizer_hash */
    int64_t vocab;             /* ids are in [0, vocab) */
    const char *source;        /* what the text was, for people */
    const char *split;         /* "train", "search" or "heldout" */
    uint64_t seed;             /* what a generated corpus was drawn from; 0 for text */
    int64_t shard_tokens;      /* a shard takes no further document once it has so many; 0: PN_SHARD_TOKENS */
    bool classes;              /* keep token classes */
    const char *const *skills; /* (n_skills) names for pn_answer.skill; NULL: no answers are kept */
    int n_skills;
    bool resume; /* go on after the shards that a stopped writer of this directory has finished */
} pn_token_writer_config;

pn_status pn_token_writer_open(const pn_token_writer_config *config, pn_token_writer **out);
/* Adds one document of at least one token. PN_USAGE: an id outside the vocabulary, or answers that do not fit. */
pn_status pn_token_writer_add(pn_token_writer *w, const pn_token_doc *doc);
int64_t pn_token_writer_tokens(const pn_token_writer *w);
int64_t pn_token_writer_docs(const pn_token_writer *w);
/* Documents in finished shards: what a writer that resumes has. */
int64_t pn_token_writer_finished_docs(const pn_token_writer *w);
/* Completes the set and makes the directory appear; on failure nothing is left behind. A set must hold a document. */
pn_status pn_token_writer_close(pn_token_writer **w);
/* Gives up: removes what was written. Accepts NULL and leaves NULL. */
void pn_token_writer_abort(pn_token_writer **w);
/* Stops: finished shards stay for a writer that resumes. Accepts NULL and leaves NULL. */
void pn_token_writer_keep(pn_token_writer **w);

/* Borrowed from the set. */
typedef struct pn_token_info {
    uint64_t tokenizer_hash, seed;
    uint64_t content_hash; /* of the checksums of all shards: equal for equal sets, wherever they are */
    int64_t vocab, n_tokens, n_docs, n_shards, n_answers;
    const char *source, *split;
    bool classes;
    const char *const *skills; /* (n_skills) */
    int n_skills;
} pn_token_info;

/* PN_IO: not there. PN_FORMAT: damaged, cut short or changed; the message names the file. */
pn_status pn_token_set_open(const char *dir, pn_token_set **out);
void pn_token_set_close(pn_token_set **set);
const pn_token_info *pn_token_set_info(const pn_token_set *set);
/* PN_USAGE, with the remedy, unless the set was made with the tokenizer of this hash. */
pn_status pn_token_set_needs(const pn_token_set *set, uint64_t tokenizer_hash);
/* Verifies every shard now (size, hash, structure, ids) instead of when it is first read. */
pn_status pn_token_set_verify(pn_token_set *set);

/* Tokens [begin, begin + n) of the set, which counts the tokens of all shards in order. PN_USAGE when out of range. */
pn_status pn_token_set_read(pn_token_set *set, int64_t begin, int64_t n, int32_t *tokens);
/* Their classes (pn_token_class); PN_CLASS_TEXT throughout where the set keeps none. */
pn_status pn_token_set_classes(pn_token_set *set, int64_t begin, int64_t n, uint8_t *token_class);
/* How documents cut [begin, begin + n): offsets[0] = 0 < ... < offsets[*n_docs] = n, relative to begin, which may lie
 * inside a document. offsets: room for n + 1. */
pn_status pn_token_set_offsets(pn_token_set *set, int64_t begin, int64_t n, int64_t *offsets, int64_t *n_docs);
/* Where document `doc` begins and how long it is. */
pn_status pn_token_set_doc_range(pn_token_set *set, int64_t doc, int64_t *begin, int64_t *n);
/* Replaces *out by document `doc`: tokens, classes, answers, choices. */
pn_status pn_token_set_doc(pn_token_set *set, int64_t doc, pn_token_doc *out);

#endif
