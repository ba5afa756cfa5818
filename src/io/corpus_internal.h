/* Inside a corpus: what writing (corpus.c) and going on after a stop (corpus_state.c) share.
 *
 * Beside the sets, which keep their finished shards themselves, the directory aside holds
 *
 *     state.json         identity of the job; place in the text, documents of each split up to it, journal bytes of
 * those <split>.journal    text only: the documents of the split's unfinished shard, each as a count and ids, int32
 *
 * Documents are numbered within their split, and one that a finished shard holds is not added again. So a state may be
 * older than the shards, as it is after a kill: what comes after its place is read again and passed over. */
#ifndef PN_IO_CORPUS_INTERNAL_H
#define PN_IO_CORPUS_INTERNAL_H

#include "corpus.h"
#include "files.h"

typedef struct pn_journal {
    FILE *file; /* NULL: not open */
    char path[PN_PATH_MAX];
    int64_t n_bytes;
} pn_journal;

struct pn_corpus {
    pn_corpus_config config;
    pn_directory_writer dir;
    pn_token_writer *writers[PN_SPLITS]; /* NULL: no document yet */
    int64_t next[PN_SPLITS];             /* number of the next document */
    pn_journal journals[PN_SPLITS];
    pn_text_position position; /* of the text; documents before it: */
    int64_t n_docs;
    double saved;     /* pn_seconds */
    bool keep;        /* stopped by a signal: what there is stays for the same command */
    pn_token_doc doc; /* scratch */
};

pn_status pn_corpus_open_writer(pn_corpus *c, pn_split split);

/* Opens the directory aside: a fresh one, or that of a stopped process with the same identity, whose unfinished shards
 * are filled again. PN_USAGE for another identity. */
pn_status pn_corpus_begin(pn_corpus *c);
/* Writes the state: journals first. */
pn_status pn_corpus_save(pn_corpus *c);
/* A document of text was added: into its journal, which begins anew when the shard before was finished. */
pn_status pn_corpus_note(pn_corpus *c, pn_split split, bool new_shard, const pn_token_doc *doc);
void pn_corpus_close_journals(pn_corpus *c);
/* Removes state and journals from a corpus that is complete. */
pn_status pn_corpus_end(pn_corpus *c);

#endif
