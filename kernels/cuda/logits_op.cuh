/* The calls of an op that is made of logits (logits.cuh), whether they are made in tiles or in registers.
 *
 * An op is a type with
 *     typedef head                                  logits.cuh
 *     static constexpr const char *name             the op's
 *     static head head_of(const pn_op_call *c)      for forward
 *     static pn_status finish(const pn_op_call *c, const head &h, int64_t N, const head::sums *part, int64_t parts)
 *                                                   from part [parts, N] to the outputs of rows; N > 0
 * It and its head are in a nameless namespace: kernels that take them must not be one with those of another op. */
#ifndef PN_KERNELS_CUDA_LOGITS_OP_CUH
#define PN_KERNELS_CUDA_LOGITS_OP_CUH

#include "logits_warpgroup.cuh"

/* The ways to logits: logits.cuh and logits_warpgroup.cuh under one set of names. */
struct pn_logits_in_tiles {
    template <class H> static bool takes(const pn_logits *) { return true; }
    template <class H> static pn_logits_work carve(const pn_logits *x, bool backward, void *scratch) {
        return pn_logits_carve_tiles(x, backward, sizeof(typename H::sums), scratch);
    }
    template <class H> static int64_t parts(const pn_logits *x) { return pn_logits_parts(x, PN_LOGITS_PART); }
    template <class H> static pn_status fold(const pn_logits *x, const H &head, const pn_logits_work &w) {
        return pn_logits_fold(x, head, w);
    }
    template <class H, class A>
    static pn_status backward(const pn_logits *x, const H &head, const pn_logits_gradients &g, const pn_logits_work &w,
                              const A &amend) {
        return x->type == PN_BF16 ? pn_logits_backward<pn_bf16>(x, head, g, w, amend)
                                  : pn_logits_backward<float>(x, head, g, w, amend);
    }
};
struct pn_logits_in_registers {
    template <class H> static bool takes(const pn_logits *x) { return pn_fused_takes(x) && pn_fused_there<true, H>(); }
    template <class H> static pn_logits_work carve(const pn_logits *x, bool backward, void *scratch) {
        return pn_fused_carve<H>(x, backward, scratch);
    }
    template <class H> static int64_t parts(const pn_logits *x) { return pn_fused_parts<H>(x); }
    template <class H> static pn_status fold(const pn_logits *x, const H &head, const pn_logits_work &w) {
        return pn_fused_fold(x, head, w);
    }
    template <class H, class A>
    static pn_status backward(const pn_logits *x, const H &head, const pn_logits_gradients &g, const pn_logits_work &w,
                              const A &amend) {
        return pn_fused_backward(x, head, g, w, amend);
    }
};

template <class Op, class Way> struct pn_logits_op {
    typedef typename Op::head head;

    static pn_logits logits_of(const pn_op_call *c) { return pn_logits_of(c, Op::name, head::sides); }
    static bool takes(const pn_op_call *c) {
        const pn_logits x = logits_of(c);
        return pn_logits_takes(&x) && Way::template takes<head>(&x);
    }
    static size_t scratch_bytes(const pn_op_call *c, bool backward) {
        const pn_logits x = logits_of(c);
        return Way::template carve<head>(&x, backward, NULL).n_bytes;
    }
    static pn_status forward_in(const pn_op_call *c, const pn_logits *x, const head &h, const pn_logits_work &w) {
        PN_TRY(Way::fold(x, h, w));
        if (x->N == 0) return PN_OK;
        return Op::finish(c, h, x->N, (const typename head::sums *)w.part, Way::template parts<head>(x));
    }
    static pn_status forward(const pn_op_call *c) {
        const pn_logits x = logits_of(c);
        return forward_in(c, &x, Op::head_of(c), Way::template carve<head>(&x, false, c->scratch));
    }
};

#endif
