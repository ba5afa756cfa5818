#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "files.h"
#include "token_shards_internal.h"

enum { OPEN_SHARDS_MAX = 16 };

/* An open shard. Datasets that the set does not keep are -1. */
typedef struct shard {
    int64_t index; /* -1: free */
    int64_t last_use;
    char *path;
    hid_t file, tokens, token_class, answer_offsets, choice_begin, choice_tokens;
#define X(field, ...) hid_t answer_##field;
    PN_ANSWER_COLUMNS(X)
#undef X
    int64_t *doc_offsets; /* (n_docs + 1) */
} shard;

/* Which file a shard was, and when it was last written, as its hash was found right; has_hash: it was. */
typedef struct seen {
    bool has_hash;
    dev_t device;
    ino_t inode;
    struct timespec modified, changed;
} seen;

struct pn_token_set {
    char *dir;
    pn_token_manifest manifest;
    pn_token_info info;
    int64_t *first_token, *first_doc; /* (n_shards + 1) of the set, at each shard's beginning */
    seen *seen;                       /* (n_shards) */
    shard open[OPEN_SHARDS_MAX];
    int64_t clock;
};

/* ---- opening ---- */

static pn_status shard_path(const pn_token_set *set, int64_t i, char **path) {
    PN_CHECK(asprintf(path, "%s/%s", set->dir, set->manifest.shards[i].file) >= 0, PN_MEMORY, "%s: out of memory",
             set->dir);
    return PN_OK;
}

static pn_status check_size(const pn_token_set *set, int64_t i) {
    char *path;
    PN_TRY(shard_path(set, i, &path));
    struct stat there;
    pn_status s = PN_OK;
    const long long want = set->manifest.shards[i].n_bytes;
    if (stat(path, &there) != 0)
        s = pn_fail_at(__FILE__, __LINE__, PN_IO,
                       "%s: a shard that the manifest names is missing: %s; copy it here or "
                       "make the set again with `postnas data`",
                       path, strerror(errno));
    else if (there.st_size != want)
        s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT,
                       "%s: %lld bytes, but the manifest says %lld: the shard is cut "
                       "short or changed; copy it again or make the set again with `postnas data`",
                       path, (long long)there.st_size, want);
    free(path);
    return s;
}

static uint64_t content_hash(const pn_token_manifest *m) {
    uint64_t hash = 0;
    for (int64_t i = 0; i < m->n_shards; i++)
        hash = XXH3_64bits_withSeed(&m->shards[i].hash, sizeof m->shards[i].hash, hash);
    return hash;
}

static pn_status describe(pn_token_set *set) {
    const pn_token_manifest *m = &set->manifest;
    PN_ASSERT(m->n_shards > 0 && m->n_shards <= PN_SHARDS_MAX);
    const size_t n = (size_t)m->n_shards;
    set->first_token = calloc(n + 1, sizeof *set->first_token);
    set->first_doc = calloc(n + 1, sizeof *set->first_doc);
    set->seen = calloc(n, sizeof *set->seen);
    PN_CHECK(set->first_token && set->first_doc && set->seen, PN_MEMORY, "%s: out of memory", set->dir);
    int64_t n_answers = 0;
    for (int64_t i = 0; i < m->n_shards; i++) {
        set->first_token[i + 1] = set->first_token[i] + m->shards[i].n_tokens;
        set->first_doc[i + 1] = set->first_doc[i] + m->shards[i].n_docs;
        n_answers += m->shards[i].n_answers;
    }
    set->info = (pn_token_info){ .tokenizer_hash = m->tokenizer_hash,
                                 .content_hash = content_hash(m),
                                 .seed = m->seed,
                                 .vocab = m->vocab,
                                 .n_tokens = set->first_token[m->n_shards],
                                 .n_docs = set->first_doc[m->n_shards],
                                 .n_shards = m->n_shards,
                                 .n_answers = n_answers,
                                 .source = m->source,
                                 .split = m->split,
                                 .classes = m->classes,
                                 .skills = (const char *const *)m->skills,
                                 .n_skills = m->n_skills };
    return PN_OK;
}

