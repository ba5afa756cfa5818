/* An op is one contract and several implementations of it.
 *
 * The contract (kernels/<op>/<op>_shape.c): infer (checks inputs, gives output shapes), saves (what backward needs;
 * nothing else is kept), cost (useful flops, least bytes), cases (shapes and limits, shared by tests, `postnas check
 * ops` and bench). An implementation names what it takes, its scratch, forward and backward. `ops.def` is the only
 * list: one row declares, registers and tests an op.
 *
 * Backends: PN_REF runs in double (F64 tensors), the recurrence as written: the oracle. PN_CPU runs in float (F32) on
 * OpenMP and OpenBLAS. PN_CUDA runs in F32 or BF16 on the GPU: tensors and scratch are there, and calls return before
 * it is done (device.h); without nvcc no op has it. PN_PLAN runs nothing: shapes only, in a counting pool.
 *
 * Types (blocks.md 1.2, 1.3). A call computes in one type, its `dtype`: that of activations, of their gradients and of
 * weight matrices. What must not be rounded to BF16 is wide, F32 then: gates and log decays, recurrent states,
 * statistics, losses and their weights, and the small parameters (norms, biases, A_log, ...). Gradients of parameters,
 * matrices too, are wide. Inside, kernels work in float and round once.
 *
 * Conventions. Activations are [tokens, channels], packed documents along tokens (docs.h). An optional input that is
 * absent is NULL. backward() ADDS to din[i] and skips it when NULL (not wanted); a NULL dout[i] is a zero gradient. An
 * implementation that says so (fresh) also knows how to write a din[i] that holds nothing yet, which saves the zeros
 * and reading them back: most gradients have one source. */
#ifndef PN_KERNELS_OP_H
#define PN_KERNELS_OP_H

#include <stdalign.h>

#include "docs.h"
#include "status.h"
#include "tensor.h"

enum { PN_OP_IN = 10, PN_OP_OUT = 4, PN_OP_ATTR_BYTES = 192 };

typedef enum pn_backend { PN_REF, PN_CPU, PN_CUDA, PN_PLAN, PN_BACKENDS } pn_backend;

typedef struct pn_op pn_op;

typedef struct pn_op_call { /* everything in it is borrowed for the duration of the call */
    const pn_op *op;
    const void *attr; /* the op's own struct, e.g. const pn_gated_delta_attr *; at most PN_OP_ATTR_BYTES */
    pn_dtype dtype;   /* the compute type */
    int n_in, n_out;
    pn_tensor *in[PN_OP_IN], *out[PN_OP_OUT];
    bool wants[PN_OP_IN];                       /* which inputs need a gradient: saves() may depend on it */
    pn_tensor *din[PN_OP_IN], *dout[PN_OP_OUT]; /* backward only */
    uint32_t fresh; /* backward only: bit i: din[i] is undefined and to be written, every element of it */
    void *scratch;  /* scratch_bytes() of memory where the tensors are, 64-byte aligned, contents undefined */
} pn_op_call;

typedef struct pn_op_impl {
    const char *name; /* "gated_delta/cpu-chunk": logs, profiles, test names */
    bool bf16;        /* calls in BF16 too */
    bool fresh;       /* backward heeds call.fresh; without it no bit is set */
    /* Forward may write out[renewed_out] over in[renewed_in] where that is a state (pn_tensor.renewable). */
    bool renews;
    uint8_t renewed_in, renewed_out;
    bool (*takes)(const pn_op_call *c);                          /* NULL: every call that infer() accepted */
    size_t (*scratch_bytes)(const pn_op_call *c, bool backward); /* NULL: none */
    pn_status (*forward)(const pn_op_call *c);                   /* writes every element of out[] */
    pn_status (*backward)(const pn_op_call *c);                  /* adds to din[]; NULL: not differentiable */
} pn_op_impl;

typedef struct pn_out_spec {
    pn_dtype dtype; /* infer() is called with the compute type here: overwrite it where an output differs */
    int rank;
    int64_t shape[PN_MAX_RANK];
    bool no_grad; /* a saved statistic or a report: never differentiated, its dout[] is NULL */
} pn_out_spec;

typedef struct pn_op_cost {
    double flops; /* useful: what the mathematics needs, a fused multiply-add counts 2 */
    double bytes; /* least traffic: every input read once, every output written once */
} pn_op_cost;

/* What backward reads besides dout: bits for inputs and outputs. */
#define PN_SAVE_IN(i)  (1u << (i))
#define PN_SAVE_OUT(i) (1u << (PN_OP_IN + (i)))

typedef enum pn_fill {
    PN_FILL_NORMAL,  /* mean 0, standard deviation hi (0 means 1) */
    PN_FILL_UNIFORM, /* lo .. hi */
    PN_FILL_L2ROWS,  /* normal, then every group of `group` channels scaled to unit length */
    PN_FILL_ONES,    /* 1 + normal * hi */
    PN_FILL_INT      /* integers in lo .. hi - 1 (I32 inputs) */
} pn_fill;

