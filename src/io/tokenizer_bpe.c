/* Byte pair encoding of one word: start from its bytes and, while any adjacent pair is in the merge table, replace the
 * pair of lowest rank (the leftmost of equals) by its merged token (arXiv 1508.07909, algorithm 1).
 *
 * Words of text are short and repeat, so: a direct-mapped cache answers most of them; a short word is merged by
 * scanning its ranks; a long one (a line of "=", base64) by a heap over a linked list, O(n log n). */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { SHORT_WORD = 48, CACHE_SLOTS = 1 << 15, CACHED_BYTES = 23, CACHED_IDS = 9 };

/* One cache line: a word and its ids. */
struct pn_tok_cached {
    uint8_t n_bytes, n_ids; /* n_bytes 0: empty */
    char word[CACHED_BYTES];
    uint8_t unused[3];
    int32_t id[CACHED_IDS];
};
_Static_assert(sizeof(struct pn_tok_cached) == 64, "a cached word is one cache line");

pn_status pn_tok_cache_create(pn_tok_cached **out) {
    *out = aligned_alloc(64, CACHE_SLOTS * sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "no memory for the word cache");
    memset(*out, 0, CACHE_SLOTS * sizeof **out);
    return PN_OK;
}

static inline uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static inline uint64_t mix(uint64_t x) {
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

pn_tok_merge *pn_tok_merge_slot(const pn_tokenizer *t, uint64_t pair) {
    uint64_t mask = (uint64_t)t->merge_slots - 1;
    for (uint64_t i = mix(pair) & mask;; i = (i + 1) & mask)
        if (t->merge[i].pair == pair || t->merge[i].pair == UINT64_MAX) return &t->merge[i];
}

/* The merge of two adjacent tokens, or NULL. */
static inline const pn_tok_merge *merge_of(const pn_tokenizer *t, int32_t left, int32_t right) {
    const pn_tok_merge *m = pn_tok_merge_slot(t, pair_of(left, right));
    return m->pair == UINT64_MAX ? NULL : m;
}

static int merge_short(const pn_tokenizer *t, int32_t *id, int n) {
    uint32_t rank[SHORT_WORD]; /* of the pair (i, i+1) */
    int32_t into[SHORT_WORD];
#define LOOK(i)                                                                                                        \
    do {                                                                                                               \
        const pn_tok_merge *m_ = merge_of(t, id[i], id[(i) + 1]);                                                      \
        rank[i] = m_ ? m_->rank : UINT32_MAX;                                                                          \
        into[i] = m_ ? m_->id : -1;                                                                                    \
    } while (0)
    for (int i = 0; i + 1 < n; i++) LOOK(i);
    while (n > 1) {
        int best = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        id[best] = into[best];
        n--;
        for (int i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            into[i - 1] = into[i];
        }
        if (best + 1 < n) LOOK(best);
        if (best > 0) LOOK(best - 1);
    }
#undef LOOK
    return n;
}

/* A binary heap of rank << 32 | position: smallest on top, so equal ranks come left to right. */
static void heap_push(uint64_t *heap, int64_t *n, uint64_t x) {
    int64_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > x; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = x;
}

static uint64_t heap_pop(uint64_t *heap, int64_t *n) {
    uint64_t top = heap[0], x = heap[--*n];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < *n; i = child) {
        if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= x) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
    return top;
}

static pn_status reserve_long(pn_tok_encoder *e, int64_t n) {
    if (n > e->symbol_cap) {
        int32_t **each[] = { &e->symbol, &e->before, &e->after };
        for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
            int32_t *grown = realloc(*each[i], (size_t)n * sizeof **each[i]);
            PN_CHECK(grown, PN_MEMORY, "no memory to encode a word of %lld bytes", (long long)n);
            *each[i] = grown;
        }
        e->symbol_cap = n;
    }
    if (3 * n > e->heap_cap) { /* n - 1 pairs at first, and at most two more for each of n - 1 merges */
        uint64_t *grown = realloc(e->heap, 3 * (size_t)n * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "no memory to encode a word of %lld bytes", (long long)n);
        e->heap = grown;
        e->heap_cap = 3 * n;
    }
    return PN_OK;
}

