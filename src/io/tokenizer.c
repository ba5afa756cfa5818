/* The tokenizer object: its vocabulary, merges and steps as the readers (tokenizer_json.c, tokenizer_parts.c) build
 * them, with every claim of a file checked here, once for all readers. */
#include "tokenizer_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

pn_status pn_tok_append(pn_tok_arena *a, const char *bytes, size_t n) {
    if (n > a->cap - a->n) {
        size_t cap = a->cap ? a->cap : 64;
        while (cap - a->n < n) {
            PN_CHECK(cap <= SIZE_MAX / 2, PN_MEMORY, "a text of %zu bytes does not fit in memory", n);
            cap *= 2;
        }
        char *grown = realloc(a->data, cap);
        PN_CHECK(grown, PN_MEMORY, "no memory for %zu bytes of text", cap);
        a->data = grown;
        a->cap = cap;
    }
    if (n > 0) memcpy(a->data + a->n, bytes, n);
    a->n += n;
    return PN_OK;
}

const char *pn_tok_show(const char *text, size_t n, char buffer[128]) {
    size_t out = 0, i = 0;
    for (; i < n && out < 100; i++) {
        unsigned char c = (unsigned char)text[i];
        if (iscntrl(c) || c == '"')
            out += (size_t)snprintf(buffer + out, 128 - out, "\\x%02x", c);
        else
            buffer[out++] = (char)c;
    }
    while (i < n && out > 0 && ((unsigned char)text[i] & 0xc0) == 0x80) { /* not in the middle of a character */
        if (((unsigned char)buffer[--out] & 0xc0) != 0x80) break;
    }
    if (i < n) out += (size_t)snprintf(buffer + out, 128 - out, "...");
    buffer[out] = '\0';
    return buffer;
}

/* ---- ids ---- */
pn_status pn_ids_reserve(pn_ids *ids, int64_t n_more) {
    PN_CHECK(n_more >= 0 && n_more <= INT64_MAX / 16 - ids->n, PN_MEMORY, "%lld more ids do not fit in memory",
             (long long)n_more);
    if (ids->cap - ids->n >= n_more) return PN_OK;
    int64_t cap = ids->cap + ids->cap / 2 + 64;
    if (cap < ids->n + n_more) cap = ids->n + n_more;
    int32_t *grown = realloc(ids->ids, (size_t)cap * sizeof *grown);
    PN_CHECK(grown, PN_MEMORY, "no memory for %lld token ids", (long long)cap);
    ids->ids = grown;
    ids->cap = cap;
    return PN_OK;
}

pn_status pn_ids_push(pn_ids *ids, int32_t id) {
    PN_TRY(pn_ids_reserve(ids, 1));
    ids->ids[ids->n++] = id;
    return PN_OK;
}

void pn_ids_free(pn_ids *ids) {
    if (!ids) return;
    free(ids->ids);
    *ids = (pn_ids){ 0 };
}

/* ---- making ---- */
static int64_t power_of_two(int64_t at_least) {
    int64_t p = 16;
    while (p < at_least) p *= 2;
    return p;
}

pn_status pn_tok_create(const char *source, int64_t n_ids, pn_tokenizer **out) {
    *out = NULL;
    PN_CHECK(n_ids >= 1 && n_ids <= PN_TOK_MAX_IDS, PN_FORMAT,
             "%s: the highest token id + 1 is %lld; 1 to %d is accepted", source, (long long)n_ids, PN_TOK_MAX_IDS);
    pn_tokenizer *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "no memory for a tokenizer");
    t->bos = t->eos = t->pad = -1;
    t->n_ids = n_ids;
    t->text_slots = power_of_two(2 * n_ids);
    t->source = strdup(source);
    t->token = calloc((size_t)n_ids, sizeof *t->token);
    t->by_text = malloc((size_t)t->text_slots * sizeof *t->by_text);
    t->pool = calloc(1, sizeof *t->pool);
    if (!t->source || !t->token || !t->by_text || !t->pool) {
        free(t->pool);
        t->pool = NULL;
        pn_tokenizer_destroy(&t);
        PN_FAIL(PN_MEMORY, "no memory for a vocabulary of %lld tokens", (long long)n_ids);
    }
    pthread_mutex_init(&t->pool->lock, NULL);
    memset(t->by_text, 0xff, (size_t)t->text_slots * sizeof *t->by_text);
    *out = t;
    return PN_OK;
}

