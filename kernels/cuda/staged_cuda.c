#include "staged_cuda.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

typedef struct table {
    int64_t *key; /* owned; NULL: an empty place */
    int64_t n_key;
    int32_t *values; /* on the GPU */
    uint64_t asked;  /* when it was asked for last */
} table;

static table tables[PN_STAGED_TABLES];
static uint64_t asked;

static table *find(const int64_t *key, int64_t n_key) {
    for (int i = 0; i < PN_STAGED_TABLES; i++) {
        table *t = &tables[i];
        if (t->key && t->n_key == n_key && !memcmp(t->key, key, (size_t)n_key * sizeof *key)) return t;
    }
    return NULL;
}

/* The one not asked for the longest, emptied. What was launched before reads it to its end: memory is given back in the
 * stream's order (device.h). */
static table *make_room(void) {
    table *oldest = tables;
    for (int i = 1; i < PN_STAGED_TABLES; i++)
        if (tables[i].asked < oldest->asked) oldest = &tables[i];
    pn_device_free(oldest->values);
    free(oldest->key);
    *oldest = (table){ 0 };
    return oldest;
}

static pn_status make(table *t, const int64_t *key, int64_t n_key, pn_staged_fill fill, int64_t n_values) {
    int32_t *values = malloc((size_t)(n_values + 1) * sizeof *values);
    int64_t *own = malloc((size_t)(n_key + 1) * sizeof *own);
    void *there = pn_device_alloc((size_t)(n_values + 1) * sizeof *values);
    pn_status s = PN_OK;
    if (!values || !own || !there) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s memory exhausted", there ? "host" : "GPU");
    fill(key, n_key, values);
    PN_TRY_GOTO(s, pn_device_upload(there, values, (size_t)n_values * sizeof *values), done);
    memcpy(own, key, (size_t)n_key * sizeof *own);
    *t = (table){ .key = own, .n_key = n_key, .values = there };
    own = NULL;
    there = NULL;
done:
    free(values);
    free(own);
    pn_device_free(there);
    return s;
}

pn_status pn_cuda_staged(const int64_t *key, int64_t n_key, pn_staged_fill fill, int64_t n_values,
                         const int32_t **out) {
    table *t = find(key, n_key);
    if (!t) {
        t = make_room();
        PN_TRY(make(t, key, n_key, fill, n_values));
    }
    t->asked = ++asked;
    *out = t->values;
    return PN_OK;
}

/* ---- kinds of tables: the first number of a key ---- */

enum { INTEGERS, DOCS };

static pn_status need_int32(int64_t value) {
    PN_CHECK(value >= 0 && value <= INT32_MAX, PN_UNSUPPORTED,
             "%lld tokens or keys in one pass: the GPU counts them in 31 bits; use fewer per step", (long long)value);
    return PN_OK;
}

static void fill_integers(const int64_t *key, int64_t n_key, int32_t *values) {
    for (int64_t i = 1; i < n_key; i++) values[i - 1] = (int32_t)key[i];
}

pn_status pn_cuda_staged_integers(const int64_t *values, int64_t n, const int32_t **out) {
    for (int64_t i = 0; i < n; i++) PN_TRY(need_int32(values[i]));
    int64_t *key = malloc((size_t)(n + 1) * sizeof *key);
    PN_CHECK(key, PN_MEMORY, "out of memory");
    key[0] = INTEGERS;
    if (n) memcpy(key + 1, values, (size_t)n * sizeof *values);
    pn_status s = pn_cuda_staged(key, n + 1, fill_integers, n, out);
    free(key);
    return s;
}

/* Key: DOCS, n, offsets, pasts. Values: the arrays of pn_cuda_docs, in its order. */
static pn_docs docs_of_key(const int64_t *key) {
    return (pn_docs){ .n = key[1], .offset = key + 2, .past = key + 2 + key[1] + 1 };
}

static void fill_docs(const int64_t *key, int64_t n_key, int32_t *values) {
    (void)n_key;
    pn_docs d = docs_of_key(key);
    for (int64_t i = 0; i <= d.n; i++) *values++ = (int32_t)d.offset[i];
    for (int64_t i = 0; i < d.n; i++) *values++ = (int32_t)d.past[i];
    int64_t chunks = pn_docs_chunks(&d, d.n), c = 0;
    int32_t *first = values, *doc = first + d.n + 1, *begin = doc + chunks, *of_token = begin + chunks;
    for (int64_t i = 0; i < d.n; i++) {
        first[i] = (int32_t)c;
        for (int64_t t = d.offset[i]; t < d.offset[i + 1]; t += PN_CHUNK, c++) {
            doc[c] = (int32_t)i;
            begin[c] = (int32_t)t;
        }
        for (int64_t t = d.offset[i]; t < d.offset[i + 1]; t++) of_token[t] = (int32_t)i;
    }
    first[d.n] = (int32_t)c;
}

pn_status pn_cuda_docs_stage(const pn_docs *docs, pn_cuda_docs *out) {
    int64_t n = docs->n, tokens = pn_docs_tokens(docs), chunks = pn_docs_chunks(docs, n);
    PN_TRY(need_int32(tokens));
    int64_t *key = calloc((size_t)(2 * n + 3), sizeof *key);
    PN_CHECK(key, PN_MEMORY, "out of memory");
    key[0] = DOCS;
    key[1] = n;
    memcpy(key + 2, docs->offset, (size_t)(n + 1) * sizeof *key);
    pn_status s = PN_OK;
    const int32_t *at;
    for (int64_t i = 0; docs->past && i < n; i++) {
        PN_TRY_GOTO(s, need_int32(docs->past[i]), done);
        key[2 + n + 1 + i] = docs->past[i];
    }
    PN_TRY_GOTO(s, pn_cuda_staged(key, 2 * n + 3, fill_docs, 3 * n + 2 + 2 * chunks + tokens, &at), done);
    *out = (pn_cuda_docs){ .tokens = tokens, .n = n, .chunks = chunks, .offset = at };
    out->past = out->offset + n + 1;
    out->first_chunk = out->past + n;
    out->chunk_doc = out->first_chunk + n + 1;
    out->chunk_begin = out->chunk_doc + chunks;
    out->doc = out->chunk_begin + chunks;
done:
    free(key);
    return s;
}
