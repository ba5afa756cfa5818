#include "tensor.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t n_bytes;
} dtypes[] = {
#define X(name, text, bytes) [PN_##name] = { text, bytes },
    PN_DTYPE_MAP(X)
#undef X
};

size_t pn_dtype_bytes(pn_dtype t) {
    return dtypes[t].n_bytes;
}
const char *pn_dtype_name(pn_dtype t) {
    return dtypes[t].name;
}

int64_t pn_tensor_elems(const pn_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

size_t pn_tensor_bytes(const pn_tensor *t) {
    return (size_t)pn_tensor_elems(t) * pn_dtype_bytes(t->dtype);
}

bool pn_tensor_same_shape(const pn_tensor *a, const pn_tensor *b) {
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof a->shape[0]);
}

const char *pn_tensor_shape_text(const pn_tensor *t) {
    static _Thread_local char buffers[4][96];
    static _Thread_local unsigned next;
    char *b = buffers[next++ % 4];
    size_t len = 0;
    len += (size_t)snprintf(b, sizeof buffers[0], "[");
    for (int i = 0; i < t->rank; i++)
        len += (size_t)snprintf(b + len, sizeof buffers[0] - len, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    snprintf(b + len, sizeof buffers[0] - len, "]");
    return b;
}

static pn_status new_shell(pn_dtype type, int rank, const int64_t *shape, pn_tensor **out) {
    PN_ASSERT(rank >= 0 && rank <= PN_MAX_RANK);
    pn_tensor *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    t->rank = rank;
    t->dtype = t->grad_dtype = type;
    t->refs = t->holds = 1;
    for (int i = 0; i < rank; i++) t->shape[i] = shape[i];
    *out = t;
    return PN_OK;
}

pn_status pn_tensor_create(pn_pool *pool, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out) {
    int64_t bytes = (int64_t)pn_dtype_bytes(type);
    for (int i = 0; i < rank; i++) {
        PN_ASSERT(shape[i] >= 0);
        PN_CHECK(!__builtin_mul_overflow(bytes, shape[i], &bytes), PN_MEMORY, "a tensor's size overflows 64 bits");
    }
    pn_tensor *t;
    PN_TRY(new_shell(type, rank, shape, &t));
    pn_status s = pn_storage_create(pool, (size_t)bytes, &t->storage);
    if (s) {
        free(t);
        return s;
    }
    *out = t;
    return PN_OK;
}

pn_status pn_tensor_zeros(pn_pool *pool, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out) {
    PN_TRY(pn_tensor_create(pool, type, rank, shape, out));
    pn_status s = pn_tensor_fill_zero(*out);
    if (s) pn_tensor_release(out);
    return s;
}

static pn_status share(pn_tensor *base, pn_tensor **out) {
    PN_ASSERT(base->storage);
    PN_TRY(new_shell(base->dtype, base->rank, base->shape, out));
    (*out)->storage = base->storage;
    (*out)->storage->refs++;
    (*out)->offset = base->offset;
    (*out)->grad_dtype = base->grad_dtype;
    return PN_OK;
}

pn_status pn_tensor_rows(pn_tensor *base, int64_t begin, int64_t end, pn_tensor **out) {
    PN_ASSERT(base->rank >= 1 && 0 <= begin && begin <= end && end <= base->shape[0]);
    PN_TRY(share(base, out));
    int64_t row = base->shape[0] ? pn_tensor_elems(base) / base->shape[0] : 0;
    (*out)->shape[0] = end - begin;
    (*out)->offset += begin * row;
    return PN_OK;
}

pn_status pn_tensor_part(pn_tensor *base, int64_t at, int rank, const int64_t *shape, pn_tensor **out) {
    PN_TRY(share(base, out));
    pn_tensor *t = *out;
    t->rank = rank;
    for (int i = 0; i < rank; i++) t->shape[i] = shape[i];
    t->offset += at;
    PN_ASSERT(at >= 0 && at + pn_tensor_elems(t) <= pn_tensor_elems(base));
    return PN_OK;
}

pn_status pn_tensor_detach(pn_tensor *base, pn_tensor **out) {
    return share(base, out);
}

pn_status pn_tensor_again(const pn_tensor *t, pn_tensor **out) {
    PN_ASSERT(t->storage);
    PN_TRY(new_shell(t->dtype, t->rank, t->shape, out));
    (*out)->offset = t->offset;
    pn_status s = pn_storage_again(t->storage, &(*out)->storage);
    if (s) pn_tensor_release(out);
    return s;
}

static void free_shell(pn_tensor *t) {
    pn_tensor_release(&t->grad);
    pn_storage_release(&t->storage);
    free(t);
}

pn_tensor *pn_tensor_retain_shell(pn_tensor *t) {
    t->refs++;
    return t;
}

void pn_tensor_release_shell(pn_tensor **t) {
    if (!t || !*t) return;
    if (--(*t)->refs == 0) free_shell(*t);
    *t = NULL;
}

void pn_tensor_hold(pn_tensor *t) {
    PN_ASSERT(t->storage);
    t->holds++;
}

void pn_tensor_unhold(pn_tensor *t) {
    if (--t->holds == 0) pn_storage_release(&t->storage);
}

pn_status pn_tensor_refill(pn_tensor *t, pn_pool *pool, int holds) {
    PN_ASSERT(!t->storage && !t->holds && holds > 0);
    PN_TRY(pn_storage_create(pool, pn_tensor_bytes(t), &t->storage));
    t->offset = 0;
    t->holds = holds;
    return PN_OK;
}

pn_tensor *pn_tensor_retain(pn_tensor *t) {
    pn_tensor_hold(t);
    return pn_tensor_retain_shell(t);
}

void pn_tensor_release(pn_tensor **t) {
    if (!t || !*t) return;
    pn_tensor_unhold(*t);
    pn_tensor_release_shell(t);
}

static size_t begin_of(const pn_tensor *t) {
    return (size_t)t->offset * pn_dtype_bytes(t->dtype);
}

pn_status pn_tensor_fill_bytes(pn_tensor *t, int byte) {
    PN_ASSERT(t->storage);
    return pn_storage_fill(t->storage, begin_of(t), pn_tensor_bytes(t), byte);
}

pn_status pn_tensor_fill_zero(pn_tensor *t) {
    return pn_tensor_fill_bytes(t, 0);
}

/* A buffer of the host for values of t as they are in it. */
static pn_status buffer_for(const pn_tensor *t, void **out) {
    *out = malloc(pn_tensor_bytes(t) + 1);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return PN_OK;
}

pn_status pn_tensor_write(pn_tensor *t, const void *values, pn_dtype type) {
    PN_ASSERT(t->storage);
    if (pn_pool_kind_of(t->storage->pool) == PN_POOL_HOST) {
        pn_convert(pn_data(t), t->dtype, values, type, pn_tensor_elems(t));
        return PN_OK;
    }
    void *converted = NULL;
    if (type != t->dtype) {
        PN_TRY(buffer_for(t, &converted));
        pn_convert(converted, t->dtype, values, type, pn_tensor_elems(t));
    }
    pn_status s = pn_storage_write(t->storage, begin_of(t), converted ? converted : values, pn_tensor_bytes(t));
    free(converted);
    return s;
}

pn_status pn_tensor_read(const pn_tensor *t, void *values, pn_dtype type) {
    PN_ASSERT(t->storage);
    if (pn_pool_kind_of(t->storage->pool) == PN_POOL_HOST) {
        pn_convert(values, type, pn_data(t), t->dtype, pn_tensor_elems(t));
        return PN_OK;
    }
    if (!t->storage->data) return PN_OK;
    void *raw = NULL;
    if (type != t->dtype) PN_TRY(buffer_for(t, &raw));
    pn_status s = pn_storage_read(raw ? raw : values, t->storage, begin_of(t), pn_tensor_bytes(t));
    if (!s && raw) pn_convert(values, type, raw, t->dtype, pn_tensor_elems(t));
    free(raw);
    return s;
}

pn_status pn_tensor_move(pn_tensor *t, pn_pool *pool, pn_dtype type) {
    PN_ASSERT(t->storage && t->storage->refs == 1);
    pn_tensor *there;
    PN_TRY(pn_tensor_create(pool, type, t->rank, t->shape, &there));
    pn_status s = pn_tensor_copy(there, t);
    if (!s) {
        pn_storage *old = t->storage;
        t->storage = there->storage;
        there->storage = old;
        t->offset = 0;
        t->dtype = t->grad_dtype = type;
        pn_tensor_release(&t->grad);
    }
    pn_tensor_release(&there);
    return s;
}

pn_status pn_tensor_place(pn_tensor *t, pn_tensor *base, int64_t at) {
    PN_ASSERT(t->storage && t->dtype == base->dtype);
    pn_tensor *there;
    PN_TRY(pn_tensor_part(base, at, t->rank, t->shape, &there));
    pn_status s = pn_tensor_copy(there, t);
    if (!s) {
        pn_storage *old = t->storage;
        t->storage = there->storage;
        t->offset = there->offset;
        there->storage = old;
        pn_tensor_release(&t->grad);
    }
    pn_tensor_release(&there);
    return s;
}

pn_status pn_tensor_copy(pn_tensor *dst, const pn_tensor *src) {
    PN_CHECK(pn_tensor_same_shape(dst, src), PN_USAGE, "cannot copy a tensor of shape %s into one of shape %s",
             pn_tensor_shape_text(src), pn_tensor_shape_text(dst));
    if (!dst->storage->data || !src->storage->data) return PN_OK;
    if (dst->dtype == src->dtype)
        return pn_storage_copy(dst->storage, begin_of(dst), src->storage, begin_of(src), pn_tensor_bytes(src));
    if (pn_pool_kind_of(src->storage->pool) == PN_POOL_HOST) return pn_tensor_write(dst, pn_data(src), src->dtype);
    if (pn_pool_kind_of(dst->storage->pool) == PN_POOL_HOST) return pn_tensor_read(src, pn_data(dst), dst->dtype);
    void *values; /* two types on the GPU: by way of the host */
    PN_TRY(buffer_for(dst, &values));
    pn_status s = pn_tensor_read(src, values, dst->dtype);
    if (!s) s = pn_tensor_write(dst, values, dst->dtype);
    free(values);
    return s;
}