static pn_status open_set(pn_token_set *set) {
    char *path;
    PN_CHECK(asprintf(&path, "%s/manifest.json", set->dir) >= 0, PN_MEMORY, "%s: out of memory", set->dir);
    pn_status s = pn_token_manifest_read(path, &set->manifest);
    free(path);
    PN_TRY(s);
    for (int64_t i = 0; i < set->manifest.n_shards; i++) PN_TRY(check_size(set, i));
    return describe(set);
}

pn_status pn_token_set_open(const char *dir, pn_token_set **out) {
    *out = NULL;
    pn_token_set *set = calloc(1, sizeof *set);
    PN_CHECK(set, PN_MEMORY, "%s: out of memory", dir);
    for (int i = 0; i < OPEN_SHARDS_MAX; i++) set->open[i].index = -1;
    pn_status s;
    set->dir = strdup(dir);
    if (!set->dir) PN_FAIL_GOTO(s, PN_MEMORY, fail, "%s: out of memory", dir);
    PN_TRY_GOTO(s, open_set(set), fail);
    *out = set;
    return PN_OK;
fail:
    pn_token_set_close(&set);
    return s;
}

static void shard_close(shard *h) {
    if (h->index < 0) return;
    hid_t *datasets[] = { &h->tokens,          &h->token_class, &h->answer_offsets, &h->choice_begin, &h->choice_tokens,
#define X(field, ...) &h->answer_##field,
                          PN_ANSWER_COLUMNS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++) pn_h5_close_dataset(datasets[i]);
    pn_h5_close_file(&h->file, h->path);
    free(h->doc_offsets);
    free(h->path);
    *h = (shard){ .index = -1 };
}

void pn_token_set_close(pn_token_set **out) {
    pn_token_set *set = *out;
    *out = NULL;
    if (!set) return;
    for (int i = 0; i < OPEN_SHARDS_MAX; i++) shard_close(&set->open[i]);
    pn_token_manifest_free(&set->manifest);
    free(set->first_token);
    free(set->first_doc);
    free(set->seen);
    free(set->dir);
    free(set);
}

const pn_token_info *pn_token_set_info(const pn_token_set *set) {
    return &set->info;
}

pn_status pn_token_set_needs(const pn_token_set *set, uint64_t hash) {
    PN_CHECK(
        set->info.tokenizer_hash == hash, PN_USAGE,
        "%s: made with another tokenizer (%016llx) than the model's (%016llx); make the set again with `postnas data "
        "--tokenizer` and the model's directory",
        set->dir, (unsigned long long)set->info.tokenizer_hash, (unsigned long long)hash);
    return PN_OK;
}

/* ---- one shard ---- */

static bool same_file(const seen *s, const struct stat *now) {
    return s->device == now->st_dev && s->inode == now->st_ino;
}

/* Whether it is as it was when its hash was found right. */
static bool untouched(const seen *s, const struct stat *now) {
    return s->has_hash && same_file(s, now) && s->modified.tv_sec == now->st_mtim.tv_sec &&
           s->modified.tv_nsec == now->st_mtim.tv_nsec && s->changed.tv_sec == now->st_ctim.tv_sec &&
           s->changed.tv_nsec == now->st_ctim.tv_nsec;
}

/* Once, and again where the file was written to or replaced since: training reads a set for days. */
static pn_status check_hash(pn_token_set *set, int64_t i, const char *path) {
    struct stat now;
    PN_TRY(check_size(set, i));
    PN_CHECK(!stat(path, &now), PN_IO, "%s: cannot read the shard: %s", path, strerror(errno));
    if (untouched(&set->seen[i], &now)) return PN_OK;
    set->seen[i].has_hash = false;
    uint64_t hash;
    int64_t n_bytes;
    PN_TRY(pn_file_hash(path, &hash, &n_bytes));
    PN_CHECK(
        hash == set->manifest.shards[i].hash, PN_FORMAT,
        "%s: changed since it was written: its xxh3-64 is %016llx, the manifest says %016llx; copy it again or make "
        "the set again with `postnas data`",
        path, (unsigned long long)hash, (unsigned long long)set->manifest.shards[i].hash);
    set->seen[i] = (seen){ true, now.st_dev, now.st_ino, now.st_mtim, now.st_ctim };
    return PN_OK;
}

