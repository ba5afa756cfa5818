#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "corpus_internal.h"
#include "progress.h"
#include "signals.h"

/* Lets go of everything; what is on disk stays or goes. */
static void release(pn_corpus **out, bool keep) {
    pn_corpus *c = *out;
    *out = NULL;
    if (!c) return;
    pn_corpus_close_journals(c);
    for (int i = 0; i < PN_SPLITS; i++) (keep ? pn_token_writer_keep : pn_token_writer_abort)(&c->writers[i]);
    (keep ? pn_directory_writer_keep : pn_directory_writer_abort)(&c->dir);
    pn_token_doc_free(&c->doc);
    free(c);
}

pn_status pn_corpus_open(const pn_corpus_config *config, pn_corpus **out) {
    *out = NULL;
    pn_corpus *c = calloc(1, sizeof *c);
    PN_CHECK(c, PN_MEMORY, "%s: out of memory", config->dir);
    c->config = *config;
    if (!c->config.save_seconds) c->config.save_seconds = 30;
    pn_status s = pn_corpus_begin(c);
    if (s)
        pn_corpus_abort(&c);
    else
        *out = c;
    return s;
}

void pn_corpus_abort(pn_corpus **c) {
    release(c, *c && (*c)->keep);
}

pn_status pn_corpus_open_writer(pn_corpus *c, pn_split split) {
    char dir[PN_PATH_MAX];
    int n_skills = 0;
    const char *const *skills = pn_skill_names(&n_skills);
    PN_TRY(pn_path_join(dir, c->dir.temporary, pn_split_names[split]));
    return pn_token_writer_open(&(pn_token_writer_config){ .dir = dir,
                                                           .tokenizer_hash = pn_tokenizer_hash(c->config.tokenizer),
                                                           .vocab = pn_tokenizer_vocab(c->config.tokenizer),
                                                           .source = c->config.source,
                                                           .split = pn_split_names[split],
                                                           .seed = c->config.seed,
                                                           .shard_tokens = c->config.shard_tokens,
                                                           .classes = c->config.skills,
                                                           .skills = c->config.skills ? skills : NULL,
                                                           .n_skills = c->config.skills ? n_skills : 0,
                                                           .resume = true },
                                &c->writers[split]);
}

pn_status pn_corpus_add(pn_corpus *c, pn_split split, const pn_token_doc *doc) {
    if (!c->writers[split]) PN_TRY(pn_corpus_open_writer(c, split));
    if (c->next[split]++ < pn_token_writer_finished_docs(c->writers[split])) return PN_OK;
    return pn_token_writer_add(c->writers[split], doc);
}

int64_t pn_corpus_tokens(const pn_corpus *c, pn_split split) {
    return c->writers[split] ? pn_token_writer_tokens(c->writers[split]) : 0;
}

int64_t pn_corpus_docs(const pn_corpus *c, pn_split split) {
    return c->writers[split] ? pn_token_writer_docs(c->writers[split]) : 0;
}

static pn_status commit(pn_corpus *c) {
    bool any = false;
    for (int i = 0; i < PN_SPLITS; i++) {
        if (!c->writers[i]) continue;
        PN_TRY(pn_token_writer_close(&c->writers[i]));
        any = true;
    }
    PN_CHECK(any, PN_USAGE, "%s: the input holds no documents, so there is nothing to write", c->dir.path);
    PN_TRY(pn_corpus_end(c));
    return pn_directory_writer_commit(&c->dir);
}

pn_status pn_corpus_close(pn_corpus **out) {
    pn_status s = commit(*out);
    pn_corpus_abort(out);
    return s;
}

/* The state is that of the last batch. */
static pn_status check_signal(pn_corpus *c) {
    if (!pn_interrupted()) return PN_OK;
    PN_TRY(pn_corpus_save(c));
    c->keep = true;
    PN_FAIL(PN_INTERRUPTED, "stopped by a signal; the same command goes on in %s (remove it to start over)",
            c->dir.temporary);
}

/* ---- skills: any document can be made, so those of unfinished shards are made again ---- */

pn_status pn_corpus_add_skills(pn_corpus *c, pn_mixture *m, pn_split split, int64_t n) {
    char what[64];
    int64_t first = c->writers[split] ? pn_token_writer_finished_docs(c->writers[split]) : 0;
    snprintf(what, sizeof what, "writing %s", pn_split_names[split]);
    pn_progress progress = pn_progress_begin(what, first, n, "documents");
    c->next[split] = first;
    for (int64_t i = first; i < n; i++) {
        PN_TRY(check_signal(c));
        PN_TRY(pn_mixture_document(m, split, i, &c->doc));
        PN_TRY(pn_corpus_add(c, split, &c->doc));
        pn_progress_update(&progress, i + 1, "%lld tokens", (long long)pn_corpus_tokens(c, split));
    }
    if (n) pn_progress_end(&progress);
    return PN_OK;
}

/* ---- text: read a batch, encode it with all threads, write it in order ---- */

enum { BATCH_DOCS = 256, BATCH_BYTES = 1 << 24 };

