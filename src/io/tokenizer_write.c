/* Writes tokenizer.json as Hugging Face tokenizers reads it, and the tokenizer_config.json that names BOS, EOS and PAD.
 */
#include "tokenizer_internal.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Every constructor here steals its arguments and gives NULL when memory ran out, as jansson's own do; one check at the
 * end finds it. */
static json_t *byte_level(bool add_prefix_space, bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", add_prefix_space, "trim_offsets",
                     1, "use_regex", use_regex);
}

static json_t *text_of(const pn_tokenizer *t, int32_t id) {
    const pn_tok_token *k = &t->token[id];
    return json_stringn(t->text.data + k->text_at, k->n_text);
}

static json_t *one_step(const pn_tok_step *s) {
    switch (s->kind) {
    case PN_TOK_DIGITS: return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", s->individual);
    case PN_TOK_BYTE_LEVEL: return byte_level(s->add_prefix_space, s->use_regex);
    case PN_TOK_SPLIT: break;
    }
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", s->literal ? "String" : "Regex",
                     s->pattern, "behavior", "Isolated", "invert", 0);
}

static json_t *steps(const pn_tokenizer *t) {
    if (t->n_steps == 1) return one_step(&t->step[0]);
    json_t *list = json_array();
    for (int i = 0; i < t->n_steps; i++)
        if (json_array_append_new(list, one_step(&t->step[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static json_t *added_token(const pn_tokenizer *t, const pn_tok_added *r) {
    return json_pack("{s:i, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (int)r->id, "content", text_of(t, r->id),
                     "single_word", r->single_word, "lstrip", r->lstrip, "rstrip", r->rstrip, "normalized",
                     r->normalized, "special", t->token[r->id].special);
}

static int by_id(const void *a, const void *b) {
    const pn_tok_added *const *x = a, *const *y = b;
    return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

/* In id order, which is the order in which Hugging Face gives ids to those outside the model's vocabulary. */
static json_t *added_tokens(const pn_tokenizer *t) {
    int64_t n = 0;
    const pn_tok_added **row = malloc((size_t)(t->raw.n + t->normal.n + 1) * sizeof *row);
    json_t *list = row ? json_array() : NULL;
    for (int64_t i = 0; row && i < t->raw.n; i++) row[n++] = &t->raw.row[i];
    for (int64_t i = 0; row && i < t->normal.n; i++) row[n++] = &t->normal.row[i];
    if (n > 0) qsort(row, (size_t)n, sizeof *row, by_id);
    for (int64_t i = 0; list && i < n; i++)
        if (json_array_append_new(list, added_token(t, row[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    free(row);
    return list;
}

static json_t *special_piece(const pn_tokenizer *t, int32_t id) {
    return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", text_of(t, id), "type_id", 0);
}

/* The template that adds BOS and EOS, or null. */
static json_t *post_processor(const pn_tokenizer *t) {
    if (!t->add_bos && !t->add_eos) return json_null();
    json_t *single = json_array(), *pair = json_array(), *tokens = json_object();
    int bad = 0;
    for (int part = 0; part < 2; part++) {
        const char *name = part == 0 ? "A" : "B";
        for (int list = part; list < 2; list++) { /* part A is in both lists, part B in pair only */
            json_t *to = list == 0 ? single : pair;
            if (t->add_bos) bad |= json_array_append_new(to, special_piece(t, t->bos));
            bad |= json_array_append_new(to, json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", part));
            if (t->add_eos) bad |= json_array_append_new(to, special_piece(t, t->eos));
        }
    }
    const int32_t ids[] = { t->add_bos ? t->bos : -1, t->add_eos ? t->eos : -1 };
    for (int i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        char *text = strndup(t->text.data + t->token[ids[i]].text_at, t->token[ids[i]].n_text);
        bad |= json_object_set_new(tokens, text,
                                   json_pack("{s:o, s:[i], s:[o]}", "id", text_of(t, ids[i]), "ids", (int)ids[i],
                                             "tokens", text_of(t, ids[i])));
        free(text);
    }
    json_t *out = json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                            "special_tokens", tokens);
    if (bad && out) {
        json_decref(out);
        out = NULL;
    }
    return out;
}

static json_t *vocabulary(const pn_tokenizer *t) {
    json_t *vocab = json_object();
    pn_tok_arena key = { 0 };
    for (int32_t id = 0; vocab && id < t->n_ids; id++) {
        const pn_tok_token *k = &t->token[id];
        if (!k->in_model) continue;
        key.n = 0;
        if (pn_tok_append(&key, t->text.data + k->text_at, k->n_text) != PN_OK || pn_tok_append(&key, "", 1) != PN_OK ||
            json_object_set_new(vocab, key.data, json_integer(id)) != 0) {
            json_decref(vocab);
            vocab = NULL;
        }
    }
    free(key.data);
    return vocab;
}

static json_t *merges(const pn_tokenizer *t) {
    json_t *list = json_array();
    for (int64_t i = 0; i < t->n_merges; i++) {
        int32_t a = (int32_t)(t->merge_order[i] >> 32), b = (int32_t)(uint32_t)t->merge_order[i];
        if (json_array_append_new(list, json_pack("[o, o]", text_of(t, a), text_of(t, b))) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *whole(const pn_tokenizer *t) {
    json_t *normalizer = t->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
                  "continuing_subword_prefix", "", "end_of_word_suffix", "", "fuse_unk", 0, "byte_fallback", 0,
                  "ignore_merges", t->ignore_merges, "vocab", vocabulary(t), "merges", merges(t));
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                     "added_tokens", added_tokens(t), "normalizer", normalizer, "pre_tokenizer", steps(t),
                     "post_processor", post_processor(t), "decoder", byte_level(false, true), "model", model);
}

/* Takes root. Written aside and renamed. */
static pn_status write_file(json_t *root, const char *path) {
    char aside[PATH_MAX];
    if (!root) PN_FAIL(PN_MEMORY, "%s: no memory to write it", path);
    if (snprintf(aside, sizeof aside, "%s.tmp", path) >= (int)sizeof aside) {
        json_decref(root);
        PN_FAIL(PN_IO, "%.100s...: the path is too long", path);
    }
    FILE *f = fopen(aside, "wb");
    int error = f ? 0 : errno;
    if (f) {
        if (json_dumpf(root, f, JSON_INDENT(2)) != 0 || fputc('\n', f) == EOF || fflush(f) != 0 ||
            fsync(fileno(f)) != 0)
            error = errno ? errno : EIO;
        if (fclose(f) != 0 && !error) error = errno;
        if (!error && rename(aside, path) != 0) error = errno;
        if (error) unlink(aside);
    }
    json_decref(root);
    PN_CHECK(!error, PN_IO, "%s: cannot be written: %s", path, strerror(error));
    return PN_OK;
}

pn_status pn_tokenizer_write_json(const pn_tokenizer *t, const char *path) {
    PN_TRY(write_file(whole(t), path));
    return PN_OK;
}

pn_status pn_tokenizer_write_dir(const pn_tokenizer *t, const char *dir) {
    char path[PATH_MAX];
    PN_CHECK(snprintf(path, sizeof path, "%s/tokenizer_config.json", dir) < (int)sizeof path, PN_IO,
             "%.100s...: the path is too long", dir);
    json_t *config =
        json_pack("{s:s, s:b, s:b, s:o, s:o, s:o, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "add_bos_token",
                  t->add_bos, "add_eos_token", t->add_eos, "bos_token", t->bos >= 0 ? text_of(t, t->bos) : json_null(),
                  "eos_token", t->eos >= 0 ? text_of(t, t->eos) : json_null(), "pad_token",
                  t->pad >= 0 ? text_of(t, t->pad) : json_null(), "clean_up_tokenization_spaces", 0);
    PN_TRY(write_file(config, path));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    PN_TRY(pn_tokenizer_write_json(t, path));
    return PN_OK;
}