typedef struct pn_case_input {
    bool present;
    bool integer; /* I32; otherwise the compute type, or ... */
    bool wide;    /* ... the wide one */
    bool weight;  /* a parameter in the compute type: its gradient is wide */
    bool no_grad; /* no gradient is checked for it */
    int rank;
    int64_t shape[PN_MAX_RANK];
    pn_fill fill;
    double lo, hi;
    int64_t group;
} pn_case_input;

/* One case: inputs, attributes, and the limits of blocks.md 13 on rms(x - ref) / rms(ref). A limit of 0 means the
 * default (outputs 1e-5, gradients 2e-5). A wider limit carries its story as a comment in the cases file. */
typedef struct pn_op_case {
    char name[80];
    int n_in;
    pn_case_input in[PN_OP_IN];
    alignas(16) unsigned char attr[PN_OP_ATTR_BYTES];
    double limit_out[PN_OP_OUT], limit_din[PN_OP_IN];
    bool gradcheck; /* small enough for finite differences of the reference */
    bool slow;      /* left out of the quick test run, part of `check ops --slow` */
    /* `check ops --each` takes a case of every kind, and where an implementation is for certain calls (takes) one of
     * every kind and size. Kind 0: by which inputs there are, and whether rows are pieces of 16 bytes; -1: none. */
    int kind, size;
} pn_op_case;

/* What an op's outputs cost to make again from its inputs, which its backward reads anyway: a tape short of memory
 * makes them again instead of keeping them (pn_tape_again). */
typedef enum pn_again {
    PN_AGAIN_NEVER, /* too much: products, attention; or it saves nothing: what is read is no smaller */
    PN_AGAIN_CHEAP, /* one pass over memory: activations, norms */
    PN_AGAIN_CORE   /* a convolution, a recurrence: a few percent of the layer's products */
} pn_again;

typedef struct pn_op_contract {
    /* Checks attr, in[] (PN_USAGE with the op's name and the offending shape), sets *n_out and out[]. */
    pn_status (*infer)(const pn_op_call *c, int *n_out, pn_out_spec out[PN_OP_OUT]);
    uint32_t (*saves)(const pn_op_call *c);
    void (*cost)(const pn_op_call *c, bool backward, pn_op_cost *cost);
    bool (*case_at)(int i, pn_op_case *out); /* fills the zeroed *out; false past the last case */
    pn_again again;
    bool passes; /* the gradient of every input is that of the only output: they may be one tensor */
} pn_op_contract;

struct pn_op {
    const char *name;
    const pn_op_contract *contract;
    const pn_op_impl *const *impl[PN_BACKENDS]; /* best first, NULL-ended */
};

#define PN_OP(name, ref, cpu, cuda) extern const pn_op pn_op_##name;
#include "ops.def"
#undef PN_OP

/* Whether any input's gradient is wanted: when a call is made (infer, saves), and in its backward. */
static inline bool pn_op_wants(const pn_op_call *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->wants[i]) return true;
    return false;
}
static inline bool pn_op_has_din(const pn_op_call *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->din[i]) return true;
    return false;
}

const pn_op *pn_op_find(const char *name); /* NULL if unknown */
const pn_op *const *pn_op_list(int *n);    /* every op, in ops.def order */
const char *pn_backend_name(pn_backend b);
pn_dtype pn_backend_dtype(pn_backend b);    /* the compute type if nothing is said: F64 for PN_REF, else F32 */
pn_pool_kind pn_backend_pool(pn_backend b); /* where its tensors are */
/* What a compute type is wide in: F32 for BF16, else itself. */
static inline pn_dtype pn_wide_dtype(pn_dtype compute) {
    return compute == PN_BF16 ? PN_F32 : compute;
}
/* Whether backward adds to din[i], or writes it. */
static inline bool pn_op_adds(const pn_op_call *c, int i) {
    return !(c->fresh >> i & 1);
}
bool pn_op_takes(const pn_op_impl *impl, const pn_op_call *c);
/* The first implementation that takes the call; PN_UNSUPPORTED with the shapes when none does. */
pn_status pn_op_pick(const pn_op_call *c, pn_backend b, const pn_op_impl **out);

/* The one door into autograd: infer, pick, create outputs, forward, record. Declared here, defined in
 * src/autograd/tape.c, so kernels build without autograd. The tape owns the outputs (see tape.h). */
typedef struct pn_tape pn_tape;
pn_status pn_tape_call(pn_tape *t, const pn_op *op, const void *attr, size_t attr_bytes, pn_tensor *const *in, int n_in,
                       pn_tensor **out, int n_out);

#endif
