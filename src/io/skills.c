#include "skills.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

const char *const pn_split_names[] = {
    [PN_SPLIT_TRAIN] = "train",
    [PN_SPLIT_SEARCH] = "search",
    [PN_SPLIT_HELDOUT] = "heldout",
    [PN_SPLITS] = NULL,
};

/* ---- registry ---- */

static const pn_skill_type *const types[] = {
#define PN_SKILL(name) &pn_skill_##name,
#include "skills.def"
#undef PN_SKILL
    NULL,
};
static const char *const names[] = {
#define PN_SKILL(name) #name,
#include "skills.def"
#undef PN_SKILL
    NULL,
};
enum { TYPES = sizeof types / sizeof *types - 1 };

const pn_skill_type *const *pn_skill_types(int *n) {
    *n = TYPES;
    return types;
}

const char *const *pn_skill_names(int *n) {
    *n = TYPES;
    return names;
}

const pn_skill_type *pn_skill_find(const char *name) {
    for (int i = 0; i < TYPES; i++)
        if (!strcmp(types[i]->name, name)) return types[i];
    return NULL;
}

/* ---- a skill ---- */

pn_status pn_skill_create(const pn_skill_type *type, const void *options, const char *where, pn_skill **out) {
    *out = NULL;
    PN_ASSERT(type->options_bytes <= PN_SKILL_OPTIONS_BYTES);
    pn_skill *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "%s: out of memory", where);
    s->type = type;
    while (types[s->index] != type) s->index++;
    pn_status status;
    if (options)
        memcpy(s->options, options, type->options_bytes);
    else
        PN_TRY_GOTO(status, pn_options_defaults(type->options, s->options), fail);
    if (type->data_bytes) {
        s->data = calloc(1, type->data_bytes);
        if (!s->data) PN_FAIL_GOTO(status, PN_MEMORY, fail, "%s: out of memory", where);
    }
    if (type->setup) PN_TRY_GOTO(status, type->setup(s, where), fail);
    *out = s;
    return PN_OK;
fail:
    pn_skill_destroy(&s);
    return status;
}

void pn_skill_destroy(pn_skill **s) {
    if (!*s) return;
    free((*s)->data);
    free(*s);
    *s = NULL;
}

/* ---- text ---- */

/* Makes *array hold `need` elements; false and a note when memory ran out. */
static bool grow(pn_skill_doc *t, void *array, int64_t *cap, int64_t need, size_t element_bytes) {
    if (need <= *cap) return true;
    void *old, *fresh;
    memcpy(&old, array, sizeof old);
    int64_t larger = need + *cap / 2 + 16;
    fresh = realloc(old, (size_t)larger * element_bytes);
    if (!fresh) {
        t->out_of_memory = true;
        return false;
    }
    memcpy(array, &fresh, sizeof fresh);
    *cap = larger;
    return true;
}

void pn_skill_put(pn_skill_doc *t, const char *bytes, int64_t n, pn_token_class c) {
    if (n > pn_skill_room(t)) n = pn_skill_room(t);
    int64_t cap = t->cap;
    if (n <= 0 || !grow(t, &t->byte_class, &cap, t->n + n, 1) || !grow(t, &t->bytes, &t->cap, t->n + n, 1)) return;
    memcpy(t->bytes + t->n, bytes, (size_t)n);
    memset(t->byte_class + t->n, (int)c, (size_t)n);
    t->n += n;
}

void pn_skill_puts(pn_skill_doc *t, const char *text, pn_token_class c) {
    pn_skill_put(t, text, (int64_t)strlen(text), c);
}

void pn_skill_put_answer(pn_skill_doc *t, const char *bytes, int64_t n, int64_t stated, double n_possible) {
    const int64_t begin = t->n;
    pn_skill_put(t, bytes, n, PN_CLASS_ANSWER);
    if (t->n - begin < n) return;
    if (!grow(t, &t->answers, &t->cap_answers, t->n_answers + 1, sizeof *t->answers)) return;
    t->answers[t->n_answers++] = (pn_skill_answer){
        .begin = begin, .end = t->n, .stated = stated, .n_possible = n_possible, .first_choice = -1, .gold = -1
    };
}

void pn_skill_put_choice(pn_skill_doc *t, const char *choice, bool gold) {
    const int64_t n = (int64_t)strlen(choice) + 1;
    if (t->out_of_memory || !grow(t, &t->choices, &t->cap_choices, t->choices_bytes + n, 1)) return;
    memcpy(t->choices + t->choices_bytes, choice, (size_t)n);
    t->choices_bytes += n;
    pn_skill_answer *a = &t->answers[t->n_answers - 1];
    if (a->first_choice < 0) a->first_choice = t->n_choices;
    if (gold) a->gold = a->n_choices;
    a->n_choices++;
    t->n_choices++;
}