/* Reads a list of n + 1 offsets that must rise from 0 to `total`; strictly: every step is at least one. */
static pn_status check_offsets(const shard *h, const char *name, const int64_t *offset, int64_t n, int64_t total,
                               bool strictly) {
    bool ok = offset[0] == 0 && offset[n] == total;
    for (int64_t i = 0; ok && i < n; i++) ok = offset[i + 1] - offset[i] >= strictly;
    PN_CHECK(ok, PN_FORMAT, "%s: /%s does not rise from 0 to %lld", h->path, name, (long long)total);
    return PN_OK;
}

static pn_status read_doc_offsets(shard *h, const pn_shard_entry *e) {
    hid_t d = -1;
    PN_TRY(pn_h5_open_array(h->file, h->path, "doc_offsets", PN_H5_I64, e->n_docs + 1, &d));
    h->doc_offsets = malloc((size_t)(e->n_docs + 1) * sizeof *h->doc_offsets);
    pn_status s = PN_OK;
    if (!h->doc_offsets) s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "%s: out of memory", h->path);
    if (!s) s = pn_h5_read(d, h->path, "doc_offsets", PN_H5_I64, 0, e->n_docs + 1, h->doc_offsets);
    pn_h5_close_dataset(&d);
    PN_TRY(s);
    return check_offsets(h, "doc_offsets", h->doc_offsets, e->n_docs, e->n_tokens, true);
}

