/* Reads Hugging Face's tokenizer.json, and the ids of BOS, EOS and PAD from the files beside it.
 *
 * Every component that decides which ids a text gets is either understood exactly or refused by name; what does not
 * (truncation, padding, offsets) is left alone. */
#include "tokenizer_internal.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"

enum { MAX_FILE_BYTES = 256 << 20 };

/* ---- files ---- */
/* A NUL may stand in the text of an added token, so this is not pn_json_parse. */
static pn_status parse_json(const char *path, const char *text, size_t n_bytes, json_t **out) {
    json_error_t error;
    *out = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    PN_CHECK(*out, PN_FORMAT, "%s:%d:%d: not valid JSON: %s", path, error.line, error.column, error.text);
    return PN_OK;
}

static pn_status read_json(const char *path, json_t **out) {
    *out = NULL;
    struct stat st;
    char *text;
    size_t n_bytes;
    PN_CHECK(stat(path, &st) == 0, PN_IO, "%s: cannot be opened: %s", path, strerror(errno));
    PN_CHECK(S_ISREG(st.st_mode), PN_IO, "%s: is not a regular file", path);
    PN_TRY(pn_file_read(path, MAX_FILE_BYTES, &text, &n_bytes));
    pn_status s = parse_json(path, text, n_bytes, out);
    free(text);
    return s;
}

/* ---- fields ---- */
static bool is_null(const json_t *j) {
    return !j || json_is_null(j);
}

/* A boolean that may be absent. */
static pn_status get_bool(const pn_tokenizer *t, const json_t *object, const char *name, const char *key, bool absent,
                          bool *out) {
    json_t *j = json_object_get(object, key);
    *out = absent;
    if (is_null(j)) return PN_OK;
    PN_CHECK(json_is_boolean(j), PN_FORMAT, "%s: %s.%s is not true or false", t->source, name, key);
    *out = json_is_true(j);
    return PN_OK;
}

static pn_status get_type(const pn_tokenizer *t, const json_t *object, const char *name, const char **type) {
    PN_CHECK(json_is_object(object), PN_FORMAT, "%s: %s is not an object", t->source, name);
    *type = json_string_value(json_object_get(object, "type"));
    PN_CHECK(*type, PN_FORMAT, "%s: %s has no \"type\"", t->source, name);
    return PN_OK;
}

static bool is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

/* ---- normalizer ---- */
static pn_status read_normalizer(pn_tokenizer *t, const json_t *j, int depth) {
    const char *type;
    if (is_null(j)) return PN_OK;
    PN_TRY(get_type(t, j, "normalizer", &type));
    if (is(type, "NFC")) {
        t->nfc = true;
        return PN_OK;
    }
    PN_CHECK(is(type, "Sequence") && depth < 4, PN_UNSUPPORTED,
             "%s: normalizer.type \"%.40s\" is not supported: NFC is", t->source, type);
    size_t i;
    json_t *each, *list = json_object_get(j, "normalizers");
    PN_CHECK(json_is_array(list), PN_FORMAT, "%s: normalizer.normalizers is not a list", t->source);
    json_array_foreach(list, i, each) PN_TRY(read_normalizer(t, each, depth + 1));
    return PN_OK;
}

