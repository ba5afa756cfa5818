/* Encoding one text: added tokens out, normalise, split, merge; and the pool of encoders that makes a const tokenizer
 * safe for many threads. */
#include "tokenizer_internal.h"

#include <stdlib.h>

pn_status pn_tok_encoder_create(const pn_tokenizer *t, bool cached, pn_tok_encoder **out) {
    *out = NULL;
    pn_tok_encoder *e = calloc(1, sizeof *e);
    PN_CHECK(e, PN_MEMORY, "no memory for an encoder");
    e->t = t;
    e->match = pcre2_match_data_create(1, NULL);
    e->context = pcre2_match_context_create(NULL);
    pn_status s = PN_OK;
    if (!e->match || !e->context) s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "no memory for an encoder");
    if (s == PN_OK && cached) s = pn_tok_cache_create(&e->cache);
    if (s != PN_OK) {
        pn_tok_encoder_destroy(&e);
        return s;
    }
    *out = e;
    return PN_OK;
}

void pn_tok_encoder_destroy(pn_tok_encoder **encoder) {
    pn_tok_encoder *e = encoder ? *encoder : NULL;
    if (!e) return;
    pcre2_match_data_free(e->match);
    pcre2_match_context_free(e->context);
    pcre2_jit_stack_free(e->stack);
    free(e->normalised.data);
    free(e->prefixed.data);
    free(e->spelled.data);
    free(e->cache);
    free(e->symbol);
    free(e->before);
    free(e->after);
    free(e->heap);
    free(e);
    *encoder = NULL;
}

/* Text between added tokens of the first kind: normalise, take out those of the second kind, split the rest. */
static pn_status encode_plain(pn_tok_encoder *e, const char *text, size_t n, bool parse_special) {
    const pn_tokenizer *t = e->t;
    if (n == 0) return PN_OK;
    if (t->nfc) PN_TRY(pn_tok_nfc(text, n, &e->normalised, &text, &n));
    const pn_tok_added *hit;
    size_t at = 0, begin, end;
    while ((hit = pn_tok_added_next(t, &t->normal, text, n, at, parse_special, &begin, &end))) {
        PN_TRY(pn_tok_split(e, text + at, begin - at));
        PN_TRY(pn_ids_push(e->out, hit->id));
        at = end;
    }
    PN_TRY(pn_tok_split(e, text + at, n - at));
    return PN_OK;
}

pn_status pn_tok_encode_text(pn_tok_encoder *e, const char *text, size_t n, bool parse_special) {
    const pn_tok_added *hit;
    size_t at = 0, begin, end;
    while ((hit = pn_tok_added_next(e->t, &e->t->raw, text, n, at, parse_special, &begin, &end))) {
        PN_TRY(encode_plain(e, text + at, begin - at, parse_special));
        PN_TRY(pn_ids_push(e->out, hit->id));
        at = end;
    }
    PN_TRY(encode_plain(e, text + at, n - at, parse_special));
    return PN_OK;
}

static pn_status borrow(const pn_tokenizer *t, pn_tok_encoder **out) {
    pthread_mutex_lock(&t->pool->lock);
    *out = t->pool->idle;
    if (*out) t->pool->idle = (*out)->next;
    pthread_mutex_unlock(&t->pool->lock);
    if (!*out) PN_TRY(pn_tok_encoder_create(t, true, out));
    return PN_OK;
}

static void give_back(const pn_tokenizer *t, pn_tok_encoder *e) {
    e->out = NULL;
    pthread_mutex_lock(&t->pool->lock);
    e->next = t->pool->idle;
    t->pool->idle = e;
    pthread_mutex_unlock(&t->pool->lock);
}

pn_status pn_tokenizer_encode(const pn_tokenizer *t, const char *text, size_t n_bytes, bool parse_special,
                              pn_ids *out) {
    size_t bad_at;
    PN_CHECK(n_bytes < (size_t)INT32_MAX / 4, PN_USAGE,
             "a text of %zu bytes is too long to encode at once: cut it below 512 MiB", n_bytes);
    PN_CHECK(pn_text_is_utf8(text, n_bytes, &bad_at), PN_FORMAT,
             "the text is not valid UTF-8 at byte %zu (0x%02X): convert it, or have invalid bytes replaced", bad_at,
             (unsigned)(unsigned char)text[bad_at]);
    pn_tok_encoder *e;
    PN_TRY(borrow(t, &e));
    int64_t n_before = out->n;
    e->out = out;
    pn_status s = pn_tok_encode_text(e, text, n_bytes, parse_special);
    give_back(t, e);
    if (s != PN_OK) out->n = n_before;
    PN_TRY(s);
    return PN_OK;
}
