#include "staged_cuda.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "recorded_cuda.h"

/* ---- what tables are made of ---- */

int64_t pn_table_part_length(const pn_table_recipe *r, int part) {
    if (!r->part[part]) return 0;
    return r->kind != PN_TABLE_INTEGERS && part == 0 ? r->n + 1 : r->n;
}

static pn_docs docs_of(const pn_table_recipe *r) {
    return (pn_docs){ .n = r->n, .offset = r->part[0], .past = r->part[1], .longest = r->longest };
}

int64_t pn_table_length(const pn_table_recipe *r) {
    const pn_docs d = docs_of(r);
    switch (r->kind) {
    case PN_TABLE_DOCS: return 3 * d.n + 2 + 2 * pn_docs_chunks(&d, d.n) + pn_docs_tokens(&d);
    case PN_TABLE_OFFSETS: return r->rows + 1;
    case PN_TABLE_LENGTHS: return r->rows;
    default: return r->n;
    }
}

bool pn_table_same_kind(const pn_table_recipe *a, const pn_table_recipe *b) {
    return a->kind == b->kind && a->n == b->n && a->longest == b->longest && a->rows == b->rows && a->each == b->each;
}

/* The arrays of pn_cuda_docs, in its order. */
static void fill_docs(const pn_table_recipe *r, int32_t *values) {
    pn_docs d = docs_of(r);
    for (int64_t i = 0; i <= d.n; i++) *values++ = (int32_t)d.offset[i];
    for (int64_t i = 0; i < d.n; i++) *values++ = (int32_t)pn_docs_past(&d, i);
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
    for (; c < chunks; c++) {
        doc[c] = (int32_t)(d.n - 1);
        begin[c] = (int32_t)d.offset[d.n];
    }
}

static void fill_offsets(const pn_table_recipe *r, int32_t *values) {
    for (int64_t i = 0; i <= r->rows; i++) values[i] = (int32_t)(r->part[0][i < r->n ? i : r->n] * r->each);
}
static void fill_lengths(const pn_table_recipe *r, int32_t *values) {
    for (int64_t i = 0; i < r->rows; i++) values[i] = i < r->n ? (int32_t)(r->part[0][i + 1] - r->part[0][i]) : 0;
}

pn_status pn_table_fill(const pn_table_recipe *r, int32_t *values) {
    const int64_t most = INT32_MAX / (r->each > 0 ? r->each : 1);
    for (int part = 0; part < 2; part++)
        for (int64_t i = 0; i < pn_table_part_length(r, part); i++) {
            const int64_t x = r->part[part][i];
            PN_CHECK(x >= 0 && x <= most, PN_UNSUPPORTED,
                     "%lld tokens or keys in one pass: the GPU counts them in 31 bits; use fewer per step",
                     (long long)x);
        }
    switch (r->kind) {
    case PN_TABLE_DOCS: fill_docs(r, values); break;
    case PN_TABLE_OFFSETS: fill_offsets(r, values); break;
    case PN_TABLE_LENGTHS: fill_lengths(r, values); break;
    default:
        for (int64_t i = 0; i < r->n; i++) values[i] = (int32_t)r->part[0][i];
    }
    return PN_OK;
}

/* ---- the last few ---- */

typedef struct table {
    pn_table_recipe made_of; /* its parts are owned, in one block */
    int32_t *values;         /* on the GPU; NULL: an empty place */
    uint64_t asked;          /* when it was asked for last */
} table;

static table tables[PN_STAGED_TABLES];
static uint64_t asked;

static bool same_part(const pn_table_recipe *a, const pn_table_recipe *b, int part) {
    const int64_t n = pn_table_part_length(a, part);
    return n == pn_table_part_length(b, part) &&
           (n == 0 || !memcmp(a->part[part], b->part[part], (size_t)n * sizeof(int64_t)));
}