/* ---- pre_tokenizer ---- */
static pn_status read_split(pn_tokenizer *t, const json_t *j) {
    const json_t *pattern = json_object_get(j, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *literal = json_object_get(pattern, "String");
    const char *text = json_string_value(regex ? regex : literal);
    PN_CHECK(text && !(regex && literal), PN_FORMAT, "%s: pre_tokenizer Split: pattern is neither Regex nor String",
             t->source);
    PN_CHECK(strlen(text) == json_string_length(regex ? regex : literal), PN_UNSUPPORTED,
             "%s: pre_tokenizer Split: a NUL character in the pattern", t->source);
    const char *behavior = json_string_value(json_object_get(j, "behavior"));
    PN_CHECK(behavior && is(behavior, "Isolated"), PN_UNSUPPORTED,
             "%s: pre_tokenizer Split: behavior \"%.40s\" is not supported: Isolated is", t->source,
             behavior ? behavior : "(none)");
    /* "invert" swaps matches and what lies between them; isolated, both are pieces all the same. */
    pn_tok_step step = { .kind = PN_TOK_SPLIT, .pattern = (char *)text, .literal = literal != NULL };
    PN_TRY(pn_tok_add_step(t, &step));
    return PN_OK;
}

static pn_status read_pre_tokenizer(pn_tokenizer *t, const json_t *j, bool only) {
    const char *type, name[] = "pre_tokenizer";
    PN_TRY(get_type(t, j, name, &type));
    pn_tok_step step = { 0 };
    if (is(type, "Sequence")) {
        PN_CHECK(only, PN_UNSUPPORTED, "%s: pre_tokenizer: a Sequence inside a Sequence is not supported", t->source);
        size_t i;
        json_t *each, *list = json_object_get(j, "pretokenizers");
        PN_CHECK(json_is_array(list), PN_FORMAT, "%s: pre_tokenizer.pretokenizers is not a list", t->source);
        json_array_foreach(list, i, each) PN_TRY(read_pre_tokenizer(t, each, json_array_size(list) == 1));
        return PN_OK;
    }
    PN_CHECK(t->n_steps == 0 || t->step[t->n_steps - 1].kind != PN_TOK_BYTE_LEVEL, PN_UNSUPPORTED,
             "%s: pre_tokenizer: %.40s after ByteLevel is not supported: ByteLevel must be last", t->source, type);
    if (is(type, "Split")) return read_split(t, j);
    if (is(type, "Digits")) {
        step.kind = PN_TOK_DIGITS;
        PN_TRY(get_bool(t, j, name, "individual_digits", false, &step.individual));
    } else if (is(type, "ByteLevel")) {
        step.kind = PN_TOK_BYTE_LEVEL;
        PN_TRY(get_bool(t, j, name, "use_regex", true, &step.use_regex));
        PN_TRY(get_bool(t, j, name, "add_prefix_space", true, &step.add_prefix_space));
        PN_CHECK(only || !step.add_prefix_space, PN_UNSUPPORTED,
                 "%s: pre_tokenizer: ByteLevel with add_prefix_space inside a Sequence is not supported", t->source);
    } else {
        PN_FAIL(
            PN_UNSUPPORTED,
            "%s: pre_tokenizer.type \"%.40s\" is not supported: Split, Digits, ByteLevel and a Sequence of them are",
            t->source, type);
    }
    PN_TRY(pn_tok_add_step(t, &step));
    return PN_OK;
}

/* ---- decoder, post_processor ---- */
static pn_status read_decoder(const pn_tokenizer *t, const json_t *j) {
    const char *type;
    PN_TRY(get_type(t, j, "decoder", &type));
    const json_t *list = json_object_get(j, "decoders");
    if (is(type, "Sequence") && json_array_size(list) == 1) {
        j = json_array_get(list, 0);
        PN_TRY(get_type(t, j, "decoder", &type));
    }
    PN_CHECK(is(type, "ByteLevel"), PN_UNSUPPORTED, "%s: decoder.type \"%.40s\" is not supported: ByteLevel is",
             t->source, type);
    return PN_OK;
}

static pn_status read_template(pn_tokenizer *t, const json_t *j) {
    size_t i;
    json_t *each;
    const json_t *single = json_object_get(j, "single");
    bool text_seen = false;
    PN_CHECK(json_is_array(single), PN_FORMAT, "%s: post_processor.single is not a list", t->source);
    json_array_foreach(single, i, each) {
        const json_t *special = json_object_get(each, "SpecialToken");
        if (!special) {
            PN_CHECK(json_object_get(each, "Sequence") && !text_seen, PN_UNSUPPORTED,
                     "%s: post_processor.single[%zu] is neither a special token nor the text", t->source, i);
            text_seen = true;
            continue;
        }
        const char *token = json_string_value(json_object_get(special, "id"));
        int32_t id = token ? pn_tokenizer_find(t, token) : -1;
        PN_CHECK(id >= 0, PN_FORMAT, "%s: post_processor.single[%zu]: \"%.80s\" is not a token", t->source, i,
                 token ? token : "(none)");
        bool *adds = text_seen ? &t->add_eos : &t->add_bos;
        PN_CHECK(!*adds, PN_UNSUPPORTED, "%s: post_processor.single[%zu]: more than one token on one side of the text",
                 t->source, i);
        *adds = true;
        *(text_seen ? &t->eos : &t->bos) = id;
    }
    return PN_OK;
}

static pn_status read_post_processor(pn_tokenizer *t, const json_t *j, int depth) {
    const char *type;
    if (is_null(j)) return PN_OK;
    PN_TRY(get_type(t, j, "post_processor", &type));
    if (is(type, "ByteLevel")) return PN_OK; /* offsets only */
    if (is(type, "TemplateProcessing")) return read_template(t, j);
    PN_CHECK(is(type, "Sequence") && depth == 0, PN_UNSUPPORTED,
             "%s: post_processor.type \"%.40s\" is not supported: ByteLevel and TemplateProcessing are", t->source,
             type);
    size_t i;
    json_t *each;
    json_array_foreach(json_object_get(j, "processors"), i, each) PN_TRY(read_post_processor(t, each, depth + 1));
    return PN_OK;
}

/* ---- model ---- */
static pn_status check_model(const pn_tokenizer *t, const json_t *model) {
    static const char *const empty[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    static const char *const off[] = { "byte_fallback" };
    const json_t *type = json_object_get(model, "type");
    PN_CHECK(!type || (json_is_string(type) && is(json_string_value(type), "BPE")), PN_UNSUPPORTED,
             "%s: model.type \"%.40s\" is not supported: BPE is", t->source,
             json_is_string(type) ? json_string_value(type) : "?");
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        const json_t *j = json_object_get(model, empty[i]);
        PN_CHECK(is_null(j) || (json_is_string(j) && json_string_length(j) == 0), PN_UNSUPPORTED,
                 "%s: model.%s is not supported: byte-level models leave it empty", t->source, empty[i]);
    }
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        bool on;
        PN_TRY(get_bool(t, model, "model", off[i], false, &on));
        PN_CHECK(!on, PN_UNSUPPORTED, "%s: model.%s is not supported: byte-level models have a token for each byte",
                 t->source, off[i]);
    }
    const json_t *dropout = json_object_get(model, "dropout");
    PN_CHECK(is_null(dropout) || (json_is_number(dropout) && json_number_value(dropout) == 0.0), PN_UNSUPPORTED,
             "%s: model.dropout is not supported: set it to null", t->source);
    return PN_OK;
}