static pn_status open_datasets(shard *h, const pn_token_manifest *m, const pn_shard_entry *e) {
    const pn_h5_type token = pn_shard_token_type(m->vocab), i64 = PN_H5_I64;
    PN_TRY(pn_h5_open_array(h->file, h->path, "tokens", token, e->n_tokens, &h->tokens));
    if (m->classes) PN_TRY(pn_h5_open_array(h->file, h->path, "token_class", PN_H5_U8, e->n_tokens, &h->token_class));
    PN_TRY(read_doc_offsets(h, e));
    if (!m->skills) return PN_OK;
    PN_TRY(pn_h5_open_array(h->file, h->path, "answers/offsets", i64, e->n_docs + 1, &h->answer_offsets));
#define X(field, ctype, stored, ...)                                                                                   \
    PN_TRY(pn_h5_open_array(h->file, h->path, "answers/" #field, stored, e->n_answers, &h->answer_##field));
    PN_ANSWER_COLUMNS(X)
#undef X
    PN_TRY(pn_h5_open_array(h->file, h->path, "choices/begin", i64, e->n_choices + 1, &h->choice_begin));
    return pn_h5_open_array(h->file, h->path, "choices/tokens", token, e->n_choice_tokens, &h->choice_tokens);
}

static shard *least_used(pn_token_set *set) {
    shard *best = &set->open[0];
    for (int k = 0; k < OPEN_SHARDS_MAX; k++) {
        shard *h = &set->open[k];
        if (h->index < 0) return h;
        if (h->last_use < best->last_use) best = h;
    }
    return best;
}

static pn_status shard_open(pn_token_set *set, int64_t i, shard *h) {
    *h = (shard){ .index = i,
                  .last_use = set->clock,
                  .file = -1,
                  .tokens = -1,
                  .token_class = -1,
                  .answer_offsets = -1,
                  .choice_begin = -1,
                  .choice_tokens = -1,
#define X(field, ...) .answer_##field = -1,
                  PN_ANSWER_COLUMNS(X)
#undef X
    };
    pn_status s;
    PN_TRY_GOTO(s, shard_path(set, i, &h->path), fail);
    PN_TRY_GOTO(s, check_hash(set, i, h->path), fail);
    PN_TRY_GOTO(s, pn_h5_open(h->path, &h->file), fail);
    PN_TRY_GOTO(s, open_datasets(h, &set->manifest, &set->manifest.shards[i]), fail);
    return PN_OK;
fail:
    shard_close(h);
    return s;
}

/* An open file that was removed or replaced has the bytes it had; one that was written to has not. */
static pn_status reopen_if_written(pn_token_set *set, shard *h) {
    struct stat now;
    const int64_t i = h->index;
    if (stat(h->path, &now) || !same_file(&set->seen[i], &now) || untouched(&set->seen[i], &now)) return PN_OK;
    shard_close(h);
    return shard_open(set, i, h);
}

/* Shard i, opened if need be; borrowed until the next call. */
static pn_status shard_get(pn_token_set *set, int64_t i, shard **out) {
    set->clock++;
    for (int k = 0; k < OPEN_SHARDS_MAX; k++)
        if (set->open[k].index == i) {
            *out = &set->open[k];
            (*out)->last_use = set->clock;
            return reopen_if_written(set, *out);
        }
    *out = least_used(set);
    shard_close(*out);
    return shard_open(set, i, *out);
}

/* Largest i with begin[i] <= at, for at in [begin[0], begin[n]). */
static int64_t find(const int64_t *begin, int64_t n, int64_t at) {
    int64_t low = 0, high = n;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (begin[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- tokens ---- */

static pn_status check_range(const pn_token_set *set, int64_t begin, int64_t n) {
    PN_CHECK(begin >= 0 && n >= 0 && begin <= set->info.n_tokens && n <= set->info.n_tokens - begin, PN_USAGE,
             "%s: %lld tokens from token %lld were asked for; the set has %lld", set->dir, (long long)n,
             (long long)begin, (long long)set->info.n_tokens);
    return PN_OK;
}

static pn_status read_tokens(const shard *h, int64_t vocab, int64_t begin, int64_t n, int32_t *tokens) {
    PN_TRY(pn_h5_read(h->tokens, h->path, "tokens", PN_H5_I32, begin, n, tokens));
    for (int64_t i = 0; i < n; i++)
        PN_CHECK(tokens[i] >= 0 && tokens[i] < vocab, PN_FORMAT,
                 "%s: token %lld is id %d, outside the vocabulary of "
                 "%lld",
                 h->path, (long long)(begin + i), tokens[i], (long long)vocab);
    return PN_OK;
}

static pn_status read_classes(const shard *h, int64_t begin, int64_t n, uint8_t *c) {
    if (h->token_class < 0) {
        memset(c, PN_CLASS_TEXT, (size_t)n);
        return PN_OK;
    }
    PN_TRY(pn_h5_read(h->token_class, h->path, "token_class", PN_H5_U8, begin, n, c));
    for (int64_t i = 0; i < n; i++)
        PN_CHECK(c[i] < PN_CLASS_COUNT, PN_FORMAT, "%s: token %lld is of class %d; there are %d", h->path,
                 (long long)(begin + i), c[i], PN_CLASS_COUNT);
    return PN_OK;
}

/* The next piece of [*begin, *begin + *n) that lies in one shard: `at` is its position there, `now` its length. */
static pn_status next_piece(pn_token_set *set, int64_t begin, int64_t n, shard **h, int64_t *at, int64_t *now) {
    int64_t i = find(set->first_token, set->manifest.n_shards, begin);
    PN_TRY(shard_get(set, i, h));
    *at = begin - set->first_token[i];
    *now = set->first_token[i + 1] - begin < n ? set->first_token[i + 1] - begin : n;
    return PN_OK;
}

pn_status pn_token_set_read(pn_token_set *set, int64_t begin, int64_t n, int32_t *tokens) {
    PN_TRY(check_range(set, begin, n));
    for (int64_t at, now; n > 0; begin += now, n -= now, tokens += now) {
        shard *h;
        PN_TRY(next_piece(set, begin, n, &h, &at, &now));
        PN_TRY(read_tokens(h, set->info.vocab, at, now, tokens));
    }
    return PN_OK;
}

pn_status pn_token_set_classes(pn_token_set *set, int64_t begin, int64_t n, uint8_t *c) {
    PN_TRY(check_range(set, begin, n));
    for (int64_t at, now; n > 0; begin += now, n -= now, c += now) {
        shard *h;
        PN_TRY(next_piece(set, begin, n, &h, &at, &now));
        PN_TRY(read_classes(h, at, now, c));
    }
    return PN_OK;
}

pn_status pn_token_set_offsets(pn_token_set *set, int64_t begin, int64_t n, int64_t *offsets, int64_t *n_docs) {
    PN_TRY(check_range(set, begin, n));
    int64_t docs = 0, done = 0;
    offsets[0] = 0;
    for (int64_t at, now; done < n; done += now) {
        shard *h;
        PN_TRY(next_piece(set, begin + done, n - done, &h, &at, &now));
        int64_t shard_docs = set->manifest.shards[h->index].n_docs;
        /* A document ends at its shard's end, so offsets[docs] == done at each piece's beginning. */
        for (int64_t i = find(h->doc_offsets, shard_docs, at); i < shard_docs && h->doc_offsets[i] < at + now; i++) {
            int64_t end = h->doc_offsets[i + 1] < at + now ? h->doc_offsets[i + 1] : at + now;
            offsets[++docs] = done + end - at;
        }
    }
    *n_docs = docs;
    return PN_OK;
}

/* ---- documents ---- */

static pn_status doc_find(pn_token_set *set, int64_t doc, shard **h, int64_t *local) {
    PN_CHECK(doc >= 0 && doc < set->info.n_docs, PN_USAGE, "%s: document %lld was asked for; the set has %lld",
             set->dir, (long long)doc, (long long)set->info.n_docs);
    int64_t i = find(set->first_doc, set->manifest.n_shards, doc);
    *local = doc - set->first_doc[i];
    return shard_get(set, i, h);
}

pn_status pn_token_set_doc_range(pn_token_set *set, int64_t doc, int64_t *begin, int64_t *n) {
    shard *h;
    int64_t local;
    PN_TRY(doc_find(set, doc, &h, &local));
    *begin = set->first_token[h->index] + h->doc_offsets[local];
    *n = h->doc_offsets[local + 1] - h->doc_offsets[local];
    return PN_OK;
}

/* Rows of the answer columns into out->answers; `choice` still counts the shard's choices. */
static pn_status read_answer_rows(const shard *h, int64_t begin, int64_t n, pn_token_doc *out) {
    enum { WIDEST = 8 };
    char *column = malloc((size_t)n * WIDEST);
    PN_CHECK(column, PN_MEMORY, "%s: out of memory", h->path);
    pn_status s = PN_OK;
    for (int64_t i = 0; i < n && !s; i++) s = pn_token_doc_answer(out, &(pn_answer){ 0 });
#define X(field, ctype, stored, memory)                                                                                \
    if (!s) s = pn_h5_read(h->answer_##field, h->path, "answers/" #field, memory, begin, n, column);                   \
    for (int64_t i = 0; i < n && !s; i++)                                                                              \
        memcpy(&out->answers[i].field, column + (size_t)i * sizeof(ctype), sizeof(ctype));
    PN_ANSWER_COLUMNS(X)
#undef X
    free(column);
    return s;
}

/* The choices [first, end) of the shard, appended to out. */
static pn_status read_choices(const shard *h, const pn_shard_entry *e, int64_t first, int64_t end, pn_token_doc *out) {
    PN_CHECK(first >= 0 && first <= end && end <= e->n_choices, PN_FORMAT,
             "%s: /answers/choice points at choices %lld to %lld; there are %lld", h->path, (long long)first,
             (long long)end, (long long)e->n_choices);
    const int64_t n = end - first;
    int64_t *begin = malloc((size_t)(n + 1) * sizeof *begin);
    int32_t *tokens = NULL;
    pn_status s = PN_OK;
    if (!begin) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s: out of memory", h->path);
    PN_TRY_GOTO(s, pn_h5_read(h->choice_begin, h->path, "choices/begin", PN_H5_I64, first, n + 1, begin), done);
    bool ok = begin[0] >= 0 && begin[n] <= e->n_choice_tokens;
    for (int64_t i = 0; i < n; i++) ok = ok && begin[i] <= begin[i + 1];
    if (!ok) PN_FAIL_GOTO(s, PN_FORMAT, done, "%s: /choices/begin does not rise within the choice tokens", h->path);
    const int64_t n_tokens = begin[n] - begin[0];
    tokens = malloc((size_t)n_tokens * sizeof *tokens + 1);
    if (!tokens) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s: out of memory", h->path);
    PN_TRY_GOTO(s, pn_h5_read(h->choice_tokens, h->path, "choices/tokens", PN_H5_I32, begin[0], n_tokens, tokens),
                done);
    for (int64_t i = 0; i < n && !s; i++)
        s = pn_token_doc_choice(out, tokens + (begin[i] - begin[0]), begin[i + 1] - begin[i]);
done:
    free(tokens);
    free(begin);
    return s;
}

static pn_status read_answers(pn_token_set *set, const shard *h, int64_t local, pn_token_doc *out) {
    const pn_shard_entry *e = &set->manifest.shards[h->index];
    int64_t row[2];
    PN_TRY(pn_h5_read(h->answer_offsets, h->path, "answers/offsets", PN_H5_I64, local, 2, row));
    PN_CHECK(row[0] >= 0 && row[0] <= row[1] && row[1] <= e->n_answers, PN_FORMAT,
             "%s: /answers/offsets does not rise within the %lld answers", h->path, (long long)e->n_answers);
    if (row[0] == row[1]) return PN_OK;
    PN_TRY(read_answer_rows(h, row[0], row[1] - row[0], out));
    int64_t first = INT64_MAX, end = 0;
    for (int64_t i = 0; i < out->n_answers; i++) {
        const pn_answer *a = &out->answers[i];
        PN_CHECK(a->skill >= 0 && a->skill < set->info.n_skills, PN_FORMAT,
                 "%s: an answer is of skill %d; there are %d", h->path, a->skill, set->info.n_skills);
        PN_CHECK(a->choice < INT64_MAX / 2 && a->n_choices >= 0, PN_FORMAT, "%s: an answer has impossible choices",
                 h->path);
        if (a->choice < 0) continue;
        if (a->choice < first) first = a->choice;
        if (a->choice + a->n_choices > end) end = a->choice + a->n_choices;
    }
    if (first == INT64_MAX) return PN_OK;
    PN_TRY(read_choices(h, e, first, end, out));
    for (int64_t i = 0; i < out->n_answers; i++)
        if (out->answers[i].choice >= 0) out->answers[i].choice -= first;
    return PN_OK;
}

pn_status pn_token_set_doc(pn_token_set *set, int64_t doc, pn_token_doc *out) {
    shard *h;
    int64_t local;
    pn_token_doc_clear(out);
    PN_TRY(doc_find(set, doc, &h, &local));
    const int64_t begin = h->doc_offsets[local], n = h->doc_offsets[local + 1] - begin;
    PN_TRY(pn_token_doc_reserve(out, n));
    out->n = n;
    PN_TRY(read_tokens(h, set->info.vocab, begin, n, out->tokens));
    PN_TRY(read_classes(h, begin, n, out->token_class));
    if (set->info.n_skills == 0) return PN_OK;
    PN_TRY(read_answers(set, h, local, out));
    char what[64];
    snprintf(what, sizeof what, "document %lld", (long long)doc);
    if (pn_token_doc_check(out, what) == PN_OK) return PN_OK;
    char why[512];
    snprintf(why, sizeof why, "%s", pn_error_message());
    PN_FAIL(PN_FORMAT, "%s: %s", h->path, why);
}

/* ---- everything ---- */

pn_status pn_token_set_verify(pn_token_set *set) {
    enum { BLOCK = 1 << 16 };
    int32_t *tokens = malloc(BLOCK * sizeof *tokens);
    uint8_t *c = malloc(BLOCK);
    pn_token_doc doc = { 0 };
    pn_status s = PN_OK;
    if (!tokens || !c) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s: out of memory", set->dir);
    for (int64_t at = 0, now; at < set->info.n_tokens; at += now) {
        now = set->info.n_tokens - at < BLOCK ? set->info.n_tokens - at : BLOCK;
        PN_TRY_GOTO(s, pn_token_set_read(set, at, now, tokens), done);
        PN_TRY_GOTO(s, pn_token_set_classes(set, at, now, c), done);
    }
    for (int64_t i = 0; set->info.n_skills && i < set->info.n_docs; i++)
        PN_TRY_GOTO(s, pn_token_set_doc(set, i, &doc), done);
done:
    pn_token_doc_free(&doc);
    free(c);
    free(tokens);
    return s;
}
