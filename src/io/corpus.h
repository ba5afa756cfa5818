/* A corpus: one set of token shards per split, in one directory that appears when all of them are whole.
 *
 *     <dir>/train  <dir>/search  <dir>/heldout        each as token_shards.h says; those without documents are absent
 *
 * A process that is stopped or killed leaves <dir>.postnas-partial; one with the same identity goes on there: finished
 * shards stay, the text is read from where it was, and the files are the same as without the stop. */
#ifndef PN_IO_CORPUS_H
#define PN_IO_CORPUS_H

#include "mixture.h"
#include "text_source.h"

typedef struct pn_corpus pn_corpus;

/* Everything is borrowed until the corpus is closed. */
typedef struct pn_corpus_config {
    const char *dir;   /* must not exist, or be empty */
    uint64_t identity; /* hash of the input and of how it is split: what a process must share to go on */
    const pn_tokenizer *tokenizer;
    const char *source;   /* for people, kept in the manifests */
    uint64_t seed;        /* of generated documents; 0 for text */
    int64_t shard_tokens; /* 0: PN_SHARD_TOKENS */
    double save_seconds;  /* between two states of text; 0: 30 */
    bool skills;          /* documents come with token classes, and answers of the skills registered */
} pn_corpus_config;

pn_status pn_corpus_open(const pn_corpus_config *config, pn_corpus **out);
pn_status pn_corpus_add(pn_corpus *c, pn_split split, const pn_token_doc *doc);

typedef struct pn_corpus_text {
    pn_split split;        /* of documents that the next two do not take */
    int64_t heldout_every; /* of so many documents, the last is held out; 0: none */
    int64_t search_every;  /* of so many documents, the last but one is for search; 0: none */
} pn_corpus_text;
/* Every document of the source, in order: BOS before it if the tokenizer asks for that, EOS after it if there is one.
 * Encodes with all threads; the result does not depend on their number. Shows progress. Text that looks like a special
 * token is text. PN_INTERRUPTED after a signal. */
pn_status pn_corpus_add_text(pn_corpus *c, pn_text_source *source, const pn_corpus_text *options);
/* Documents 0 to n - 1 of a mixture of skills. Shows progress. PN_INTERRUPTED after a signal. */
pn_status pn_corpus_add_skills(pn_corpus *c, pn_mixture *m, pn_split split, int64_t n);

int64_t pn_corpus_tokens(const pn_corpus *c, pn_split split);
int64_t pn_corpus_docs(const pn_corpus *c, pn_split split);
/* Completes all sets; on failure nothing is left behind, but for PN_INTERRUPTED. PN_USAGE when there is no document at
 * all. */
pn_status pn_corpus_close(pn_corpus **c);
/* Gives up: removes what was written, unless PN_INTERRUPTED was returned: then it stays, to go on with. Accepts NULL
 * and leaves NULL. */
void pn_corpus_abort(pn_corpus **c);

#endif