static pn_status get_id(const pn_tokenizer *t, const char *token, const json_t *j, int64_t *id) {
    char show[128];
    *id = json_integer_value(j);
    PN_CHECK(json_is_integer(j) && *id >= 0 && *id < PN_TOK_MAX_IDS, PN_FORMAT,
             "%s: the id of token \"%s\" is not a number from 0 to %d", t->source,
             pn_tok_show(token, strlen(token), show), PN_TOK_MAX_IDS - 1);
    return PN_OK;
}

/* Highest id + 1 over vocabulary and added tokens. Far more ids than tokens is a broken or hostile file. */
static pn_status count_ids(const pn_tokenizer *t, json_t *vocab, const json_t *added, int64_t *n_ids) {
    const char *token;
    json_t *each;
    size_t i;
    int64_t id, highest = -1;
    json_object_foreach(vocab, token, each) {
        PN_TRY(get_id(t, token, each, &id));
        if (id > highest) highest = id;
    }
    json_array_foreach(added, i, each) {
        const char *content = json_string_value(json_object_get(each, "content"));
        PN_CHECK(content, PN_FORMAT, "%s: added_tokens[%zu] has no content", t->source, i);
        PN_TRY(get_id(t, content, json_object_get(each, "id"), &id));
        if (id > highest) highest = id;
    }
    int64_t n = (int64_t)(json_object_size(vocab) + json_array_size(added));
    PN_CHECK(highest < 4 * n + 65536, PN_FORMAT, "%s: the highest id is %lld, of %lld tokens: nearly all ids are holes",
             t->source, (long long)highest, (long long)n);
    *n_ids = highest + 1;
    return PN_OK;
}

