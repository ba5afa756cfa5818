/* Tensors: a contiguous, row-major, counted view of storage.
 *
 * Every tensor is contiguous; a view (pn_tensor_rows) is a range of the first dimension. Heads are not a dimension:
 * activations are [tokens, channels] with head h at channels h*d .. h*d+d-1, so no op ever needs a transpose.
 *
 * Two counts, because a recorded op outlives the values it does not need: `refs` counts who knows the tensor (its
 * shape, its gradient), `holds` counts who needs its values. When `holds` reaches 0 the memory goes back to the pool
 * and `storage` becomes NULL; the shell goes with its last reference. */
#ifndef PN_TENSOR_TENSOR_H
#define PN_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool.h"
#include "status.h"

enum { PN_MAX_RANK = 4 };

#define PN_DTYPE_MAP(X)                                                                                                \
    X(F32, "f32", 4)                                                                                                   \
    X(F64, "f64", 8)                                                                                                   \
    X(BF16, "bf16", 2)                                                                                                 \
    X(F16, "f16", 2)                                                                                                   \
    X(I32, "i32", 4)                                                                                                   \
    X(I64, "i64", 8)                                                                                                   \
    X(U8, "u8", 1)

typedef enum pn_dtype {
#define X(name, text, bytes) PN_##name,
    PN_DTYPE_MAP(X)
#undef X
        PN_DTYPES
} pn_dtype;

size_t pn_dtype_bytes(pn_dtype t);
const char *pn_dtype_name(pn_dtype t);

typedef struct pn_tensor pn_tensor;
struct pn_tensor {
    pn_storage *storage; /* NULL once nobody holds the values */
    int64_t offset;      /* elements from the start of the storage */
    int rank;
    int64_t shape[PN_MAX_RANK];
    pn_dtype dtype;
    bool wants_grad;
    bool renewable;      /* a decode state: what makes the next one may write it over this (pn_op_impl.renews) */
    pn_dtype grad_dtype; /* dtype, unless somebody says otherwise: weights in BF16 gather their gradient in F32 */
    pn_tensor *grad;     /* owned; same shape; NULL until backward first reaches this tensor */
    int refs, holds;
    int maker;   /* the tape's: index of the record that made it + 1; -1: a stand-in of the tape's own; 0: a leaf */
    int awaited; /* the tape's: records that want its values and could have them made again (pn_tape_again) */
    bool remade; /* the tape's: they were; so each of these has a hold on them */
};

/* Values are undefined (create) or zero (zeros). The caller owns one reference to *out, here and wherever a function
 * takes `out`. PN_MEMORY when the pool is exhausted. */
pn_status pn_tensor_create(pn_pool *pool, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out);
pn_status pn_tensor_zeros(pn_pool *pool, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out);
/* Rows begin..end of the first dimension; shares storage. */
pn_status pn_tensor_rows(pn_tensor *base, int64_t begin, int64_t end, pn_tensor **out);
/* Elements from `at` on of a tensor, as a shape; shares storage. */
pn_status pn_tensor_part(pn_tensor *base, int64_t at, int rank, const int64_t *shape, pn_tensor **out);
/* A new shell over the same values, with no gradient: cuts the graph. */
pn_status pn_tensor_detach(pn_tensor *base, pn_tensor **out);

/* The same shape over the same memory, which the pool may have handed out to others since (pn_storage_again). */
pn_status pn_tensor_again(const pn_tensor *t, pn_tensor **out);

pn_tensor *pn_tensor_retain(pn_tensor *t);       /* one more reference and hold; returns t */
void pn_tensor_release(pn_tensor **t);           /* drops one of each, sets *t to NULL; NULL ok */
pn_tensor *pn_tensor_retain_shell(pn_tensor *t); /* reference only: shape and gradient, not the values */
void pn_tensor_release_shell(pn_tensor **t);
void pn_tensor_hold(pn_tensor *t); /* values only */
void pn_tensor_unhold(pn_tensor *t);
/* New storage, of undefined values, for a tensor that lost its own; `holds` holds on it. */
pn_status pn_tensor_refill(pn_tensor *t, pn_pool *pool, int holds);

int64_t pn_tensor_elems(const pn_tensor *t);
size_t pn_tensor_bytes(const pn_tensor *t);
bool pn_tensor_same_shape(const pn_tensor *a, const pn_tensor *b);
/* "[4096, 576]" in one of a few rotating per-thread buffers: for messages. */
const char *pn_tensor_shape_text(const pn_tensor *t);

/* Copies values between same-shaped tensors of any dtype (round to nearest even where the target is narrower), on the
 * host or the GPU. */
pn_status pn_tensor_copy(pn_tensor *dst, const pn_tensor *src);
/* All values from and to memory of the host, as `type`, wherever the tensor is. A planned tensor has none: nothing
 * happens. */
pn_status pn_tensor_write(pn_tensor *t, const void *values, pn_dtype type);
pn_status pn_tensor_read(const pn_tensor *t, void *values, pn_dtype type);
/* Takes the values to storage of its own from another pool, as another type: whoever has the tensor has it there. Its
 * gradient goes. It is no view and has none, and nothing else needs its values where they were. */
pn_status pn_tensor_move(pn_tensor *t, pn_pool *pool, pn_dtype type);
/* Takes the values into elements `at` on of base, of the same type and in a pool of the same kind: whoever has the
 * tensor has it there. Its gradient goes. */
pn_status pn_tensor_place(pn_tensor *t, pn_tensor *base, int64_t at);
/* Converts n elements between raw buffers; the buffers must not overlap unless the dtypes are equal. */
void pn_convert(void *dst, pn_dtype dst_type, const void *src, pn_dtype src_type, int64_t n);
pn_status pn_tensor_fill_zero(pn_tensor *t);
/* Every byte: 0xff makes a NaN of every float, for checks. */
pn_status pn_tensor_fill_bytes(pn_tensor *t, int byte);

/* Where the values are: an address of the GPU when the tensor is there, for its kernels only. */
static inline void *pn_data(const pn_tensor *t) {
    PN_ASSERT(t->storage);
    return (char *)t->storage->data + (size_t)t->offset * pn_dtype_bytes(t->dtype);
}
static inline float *pn_f32(const pn_tensor *t) {
    PN_ASSERT(t->dtype == PN_F32);
    return (float *)pn_data(t);
}
static inline double *pn_f64(const pn_tensor *t) {
    PN_ASSERT(t->dtype == PN_F64);
    return (double *)pn_data(t);
}
static inline int32_t *pn_i32(const pn_tensor *t) {
    PN_ASSERT(t->dtype == PN_I32);
    return (int32_t *)pn_data(t);
}
/* Optional tensors: NULL in, NULL out. */
static inline float *pn_f32_or_null(const pn_tensor *t) {
    return t ? pn_f32(t) : NULL;
}
static inline double *pn_f64_or_null(const pn_tensor *t) {
    return t ? pn_f64(t) : NULL;
}

#endif
