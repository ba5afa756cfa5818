#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "corpus_internal.h"
#include "json.h"
#include "log.h"

enum { STATE_VERSION = 1, STATE_LIMIT = 1 << 16 };

static pn_status state_path(const pn_corpus *c, char *path) {
    return pn_path_join(path, c->dir.temporary, "state.json");
}

/* ---- journals ---- */

static pn_status journal_path(pn_corpus *c, int split) {
    char name[32];
    snprintf(name, sizeof name, "%s.journal", pn_split_names[split]);
    return pn_path_join(c->journals[split].path, c->dir.temporary, name);
}

static pn_status journal_open(pn_corpus *c, pn_split split, const char *mode) {
    pn_journal *j = &c->journals[split];
    PN_TRY(journal_path(c, split));
    j->file = fopen(j->path, mode);
    PN_CHECK(j->file, PN_IO, "%s: cannot open: %s", j->path, strerror(errno));
    j->n_bytes = 0;
    return PN_OK;
}

void pn_corpus_close_journals(pn_corpus *c) {
    for (int s = 0; s < PN_SPLITS; s++) {
        if (c->journals[s].file) fclose(c->journals[s].file); /* pn_corpus_save has checked what counts */
        c->journals[s].file = NULL;
    }
}

pn_status pn_corpus_note(pn_corpus *c, pn_split split, bool new_shard, const pn_token_doc *doc) {
    pn_journal *j = &c->journals[split];
    if (new_shard && j->file) {
        fclose(j->file); /* not needed any more, so no matter */
        j->file = NULL;
    }
    if (!j->file) PN_TRY(journal_open(c, split, "wbe"));
    const int32_t n = (int32_t)doc->n;
    bool ok = fwrite(&n, sizeof n, 1, j->file) == 1 &&
              fwrite(doc->tokens, sizeof *doc->tokens, (size_t)doc->n, j->file) == (size_t)doc->n;
    PN_CHECK(ok, PN_IO, "%s: cannot write: %s", j->path, strerror(errno));
    j->n_bytes += (int64_t)sizeof n + doc->n * (int64_t)sizeof *doc->tokens;
    return PN_OK;
}

/* Adds the documents of the journal's first n_bytes bytes again, and goes on writing after them. */
static pn_status journal_replay(pn_corpus *c, pn_split split, int64_t n_bytes) {
    PN_TRY(journal_open(c, split, "r+be"));
    pn_journal *j = &c->journals[split];
    pn_token_doc *d = &c->doc;
    while (j->n_bytes < n_bytes) {
        int32_t n, ids[1024];
        PN_CHECK(fread(&n, sizeof n, 1, j->file) == 1 && n > 0, PN_FORMAT,
                 "%s: not a journal of documents; remove %s to start over", j->path, c->dir.temporary);
        j->n_bytes += (int64_t)sizeof n + n * (int64_t)sizeof n;
        pn_token_doc_clear(d);
        for (int32_t now; n > 0; n -= now) {
            now = n < 1024 ? n : 1024;
            PN_CHECK(fread(ids, sizeof *ids, (size_t)now, j->file) == (size_t)now, PN_FORMAT,
                     "%s: cut short; remove %s to start over", j->path, c->dir.temporary);
            PN_TRY(pn_token_doc_append(d, ids, now, PN_CLASS_TEXT));
        }
        PN_TRY(pn_corpus_add(c, split, d));
    }
    PN_CHECK(j->n_bytes == n_bytes, PN_FORMAT, "%s: not of this state; remove %s to start over", j->path,
             c->dir.temporary);
    PN_CHECK(!fseeko(j->file, n_bytes, SEEK_SET) && !ftruncate(fileno(j->file), n_bytes), PN_IO, "%s: cannot write: %s",
             j->path, strerror(errno));
    return PN_OK;
}

/* ---- state ---- */

pn_status pn_corpus_save(pn_corpus *c) {
    char path[PN_PATH_MAX], identity[17];
    json_t *splits = json_object();
    for (int s = 0; s < PN_SPLITS; s++) {
        pn_journal *j = &c->journals[s];
        if (j->file && (fflush(j->file) || fsync(fileno(j->file)))) {
            json_decref(splits);
            PN_FAIL(PN_IO, "%s: cannot write: %s", j->path, strerror(errno));
        }
        json_object_set_new(splits, pn_split_names[s],
                            json_pack("{s:I, s:I}", "documents", (json_int_t)c->next[s], "journal_bytes",
                                      (json_int_t)(j->file ? j->n_bytes : 0)));
    }
    snprintf(identity, sizeof identity, "%016" PRIx64, c->config.identity);
    json_t *root =
        json_pack("{s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "version", STATE_VERSION, "identity", identity, "file",
                  (json_int_t)c->position.file, "at", (json_int_t)c->position.at, "line", (json_int_t)c->position.line,
                  "blanks", (json_int_t)c->position.n_blanks, "documents", (json_int_t)c->n_docs, "splits", splits);
    PN_CHECK(root, PN_MEMORY, "out of memory");
    pn_status s = state_path(c, path);
    if (!s) s = pn_json_write(path, root);
    json_decref(root);
    c->saved = pn_seconds();
    return s;
}