static pn_status read_added(pn_tokenizer *t, const json_t *added) {
    size_t i;
    json_t *j;
    json_array_foreach(added, i, j) {
        char name[48];
        snprintf(name, sizeof name, "added_tokens[%zu]", i);
        const json_t *content = json_object_get(j, "content");
        bool special;
        pn_tok_added row = { .id = (int32_t)json_integer_value(json_object_get(j, "id")) };
        PN_TRY(get_bool(t, j, name, "special", false, &special));
        PN_TRY(get_bool(t, j, name, "normalized", !special, &row.normalized));
        PN_TRY(get_bool(t, j, name, "lstrip", false, &row.lstrip));
        PN_TRY(get_bool(t, j, name, "rstrip", false, &row.rstrip));
        PN_TRY(get_bool(t, j, name, "single_word", false, &row.single_word));
        PN_TRY(pn_tok_set_added(t, json_string_value(content), json_string_length(content), special, &row));
    }
    return PN_OK;
}

/* A merge is "left right" or ["left", "right"]. */
static pn_status read_merges(pn_tokenizer *t, const json_t *merges) {
    size_t i;
    json_t *j;
    PN_CHECK(json_is_array(merges), PN_FORMAT, "%s: model.merges is not a list", t->source);
    PN_TRY(pn_tok_reserve_merges(t, (int64_t)json_array_size(merges)));
    json_array_foreach(merges, i, j) {
        if (json_is_string(j)) {
            const char *text = json_string_value(j), *space = strchr(text, ' ');
            PN_CHECK(space && !strchr(space + 1, ' '), PN_FORMAT,
                     "%s: model.merges[%zu] \"%.80s\" is not two tokens with a space between them", t->source, i, text);
            PN_TRY(pn_tok_add_merge(t, text, (size_t)(space - text), space + 1,
                                    json_string_length(j) - (size_t)(space + 1 - text)));
        } else {
            const json_t *a = json_array_get(j, 0), *b = json_array_get(j, 1);
            PN_CHECK(json_array_size(j) == 2 && json_is_string(a) && json_is_string(b), PN_FORMAT,
                     "%s: model.merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]", t->source, i);
            PN_TRY(pn_tok_add_merge(t, json_string_value(a), json_string_length(a), json_string_value(b),
                                    json_string_length(b)));
        }
    }
    return PN_OK;
}

static pn_status build(pn_tokenizer *t, json_t *root) {
    const json_t *model = json_object_get(root, "model");
    const char *token;
    json_t *id, *vocab = json_object_get(model, "vocab");
    PN_TRY(check_model(t, model));
    PN_TRY(get_bool(t, model, "model", "ignore_merges", false, &t->ignore_merges));
    PN_TRY(read_normalizer(t, json_object_get(root, "normalizer"), 0));
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    if (!is_null(pre)) PN_TRY(read_pre_tokenizer(t, pre, true));
    PN_CHECK(t->n_steps > 0 && t->step[t->n_steps - 1].kind == PN_TOK_BYTE_LEVEL, PN_UNSUPPORTED,
             "%s: pre_tokenizer does not end in ByteLevel: only byte-level BPE is supported", t->source);
    PN_TRY(read_decoder(t, json_object_get(root, "decoder")));
    json_object_foreach(vocab, token, id) PN_TRY(pn_tok_set_token(t, json_integer_value(id), token, strlen(token)));
    PN_TRY(read_added(t, json_object_get(root, "added_tokens")));
    PN_TRY(pn_tok_finish_vocab(t));
    PN_TRY(read_merges(t, json_object_get(model, "merges")));
    PN_TRY(read_post_processor(t, json_object_get(root, "post_processor"), 0));
    return PN_OK;
}

/* ---- BOS, EOS, PAD ---- */
static const struct {
    const char *token_key, *id_key, *usual[6];
} roles[] = {
    { "bos_token", "bos_token_id", { NULL } },
    { "eos_token", "eos_token_id", { "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", NULL } },
    { "pad_token", "pad_token_id", { "<|pad|>", "<pad>", "[PAD]", NULL } },
};

static int32_t *role(pn_tokenizer *t, int i) {
    return i == 0 ? &t->bos : i == 1 ? &t->eos : &t->pad;
}

/* Roles that this file names and that no file before it named. A token is "text" or {"content": "text"}; config.json
 * has ids, of which the first of a list counts. */