void pn_tokenizer_destroy(pn_tokenizer **tokenizer) {
    pn_tokenizer *t = tokenizer ? *tokenizer : NULL;
    if (!t) return;
    if (t->pool) {
        while (t->pool->idle) {
            pn_tok_encoder *e = t->pool->idle;
            t->pool->idle = e->next;
            pn_tok_encoder_destroy(&e);
        }
        pthread_mutex_destroy(&t->pool->lock);
        free(t->pool);
    }
    for (int i = 0; i < t->n_steps; i++) {
        free(t->step[i].pattern);
        pcre2_code_free(t->step[i].code);
    }
    pn_tok_added_free(&t->raw);
    pn_tok_added_free(&t->normal);
    free(t->merge);
    free(t->merge_order);
    free(t->by_text);
    free(t->text.data);
    free(t->bytes.data);
    free(t->token);
    free(t->source);
    free(t);
    *tokenizer = NULL;
}

/* ---- vocabulary ---- */
static int32_t *text_slot(const pn_tokenizer *t, const char *text, size_t n) {
    uint64_t mask = (uint64_t)t->text_slots - 1;
    for (uint64_t i = XXH3_64bits(text, n) & mask;; i = (i + 1) & mask) {
        int32_t id = t->by_text[i];
        if (id < 0) return &t->by_text[i];
        const pn_tok_token *k = &t->token[id];
        if (k->n_text == n && memcmp(t->text.data + k->text_at, text, n) == 0) return &t->by_text[i];
    }
}

int32_t pn_tok_lookup(const pn_tokenizer *t, const char *text, size_t n_bytes) {
    return *text_slot(t, text, n_bytes);
}

static pn_status set_token(pn_tokenizer *t, int64_t id, const char *text, size_t n, pn_tok_state state) {
    char show[128];
    PN_CHECK(n >= 1 && n <= PN_TOK_MAX_TOKEN_BYTES, PN_FORMAT, "%s: token %lld is %zu bytes long; 1 to %d is accepted",
             t->source, (long long)id, n, PN_TOK_MAX_TOKEN_BYTES);
    PN_CHECK(pn_text_is_utf8(text, n, NULL), PN_FORMAT, "%s: token %lld is not valid UTF-8", t->source, (long long)id);
    PN_CHECK(id >= 0 && id < t->n_ids, PN_FORMAT, "%s: token \"%s\" has id %lld; 0 to %lld is accepted", t->source,
             pn_tok_show(text, n, show), (long long)id, (long long)t->n_ids - 1);
    pn_tok_token *k = &t->token[id];
    if (k->state != PN_TOK_HOLE) {
        char other[128];
        PN_FAIL(PN_FORMAT, "%s: tokens \"%s\" and \"%s\" have the same id %lld", t->source,
                pn_tok_show(t->text.data + k->text_at, k->n_text, other), pn_tok_show(text, n, show), (long long)id);
    }
    int32_t *slot = text_slot(t, text, n);
    PN_CHECK(*slot < 0, PN_FORMAT, "%s: token \"%s\" stands there twice, as ids %d and %lld", t->source,
             pn_tok_show(text, n, show), *slot, (long long)id);
    PN_CHECK(t->text.n <= UINT32_MAX - n, PN_FORMAT, "%s: the vocabulary's text is 4 GiB or more", t->source);
    *k = (pn_tok_token){ .text_at = (uint32_t)t->text.n, .n_text = (uint32_t)n, .state = (uint8_t)state };
    PN_TRY(pn_tok_append(&t->text, text, n));
    *slot = (int32_t)id;
    return PN_OK;
}

pn_status pn_tok_set_token(pn_tokenizer *t, int64_t id, const char *text, size_t n_bytes) {
    PN_TRY(set_token(t, id, text, n_bytes, PN_TOK_ORDINARY));
    t->token[id].in_model = true;
    return PN_OK;
}

