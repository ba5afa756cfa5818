#include "bucket.h"

#include <stdlib.h>
#include <string.h>

#include "buffer.h"

/* The next multiple of `of`; true when it does not fit. */
static bool round_up(int64_t n, int64_t of, int64_t *out) {
    if (pn_add_overflow(n, of - 1, out)) return true;
    *out -= *out % of;
    return false;
}

static pn_status too_large(void) {
    PN_FAIL(PN_USAGE, "the parameters have more elements than can be counted");
}

/* Closes the bucket of parameters first .. end - 1, with `used` elements. */
static pn_status close_bucket(pn_bucket_plan *p, int first, int end, int64_t used, int64_t align) {
    int64_t step, elems;
    if (pn_mul_overflow((int64_t)p->ranks, align, &step) || round_up(used, step, &elems)) return too_large();
    p->bucket[p->n_buckets++] = (pn_bucket){ .first = first,
                                             .end = end,
                                             .elems = elems,
                                             .part = elems / p->ranks,
                                             .at = p->total_elems,
                                             .part_at = p->shard_elems };
    if (pn_add_overflow(p->total_elems, elems, &p->total_elems)) return too_large();
    p->shard_elems += elems / p->ranks;
    return PN_OK;
}

static pn_status lay_out(pn_bucket_plan *p, int64_t bucket_elems, int64_t align) {
    int64_t used = 0;
    for (int i = 0, first = 0; i < p->n_params; i++) {
        p->offset[i] = used;
        p->bucket_of[i] = p->n_buckets;
        int64_t end;
        if (pn_add_overflow(used, p->elems[i], &end) || round_up(end, align, &used)) return too_large();
        if (used < bucket_elems && i + 1 < p->n_params) continue;
        PN_TRY(close_bucket(p, first, i + 1, used, align));
        first = i + 1;
        used = 0;
    }
    return PN_OK;
}

pn_status pn_bucket_plan_create(const int64_t *elems, int n_params, int64_t bucket_elems, int ranks, int64_t align,
                                pn_bucket_plan **out) {
    PN_ASSERT(n_params >= 0 && bucket_elems >= 1 && ranks >= 1 && align >= 1);
    *out = NULL;
    const size_t n = (size_t)n_params + 1; /* a model of which nothing trains has a plan too */
    pn_bucket_plan *p = calloc(1, sizeof *p);
    PN_CHECK(p, PN_MEMORY, "out of memory");
    *p = (pn_bucket_plan){ .ranks = ranks,
                           .n_params = n_params,
                           .elems = malloc(n * sizeof *p->elems),
                           .offset = malloc(n * sizeof *p->offset),
                           .bucket_of = malloc(n * sizeof *p->bucket_of),
                           .bucket = malloc(n * sizeof *p->bucket) };
    pn_status s = PN_OK;
    if (!p->elems || !p->offset || !p->bucket_of || !p->bucket) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    for (int i = 0; i < n_params; i++) PN_ASSERT(elems[i] >= 1);
    if (n_params) memcpy(p->elems, elems, (size_t)n_params * sizeof *elems);
    PN_TRY_GOTO(s, lay_out(p, bucket_elems, align), fail);
    *out = p;
    return PN_OK;
fail:
    pn_bucket_plan_destroy(&p);
    return s;
}

void pn_bucket_plan_destroy(pn_bucket_plan **at) {
    pn_bucket_plan *p = *at;
    if (!p) return;
    *at = NULL;
    free(p->elems);
    free(p->offset);
    free(p->bucket_of);
    free(p->bucket);
    free(p);
}

/* ---- counting ---- */

pn_status pn_bucket_count_create(const pn_bucket_plan *plan, pn_bucket_count *out) {
    *out = (pn_bucket_count){ .plan = plan,
                              .missing = calloc((size_t)plan->n_buckets + 1, sizeof *out->missing),
                              .seen = calloc((size_t)plan->n_params + 1, sizeof *out->seen) };
    if (!out->missing || !out->seen) {
        pn_bucket_count_free(out);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    pn_bucket_count_reset(out);
    return PN_OK;
}

void pn_bucket_count_free(pn_bucket_count *c) {
    free(c->missing);
    free(c->seen);
    *c = (pn_bucket_count){ .plan = NULL };
}

void pn_bucket_count_reset(pn_bucket_count *c) {
    for (int b = 0; b < c->plan->n_buckets; b++) c->missing[b] = c->plan->bucket[b].end - c->plan->bucket[b].first;
    for (int i = 0; i < c->plan->n_params; i++) c->seen[i] = false;
    c->next = 0;
}

void pn_bucket_count_add(pn_bucket_count *c, int param, int *first, int *end) {
    PN_ASSERT(param >= 0 && param < c->plan->n_params);
    if (!c->seen[param]) c->missing[c->plan->bucket_of[param]]--;
    c->seen[param] = true;
    *first = c->next;
    while (c->next < c->plan->n_buckets && c->missing[c->next] == 0) c->next++;
    *end = c->next;
}

void pn_bucket_count_rest(pn_bucket_count *c, int *first, int *end) {
    *first = c->next;
    *end = c->next = c->plan->n_buckets;
}