void pn_skill_doc_free(pn_skill_doc *t) {
    free(t->bytes);
    free(t->byte_class);
    free(t->answers);
    free(t->choices);
    *t = (pn_skill_doc){ 0 };
}

/* Which split a document of this text may be in: 14 of 16 hashes train, one search, one held out. */
static pn_split split_of(const pn_skill_doc *t) {
    switch (XXH3_64bits(t->bytes, (size_t)t->n) % 16) {
    case 0: return PN_SPLIT_HELDOUT;
    case 1: return PN_SPLIT_SEARCH;
    default: return PN_SPLIT_TRAIN;
    }
}

pn_status pn_skill_write(const pn_skill *s, uint64_t seed, pn_split split, uint64_t index, int64_t n_bytes,
                         pn_skill_doc *out) {
    enum { TRIES = 4096 }; /* (15/16)^4096: missing a split by chance does not happen */
    const int64_t least = s->type->least_bytes(s);
    PN_CHECK(
        n_bytes >= least, PN_USAGE,
        "skill %s: a document needs at least %lld bytes and has room for %lld; raise the document or sequence length",
        s->type->name, (long long)least, (long long)n_bytes);
    char stream[64];
    snprintf(stream, sizeof stream, "skill/%s/%s", s->type->name, pn_split_names[split]);
    pn_rng rng;
    pn_rng_stream(seed, stream, index, &rng);
    for (int i = 0; i < TRIES; i++) {
        out->n = out->n_answers = out->n_choices = out->choices_bytes = 0;
        out->room = n_bytes;
        s->type->write(s, split, &rng, out);
        PN_CHECK(!out->out_of_memory, PN_MEMORY, "skill %s: out of memory", s->type->name);
        if (split_of(out) == split) return PN_OK;
    }
    PN_FAIL(
        PN_USAGE,
        "skill %s: its options allow too few different documents of %lld bytes to keep training and held-out documents "
        "apart; make documents longer or their alphabets larger",
        s->type->name, (long long)n_bytes);
}

/* ---- tokens ---- */

pn_doc_frame pn_doc_frame_default(const pn_tokenizer *t) {
    int32_t begin = pn_tokenizer_bos(t);
    return (pn_doc_frame){ .begin = begin >= 0 ? begin : pn_tokenizer_eos(t), .end = -1 };
}

/* A place where text is cut before encoding, and the token it became. */
typedef struct border {
    int64_t byte, token;
} border;

static int by_byte(const void *a, const void *b) {
    const border *x = a, *y = b;
    return (x->byte > y->byte) - (x->byte < y->byte);
}

/* Every beginning and end of an answer and of what states it, in order, each once. */
static pn_status find_borders(const pn_skill_doc *t, border **out, int64_t *n_out) {
    border *b = malloc((size_t)(3 * t->n_answers + 2) * sizeof *b);
    PN_CHECK(b, PN_MEMORY, "out of memory for a document");
    int64_t n = 0, kept = 0;
    b[n++] = (border){ 0, 0 };
    for (int64_t i = 0; i < t->n_answers; i++) {
        const pn_skill_answer *a = &t->answers[i];
        b[n++] = (border){ a->begin, 0 };
        b[n++] = (border){ a->end, 0 };
        if (a->stated >= 0) b[n++] = (border){ a->stated, 0 };
    }
    b[n++] = (border){ t->n, 0 };
    qsort(b, (size_t)n, sizeof *b, by_byte);
    for (int64_t i = 0; i < n; i++)
        if (kept == 0 || b[i].byte != b[kept - 1].byte) b[kept++] = b[i];
    *out = b;
    *n_out = kept;
    return PN_OK;
}

static int64_t token_at(const border *b, int64_t n, int64_t byte) {
    const border *hit = bsearch(&(border){ byte, 0 }, b, (size_t)n, sizeof *b, by_byte);
    PN_ASSERT(hit);
    return hit->token;
}

/* A token is noise if any of its bytes is, an answer if all are. Where tokens do not spell the piece byte by byte (the
 * tokenizer normalised it), they are all as noisy as its noisiest byte. */
static void classify(const pn_tokenizer *t, const pn_ids *ids, const uint8_t *byte_class, int64_t n_bytes,
                     uint8_t *token_class) {
    int64_t spelled = 0;
    for (int64_t i = 0; i < ids->n; i++) {
        size_t n;
        (void)pn_tokenizer_token(t, ids->ids[i], &n);
        spelled += (int64_t)n;
    }
    const bool exact = spelled == n_bytes;
    for (int64_t i = 0, at = 0; i < ids->n; i++) {
        size_t n;
        (void)pn_tokenizer_token(t, ids->ids[i], &n);
        const int64_t from = exact ? at : 0, to = exact ? at + (int64_t)n : n_bytes;
        uint8_t least = PN_CLASS_ANSWER;
        for (int64_t k = from; k < to; k++)
            if (byte_class[k] < least) least = byte_class[k];
        token_class[i] = least;
        at += (int64_t)n;
    }
}