typedef struct item {
    char *text;
    size_t n_bytes, cap;
    char where[512];
    pn_ids ids;
    pn_status status;
} item;

typedef struct batch {
    item items[BATCH_DOCS];
    int n;
    bool last; /* the source is at its end */
} batch;

static void batch_free(batch *b) {
    for (int i = 0; i < BATCH_DOCS; i++) {
        free(b->items[i].text);
        pn_ids_free(&b->items[i].ids);
    }
    free(b);
}

static pn_status batch_read(batch *b, pn_text_source *source) {
    size_t total = 0;
    for (b->n = 0; b->n < BATCH_DOCS && total < BATCH_BYTES; b->n++) {
        const char *text;
        size_t n;
        PN_TRY(pn_text_source_next(source, &text, &n));
        if (!text) {
            b->last = true;
            return PN_OK;
        }
        item *it = &b->items[b->n];
        if (n > it->cap) {
            char *fresh = realloc(it->text, n);
            PN_CHECK(fresh, PN_MEMORY, "%s: out of memory", pn_text_source_where(source));
            it->text = fresh;
            it->cap = n;
        }
        memcpy(it->text, text, n);
        it->n_bytes = n;
        snprintf(it->where, sizeof it->where, "%s", pn_text_source_where(source));
        total += n;
    }
    return PN_OK;
}

static pn_status encode(const pn_tokenizer *t, item *it) {
    it->ids.n = 0;
    if (pn_tokenizer_adds_bos(t) && pn_tokenizer_bos(t) >= 0) PN_TRY(pn_ids_push(&it->ids, pn_tokenizer_bos(t)));
    PN_TRY(pn_tokenizer_encode(t, it->text, it->n_bytes, false, &it->ids));
    if (pn_tokenizer_eos(t) >= 0) PN_TRY(pn_ids_push(&it->ids, pn_tokenizer_eos(t)));
    return PN_OK;
}

static pn_status batch_encode(batch *b, const pn_tokenizer *t) {
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->n; i++) b->items[i].status = encode(t, &b->items[i]);
    for (int i = 0; i < b->n; i++) {
        item *it = &b->items[i];
        if (!it->status) continue;
        char why[1024];
        pn_status s = encode(t, it); /* again, for its message: those of other threads are not seen here */
        snprintf(why, sizeof why, "%s", pn_error_message());
        PN_CHECK(!s, s, "%s: %s", it->where, why);
    }
    return PN_OK;
}

static pn_split split_of(const pn_corpus_text *o, int64_t index) {
    if (o->heldout_every && index % o->heldout_every == o->heldout_every - 1) return PN_SPLIT_HELDOUT;
    if (o->search_every && (index + 1) % o->search_every == o->search_every - 1) return PN_SPLIT_SEARCH;
    return o->split;
}

static pn_status add_text(pn_corpus *c, pn_split split) {
    const pn_token_writer *w = c->writers[split];
    int64_t number = c->next[split], before = w ? pn_token_writer_finished_docs(w) : 0;
    PN_TRY(pn_corpus_add(c, split, &c->doc));
    int64_t finished = pn_token_writer_finished_docs(c->writers[split]);
    if (number >= finished) PN_TRY(pn_corpus_note(c, split, finished > before, &c->doc));
    return PN_OK;
}

static pn_status add_batch(pn_corpus *c, const batch *b, const pn_corpus_text *o) {
    for (int i = 0; i < b->n; i++) {
        const pn_ids *ids = &b->items[i].ids;
        if (ids->n == 0) continue;
        pn_token_doc_clear(&c->doc);
        PN_TRY(pn_token_doc_append(&c->doc, ids->ids, ids->n, PN_CLASS_TEXT));
        PN_TRY(add_text(c, split_of(o, c->n_docs++)));
    }
    return PN_OK;
}

pn_status pn_corpus_add_text(pn_corpus *c, pn_text_source *source, const pn_corpus_text *options) {
    batch *b = calloc(1, sizeof *b);
    PN_CHECK(b, PN_MEMORY, "out of memory");
    pn_status s;
    PN_TRY_GOTO(s, pn_text_source_seek(source, &c->position), done);
    pn_progress progress =
        pn_progress_begin("tokenizing", pn_text_source_bytes_read(source), pn_text_source_bytes(source), "bytes");
    while (!b->last) {
        PN_TRY_GOTO(s, check_signal(c), done);
        PN_TRY_GOTO(s, batch_read(b, source), done);
        PN_TRY_GOTO(s, batch_encode(b, c->config.tokenizer), done);
        PN_TRY_GOTO(s, add_batch(c, b, options), done);
        c->position = pn_text_source_tell(source);
        if (pn_seconds() - c->saved > c->config.save_seconds) PN_TRY_GOTO(s, pn_corpus_save(c), done);
        pn_progress_update(&progress, pn_text_source_bytes_read(source), "%lld documents", (long long)c->n_docs);
    }
    pn_progress_end(&progress);
done:
    batch_free(b);
    return s;
}
