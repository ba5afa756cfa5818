#include "batch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pn_batch_free(pn_batch *b) {
    free(b->offset);
    free(b->ids);
    free(b->targets);
    free(b->weights);
    free(b->teacher_ids);
    free(b->teacher_log_p);
    pn_row_free(&b->row);
    *b = (pn_batch){ 0 };
}

/* Documents of any layout: as many as the next power of two, and no fewer than one for every so many tokens. Blocks of
 * kernels that find nothing to do end at once. */
enum { TOKENS_OF_DOC = 512 };
static int64_t power_of_two(int64_t least) {
    int64_t n = 1;
    while (n < least) n *= 2;
    return n;
}
static int64_t docs_of_any_layout(const pn_batch *b) {
    const int64_t usual = b->n_tokens / TOKENS_OF_DOC;
    return power_of_two(b->n_docs > usual ? b->n_docs : usual);
}

/* Room for n tokens in at most n documents, and the empty ones after them. */
static pn_status reserve(pn_batch *b, int64_t n) {
    if (n <= b->cap_tokens) return PN_OK;
    struct {
        void **array;
        size_t bytes;
    } arrays[] = { { (void **)&b->offset, 2 * sizeof *b->offset },
                   { (void **)&b->ids, sizeof *b->ids },
                   { (void **)&b->targets, sizeof *b->targets },
                   { (void **)&b->weights, sizeof *b->weights } };
    for (int i = 0; i < 4; i++) {
        void *grown = realloc(*arrays[i].array, (size_t)(n + 1) * arrays[i].bytes);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        *arrays[i].array = grown;
    }
    b->cap_tokens = n;
    return PN_OK;
}

/* Room for what a teacher says of n tokens, k words each. */
static pn_status reserve_words(pn_batch *b, int64_t n, int64_t k) {
    const size_t words = (size_t)(n * k);
    b->k = k;
    if (n * k <= b->cap_words) return PN_OK;
    int32_t *ids = realloc(b->teacher_ids, words * sizeof *ids);
    if (ids) b->teacher_ids = ids;
    float *log_p = realloc(b->teacher_log_p, words * sizeof *log_p);
    if (log_p) b->teacher_log_p = log_p;
    PN_CHECK(ids && log_p, PN_MEMORY, "out of memory");
    b->cap_words = n * k;
    return PN_OK;
}

/* Of a batch whose offsets are there. */
static void finish_docs(pn_batch *b, int64_t longest) {
    const int64_t n = docs_of_any_layout(b);
    for (int64_t i = b->n_docs + 1; i <= n; i++) b->offset[i] = b->n_tokens;
    b->docs = (pn_docs){ .n = b->n_docs, .offset = b->offset };
    b->longest = longest;
}

pn_docs pn_batch_docs(const pn_batch *b, bool any_layout) {
    if (!any_layout) return b->docs;
    return (pn_docs){ .n = docs_of_any_layout(b), .offset = b->docs.offset, .longest = b->longest };
}

pn_status pn_batch_load(pn_mixture *mixture, int64_t first, int64_t n, pn_batch *b) {
    return pn_batch_load_split(mixture, PN_SPLIT_TRAIN, first, n, b);
}

pn_status pn_batch_load_split(pn_mixture *mixture, pn_split split, int64_t first, int64_t n, pn_batch *b) {
    int64_t T = pn_mixture_row_tokens(mixture);
    PN_TRY(reserve(b, n * T));
    b->n_docs = b->n_tokens = b->k = 0;
    b->weighted = true;
    for (int64_t i = 0; i < n; i++) {
        PN_TRY(pn_mixture_row(mixture, split, first + i, &b->row));
        memcpy(b->ids + b->n_tokens, b->row.tokens, (size_t)T * sizeof *b->ids);
        memcpy(b->targets + b->n_tokens, b->row.targets, (size_t)T * sizeof *b->targets);
        memcpy(b->weights + b->n_tokens, b->row.weights, (size_t)T * sizeof *b->weights);
        for (int64_t d = 0; d < b->row.n_docs; d++) b->offset[b->n_docs++] = b->n_tokens + b->row.doc_offsets[d];
        b->n_tokens += T;
    }
    b->offset[b->n_docs] = b->n_tokens;
    finish_docs(b, T);
    return PN_OK;
}

pn_status pn_batch_teach(pn_batch *b, pn_teacher_rows *rows, int64_t first) {
    const pn_teacher_info *o = pn_teacher_rows_info(rows);
    PN_ASSERT(b->n_tokens % o->sequence_length == 0);
    PN_TRY(reserve_words(b, b->n_tokens, o->k));
    PN_TRY(pn_teacher_rows_read(rows, first, b->n_tokens / o->sequence_length, b->teacher_ids, b->teacher_log_p));
    return PN_OK;
}