static pn_status encode_piece(const pn_tokenizer *t, const pn_skill_doc *text, int64_t begin, int64_t end, pn_ids *ids,
                              pn_token_doc *out) {
    ids->n = 0;
    PN_TRY(pn_tokenizer_encode(t, text->bytes + begin, (size_t)(end - begin), false, ids));
    const int64_t at = out->n;
    PN_TRY(pn_token_doc_append(out, ids->ids, ids->n, PN_CLASS_TEXT));
    classify(t, ids, text->byte_class + begin, end - begin, out->token_class + at);
    return PN_OK;
}

static pn_status add_choices(const pn_tokenizer *t, const pn_skill_doc *text, pn_ids *ids, pn_token_doc *out) {
    const char *choice = text->choices;
    for (int64_t i = 0; i < text->n_choices; i++, choice += strlen(choice) + 1) {
        ids->n = 0;
        PN_TRY(pn_tokenizer_encode(t, choice, strlen(choice), false, ids));
        PN_TRY(pn_token_doc_choice(out, ids->ids, ids->n));
    }
    return PN_OK;
}

static pn_status add_answers(const pn_skill *s, const pn_skill_doc *text, const border *b, int64_t n_borders,
                             pn_token_doc *out) {
    for (int64_t i = 0; i < text->n_answers; i++) {
        const pn_skill_answer *a = &text->answers[i];
        const int64_t begin = token_at(b, n_borders, a->begin);
        const bool counted = a->n_possible >= 1 && a->n_possible <= INT32_MAX;
        PN_TRY(pn_token_doc_answer(
            out, &(pn_answer){ .begin = begin,
                               .end = token_at(b, n_borders, a->end),
                               .distance = a->stated < 0 ? 0 : begin - token_at(b, n_borders, a->stated),
                               .skill = s->index,
                               .gold = a->gold,
                               .choice = a->first_choice,
                               .n_choices = a->n_choices ? a->n_choices
                                            : counted    ? (int32_t)a->n_possible
                                                         : 0,
                               .chance = a->n_choices         ? 1.0 / a->n_choices
                                         : a->n_possible >= 1 ? 1.0 / a->n_possible
                                                              : 0 }));
    }
    return PN_OK;
}

static pn_status encode(const pn_skill *s, const pn_tokenizer *t, pn_doc_frame frame, const pn_skill_doc *text,
                        pn_token_doc *out) {
    border *b = NULL;
    int64_t n = 0;
    pn_ids ids = { 0 };
    pn_status status;
    pn_token_doc_clear(out);
    PN_TRY_GOTO(status, find_borders(text, &b, &n), done);
    if (frame.begin >= 0) PN_TRY_GOTO(status, pn_token_doc_append(out, &frame.begin, 1, PN_CLASS_TEXT), done);
    b[0].token = out->n;
    for (int64_t i = 0; i + 1 < n; i++) {
        PN_TRY_GOTO(status, encode_piece(t, text, b[i].byte, b[i + 1].byte, &ids, out), done);
        b[i + 1].token = out->n;
    }
    if (frame.end >= 0) PN_TRY_GOTO(status, pn_token_doc_append(out, &frame.end, 1, PN_CLASS_TEXT), done);
    PN_TRY_GOTO(status, add_answers(s, text, b, n, out), done);
    PN_TRY_GOTO(status, add_choices(t, text, &ids, out), done);
done:
    pn_ids_free(&ids);
    free(b);
    return status;
}

pn_status pn_skill_document(const pn_skill *s, const pn_tokenizer *t, pn_doc_frame frame, uint64_t seed, pn_split split,
                            uint64_t index, int64_t n_bytes, pn_token_doc *out) {
    pn_skill_doc text = { 0 };
    pn_status status = pn_skill_write(s, seed, split, index, n_bytes, &text);
    if (!status) status = encode(s, t, frame, &text, out);
    pn_skill_doc_free(&text);
    return status;
}

uint64_t pn_skill_hash(const pn_skill *s) {
    XXH3_state_t *h = XXH3_createState();
    PN_ASSERT(h);
    XXH3_64bits_reset(h);
    XXH3_64bits_update(h, s->type->name, strlen(s->type->name) + 1);
    pn_buf text = { 0 };
    for (const pn_option *o = s->type->options; o && o->name; o++) {
        pn_buf_clear(&text);
        pn_option_text(o, s->options, &text);
        XXH3_64bits_update(h, o->name, strlen(o->name) + 1);
        XXH3_64bits_update(h, pn_buf_string(&text), text.n_bytes + 1);
    }
    PN_ASSERT(!text.failed);
    pn_buf_free(&text);
    uint64_t hash = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return hash;
}