/* The unfinished shard of a split as it was at the state's place. */
static pn_status restore_split(pn_corpus *c, const json_t *root, const char *path, pn_split split) {
    char key[64];
    int64_t docs, n_bytes;
    snprintf(key, sizeof key, "splits.%s.documents", pn_split_names[split]);
    PN_TRY(pn_json_get_i64(root, path, key, 0, INT64_C(1) << 60, &docs));
    snprintf(key, sizeof key, "splits.%s.journal_bytes", pn_split_names[split]);
    PN_TRY(pn_json_get_i64(root, path, key, 0, INT64_C(1) << 60, &n_bytes));
    int64_t finished = c->writers[split] ? pn_token_writer_finished_docs(c->writers[split]) : 0;
    c->next[split] = docs;
    if (finished >= docs || c->config.skills) return PN_OK;
    c->next[split] = finished;
    PN_TRY(journal_replay(c, split, n_bytes));
    PN_CHECK(c->next[split] == docs, PN_FORMAT, "%s: not the journal of this state; remove %s to start over",
             c->journals[split].path, c->dir.temporary);
    return PN_OK;
}

static pn_status restore(pn_corpus *c, const json_t *root, const char *path) {
    const int64_t most = INT64_C(1) << 60;
    const char *identity;
    char want[17];
    int64_t version;
    snprintf(want, sizeof want, "%016" PRIx64, c->config.identity);
    PN_TRY(pn_json_get_i64(root, path, "version", 1, INT32_MAX, &version));
    PN_TRY(pn_json_get_str(root, path, "identity", &identity));
    PN_CHECK(version == STATE_VERSION && !strcmp(identity, want), PN_USAGE,
             "%s holds the beginning of a corpus from other input, options or tokenizer; remove it, or choose another "
             "directory",
             c->dir.temporary);
    PN_TRY(pn_json_get_i64(root, path, "file", 0, most, &c->position.file));
    PN_TRY(pn_json_get_i64(root, path, "at", 0, most, &c->position.at));
    PN_TRY(pn_json_get_i64(root, path, "line", 0, most, &c->position.line));
    PN_TRY(pn_json_get_i64(root, path, "blanks", 0, most, &c->position.n_blanks));
    PN_TRY(pn_json_get_i64(root, path, "documents", 0, most, &c->n_docs));
    for (int s = 0; s < PN_SPLITS; s++) {
        char whole[PN_PATH_MAX], aside[PN_PATH_MAX + 24];
        PN_TRY(pn_path_join(whole, c->dir.temporary, pn_split_names[s]));
        snprintf(aside, sizeof aside, "%s.postnas-partial", whole);
        /* A process that died while it completed the sets: this one is aside again. */
        PN_CHECK(!pn_is_directory(whole) || !rename(whole, aside), PN_IO, "%s: cannot go on with this set: %s", whole,
                 strerror(errno));
        if (pn_is_directory(aside)) PN_TRY(pn_corpus_open_writer(c, (pn_split)s));
        PN_TRY(restore_split(c, root, path, (pn_split)s));
    }
    return PN_OK;
}

pn_status pn_corpus_begin(pn_corpus *c) {
    char path[PN_PATH_MAX];
    c->saved = pn_seconds();
    PN_TRY(pn_directory_writer_resume(c->config.dir, &c->dir));
    PN_TRY(state_path(c, path));
    if (!pn_file_exists(path)) { /* nothing that can be gone on with */
        pn_directory_writer_keep(&c->dir);
        PN_TRY(pn_directory_writer_open(c->config.dir, &c->dir));
        return pn_corpus_save(c);
    }
    json_t *root;
    c->keep = true; /* what is there is not this one's to remove until it is taken over */
    PN_TRY(pn_json_load(path, STATE_LIMIT, &root));
    pn_status s = restore(c, root, path);
    json_decref(root);
    PN_TRY(s);
    c->keep = false;
    pn_info("going on in %s", c->dir.temporary);
    return PN_OK;
}

pn_status pn_corpus_end(pn_corpus *c) {
    char path[PN_PATH_MAX];
    pn_corpus_close_journals(c);
    for (int s = 0; s < PN_SPLITS; s++) { /* also one that only an earlier process wrote */
        PN_TRY(journal_path(c, s));
        PN_TRY(pn_remove_tree(c->journals[s].path));
    }
    PN_TRY(state_path(c, path)); /* last: without it, a process that dies here would start over */
    return pn_remove_tree(path);
}
