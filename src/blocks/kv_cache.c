#include "kv_cache.h"

#include <string.h>

enum { KEYS, VALUES, FIRST_CAPACITY = 64 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t fresh_rows(const pn_docs *docs, int64_t d) {
    return docs->offset[d + 1] - docs->offset[d];
}

pn_status pn_kv_cache_create(pn_state *s, int64_t width, int64_t window) {
    s->capacity = window ? least(FIRST_CAPACITY, window) : FIRST_CAPACITY;
    const int64_t shape[] = { s->n * s->capacity, width };
    PN_TRY(pn_state_add(s, "k", 2, shape));
    PN_TRY(pn_state_add(s, "v", 2, shape));
    return PN_OK;
}

/* Copies tokens first .. first + n - 1 of sequence d from or to consecutive rows. */
static void copy_rows(pn_state *s, int which, int64_t d, int64_t first, int64_t n, char *rows, bool to_cache) {
    pn_tensor *cache = s->tensor[which];
    size_t row = (size_t)cache->shape[1] * pn_dtype_bytes(s->dtype);
    while (n > 0) {
        int64_t at = first % s->capacity, run = least(n, s->capacity - at);
        char *place = (char *)pn_data(cache) + (size_t)(d * s->capacity + at) * row;
        size_t bytes = (size_t)run * row;
        if (to_cache)
            memcpy(place, rows, bytes);
        else
            memcpy(rows, place, bytes);
        rows += bytes;
        first += run;
        n -= run;
    }
}

/* Makes room for `rows` rows per sequence, no more than the window, keeping what the cache holds. */
static pn_status grow(pn_state *s, int64_t rows, int64_t window) {
    int64_t capacity = s->capacity, width = s->tensor[KEYS]->shape[1];
    while (capacity < rows && capacity != window) capacity = window ? least(2 * capacity, window) : 2 * capacity;
    if (capacity == s->capacity) return PN_OK;
    size_t row = (size_t)width * pn_dtype_bytes(s->dtype);
    for (int i = KEYS; i <= VALUES; i++) { /* no sequence has gone round: its tokens are in order from row 0 on */
        pn_tensor *bigger;
        PN_TRY(pn_tensor_zeros(s->pool, s->dtype, 2, (int64_t[]){ s->n * capacity, width }, &bigger));
        for (int64_t d = 0; d < s->n; d++)
            copy_rows(s, i, d, 0, least(s->past[d], s->capacity),
                      (char *)pn_data(bigger) + (size_t)(d * capacity) * row, false);
        pn_tensor_release(&s->tensor[i]);
        s->tensor[i] = bigger;
    }
    s->capacity = capacity;
    return PN_OK;
}

/* The last rows of each piece that fit. */
static void store(pn_state *s, const pn_docs *docs, pn_tensor *k, pn_tensor *v) {
    pn_tensor *const from[] = { k, v };
    size_t row = (size_t)k->shape[1] * pn_dtype_bytes(s->dtype);
    for (int64_t d = 0; d < s->n; d++) {
        int64_t n = fresh_rows(docs, d), kept = least(n, s->capacity), skip = n - kept;
        for (int i = KEYS; i <= VALUES; i++)
            copy_rows(s, i, d, s->past[d] + skip, kept,
                      (char *)pn_data(from[i]) + (size_t)(docs->offset[d] + skip) * row, true);
    }
}

/* Per sequence, in order: the keys before the piece that its first query sees, and the piece. */
static pn_status gather(pn_state *s, pn_tape *t, const pn_docs *docs, pn_tensor **k, pn_tensor **v, int64_t window,
                        int64_t *start, int64_t *len) {
    int64_t rows = 0, width = (*k)->shape[1];
    for (int64_t d = 0; d < s->n; d++) {
        start[d] = rows;
        len[d] = least(s->past[d], window - 1) + fresh_rows(docs, d);
        rows += len[d];
    }
    size_t row = (size_t)width * pn_dtype_bytes(s->dtype);
    pn_tensor **const fresh[] = { k, v };
    for (int i = KEYS; i <= VALUES; i++) {
        pn_tensor *all;
        PN_TRY(pn_tape_new(t, s->dtype, 2, (int64_t[]){ rows, width }, &all));
        for (int64_t d = 0; d < s->n; d++) {
            int64_t n = fresh_rows(docs, d), old = len[d] - n;
            char *to = (char *)pn_data(all) + (size_t)start[d] * row;
            copy_rows(s, i, d, s->past[d] - old, old, to, false);
            memcpy(to + (size_t)old * row, (char *)pn_data(*fresh[i]) + (size_t)docs->offset[d] * row, (size_t)n * row);
        }
        *fresh[i] = all;
    }
    return PN_OK;
}

pn_status pn_kv_cache_extend(pn_state *s, pn_tape *t, const pn_docs *docs, pn_tensor **k, pn_tensor **v,
                             pn_attention_attr *attr) {
    int64_t longest = 0;
    bool overwrites = false;
    for (int64_t d = 0; d < s->n; d++) {
        int64_t n = fresh_rows(docs, d), rows = s->past[d] + n;
        if (rows > longest) longest = rows;
        overwrites = overwrites || (attr->window && n > 1 && rows > attr->window);
    }
    PN_TRY(grow(s, longest, attr->window));
    pn_tensor *table, *new_k = *k, *new_v = *v;
    PN_TRY(pn_tape_new(t, PN_I64, 2, (int64_t[]){ 2, s->n }, &table));
    int64_t *start = pn_data(table), *len = start + s->n;
    if (overwrites) PN_TRY(gather(s, t, docs, k, v, attr->window, start, len));
    store(s, docs, new_k, new_v);
    if (!overwrites) {
        for (int64_t d = 0; d < s->n; d++) {
            start[d] = d * s->capacity;
            len[d] = least(s->past[d] + fresh_rows(docs, d), s->capacity);
        }
        *k = s->tensor[KEYS];
        *v = s->tensor[VALUES];
        attr->window = 0; /* one query sees the whole ring, in whatever order; a longer piece has not filled it */
    }
    attr->key_start = start;
    attr->key_len = len;
    return PN_OK;
}