static table *find(const pn_table_recipe *r) {
    for (int i = 0; i < PN_STAGED_TABLES; i++) {
        table *t = &tables[i];
        const pn_table_recipe *x = &t->made_of;
        if (t->values && pn_table_same_kind(x, r) && same_part(x, r, 0) && same_part(x, r, 1)) return t;
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
    free((void *)oldest->made_of.part[0]);
    *oldest = (table){ 0 };
    return oldest;
}

static pn_status make(table *t, const pn_table_recipe *r) {
    const int64_t n_values = pn_table_length(r), n[] = { pn_table_part_length(r, 0), pn_table_part_length(r, 1) };
    int32_t *values = malloc((size_t)(n_values + 1) * sizeof *values);
    int64_t *own = malloc((size_t)(n[0] + n[1] + 1) * sizeof *own);
    void *there = pn_device_alloc((size_t)(n_values + 1) * sizeof *values);
    pn_status s = PN_OK;
    if (!values || !own || !there) PN_FAIL_GOTO(s, PN_MEMORY, done, "%s memory exhausted", there ? "host" : "GPU");
    PN_TRY_GOTO(s, pn_table_fill(r, values), done);
    PN_TRY_GOTO(s, pn_device_upload(there, values, (size_t)n_values * sizeof *values), done);
    if (n[0]) memcpy(own, r->part[0], (size_t)n[0] * sizeof *own);
    if (n[1]) memcpy(own + n[0], r->part[1], (size_t)n[1] * sizeof *own);
    *t = (table){ .made_of = *r, .values = there };
    t->made_of.part[0] = own;
    t->made_of.part[1] = r->part[1] ? own + n[0] : NULL;
    own = NULL;
    there = NULL;
done:
    free(values);
    free(own);
    pn_device_free(there);
    return s;
}

static pn_status stage(const pn_table_recipe *r, const int32_t **out) {
    if (pn_graph_recording()) return pn_recorded_table(r, out);
    pn_recorded_asked(r);
    table *t = find(r);
    if (!t) {
        t = make_room();
        PN_TRY(make(t, r));
    }
    t->asked = ++asked;
    *out = t->values;
    return PN_OK;
}

pn_status pn_cuda_staged_integers(const int64_t *values, int64_t n, const int32_t **out) {
    PN_TRY(stage(&(pn_table_recipe){ .kind = PN_TABLE_INTEGERS, .n = n, .part = { values } }, out));
    return PN_OK;
}

static pn_table_recipe recipe_of(pn_table_kind kind, const pn_docs *docs, int64_t rows, int64_t each) {
    PN_ASSERT(docs->n <= rows || kind == PN_TABLE_DOCS);
    return (pn_table_recipe){ .kind = kind,
                              .n = docs->n,
                              .part = { docs->offset, kind == PN_TABLE_DOCS ? docs->past : NULL },
                              .longest = docs->longest,
                              .rows = rows,
                              .each = each };
}

pn_status pn_cuda_staged_offsets(const pn_docs *docs, int64_t rows, int64_t each, const int32_t **out) {
    const pn_table_recipe r = recipe_of(PN_TABLE_OFFSETS, docs, rows, each);
    PN_TRY(stage(&r, out));
    return PN_OK;
}

pn_status pn_cuda_staged_lengths(const pn_docs *docs, int64_t rows, const int32_t **out) {
    const pn_table_recipe r = recipe_of(PN_TABLE_LENGTHS, docs, rows, 0);
    PN_TRY(stage(&r, out));
    return PN_OK;
}

pn_status pn_cuda_docs_stage(const pn_docs *docs, pn_cuda_docs *out) {
    int64_t n = docs->n, tokens = pn_docs_tokens(docs), chunks = pn_docs_chunks(docs, n);
    const pn_table_recipe r = recipe_of(PN_TABLE_DOCS, docs, 0, 0);
    const int32_t *at;
    PN_TRY(stage(&r, &at));
    *out = (pn_cuda_docs){ .tokens = tokens, .n = n, .chunks = chunks, .offset = at };
    out->past = out->offset + n + 1;
    out->first_chunk = out->past + n;
    out->chunk_doc = out->first_chunk + n + 1;
    out->chunk_begin = out->chunk_doc + chunks;
    out->doc = out->chunk_begin + chunks;
    return PN_OK;
}