pn_status pn_batch_make_up(pn_batch *b, int64_t k) {
    PN_TRY(reserve_words(b, b->n_tokens, k));
    for (int64_t i = 0; i < b->n_tokens * k; i++) {
        b->teacher_ids[i] = (int32_t)(i % k);
        b->teacher_log_p[i] = -logf(2 * (float)k);
    }
    return PN_OK;
}

pn_status pn_batch_part(const pn_batch *whole, int64_t first, int64_t n, pn_batch *b) {
    PN_ASSERT(whole->weighted && first >= 0 && first + n <= whole->n_tokens);
    PN_TRY(reserve(b, n));
    memcpy(b->ids, whole->ids + first, (size_t)n * sizeof *b->ids);
    memcpy(b->targets, whole->targets + first, (size_t)n * sizeof *b->targets);
    memcpy(b->weights, whole->weights + first, (size_t)n * sizeof *b->weights);
    b->n_docs = 0;
    for (int64_t d = 0; d < whole->n_docs; d++)
        if (whole->offset[d] >= first && whole->offset[d] < first + n)
            b->offset[b->n_docs++] = whole->offset[d] - first;
    PN_ASSERT(b->n_docs && b->offset[0] == 0);
    b->offset[b->n_docs] = b->n_tokens = n;
    b->weighted = true;
    finish_docs(b, whole->longest);
    b->k = 0;
    if (!whole->k) return PN_OK;
    const size_t words = (size_t)(n * whole->k);
    PN_TRY(reserve_words(b, n, whole->k));
    memcpy(b->teacher_ids, whole->teacher_ids + first * whole->k, words * sizeof *b->teacher_ids);
    memcpy(b->teacher_log_p, whole->teacher_log_p + first * whole->k, words * sizeof *b->teacher_log_p);
    return PN_OK;
}

double pn_batch_weight(const pn_batch *b) {
    double sum = 0;
    for (int64_t i = 0; i < b->n_tokens; i++) sum += b->targets[i] < 0 ? 0 : b->weighted ? b->weights[i] : 1;
    return sum;
}

pn_status pn_batch_from_ids(const int32_t *ids, const int64_t *offset, int64_t n_docs, pn_batch *b) {
    int64_t n = offset[n_docs];
    PN_TRY(reserve(b, n > n_docs ? n : n_docs));
    memcpy(b->ids, ids, (size_t)n * sizeof *ids);
    memcpy(b->offset, offset, (size_t)(n_docs + 1) * sizeof *offset);
    for (int64_t d = 0; d < n_docs; d++)
        for (int64_t i = offset[d]; i < offset[d + 1]; i++) b->targets[i] = i + 1 < offset[d + 1] ? ids[i + 1] : -1;
    b->n_tokens = n;
    b->n_docs = n_docs;
    b->k = 0;
    b->weighted = false;
    int64_t longest = pn_docs_longest(&(pn_docs){ .n = n_docs, .offset = offset });
    longest = power_of_two(longest);
    finish_docs(b, longest < n ? longest : n);
    return PN_OK;
}

/* [n], or [n, k] where k is not 0. */
static pn_status tensor(pn_tape *t, pn_dtype type, int64_t n, int64_t k, const void *data, pn_dtype from,
                        pn_tensor **out) {
    PN_TRY(pn_tape_new(t, type, k ? 2 : 1, (const int64_t[]){ n, k }, out));
    PN_TRY(pn_tensor_write(*out, data, from));
    return PN_OK;
}

pn_status pn_batch_tensors(const pn_batch *b, pn_tape *t, pn_tensor **ids, pn_tensor **targets, pn_tensor **weights) {
    *weights = NULL;
    if (b->there[PN_BATCH_IDS]) {
        *ids = b->there[PN_BATCH_IDS];
        *targets = b->there[PN_BATCH_TARGETS];
        *weights = b->there[PN_BATCH_WEIGHTS];
        return PN_OK;
    }
    PN_TRY(tensor(t, PN_I32, b->n_tokens, 0, b->ids, PN_I32, ids));
    PN_TRY(tensor(t, PN_I32, b->n_tokens, 0, b->targets, PN_I32, targets));
    if (b->weighted) PN_TRY(tensor(t, pn_wide_dtype(pn_tape_dtype(t)), b->n_tokens, 0, b->weights, PN_F32, weights));
    return PN_OK;
}

pn_status pn_batch_teacher_tensors(const pn_batch *b, pn_tape *t, pn_tensor **ids, pn_tensor **log_p) {
    if (b->there[PN_BATCH_IDS]) {
        *ids = b->there[PN_BATCH_TEACHER_IDS];
        *log_p = b->there[PN_BATCH_TEACHER_LOG_P];
        return PN_OK;
    }
    PN_TRY(tensor(t, PN_I32, b->n_tokens, b->k, b->teacher_ids, PN_I32, ids));
    PN_TRY(tensor(t, pn_wide_dtype(pn_tape_dtype(t)), b->n_tokens, b->k, b->teacher_log_p, PN_F32, log_p));
    return PN_OK;
}
