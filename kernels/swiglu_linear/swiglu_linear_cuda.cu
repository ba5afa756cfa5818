#include "swiglu/swiglu_cuda.cuh"

#include "swiglu_linear.h"

extern "C" {
#include "linear/linear_cuda.h"
}

namespace { /* templates that take these must not be one with those of another op */

const char name[] = "swiglu_linear/cuda";

/* Scratch: the products' workspace, then h; in backward dh, then h over it. */
template <class T> T *h_of(const pn_op_call *c) {
    return (T *)((char *)c->scratch + PN_MATMUL_WORKSPACE);
}

pn_linear_cuda products_of(const pn_op_call *c) {
    return { name, c->dtype, c->in[0]->shape[0], c->in[2]->shape[1], c->in[2]->shape[0], c->scratch };
}

template <class T> pn_status forward_of(const pn_op_call *c) {
    const pn_linear_cuda l = products_of(c);
    PN_TRY(pn_cuda_swiglu(name, h_of<T>(c), pn_values<T>(c->in[0]), pn_values<T>(c->in[1]), pn_tensor_elems(c->in[0])));
    return pn_linear_cuda_y(&l, h_of<T>(c), pn_data(c->in[2]), NULL, pn_data(c->out[0]));
}

/* The gradients of gate and up, and h over dh where dw is to come of it. */
template <class T> pn_status make_gradients(const pn_op_call *c, const pn_linear_cuda &l, const T *gate, const T *up) {
    T *h = h_of<T>(c);
    PN_TRY(pn_linear_cuda_dx(&l, pn_data(c->dout[0]), pn_data(c->in[2]), h, false));
    const pn_swiglu_operands<T> o = {
        gate, up, h, pn_cuda_gradient<T>(c, 0), pn_cuda_gradient<T>(c, 1), c->din[2] ? h : NULL
    };
    return pn_cuda_swiglu_gradients(name, o, pn_tensor_elems(c->in[0]));
}

template <class T> pn_status backward_of(const pn_op_call *c) {
    const pn_linear_cuda l = products_of(c);
    const T *gate = pn_values<T>(c->in[0]), *up = c->din[0] || c->din[2] ? pn_values<T>(c->in[1]) : NULL;
    T *h = h_of<T>(c);
    if (c->din[0] || c->din[1])
        PN_TRY(make_gradients(c, l, gate, up));
    else
        PN_TRY(pn_cuda_swiglu(name, h, gate, up, pn_tensor_elems(c->in[0])));
    if (!c->din[2]) return PN_OK;
    return pn_linear_cuda_dw(&l, pn_data(c->dout[0]), h, pn_f32(c->din[2]), pn_op_adds(c, 2));
}

} // namespace

/* A product over nothing has no plan. */
static bool takes(const pn_op_call *c) {
    return c->in[2]->shape[0] >= 1 && c->in[2]->shape[1] >= 1;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    if (backward_pass && !pn_op_wants(c)) return 0;
    return PN_MATMUL_WORKSPACE + (size_t)pn_tensor_elems(c->in[0]) * pn_dtype_bytes(c->dtype);
}

static pn_status forward(const pn_op_call *c) {
    return PN_CUDA_TYPED(c->out[0], forward_of, c);
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return pn_cuda_zero_fresh(c);
    return pn_op_has_din(c) ? PN_CUDA_TYPED(c->dout[0], backward_of, c) : PN_OK;
}

static const pn_op_impl impl = { .name = name,
                                 .bf16 = true,
                                 .fresh = true,
                                 .takes = takes,
                                 .scratch_bytes = scratch_bytes,
                                 .forward = forward,
                                 .backward = backward };
PN_CUDA_OP(swiglu_linear, &impl)