pn_status pn_tok_set_added(pn_tokenizer *t, const char *text, size_t n_bytes, bool special, const pn_tok_added *row) {
    char show[128];
    int32_t known = pn_tok_lookup(t, text, n_bytes);
    if (known < 0) {
        PN_TRY(set_token(t, row->id, text, n_bytes, PN_TOK_ADDED));
    } else {
        PN_CHECK(known == row->id, PN_FORMAT, "%s: added token \"%s\" has id %d, and %d in the vocabulary", t->source,
                 pn_tok_show(text, n_bytes, show), row->id, known);
        PN_CHECK(t->token[known].state == PN_TOK_ORDINARY, PN_FORMAT, "%s: token \"%s\" is added twice", t->source,
                 pn_tok_show(text, n_bytes, show));
        t->token[known].state = PN_TOK_ADDED;
    }
    t->token[row->id].special = special;
    if (!row->normalized || !t->nfc) {
        PN_TRY(pn_tok_added_push(row->normalized ? &t->normal : &t->raw, row, text, n_bytes));
        return PN_OK;
    }
    pn_tok_arena buffer = { 0 };
    const char *match;
    size_t n_match;
    pn_status s = pn_tok_nfc(text, n_bytes, &buffer, &match, &n_match);
    if (s == PN_OK) s = pn_tok_added_push(&t->normal, row, match, n_match);
    free(buffer.data);
    PN_TRY(s);
    return PN_OK;
}

/* The bytes of an ordinary token, character by character through the byte alphabet. */
static pn_status spell_out(pn_tokenizer *t, int64_t id) {
    pn_tok_token *k = &t->token[id];
    for (uint32_t i = 0; i < k->n_text;) {
        uint32_t c;
        i += (uint32_t)pn_tok_get_utf8(t->text.data + k->text_at + i, &c);
        int b = pn_tok_char_to_byte(c);
        char show[128];
        PN_CHECK(b >= 0, PN_FORMAT,
                 "%s: token %lld \"%s\" has the character U+%04X, which is not in the byte alphabet: this is not a "
                 "byte-level vocabulary",
                 t->source, (long long)id, pn_tok_show(t->text.data + k->text_at, k->n_text, show), c);
        char byte = (char)b;
        PN_TRY(pn_tok_append(&t->bytes, &byte, 1));
    }
    return PN_OK;
}

pn_status pn_tok_finish_vocab(pn_tokenizer *t) {
    for (int b = 0; b < 256; b++) t->byte_id[b] = -1;
    for (int64_t id = 0; id < t->n_ids; id++) {
        pn_tok_token *k = &t->token[id];
        if (k->state == PN_TOK_HOLE) continue;
        k->bytes_at = (uint32_t)t->bytes.n;
        if (k->state == PN_TOK_ORDINARY)
            PN_TRY(spell_out(t, id));
        else
            PN_TRY(pn_tok_append(&t->bytes, t->text.data + k->text_at, k->n_text));
        k->n_bytes = (uint32_t)(t->bytes.n - k->bytes_at);
        if (k->n_bytes > t->longest_token) t->longest_token = k->n_bytes;
        if (k->state == PN_TOK_ORDINARY && k->n_bytes == 1)
            t->byte_id[(unsigned char)t->bytes.data[k->bytes_at]] = (int32_t)id;
    }
    int n_known = 0;
    for (int b = 0; b < 256; b++) n_known += t->byte_id[b] >= 0;
    PN_CHECK(n_known > 0, PN_FORMAT,
             "%s: the vocabulary has no token for any single byte: this is not a byte-level "
             "vocabulary",
             t->source);
    return PN_OK;
}

/* ---- merges ---- */
pn_status pn_tok_reserve_merges(pn_tokenizer *t, int64_t n) {
    PN_CHECK(n >= 0 && n <= PN_TOK_MAX_IDS, PN_FORMAT, "%s: %lld merges; at most %d is accepted", t->source,
             (long long)n, PN_TOK_MAX_IDS);
    t->merge_slots = power_of_two(2 * n);
    t->cap_merges = n;
    t->merge = malloc((size_t)t->merge_slots * sizeof *t->merge);
    t->merge_order = malloc((size_t)(n > 0 ? n : 1) * sizeof *t->merge_order);
    PN_CHECK(t->merge && t->merge_order, PN_MEMORY, "no memory for %lld merges", (long long)n);
    memset(t->merge, 0xff, (size_t)t->merge_slots * sizeof *t->merge);
    return PN_OK;
}

static pn_status merge_part(const pn_tokenizer *t, const char *side, const char *text, size_t n, int32_t *id) {
    char show[128];
    *id = pn_tok_lookup(t, text, n);
    PN_CHECK(*id >= 0, PN_FORMAT, "%s: merge %lld: its %s part \"%s\" is not in the vocabulary", t->source,
             (long long)t->n_merges, side, pn_tok_show(text, n, show));
    return PN_OK;
}

