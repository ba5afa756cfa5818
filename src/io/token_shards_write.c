#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "token_shards_internal.h"

/* Elements gathered in memory until a chunk is worth writing. */
typedef struct column {
    const char *name;
    hid_t dataset;
    pn_h5_type memory_type;
    char *held; /* (CHUNK * element_bytes) */
    size_t element_bytes;
    int64_t n_held, n_written;
} column;

enum {
    TOKENS,
    DOC_OFFSETS,
    TOKEN_CLASS,
    ANSWER_OFFSETS,
#define X(field, ...) ANSWER_##field,
    PN_ANSWER_COLUMNS(X)
#undef X
        CHOICE_BEGIN,
    CHOICE_TOKENS,
    COLUMNS
};

struct pn_token_writer {
    pn_directory_writer dir; /* aside until the set is whole */
    pn_token_manifest manifest;
    int64_t shard_tokens, n_tokens, n_docs, finished_docs;
    hid_t file;             /* the shard being written; -1: none */
    char path[PN_PATH_MAX]; /* of that shard */
    column columns[COLUMNS];
};

/* ---- columns ---- */

static pn_status column_open(pn_token_writer *w, int which, const char *name, pn_h5_type stored, pn_h5_type memory_type,
                             size_t element_bytes) {
    column *c = &w->columns[which];
    *c = (column){
        .name = name, .dataset = -1, .memory_type = memory_type, .held = c->held, .element_bytes = element_bytes
    };
    if (!c->held) c->held = malloc(PN_SHARD_CHUNK * element_bytes);
    PN_CHECK(c->held, PN_MEMORY, "%s: out of memory", w->path);
    return pn_h5_create_array(w->file, w->path, name, stored, PN_SHARD_CHUNK, &c->dataset);
}

static pn_status column_flush(pn_token_writer *w, column *c) {
    PN_TRY(pn_h5_append(c->dataset, w->path, c->name, c->memory_type, c->n_written, c->n_held, c->held));
    c->n_written += c->n_held;
    c->n_held = 0;
    return PN_OK;
}

static pn_status column_add(pn_token_writer *w, int which, const void *data, int64_t n) {
    column *c = &w->columns[which];
    const char *from = data;
    while (n > 0) {
        int64_t now = PN_SHARD_CHUNK - c->n_held < n ? PN_SHARD_CHUNK - c->n_held : n;
        size_t bytes = (size_t)now * c->element_bytes;
        memcpy(c->held + (size_t)c->n_held * c->element_bytes, from, bytes);
        c->n_held += now;
        from += bytes;
        n -= now;
        if (c->n_held == PN_SHARD_CHUNK) PN_TRY(column_flush(w, c));
    }
    return PN_OK;
}

static int64_t column_length(const pn_token_writer *w, int which) {
    return w->columns[which].n_written + w->columns[which].n_held;
}

/* ---- shards ---- */

static pn_shard_entry *current(pn_token_writer *w) {
    return &w->manifest.shards[w->manifest.n_shards - 1];
}

