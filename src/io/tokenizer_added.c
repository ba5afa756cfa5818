/* Added tokens: texts such as "<|im_start|>" that become one id wherever they occur.
 *
 * The rows are sorted by their bytes, so the rows that agree with the text on its next d bytes are one range, and
 * reading a byte more narrows that range by binary search: a trie without nodes. Nearly every position is refused by
 * its first byte alone. Leftmost match first, then the longest, as Hugging Face tokenizers does. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

pn_status pn_tok_added_push(pn_tok_added_set *set, const pn_tok_added *row, const char *match, size_t n_match) {
    if (set->n == set->cap) {
        int64_t cap = set->cap ? 2 * set->cap : 32;
        pn_tok_added *grown = realloc(set->row, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "no memory for %lld added tokens", (long long)cap);
        set->row = grown;
        set->cap = cap;
    }
    pn_tok_added *r = &set->row[set->n];
    *r = *row;
    r->match = malloc(n_match + 1);
    PN_CHECK(r->match, PN_MEMORY, "no memory for an added token of %zu bytes", n_match);
    memcpy(r->match, match, n_match);
    r->match[n_match] = '\0';
    r->n_match = (uint32_t)n_match;
    set->n++;
    return PN_OK;
}

static int by_bytes(const void *a, const void *b) {
    const pn_tok_added *x = a, *y = b;
    size_t n = x->n_match < y->n_match ? x->n_match : y->n_match;
    int order = memcmp(x->match, y->match, n);
    if (order) return order;
    return x->n_match < y->n_match ? -1 : x->n_match > y->n_match;
}

void pn_tok_added_sort(pn_tok_added_set *set) {
    if (set->n > 0) qsort(set->row, (size_t)set->n, sizeof *set->row, by_bytes);
    int64_t i = 0;
    for (int b = 0; b <= 256; b++) {
        while (i < set->n && (unsigned char)set->row[i].match[0] < b) i++;
        set->first[b] = i;
    }
}

void pn_tok_added_free(pn_tok_added_set *set) {
    for (int64_t i = 0; i < set->n; i++) free(set->row[i].match);
    free(set->row);
    *set = (pn_tok_added_set){ 0 };
}

/* The first row in [low, high), all of which agree on d bytes, whose byte d is at least b. Rows of d bytes come first.
 */
static int64_t lower(const pn_tok_added_set *set, int64_t low, int64_t high, uint32_t d, int b) {
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        const pn_tok_added *r = &set->row[mid];
        if (r->n_match <= d || (unsigned char)r->match[d] < b)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The longest added token that text[0..n) begins with, or NULL. */
static const pn_tok_added *longest_at(const pn_tok_added_set *set, const char *text, size_t n) {
    int first = (unsigned char)text[0];
    int64_t low = set->first[first], high = set->first[first + 1];
    const pn_tok_added *best = NULL;
    for (uint32_t d = 1; low < high; d++) {
        if (set->row[low].n_match == d) best = &set->row[low]; /* the shortest row of the range stands first */
        if (d >= n) break;
        int b = (unsigned char)text[d];
        int64_t next = lower(set, low, high, d, b);
        high = lower(set, next, high, d, b + 1);
        low = next;
    }
    return best;
}

static size_t last_char(const char *text, size_t end, uint32_t *c) {
    size_t at = end - 1;
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80) at--;
    pn_tok_get_utf8(text + at, c);
    return at;
}

static bool stands_alone(const char *text, size_t n, size_t begin, size_t end) {
    uint32_t c;
    if (begin > 0) {
        last_char(text, begin, &c);
        if (pn_tok_is_word(c)) return false;
    }
    if (end < n) {
        pn_tok_get_utf8(text + end, &c);
        if (pn_tok_is_word(c)) return false;
    }
    return true;
}

const pn_tok_added *pn_tok_added_next(const pn_tokenizer *t, const pn_tok_added_set *set, const char *text, size_t n,
                                      size_t at, bool parse_special, size_t *begin, size_t *end) {
    if (set->n == 0) return NULL;
    const size_t from = at;
    while (at < n) {
        int b = (unsigned char)text[at];
        if (set->first[b] == set->first[b + 1]) {
            at++;
            continue;
        }
        const pn_tok_added *hit = longest_at(set, text + at, n - at);
        if (!hit) {
            at++;
            continue;
        }
        size_t stop = at + hit->n_match;
        if ((!parse_special && t->token[hit->id].special) || (hit->single_word && !stands_alone(text, n, at, stop))) {
            at = stop;
            continue;
        }
        uint32_t c;
        for (size_t left; hit->lstrip && at > from; at = left) {
            left = last_char(text, at, &c);
            if (!pn_tok_is_space(c)) break;
        }
        while (hit->rstrip && stop < n) {
            int len = pn_tok_get_utf8(text + stop, &c);
            if (!pn_tok_is_space(c)) break;
            stop += (size_t)len;
        }
        *begin = at;
        *end = stop;
        return hit;
    }
    return NULL;
}