pn_status pn_tok_add_merge(pn_tokenizer *t, const char *left, size_t n_left, const char *right, size_t n_right) {
    PN_ASSERT(t->n_merges < t->cap_merges);
    int32_t a, b, ab;
    char small[512], *joined = small;
    PN_CHECK(n_left <= PN_TOK_MAX_TOKEN_BYTES && n_right <= PN_TOK_MAX_TOKEN_BYTES, PN_FORMAT,
             "%s: merge %lld is longer than any token", t->source, (long long)t->n_merges);
    PN_TRY(merge_part(t, "left", left, n_left, &a));
    PN_TRY(merge_part(t, "right", right, n_right, &b));
    if (n_left + n_right > sizeof small) joined = malloc(n_left + n_right);
    PN_CHECK(joined, PN_MEMORY, "no memory for a merge");
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    pn_status s = merge_part(t, "joined", joined, n_left + n_right, &ab);
    if (joined != small) free(joined);
    PN_TRY(s);
    uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    pn_tok_merge *slot = pn_tok_merge_slot(t, pair);
    char show_a[128], show_b[128];
    PN_CHECK(slot->pair == UINT64_MAX, PN_FORMAT, "%s: merges %u and %lld are the same: \"%s\" \"%s\"", t->source,
             slot->rank, (long long)t->n_merges, pn_tok_show(left, n_left, show_a),
             pn_tok_show(right, n_right, show_b));
    *slot = (pn_tok_merge){ .pair = pair, .rank = (uint32_t)t->n_merges, .id = ab };
    t->merge_order[t->n_merges++] = pair;
    return PN_OK;
}

/* ---- steps ---- */
pn_status pn_tok_add_step(pn_tokenizer *t, const pn_tok_step *step) {
    PN_CHECK(t->n_steps < PN_TOK_MAX_STEPS, PN_FORMAT, "%s: pre_tokenizer: more than %d steps", t->source,
             PN_TOK_MAX_STEPS);
    pn_tok_step *s = &t->step[t->n_steps];
    *s = *step;
    s->code = NULL;
    s->pattern = NULL;
    if (step->pattern) {
        PN_CHECK(step->pattern[0] != '\0' && strlen(step->pattern) <= PN_TOK_MAX_PATTERN_BYTES, PN_FORMAT,
                 "%s: pre_tokenizer: a split pattern of %zu bytes; 1 to %d is accepted", t->source,
                 strlen(step->pattern), PN_TOK_MAX_PATTERN_BYTES);
        PN_CHECK(pn_text_is_utf8(step->pattern, strlen(step->pattern), NULL), PN_FORMAT,
                 "%s: pre_tokenizer: a split pattern is not valid UTF-8", t->source);
        s->pattern = strdup(step->pattern);
        PN_CHECK(s->pattern, PN_MEMORY, "no memory for a split pattern");
    }
    t->n_steps++;
    return PN_OK;
}

/* ---- the hash: fields in a fixed order, each with its length, so that no two tokenizers write the same stream ---- */
static void hash_number(XXH3_state_t *h, uint64_t x) {
    unsigned char le[8];
    for (int i = 0; i < 8; i++) le[i] = (unsigned char)(x >> 8 * i);
    XXH3_64bits_update(h, le, sizeof le);
}

static void hash_text(XXH3_state_t *h, const char *text, size_t n) {
    hash_number(h, n);
    XXH3_64bits_update(h, text, n);
}

static void hash_added(XXH3_state_t *h, const pn_tok_added_set *set) {
    hash_number(h, (uint64_t)set->n);
    for (int64_t i = 0; i < set->n; i++) {
        const pn_tok_added *r = &set->row[i];
        hash_number(h, (uint64_t)r->id);
        hash_number(h, (uint64_t)(r->lstrip | r->rstrip << 1 | r->single_word << 2));
        hash_text(h, r->match, r->n_match);
    }
}