static pn_status read_roles(pn_tokenizer *t, const char *path, bool known[3]) {
    struct stat st;
    if (stat(path, &st) != 0) return PN_OK;
    json_t *root;
    PN_TRY(read_json(path, &root));
    pn_status s = PN_OK;
    for (int i = 0; i < 3 && s == PN_OK; i++) {
        json_t *token = json_object_get(root, roles[i].token_key), *id = json_object_get(root, roles[i].id_key);
        if (json_is_object(token)) token = json_object_get(token, "content");
        if (json_is_array(id)) id = json_array_get(id, 0);
        int64_t found = -1;
        if (known[i] || (!json_is_string(token) && !json_is_integer(id))) continue;
        if (json_is_string(token))
            found = pn_tokenizer_find(t, json_string_value(token));
        else
            found = json_integer_value(id);
        bool is_token = found >= 0 && found < t->n_ids && t->token[found].state != PN_TOK_HOLE;
        if (!is_token && !json_is_string(token)) continue;
        if (!is_token)
            s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: %s \"%.80s\" is not a token of %s", path,
                           roles[i].token_key, json_string_value(token), t->source);
        else
            *role(t, i) = (int32_t)found;
        known[i] = true;
    }
    json_decref(root);
    return s;
}

static pn_status find_roles(pn_tokenizer *t, const char *dir) {
    static const char *const files[] = { "tokenizer_config.json", "special_tokens_map.json", "config.json" };
    bool known[3] = { t->bos >= 0, t->eos >= 0, false };
    for (size_t i = 0; dir && i < sizeof files / sizeof *files; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", dir, files[i]) >= (int)sizeof path) continue;
        PN_TRY(read_roles(t, path, known));
    }
    for (int i = 0; i < 3; i++)
        for (int k = 0; !known[i] && roles[i].usual[k]; k++) {
            int32_t id = pn_tokenizer_find(t, roles[i].usual[k]);
            if (id < 0 || !t->token[id].special) continue;
            *role(t, i) = id;
            known[i] = true;
        }
    return PN_OK;
}

/* ---- open ---- */
/* dir: where files that name BOS, EOS and PAD may be; NULL: nowhere. */
static pn_status from_root(const char *path, const char *dir, json_t *root, pn_tokenizer **out) {
    pn_tokenizer name_only = { .source = (char *)path };
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    const json_t *added = json_object_get(root, "added_tokens");
    int64_t n_ids = 0;
    PN_CHECK(json_is_object(vocab), PN_FORMAT, "%s: has no model.vocab: is this a tokenizer.json?", path);
    PN_CHECK(is_null(added) || json_is_array(added), PN_FORMAT, "%s: added_tokens is not a list", path);
    PN_TRY(count_ids(&name_only, vocab, added, &n_ids));
    pn_tokenizer *t;
    PN_TRY(pn_tok_create(path, n_ids, &t));
    pn_status s = build(t, root);
    if (s == PN_OK) s = find_roles(t, dir);
    if (s == PN_OK) s = pn_tok_finish(t);
    if (s != PN_OK) {
        pn_tokenizer_destroy(&t);
        return pn_trace_at(__FILE__, __LINE__, s, "build");
    }
    *out = t;
    return PN_OK;
}

pn_status pn_tokenizer_open(const char *dir_or_file, pn_tokenizer **out) {
    *out = NULL;
    struct stat st;
    PN_CHECK(stat(dir_or_file, &st) == 0, PN_IO, "%s: %s", dir_or_file, strerror(errno));
    char path[PATH_MAX], dir[PATH_MAX];
    bool is_dir = S_ISDIR(st.st_mode);
    PN_CHECK(snprintf(path, sizeof path, "%s%s", dir_or_file, is_dir ? "/tokenizer.json" : "") < (int)sizeof path,
             PN_IO, "%.100s...: the path is too long", dir_or_file);
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = '\0';
    else
        snprintf(dir, sizeof dir, ".");
    PN_CHECK(!is_dir || stat(path, &st) == 0, PN_IO, "%s: the directory has no tokenizer.json", dir_or_file);
    json_t *root;
    PN_TRY(read_json(path, &root));
    pn_status s = from_root(path, dir, root, out);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_tokenizer_parse(const char *name, const char *text, size_t n_bytes, pn_tokenizer **out) {
    *out = NULL;
    json_t *root;
    PN_TRY(parse_json(name, text, n_bytes, &root));
    pn_status s = from_root(name, NULL, root, out);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}
