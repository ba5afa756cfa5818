#include "kv_cache.h"

#include <stdlib.h>

#include "copy_rows/copy_rows.h"

enum { KEYS, VALUES, FIRST_CAPACITY = 64 };

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t fresh_rows(const pn_docs *docs, int64_t d) {
    return docs->offset[d + 1] - docs->offset[d];
}

/* The row of the cache for token `position` of sequence d. */
static int64_t row_of(const pn_state *s, int64_t d, int64_t position) {
    return d * s->capacity + position % s->capacity;
}

pn_status pn_kv_cache_create(pn_state *s, int64_t width, int64_t window) {
    s->capacity = window ? least(FIRST_CAPACITY, window) : FIRST_CAPACITY;
    s->window = window;
    const int64_t shape[] = { s->n * s->capacity, width };
    PN_TRY(pn_state_add(s, "k", 2, shape));
    PN_TRY(pn_state_add(s, "v", 2, shape));
    return PN_OK;
}

/* Which rows go where; made for keys, used for values too. */
typedef struct moves {
    int64_t *to, *from; /* owned, one block */
    int64_t n;
} moves;

static pn_status moves_make(int64_t most, moves *m) {
    *m = (moves){ .to = malloc((size_t)(2 * most + 1) * sizeof *m->to) };
    PN_CHECK(m->to, PN_MEMORY, "out of memory");
    m->from = m->to + most;
    return PN_OK;
}

static void moves_add(moves *m, int64_t to, int64_t from) {
    m->to[m->n] = to;
    m->from[m->n++] = from;
}

static pn_status moves_run(const moves *m, pn_tensor *to, const pn_tensor *from) {
    return pn_tensor_copy_rows(to, m->to, from, m->from, m->n);
}

static pn_status grow_to(pn_state *s, int64_t capacity, const moves *m) {
    for (int i = KEYS; i <= VALUES; i++) {
        pn_tensor *bigger;
        const int64_t shape[] = { s->n * capacity, s->tensor[i]->shape[1] };
        PN_TRY(pn_tensor_zeros(s->pool, s->dtype, 2, shape, &bigger));
        pn_status status = moves_run(m, bigger, s->tensor[i]);
        pn_tensor_release(&s->tensor[i]);
        s->tensor[i] = bigger;
        PN_TRY(status);
    }
    s->capacity = capacity;
    return PN_OK;
}

/* Makes room for `rows` rows per sequence, no more than the window, keeping what the cache holds. */
static pn_status grow(pn_state *s, int64_t rows) {
    const int64_t window = s->window;
    int64_t capacity = s->capacity;
    while (capacity < rows && capacity != window) capacity = window ? least(2 * capacity, window) : 2 * capacity;
    if (capacity == s->capacity) return PN_OK;
    moves m;
    PN_TRY(moves_make(s->n * s->capacity, &m));
    for (int64_t d = 0; d < s->n; d++) /* no sequence has gone round: its tokens are in order from row 0 on */
        for (int64_t i = 0, held = least(s->past[d], s->capacity); i < held; i++)
            moves_add(&m, d * capacity + i, d * s->capacity + i);
    pn_status status = grow_to(s, capacity, &m);
    free(m.to);
    return status;
}

/* The last rows of each piece that fit. */
static pn_status store(pn_state *s, const pn_docs *docs, pn_tensor *k, pn_tensor *v) {
    moves m;
    PN_TRY(moves_make(pn_docs_tokens(docs), &m));
    for (int64_t d = 0; d < s->n; d++)
        for (int64_t n = fresh_rows(docs, d), i = n - least(n, s->capacity); i < n; i++)
            moves_add(&m, row_of(s, d, s->past[d] + i), docs->offset[d] + i);
    pn_status status = moves_run(&m, s->tensor[KEYS], k);
    if (!status) status = moves_run(&m, s->tensor[VALUES], v);
    free(m.to);
    return status;
}

/* Rows of the tape: those that `old` takes from the cache, those that `fresh` takes from *x, which they replace. */
static pn_status join(pn_state *s, int which, pn_tape *t, const moves *old, const moves *fresh, pn_tensor **x) {
    pn_tensor *all;
    PN_TRY(pn_tape_new(t, s->dtype, 2, (int64_t[]){ old->n + fresh->n, (*x)->shape[1] }, &all));
    PN_TRY(moves_run(old, all, s->tensor[which]));
    PN_TRY(moves_run(fresh, all, *x));
    *x = all;
    return PN_OK;
}

