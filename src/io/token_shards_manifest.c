#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "token_shards_internal.h"

enum { MAX_MANIFEST_BYTES = 64 << 20 }; /* 100,000 shards take half of it */

static const char format_name[] = "postnas-token-shards";

/* ---- writing ---- */

static json_t *shard_row(const pn_shard_entry *s) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "file", s->file, "n_tokens", (json_int_t)s->n_tokens,
                     "n_docs", (json_int_t)s->n_docs, "n_answers", (json_int_t)s->n_answers, "n_choices",
                     (json_int_t)s->n_choices, "n_choice_tokens", (json_int_t)s->n_choice_tokens, "n_bytes",
                     (json_int_t)s->n_bytes, "xxh3_64", pn_json_hex(s->hash));
}

pn_status pn_token_manifest_write(const pn_token_manifest *m, const char *path) {
    json_t *shards = json_array(), *skills = json_array();
    for (int64_t i = 0; i < m->n_shards; i++) json_array_append_new(shards, shard_row(&m->shards[i]));
    for (int i = 0; i < m->n_skills; i++) json_array_append_new(skills, json_string(m->skills[i]));
    json_t *root = json_pack("{s:s, s:i, s:{s:o, s:I}, s:s, s:s, s:o, s:b, s:o, s:o}", "format", format_name, "version",
                             PN_MANIFEST_VERSION, "tokenizer", "xxh3_64", pn_json_hex(m->tokenizer_hash), "vocab",
                             (json_int_t)m->vocab, "source", m->source, "split", m->split, "seed", pn_json_hex(m->seed),
                             "token_class", m->classes, "skills", skills, "shards", shards);
    PN_CHECK(root && json_array_size(json_object_get(root, "shards")) == (size_t)m->n_shards, PN_MEMORY,
             "%s: out of memory, or the source description is not valid UTF-8", path);
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    PN_CHECK(text, PN_MEMORY, "%s: out of memory", path);
    pn_status s = pn_file_write(path, text, strlen(text));
    free(text);
    return s;
}

/* ---- reading ---- */

static pn_status want_count(const char *path, const char *where, const json_t *o, const char *key, int64_t least,
                            int64_t most, int64_t *out) {
    const json_t *v = json_object_get(o, key);
    PN_CHECK(json_is_integer(v), PN_FORMAT, "%s: %s: \"%s\" is missing or not a whole number", path, where, key);
    json_int_t n = json_integer_value(v);
    PN_CHECK(n >= least && n <= most, PN_FORMAT, "%s: %s: \"%s\" is %lld, expected %lld to %lld", path, where, key,
             (long long)n, (long long)least, (long long)most);
    *out = n;
    return PN_OK;
}

static pn_status want_text(const char *path, const char *where, const json_t *o, const char *key, const char **out) {
    const json_t *v = json_object_get(o, key);
    PN_CHECK(json_is_string(v), PN_FORMAT, "%s: %s: \"%s\" is missing or not a text", path, where, key);
    *out = json_string_value(v);
    return PN_OK;
}

static pn_status copy_text(const char *path, const char *text, char **out) {
    *out = strdup(text);
    PN_CHECK(*out, PN_MEMORY, "%s: out of memory", path);
    return PN_OK;
}

/* Nothing is compressed, so a shard cannot hold more than its bytes: this bounds what a reader will allocate. */
static bool fits_in_file(const pn_shard_entry *s, int64_t token_bytes) {
    return s->n_tokens <= s->n_bytes / token_bytes && s->n_docs <= s->n_bytes / 8 && s->n_answers <= s->n_bytes / 8 &&
           s->n_choices <= s->n_bytes / 8 && s->n_choice_tokens <= s->n_bytes / token_bytes;
}

static pn_status read_shard(const char *path, const json_t *row, int64_t i, int64_t vocab, pn_shard_entry *s) {
    char where[32], file[PN_SHARD_NAME_MAX];
    snprintf(where, sizeof where, "shards[%lld]", (long long)i);
    PN_CHECK(json_is_object(row), PN_FORMAT, "%s: %s is not an object", path, where);
    const char *name;
    PN_TRY(want_text(path, where, row, "file", &name));
    snprintf(file, sizeof file, "shard-%05lld.h5", (long long)i);
    /* A manifest cannot make the reader open anything but its own shards. */
    PN_CHECK(strcmp(name, file) == 0, PN_FORMAT, "%s: %s: the file is \"%.40s\", expected \"%s\"", path, where, name,
             file);
    memcpy(s->file, file, sizeof file);
    const int64_t most = INT64_C(1) << 46; /* sums over all shards stay far from overflow */
    PN_TRY(want_count(path, where, row, "n_tokens", 1, most, &s->n_tokens));
    PN_TRY(want_count(path, where, row, "n_docs", 1, s->n_tokens, &s->n_docs));
    PN_TRY(want_count(path, where, row, "n_answers", 0, s->n_tokens, &s->n_answers));
    PN_TRY(want_count(path, where, row, "n_choices", 0, most, &s->n_choices));
    PN_TRY(want_count(path, where, row, "n_choice_tokens", 0, most, &s->n_choice_tokens));
    PN_TRY(want_count(path, where, row, "n_bytes", 1, INT64_MAX, &s->n_bytes));
    PN_CHECK(fits_in_file(s, pn_shard_token_bytes(vocab)), PN_FORMAT,
             "%s: %s: %lld bytes cannot hold the tokens it claims", path, where, (long long)s->n_bytes);
    char place[PN_PATH_MAX + sizeof where];
    snprintf(place, sizeof place, "%s: %s", path, where);
    return pn_json_get_hex(row, place, "xxh3_64", &s->hash);
}

