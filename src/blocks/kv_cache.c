#include "kv_cache.h"

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

/* Rows of a tensor, counted by rows of its width. */
typedef struct place {
    pn_tensor *t;
    int64_t row;
} place;

static size_t row_bytes(const pn_tensor *t) {
    return (size_t)t->shape[1] * pn_dtype_bytes(t->dtype);
}

static pn_status copy(place to, place from, int64_t n) {
    const size_t row = row_bytes(to.t), offset = pn_dtype_bytes(to.t->dtype);
    const size_t to_at = (size_t)to.t->offset * offset + (size_t)to.row * row;
    const size_t from_at = (size_t)from.t->offset * offset + (size_t)from.row * row;
    return pn_storage_copy(to.t->storage, to_at, from.t->storage, from_at, (size_t)n * row);
}

/* Copies tokens first .. first + n - 1 of sequence d from or to consecutive rows. */
static pn_status copy_rows(pn_state *s, int which, int64_t d, int64_t first, int64_t n, place rows, bool to_cache) {
    while (n > 0) {
        const int64_t at = first % s->capacity, run = least(n, s->capacity - at);
        const place cached = { s->tensor[which], d * s->capacity + at };
        PN_TRY(to_cache ? copy(cached, rows, run) : copy(rows, cached, run));
        rows.row += run;
        first += run;
        n -= run;
    }
    return PN_OK;
}

/* Makes room for `rows` rows per sequence, no more than the window, keeping what the cache holds. */
static pn_status grow(pn_state *s, int64_t rows, int64_t window) {
    int64_t capacity = s->capacity, width = s->tensor[KEYS]->shape[1];
    while (capacity < rows && capacity != window) capacity = window ? least(2 * capacity, window) : 2 * capacity;
    if (capacity == s->capacity) return PN_OK;
    for (int i = KEYS; i <= VALUES; i++) { /* no sequence has gone round: its tokens are in order from row 0 on */
        pn_tensor *bigger;
        PN_TRY(pn_tensor_zeros(s->pool, s->dtype, 2, (int64_t[]){ s->n * capacity, width }, &bigger));
        pn_status status = PN_OK;
        for (int64_t d = 0; d < s->n && !status; d++)
            status = copy_rows(s, i, d, 0, least(s->past[d], s->capacity), (place){ bigger, d * capacity }, false);
        pn_tensor_release(&s->tensor[i]);
        s->tensor[i] = bigger;
        PN_TRY(status);
    }
    s->capacity = capacity;
    return PN_OK;
}

/* Whether every sequence stands at the same token and goes on by the same number, which its ring has room for in one
 * piece: as in decoding a batch. */
static bool in_step(const pn_state *s, const pn_docs *docs) {
    const int64_t n = fresh_rows(docs, 0);
    for (int64_t d = 1; d < s->n; d++)
        if (s->past[d] != s->past[0] || fresh_rows(docs, d) != n) return false;
    return s->past[0] % s->capacity + n <= s->capacity;
}

/* The last rows of each piece that fit. */
static pn_status store(pn_state *s, const pn_docs *docs, pn_tensor *k, pn_tensor *v) {
    pn_tensor *const from[] = { k, v };
    const size_t row = row_bytes(k), start = pn_dtype_bytes(k->dtype);
    if (s->n > 1 && in_step(s, docs)) {
        const size_t fresh = (size_t)fresh_rows(docs, 0) * row, ring = (size_t)s->capacity * row;
        for (int i = KEYS; i <= VALUES; i++)
            PN_TRY(pn_storage_copy_2d(s->tensor[i]->storage, (size_t)(s->past[0] % s->capacity) * row, ring,
                                      from[i]->storage, (size_t)from[i]->offset * start, fresh, fresh, (size_t)s->n));
        return PN_OK;
    }
    for (int64_t d = 0; d < s->n; d++) {
        int64_t n = fresh_rows(docs, d), kept = least(n, s->capacity), skip = n - kept;
        for (int i = KEYS; i <= VALUES; i++)
            PN_TRY(copy_rows(s, i, d, s->past[d] + skip, kept, (place){ from[i], docs->offset[d] + skip }, true));
    }
    return PN_OK;
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
    pn_tensor **const fresh[] = { k, v };
    for (int i = KEYS; i <= VALUES; i++) {
        pn_tensor *all;
        PN_TRY(pn_tape_new(t, s->dtype, 2, (int64_t[]){ rows, width }, &all));
        for (int64_t d = 0; d < s->n; d++) {
            int64_t n = fresh_rows(docs, d), old = len[d] - n;
            PN_TRY(copy_rows(s, i, d, s->past[d] - old, old, (place){ all, start[d] }, false));
            PN_TRY(copy((place){ all, start[d] + old }, (place){ *fresh[i], docs->offset[d] }, n));
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
    pn_tensor *new_k = *k, *new_v = *v;
    int64_t *start = s->keys, *len = start + s->n;
    if (overwrites) PN_TRY(gather(s, t, docs, k, v, attr->window, start, len));
    PN_TRY(store(s, docs, new_k, new_v));
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