/* Per sequence, in order: the keys before the piece that its first query sees, and the piece. */
static pn_status gather(pn_state *s, pn_tape *t, const pn_docs *docs, pn_tensor **k, pn_tensor **v, int64_t window) {
    int64_t rows = 0;
    moves old, fresh = { 0 };
    PN_TRY(moves_make(s->n * s->capacity, &old));
    pn_status status;
    PN_TRY_GOTO(status, moves_make(pn_docs_tokens(docs), &fresh), done);
    for (int64_t d = 0; d < s->n; d++) {
        int64_t n = fresh_rows(docs, d), before = least(s->past[d], window - 1);
        s->key_start[d] = rows;
        s->key_len[d] = before + n;
        for (int64_t i = s->past[d] - before; i < s->past[d]; i++) moves_add(&old, rows++, row_of(s, d, i));
        for (int64_t i = 0; i < n; i++) moves_add(&fresh, rows++, docs->offset[d] + i);
    }
    PN_TRY_GOTO(status, join(s, KEYS, t, &old, &fresh, k), done);
    PN_TRY_GOTO(status, join(s, VALUES, t, &old, &fresh, v), done);
done:
    free(old.to);
    free(fresh.to);
    return status;
}

pn_status pn_kv_cache_reserve(pn_state *s) {
    int64_t longest = 0;
    for (int64_t d = 0; d < s->n; d++) longest = s->past[d] > longest ? s->past[d] : longest;
    return grow(s, longest + 1);
}

void pn_kv_cache_place(pn_state *s) {
    for (int64_t d = 0; d < s->n; d++) {
        s->row[d] = row_of(s, d, s->past[d]);
        s->key_start[d] = d * s->capacity;
        s->key_len[d] = least(s->past[d] + 1, s->capacity);
    }
}

/* One token each: it sees the whole cache, a ring in whatever order. */
static pn_status extend_by_one(pn_state *s, pn_tensor **k, pn_tensor **v, pn_attention_attr *attr) {
    PN_TRY(pn_kv_cache_reserve(s));
    pn_kv_cache_place(s);
    PN_TRY(pn_tensor_copy_rows(s->tensor[KEYS], s->row, *k, NULL, s->n));
    PN_TRY(pn_tensor_copy_rows(s->tensor[VALUES], s->row, *v, NULL, s->n));
    *k = s->tensor[KEYS];
    *v = s->tensor[VALUES];
    attr->window = 0;
    attr->key_start = s->key_start;
    attr->key_len = s->key_len;
    return PN_OK;
}

pn_status pn_kv_cache_extend(pn_state *s, pn_tape *t, const pn_docs *docs, pn_tensor **k, pn_tensor **v,
                             pn_attention_attr *attr) {
    PN_ASSERT(attr->window == s->window);
    if (pn_docs_one_each(docs)) return extend_by_one(s, k, v, attr);
    int64_t longest = 0;
    bool overwrites = false;
    for (int64_t d = 0; d < s->n; d++) {
        int64_t n = fresh_rows(docs, d), rows = s->past[d] + n;
        if (rows > longest) longest = rows;
        overwrites = overwrites || (attr->window && n > 1 && rows > attr->window);
    }
    PN_TRY(grow(s, longest));
    pn_tensor *new_k = *k, *new_v = *v;
    if (overwrites) PN_TRY(gather(s, t, docs, k, v, attr->window));
    PN_TRY(store(s, docs, new_k, new_v));
    if (!overwrites) {
        for (int64_t d = 0; d < s->n; d++) {
            s->key_start[d] = d * s->capacity;
            s->key_len[d] = least(s->past[d] + fresh_rows(docs, d), s->capacity);
        }
        *k = s->tensor[KEYS];
        *v = s->tensor[VALUES];
        attr->window = 0; /* one query sees the whole ring; a longer piece has not filled it */
    }
    attr->key_start = s->key_start;
    attr->key_len = s->key_len;
    return PN_OK;
}
