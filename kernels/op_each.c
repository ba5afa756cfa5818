#include "op_each.h"

#include <stdlib.h>
#include <string.h>

#include "op_case.h"

typedef struct candidate {
    pn_op_sample sample;
    uint64_t kind;
    bool differentiated;
    int64_t elements;
} candidate;

typedef struct best { /* one candidate of each implementation and kind */
    candidate *of;
    int n, room;
} best;

static pn_status find(best *b, const pn_op_impl *impl, uint64_t kind, candidate **out) {
    for (int i = 0; i < b->n; i++)
        if (b->of[i].sample.impl == impl && b->of[i].kind == kind) {
            *out = &b->of[i];
            return PN_OK;
        }
    if (b->n == b->room) {
        const int room = 2 * b->room + 16;
        candidate *more = realloc(b->of, (size_t)room * sizeof *more);
        PN_CHECK(more, PN_MEMORY, "out of memory");
        b->of = more;
        b->room = room;
    }
    *out = &b->of[b->n++];
    **out = (candidate){ .sample = { .impl = impl, .at = -1 }, .kind = kind };
    return PN_OK;
}

static int64_t elements_of(const pn_op_call *c) {
    int64_t n = 0;
    for (int i = 0; i < c->n_in; i++) n += c->in[i] ? pn_tensor_elems(c->in[i]) : 0;
    for (int i = 0; i < c->n_out; i++) n += pn_tensor_elems(c->out[i]);
    return n;
}

/* As op.h says of pn_op_case.kind. */
static uint64_t kind_of(const pn_op_case *c, const pn_op_call *call, const pn_op_impl *impl) {
    if (c->kind) return (uint64_t)c->kind << 32 | (impl->takes ? (uint32_t)c->size : 0);
    uint64_t there = 0;
    bool whole = true;
    for (int i = 0; i < call->n_in; i++) {
        const pn_tensor *x = call->in[i];
        if (!x) continue;
        there |= 1u << i;
        whole = whole && (x->rank < 2 || (size_t)x->shape[x->rank - 1] * pn_dtype_bytes(x->dtype) % 16 == 0);
    }
    return there | (whole ? 1u << PN_OP_IN : 0);
}

static bool better(const candidate *x, const candidate *than) {
    if (than->sample.at < 0) return true;
    return x->differentiated != than->differentiated ? x->differentiated : x->elements < than->elements;
}

/* The call is made without memory behind it: only shapes are looked at. */
static pn_status consider(best *b, const pn_op *op, pn_backend backend, pn_dtype type, int at, const pn_op_case *c) {
    pn_case_call x = { 0 };
    pn_status status;
    if (c->kind < 0) return PN_OK;
    PN_TRY_GOTO(status, pn_case_call_make(op, c, PN_PLAN, type, &x), done);
    if (x.call.in[0] && pn_tensor_elems(x.call.in[0]) == 0) goto done;
    for (const pn_op_impl *const *impl = op->impl[backend]; *impl; impl++) {
        if (!pn_op_takes(*impl, &x.call)) continue;
        candidate *old,
            new = { .sample = { at, *impl }, .kind = kind_of(c, &x.call, *impl), .elements = elements_of(&x.call) };
        new.differentiated = pn_op_wants(&x.call) && (*impl)->backward != NULL;
        PN_TRY_GOTO(status, find(b, *impl, new.kind, &old), done);
        if (better(&new, old)) *old = new;
    }
done:
    pn_case_call_free(&x);
    return status;
}

static int by_case(const void *a, const void *b) {
    return ((const pn_op_sample *)a)->at - ((const pn_op_sample *)b)->at;
}

pn_status pn_op_each(const pn_op *op, pn_backend backend, pn_dtype type, pn_op_sample **out, int *n) {
    best b = { 0 };
    pn_status status = PN_OK;
    for (int i = 0;; i++) {
        pn_op_case c;
        memset(&c, 0, sizeof c);
        if (!op->contract->case_at || !op->contract->case_at(i, &c)) break;
        PN_TRY_GOTO(status, consider(&b, op, backend, type, i, &c), done);
    }
    *out = malloc((size_t)(b.n + 1) * sizeof **out);
    if (!*out) PN_FAIL_GOTO(status, PN_MEMORY, done, "out of memory");
    *n = b.n;
    for (int i = 0; i < b.n; i++) (*out)[i] = b.of[i].sample;
    qsort(*out, (size_t)b.n, sizeof **out, by_case);
done:
    free(b.of);
    return status;
}