static pn_status read_shards(const char *path, const json_t *root, pn_token_manifest *m) {
    const json_t *rows = json_object_get(root, "shards");
    size_t n = json_array_size(rows);
    PN_CHECK(json_is_array(rows) && n >= 1 && n <= PN_SHARDS_MAX, PN_FORMAT,
             "%s: \"shards\" is missing or not a list of 1 to %d shards", path, PN_SHARDS_MAX);
    m->shards = calloc(n, sizeof *m->shards);
    PN_CHECK(m->shards, PN_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++)
        PN_TRY(read_shard(path, json_array_get(rows, i), (int64_t)i, m->vocab, &m->shards[i]));
    m->n_shards = (int64_t)n;
    return PN_OK;
}

static pn_status read_skills(const char *path, const json_t *root, pn_token_manifest *m) {
    const json_t *rows = json_object_get(root, "skills");
    size_t n = json_array_size(rows);
    PN_CHECK(json_is_array(rows) && n <= PN_SHARD_SKILLS_MAX, PN_FORMAT,
             "%s: \"skills\" is missing or not a list of at most %d names", path, PN_SHARD_SKILLS_MAX);
    if (n == 0) return PN_OK;
    m->skills = calloc(n, sizeof *m->skills);
    PN_CHECK(m->skills, PN_MEMORY, "%s: out of memory", path);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(rows, i));
        PN_CHECK(name, PN_FORMAT, "%s: skills[%zu] is not a text", path, i);
        PN_TRY(copy_text(path, name, &m->skills[i]));
        m->n_skills++;
    }
    return PN_OK;
}

static pn_status read_all(const char *path, const json_t *root, pn_token_manifest *m) {
    const char *text;
    int64_t version;
    PN_CHECK(json_is_object(root) && json_is_string(json_object_get(root, "format")) &&
                 strcmp(json_string_value(json_object_get(root, "format")), format_name) == 0,
             PN_FORMAT, "%s: not a manifest of token shards; `postnas data` writes one", path);
    PN_TRY(want_count(path, "manifest", root, "version", 1, INT32_MAX, &version));
    PN_CHECK(version == PN_MANIFEST_VERSION, PN_UNSUPPORTED,
             "%s: written as version %lld, this program reads version %d; write the set again with `postnas data`",
             path, (long long)version, PN_MANIFEST_VERSION);
    const json_t *tokenizer = json_object_get(root, "tokenizer");
    PN_CHECK(json_is_object(tokenizer), PN_FORMAT, "%s: \"tokenizer\" is missing or not an object", path);
    PN_TRY(pn_json_get_hex(root, path, "tokenizer.xxh3_64", &m->tokenizer_hash));
    PN_TRY(want_count(path, "tokenizer", tokenizer, "vocab", 1, INT32_MAX, &m->vocab));
    PN_TRY(pn_json_get_hex(root, path, "seed", &m->seed));
    PN_TRY(want_text(path, "manifest", root, "source", &text));
    PN_TRY(copy_text(path, text, &m->source));
    PN_TRY(want_text(path, "manifest", root, "split", &text));
    PN_TRY(copy_text(path, text, &m->split));
    const json_t *classes = json_object_get(root, "token_class");
    PN_CHECK(json_is_boolean(classes), PN_FORMAT, "%s: \"token_class\" is missing or not true or false", path);
    m->classes = json_is_true(classes);
    PN_TRY(read_skills(path, root, m));
    return read_shards(path, root, m);
}

pn_status pn_token_manifest_parse(const char *path, const char *text, size_t n_bytes, pn_token_manifest *out) {
    *out = (pn_token_manifest){ 0 };
    json_t *root;
    PN_TRY(pn_json_parse(path, text, n_bytes, &root));
    pn_status s = read_all(path, root, out);
    json_decref(root);
    if (s) pn_token_manifest_free(out);
    return s;
}

pn_status pn_token_manifest_read(const char *path, pn_token_manifest *out) {
    *out = (pn_token_manifest){ 0 };
    char *text;
    size_t n_bytes;
    PN_CHECK(access(path, R_OK) == 0, PN_IO,
             "%s: cannot read the manifest of the token shards: %s; make the set with `postnas data`", path,
             strerror(errno));
    PN_TRY(pn_file_read(path, MAX_MANIFEST_BYTES, &text, &n_bytes));
    pn_status s = pn_token_manifest_parse(path, text, n_bytes, out);
    free(text);
    return s;
}

void pn_token_manifest_free(pn_token_manifest *m) {
    for (int i = 0; i < m->n_skills; i++) free(m->skills[i]);
    free(m->skills);
    free(m->source);
    free(m->split);
    free(m->shards);
    *m = (pn_token_manifest){ 0 };
}
