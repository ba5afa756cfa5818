/* NFC, the only normaliser that byte-level tokenizers of this family use.
 *
 * Composing a whole text is an order of magnitude slower than encoding it, and nearly all text is in NFC as it stands.
 * ASCII characters are starters that never join with the character before them, so each run of non-ASCII characters,
 * with the one ASCII character before it, can be normalised by itself; and a run made only of starters that neither
 * change nor join with a character before them (the table below) is already in NFC.
 *
 * utf8proc 2.8 has the combining marks of Unicode 14; Hugging Face's library has those of Unicode 9 or so and takes
 * later ones for letters, so the order of two marks on one letter may differ where one is from 2017 or later. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Inclusive ranges in which every character has canonical combining class 0 and NFC_Quick_Check=Yes. The common ones
 * only: a character outside costs time, not correctness. */
static const struct {
    uint32_t low, high;
} stable[] = {
    { 0x0080, 0x02ff },                                           /* Latin */
    { 0x0388, 0x03ff },                                           /* Greek */
    { 0x0400, 0x0482 },                                           /* Cyrillic */
    { 0x2010, 0x205f },                                           /* quotes, dashes */
    { 0x3001, 0x3029 },   { 0x3030, 0x3098 }, { 0x309b, 0x30ff }, /* CJK punctuation, kana */
    { 0x4e00, 0x9fff },                                           /* ideographs */
    { 0xac00, 0xd7a3 },   /* Hangul syllables; the jamo that would join them are outside */
    { 0xff00, 0xffef },   /* full width */
    { 0x1f300, 0x1faff }, /* emoji */
};

/* U+11A7 stands one before the first trailing consonant of Hangul, where the composition's arithmetic counts from. It
 * joins with nothing, but utf8proc 2.8 lets it join with the syllable before it, and it is lost. */
enum { VOWEL_BEFORE_T = 0x11a7 };

static bool is_stable(uint32_t c) {
    for (size_t i = 0; i < sizeof stable / sizeof *stable; i++)
        if (c >= stable[i].low && c <= stable[i].high) return true;
    return false;
}

/* The first byte at or after `at` that is not ASCII, or n. */
static size_t skip_ascii(const char *text, size_t n, size_t at) {
    for (; at + 8 <= n; at += 8) {
        uint64_t eight;
        memcpy(&eight, text + at, 8);
        if (eight & 0x8080808080808080u) break;
    }
    while (at < n && (unsigned char)text[at] < 0x80) at++;
    return at;
}

static pn_status compose(const char *text, size_t n, pn_tok_arena *out) {
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &composed,
                                        (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    PN_CHECK(len >= 0, len == UTF8PROC_ERROR_NOMEM ? PN_MEMORY : PN_FORMAT, "cannot normalise text: %s",
             utf8proc_errmsg(len));
    pn_status s = pn_tok_append(out, (const char *)composed, (size_t)len);
    free(composed);
    PN_TRY(s);
    return PN_OK;
}

pn_status pn_tok_nfc(const char *text, size_t n, pn_tok_arena *buffer, const char **out, size_t *n_out) {
    size_t copied = 0; /* text before this is in the buffer */
    buffer->n = 0;
    for (size_t at = skip_ascii(text, n, 0); at < n; at = skip_ascii(text, n, at)) {
        size_t begin = at;
        bool ready = true;
        while (at < n && (unsigned char)text[at] >= 0x80) {
            uint32_t c;
            size_t len = (size_t)pn_tok_get_utf8(text + at, &c);
            if (c == VOWEL_BEFORE_T && at > begin) break; /* begins a run of its own */
            at += len;
            ready = ready && is_stable(c);
        }
        if (ready) continue;
        if (begin > copied && (unsigned char)text[begin - 1] < 0x80) begin--;
        PN_TRY(pn_tok_append(buffer, text + copied, begin - copied));
        PN_TRY(compose(text + begin, at - begin, buffer));
        copied = at;
    }
    if (copied == 0) {
        *out = text;
        *n_out = n;
        return PN_OK;
    }
    PN_TRY(pn_tok_append(buffer, text + copied, n - copied));
    *out = buffer->data;
    *n_out = buffer->n;
    return PN_OK;
}