/* e->symbol holds the n bytes' ids; leaves the merged ids in its first *n_out places. */
static void merge_long(pn_tok_encoder *e, int64_t n, int64_t *n_out) {
    const pn_tokenizer *t = e->t;
    int32_t *id = e->symbol, *before = e->before, *after = e->after; /* id -1: merged into its left neighbour */
    int64_t n_heap = 0;
    const pn_tok_merge *m;
    for (int64_t i = 0; i < n; i++) {
        before[i] = (int32_t)i - 1;
        after[i] = i + 1 < n ? (int32_t)i + 1 : -1;
        if (i + 1 < n && (m = merge_of(t, id[i], id[i + 1])))
            heap_push(e->heap, &n_heap, (uint64_t)m->rank << 32 | (uint64_t)i);
    }
    while (n_heap > 0) {
        uint64_t top = heap_pop(e->heap, &n_heap);
        int32_t i = (int32_t)(uint32_t)top, j;
        if (id[i] < 0 || (j = after[i]) < 0) continue;
        m = merge_of(t, id[i], id[j]);
        if (!m || m->rank != top >> 32) continue; /* the pair has changed since */
        id[i] = m->id;
        id[j] = -1;
        after[i] = after[j];
        if (after[j] >= 0) before[after[j]] = i;
        if (before[i] >= 0 && (m = merge_of(t, id[before[i]], id[i])))
            heap_push(e->heap, &n_heap, (uint64_t)m->rank << 32 | (uint32_t)before[i]);
        if (after[i] >= 0 && (m = merge_of(t, id[i], id[after[i]])))
            heap_push(e->heap, &n_heap, (uint64_t)m->rank << 32 | (uint32_t)i);
    }
    int64_t out = 0;
    for (int64_t i = 0; i < n; i++)
        if (id[i] >= 0) id[out++] = id[i];
    *n_out = out;
}

static pn_status bytes_to_ids(const pn_tokenizer *t, const char *word, size_t n, int32_t *id) {
    for (size_t i = 0; i < n; i++) {
        id[i] = t->byte_id[(unsigned char)word[i]];
        PN_CHECK(id[i] >= 0, PN_FORMAT, "%s: the vocabulary has no token for byte 0x%02X, which the text contains",
                 t->source, (unsigned)(unsigned char)word[i]);
    }
    return PN_OK;
}

/* ignore_merges: a word that is a token is that token, whatever its merges give. *id is -1 where it is none. */
static pn_status whole_word(pn_tok_encoder *e, const char *word, size_t n, int32_t *id) {
    const pn_tokenizer *t = e->t;
    *id = -1;
    if (n > t->longest_token) return PN_OK;
    e->spelled.n = 0;
    for (size_t i = 0; i < n; i++) {
        char text[4];
        int len = pn_tok_put_utf8(pn_tok_byte_to_char((unsigned char)word[i]), text);
        PN_TRY(pn_tok_append(&e->spelled, text, (size_t)len));
    }
    int32_t found = pn_tok_lookup(t, e->spelled.data, e->spelled.n);
    if (found >= 0 && t->token[found].in_model) *id = found;
    return PN_OK;
}

static pn_status put_ids(pn_tok_encoder *e, const int32_t *id, int64_t n) {
    if (e->out->cap - e->out->n < n) PN_TRY(pn_ids_reserve(e->out, n));
    memcpy(e->out->ids + e->out->n, id, (size_t)n * sizeof *id);
    e->out->n += n;
    return PN_OK;
}

pn_status pn_tok_word(pn_tok_encoder *e, const char *word, size_t n) {
    const pn_tokenizer *t = e->t;
    if (t->n_merges == 0 && !t->ignore_merges) { /* plain bytes: a word is the whole text */
        PN_TRY(pn_ids_reserve(e->out, (int64_t)n));
        PN_TRY(bytes_to_ids(t, word, n, e->out->ids + e->out->n));
        e->out->n += (int64_t)n;
        return PN_OK;
    }
    pn_tok_cached *slot = NULL;
    if (e->cache && n <= CACHED_BYTES) {
        slot = &e->cache[XXH3_64bits(word, n) & (CACHE_SLOTS - 1)];
        if (slot->n_bytes == n && memcmp(slot->word, word, n) == 0) return put_ids(e, slot->id, slot->n_ids);
    }
    int32_t few[SHORT_WORD], *id = few;
    int64_t n_ids;
    int32_t whole = -1;
    if (t->ignore_merges) PN_TRY(whole_word(e, word, n, &whole));
    if (whole >= 0) {
        few[0] = whole;
        n_ids = 1;
    } else if (n <= SHORT_WORD) {
        PN_TRY(bytes_to_ids(t, word, n, few));
        n_ids = merge_short(t, few, (int)n);
    } else {
        PN_TRY(reserve_long(e, (int64_t)n));
        PN_TRY(bytes_to_ids(t, word, n, e->symbol));
        id = e->symbol;
        merge_long(e, (int64_t)n, &n_ids);
    }
    if (slot && n_ids <= CACHED_IDS) {
        slot->n_bytes = (uint8_t)n;
        slot->n_ids = (uint8_t)n_ids;
        memcpy(slot->word, word, n);
        memcpy(slot->id, id, (size_t)n_ids * sizeof *id);
    }
    PN_TRY(put_ids(e, id, n_ids));
    return PN_OK;
}