static pn_status shard_columns(pn_token_writer *w) {
    pn_h5_type token = pn_shard_token_type(w->manifest.vocab), i64 = PN_H5_I64, n64 = PN_H5_I64;
    const int64_t zero = 0;
    PN_TRY(column_open(w, TOKENS, "tokens", token, PN_H5_I32, sizeof(int32_t)));
    PN_TRY(column_open(w, DOC_OFFSETS, "doc_offsets", i64, n64, sizeof zero));
    PN_TRY(column_add(w, DOC_OFFSETS, &zero, 1));
    if (w->manifest.classes) PN_TRY(column_open(w, TOKEN_CLASS, "token_class", PN_H5_U8, PN_H5_U8, 1));
    if (!w->manifest.skills) return PN_OK;
    PN_TRY(column_open(w, ANSWER_OFFSETS, "answers/offsets", i64, n64, sizeof zero));
    PN_TRY(column_add(w, ANSWER_OFFSETS, &zero, 1));
#define X(field, ctype, stored, memory)                                                                                \
    PN_TRY(column_open(w, ANSWER_##field, "answers/" #field, stored, memory, sizeof(ctype)));
    PN_ANSWER_COLUMNS(X)
#undef X
    PN_TRY(column_open(w, CHOICE_BEGIN, "choices/begin", i64, n64, sizeof zero));
    PN_TRY(column_add(w, CHOICE_BEGIN, &zero, 1));
    return column_open(w, CHOICE_TOKENS, "choices/tokens", token, PN_H5_I32, sizeof(int32_t));
}

static pn_status shard_begin(pn_token_writer *w) {
    pn_token_manifest *m = &w->manifest;
    PN_CHECK(m->n_shards < PN_SHARDS_MAX, PN_USAGE, "%s: more than %d shards; make them larger", w->dir.path,
             PN_SHARDS_MAX);
    pn_shard_entry *fresh = realloc(m->shards, (size_t)(m->n_shards + 1) * sizeof *fresh);
    PN_CHECK(fresh, PN_MEMORY, "%s: out of memory", w->dir.path);
    m->shards = fresh;
    pn_shard_entry *s = &fresh[m->n_shards++];
    *s = (pn_shard_entry){ 0 };
    snprintf(s->file, sizeof s->file, "shard-%05d.h5", (int)(m->n_shards - 1));
    PN_TRY(pn_path_join(w->path, w->dir.temporary, s->file));
    PN_TRY(pn_h5_create(w->path, &w->file));
    return shard_columns(w);
}

static void shard_discard(pn_token_writer *w) {
    for (int i = 0; i < COLUMNS; i++) {
        if (w->columns[i].name) pn_h5_close_dataset(&w->columns[i].dataset);
        w->columns[i].name = NULL;
    }
    pn_h5_close_file(&w->file, w->path);
}

static pn_status shard_end(pn_token_writer *w) {
    pn_shard_entry *s = current(w);
    s->n_tokens = column_length(w, TOKENS);
    s->n_docs = column_length(w, DOC_OFFSETS) - 1;
    if (w->manifest.skills) {
        s->n_answers = column_length(w, ANSWER_begin);
        s->n_choices = column_length(w, CHOICE_BEGIN) - 1;
        s->n_choice_tokens = column_length(w, CHOICE_TOKENS);
    }
    for (int i = 0; i < COLUMNS; i++)
        if (w->columns[i].name) PN_TRY(column_flush(w, &w->columns[i]));
    for (int i = 0; i < COLUMNS; i++) {
        if (w->columns[i].name) pn_h5_close_dataset(&w->columns[i].dataset);
        w->columns[i].name = NULL;
    }
    PN_TRY(pn_h5_close_file(&w->file, w->path));
    PN_TRY(pn_file_sync(w->path));
    PN_TRY(pn_file_hash(w->path, &s->hash, &s->n_bytes));
    char path[PN_PATH_MAX];
    PN_TRY(pn_path_join(path, w->dir.temporary, "manifest.json"));
    PN_TRY(pn_token_manifest_write(&w->manifest, path));
    w->finished_docs = w->n_docs;
    return PN_OK;
}

/* ---- the set ---- */

static pn_status copy_config(const pn_token_writer_config *c, pn_token_writer *w) {
    pn_token_manifest *m = &w->manifest;
    m->tokenizer_hash = c->tokenizer_hash;
    m->vocab = c->vocab;
    m->seed = c->seed;
    m->classes = c->classes;
    m->source = strdup(c->source);
    m->split = strdup(c->split);
    bool ok = m->source && m->split;
    if (ok && c->n_skills) {
        m->skills = calloc((size_t)c->n_skills, sizeof *m->skills);
        for (int i = 0; m->skills && i < c->n_skills; i++) ok = (m->skills[m->n_skills++] = strdup(c->skills[i])) && ok;
        ok = ok && m->skills;
    }
    w->shard_tokens = c->shard_tokens ? c->shard_tokens : PN_SHARD_TOKENS;
    PN_CHECK(ok, PN_MEMORY, "%s: out of memory", c->dir);
    return PN_OK;
}

/* The shards that a stopped writer has finished. */
static pn_status resume(pn_token_writer *w) {
    char path[PN_PATH_MAX];
    pn_token_manifest found, *m = &w->manifest;
    PN_TRY(pn_path_join(path, w->dir.temporary, "manifest.json"));
    if (!pn_file_exists(path)) return PN_OK;
    PN_TRY(pn_token_manifest_read(path, &found));
    bool same = found.tokenizer_hash == m->tokenizer_hash && found.vocab == m->vocab && found.seed == m->seed &&
                found.classes == m->classes && found.n_skills == m->n_skills && !strcmp(found.source, m->source) &&
                !strcmp(found.split, m->split);
    if (same) {
        m->shards = found.shards;
        m->n_shards = found.n_shards;
        found.shards = NULL;
    }
    pn_token_manifest_free(&found);
    PN_CHECK(same, PN_USAGE, "%s: shards of another corpus; remove %s to start over", path, w->dir.temporary);
    for (int64_t i = 0; i < m->n_shards; i++) {
        struct stat st;
        PN_TRY(pn_path_join(path, w->dir.temporary, m->shards[i].file));
        PN_CHECK(!stat(path, &st) && st.st_size == m->shards[i].n_bytes, PN_FORMAT,
                 "%s: missing, or not of its size; remove %s to start over", path, w->dir.temporary);
        w->n_tokens += m->shards[i].n_tokens;
        w->n_docs += m->shards[i].n_docs;
    }
    w->finished_docs = w->n_docs;
    return PN_OK;
}

pn_status pn_token_writer_open(const pn_token_writer_config *config, pn_token_writer **out) {
    *out = NULL;
    PN_CHECK(config->vocab >= 1 && config->vocab <= INT32_MAX, PN_USAGE,
             "%s: a vocabulary of %lld ids cannot be stored", config->dir, (long long)config->vocab);
    PN_CHECK(config->n_skills >= 0 && config->n_skills <= PN_SHARD_SKILLS_MAX, PN_USAGE,
             "%s: %d skills; a set keeps at most %d", config->dir, config->n_skills, PN_SHARD_SKILLS_MAX);
    pn_token_writer *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "%s: out of memory", config->dir);
    w->file = -1;
    pn_status s;
    PN_TRY_GOTO(s, copy_config(config, w), fail);
    if (!config->resume) {
        PN_TRY_GOTO(s, pn_directory_writer_open(config->dir, &w->dir), fail);
    } else {
        PN_TRY_GOTO(s, pn_directory_writer_resume(config->dir, &w->dir), fail);
        PN_TRY_GOTO(s, resume(w), fail);
    }
    *out = w;
    return PN_OK;
fail:
    if (config->resume)
        pn_token_writer_keep(&w); /* what is there is not this writer's to remove */
    else
        pn_token_writer_abort(&w);
    return s;
}

static pn_status check_doc(const pn_token_writer *w, const pn_token_doc *d) {
    char what[64];
    snprintf(what, sizeof what, "document %lld", (long long)w->n_docs);
    PN_CHECK(d->n > 0, PN_USAGE, "%s has no tokens", what);
    for (int64_t i = 0; i < d->n; i++)
        PN_CHECK(d->tokens[i] >= 0 && d->tokens[i] < w->manifest.vocab, PN_USAGE,
                 "%s: token %lld is id %d, outside the vocabulary of %lld", what, (long long)i, d->tokens[i],
                 (long long)w->manifest.vocab);
    if (!w->manifest.skills) return PN_OK;
    for (int64_t i = 0; i < d->n_answers; i++)
        PN_CHECK(d->answers[i].skill >= 0 && d->answers[i].skill < w->manifest.n_skills, PN_USAGE,
                 "%s: answer %lld is of skill %d, but the set has %d skills", what, (long long)i, d->answers[i].skill,
                 w->manifest.n_skills);
    return pn_token_doc_check(d, what);
}

static pn_status add_answers(pn_token_writer *w, const pn_token_doc *d) {
    const int64_t first_choice = column_length(w, CHOICE_BEGIN) - 1, first_token = column_length(w, CHOICE_TOKENS);
    for (int64_t i = 0; i < d->n_answers; i++) {
        pn_answer a = d->answers[i];
        if (a.choice >= 0) a.choice += first_choice;
#define X(field, ...) PN_TRY(column_add(w, ANSWER_##field, &a.field, 1));
        PN_ANSWER_COLUMNS(X)
#undef X
    }
    for (int64_t i = 0; i < d->n_choices; i++) {
        int64_t end = first_token + d->choice_begin[i + 1];
        PN_TRY(column_add(w, CHOICE_BEGIN, &end, 1));
    }
    if (d->n_choices) PN_TRY(column_add(w, CHOICE_TOKENS, d->choice_tokens, d->choice_begin[d->n_choices]));
    int64_t end = column_length(w, ANSWER_begin);
    return column_add(w, ANSWER_OFFSETS, &end, 1);
}

pn_status pn_token_writer_add(pn_token_writer *w, const pn_token_doc *d) {
    PN_TRY(check_doc(w, d));
    if (w->file >= 0 && column_length(w, TOKENS) >= w->shard_tokens) PN_TRY(shard_end(w));
    if (w->file < 0) PN_TRY(shard_begin(w));
    PN_TRY(column_add(w, TOKENS, d->tokens, d->n));
    int64_t end = column_length(w, TOKENS);
    PN_TRY(column_add(w, DOC_OFFSETS, &end, 1));
    if (w->manifest.classes) PN_TRY(column_add(w, TOKEN_CLASS, d->token_class, d->n));
    if (w->manifest.skills) PN_TRY(add_answers(w, d));
    w->n_tokens += d->n;
    w->n_docs++;
    return PN_OK;
}

int64_t pn_token_writer_tokens(const pn_token_writer *w) {
    return w->n_tokens;
}
int64_t pn_token_writer_docs(const pn_token_writer *w) {
    return w->n_docs;
}
int64_t pn_token_writer_finished_docs(const pn_token_writer *w) {
    return w->finished_docs;
}

static pn_status commit(pn_token_writer *w) {
    PN_CHECK(w->n_docs > 0, PN_USAGE, "%s: there is no document to write", w->dir.path);
    if (w->file >= 0) PN_TRY(shard_end(w));
    return pn_directory_writer_commit(&w->dir);
}

pn_status pn_token_writer_close(pn_token_writer **out) {
    pn_status s = commit(*out);
    pn_token_writer_abort(out);
    return s;
}

static void release(pn_token_writer **out, void (*leave)(pn_directory_writer *)) {
    pn_token_writer *w = *out;
    *out = NULL;
    if (!w) return;
    shard_discard(w);
    leave(&w->dir);
    for (int i = 0; i < COLUMNS; i++) free(w->columns[i].held);
    pn_token_manifest_free(&w->manifest);
    free(w);
}

void pn_token_writer_abort(pn_token_writer **w) {
    release(w, pn_directory_writer_abort);
}

void pn_token_writer_keep(pn_token_writer **w) {
    release(w, pn_directory_writer_keep);
}