static pn_status hash_all(pn_tokenizer *t) {
    XXH3_state_t *h = XXH3_createState();
    PN_CHECK(h, PN_MEMORY, "no memory to hash a tokenizer");
    XXH3_64bits_reset(h);
    hash_text(h, "postnas tokenizer 1", 19);
    hash_number(h, (uint64_t)(t->nfc | t->ignore_merges << 1));
    hash_number(h, (uint64_t)t->n_steps);
    for (int i = 0; i < t->n_steps; i++) {
        const pn_tok_step *s = &t->step[i];
        hash_number(h, (uint64_t)((int)s->kind | s->literal << 4 | s->individual << 5 | s->use_regex << 6 |
                                  s->add_prefix_space << 7));
        hash_text(h, s->pattern ? s->pattern : "", s->pattern ? strlen(s->pattern) : 0);
    }
    hash_number(h, (uint64_t)t->n_ids);
    for (int64_t i = 0; i < t->n_ids; i++) {
        const pn_tok_token *k = &t->token[i];
        hash_number(h, (uint64_t)(k->state | k->special << 4));
        hash_text(h, t->text.data + k->text_at, k->n_text);
    }
    hash_number(h, (uint64_t)t->n_merges);
    for (int64_t i = 0; i < t->n_merges; i++) hash_number(h, t->merge_order[i]);
    hash_added(h, &t->raw);
    hash_added(h, &t->normal);
    t->hash = XXH3_64bits_digest(h);
    XXH3_freeState(h);
    return PN_OK;
}

pn_status pn_tok_finish(pn_tokenizer *t) {
    PN_CHECK(t->n_steps > 0, PN_FORMAT, "%s: no pre_tokenizer; a byte-level tokenizer has a ByteLevel one", t->source);
    const int32_t usual[] = { t->bos, t->eos, t->pad };
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        PN_CHECK(usual[i] < t->n_ids && (usual[i] < 0 || t->token[usual[i]].state != PN_TOK_HOLE), PN_FORMAT,
                 "%s: the id %d for BOS, EOS or PAD is not in the vocabulary", t->source, usual[i]);
    PN_TRY(pn_tok_compile(t));
    pn_tok_added_sort(&t->raw);
    pn_tok_added_sort(&t->normal);
    PN_TRY(hash_all(t));
    return PN_OK;
}

/* ---- asking ---- */
int64_t pn_tokenizer_vocab(const pn_tokenizer *t) {
    return t->n_ids;
}
int32_t pn_tokenizer_bos(const pn_tokenizer *t) {
    return t->bos;
}
int32_t pn_tokenizer_eos(const pn_tokenizer *t) {
    return t->eos;
}
int32_t pn_tokenizer_pad(const pn_tokenizer *t) {
    return t->pad;
}
bool pn_tokenizer_adds_bos(const pn_tokenizer *t) {
    return t->add_bos;
}
bool pn_tokenizer_adds_eos(const pn_tokenizer *t) {
    return t->add_eos;
}
uint64_t pn_tokenizer_hash(const pn_tokenizer *t) {
    return t->hash;
}
bool pn_tokenizer_is_special(const pn_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n_ids && t->token[id].special;
}
int32_t pn_tokenizer_find(const pn_tokenizer *t, const char *token) {
    return pn_tok_lookup(t, token, strlen(token));
}

const char *pn_tokenizer_token(const pn_tokenizer *t, int32_t id, size_t *n_bytes) {
    *n_bytes = 0;
    if (id < 0 || id >= t->n_ids || t->token[id].state == PN_TOK_HOLE) return NULL;
    *n_bytes = t->token[id].n_bytes;
    return t->bytes.data + t->token[id].bytes_at;
}

pn_status pn_tokenizer_decode(const pn_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special, char **text,
                              size_t *n_bytes) {
    *text = NULL;
    *n_bytes = 0;
    PN_CHECK(n >= 0, PN_USAGE, "cannot decode %lld ids", (long long)n);
    size_t len = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        PN_CHECK(pn_tokenizer_token(t, ids[i], &len), PN_FORMAT,
                 "%s: id %d at position %lld is not in the vocabulary (%lld ids): was the text tokenized with another "
                 "tokenizer?",
                 t->source, ids[i], (long long)i, (long long)t->n_ids);
        if (!(skip_special && t->token[ids[i]].special)) all += len;
    }
    char *out = malloc(all + 1);
    PN_CHECK(out, PN_MEMORY, "no memory for a text of %zu bytes", all);
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (skip_special && t->token[ids[i]].special) continue;
        const char *bytes = pn_tokenizer_token(t, ids[i], &len);
        memcpy(out + at, bytes, len);
        at += len;
    }
    out[at] = '\0';
    *text = out;
    *n_bytes = at;
    return PN_OK;
}
