/* Losses of logits (logits_op.cuh): output 0 is the mean of output 1, the rows' losses, by the rows' weights, times a
 * factor. Rows of weight 0 are computed with the others: a tile has no holes. Weights are checked where they are used
 * (device_cuda.h).
 *
 * Such an op also has
 *     static double factor_of(const pn_op_call *c)
 *     static double slope_factor_of(const pn_op_call *c)                       that of the gradient's scale
 *     static head head_of_backward(const pn_op_call *c, const float *scale)    scale: factor dloss / sum of weights
 *     static amend amend_of(const head &h, pn_dtype type)                      logits.cuh: pn_logits_as_is
 * and its head a member `r` with
 *     float weight_of(int64_t n) const */
#ifndef PN_KERNELS_CUDA_LOGITS_LOSS_CUH
#define PN_KERNELS_CUDA_LOGITS_LOSS_CUH

#include "fresh.cuh"
#include "inputs.cuh"
#include "logits_op.cuh"
#include "reduce.cuh"

/* Weights of rows that all count. */
struct pn_row_weights {
    const float *weight; /* NULL: all 1 */
    __device__ float weight_of(int64_t n) const { return weight ? weight[n] : 1; }
};

__device__ static inline void pn_check_weight(pn_cuda_bad *bad, const char *op, const float *weight, int64_t n) {
    if (weight && !(isfinite(weight[n]) && weight[n] >= 0)) pn_report_weight(bad, op, weight[n], n);
}

template <class Op, class Way> struct pn_logits_loss : pn_logits_op<Op, Way> {
    typedef pn_logits_op<Op, Way> op;
    typedef typename Op::head head;

    struct loss_terms {
        decltype(head::r) r;
        const float *of_row;
        __device__ void operator()(int64_t n, float v[2]) const {
            v[1] = r.weight_of(n);
            v[0] = v[1] * of_row[n];
        }
    };
    struct put_loss {
        double factor;
        float *loss;
        __device__ void operator()(const double sum[2]) const {
            *loss = sum[1] > 0 ? (float)(factor * sum[0] / sum[1]) : 0;
        }
    };
    struct weight_term {
        decltype(head::r) r;
        __device__ void operator()(int64_t n, float v[1]) const { v[0] = r.weight_of(n); }
    };
    struct put_scale {
        double factor;
        const float *dloss;
        float *scale;
        __device__ void operator()(const double sum[1]) const {
            *scale = sum[0] > 0 ? (float)(factor * *dloss / sum[0]) : 0;
        }
    };
    static_assert(PN_SUM_MOST_PARTS * 2 * sizeof(double) <= PN_MATMUL_WORKSPACE, "the sums fit the workspace");

    static pn_status forward(const pn_op_call *c) {
        const pn_logits x = op::logits_of(c);
        const pn_logits_work w = Way::template carve<head>(&x, false, c->scratch);
        const head h = Op::head_of(c);
        PN_TRY(op::forward_in(c, &x, h, w));
        return pn_cuda_sums<2>(Op::name, x.N, loss_terms{ h.r, pn_f32(c->out[1]) },
                               put_loss{ Op::factor_of(c), pn_f32(c->out[0]) }, w.workspace);
    }
    static pn_status backward(const pn_op_call *c) {
        const pn_logits x = op::logits_of(c);
        if (!c->dout[0] || x.N == 0 || !(c->din[0] || c->din[1])) return pn_cuda_zero_fresh(c);
        const pn_logits_work w = Way::template carve<head>(&x, true, c->scratch);
        const head h = Op::head_of_backward(c, w.number);
        PN_TRY(pn_cuda_sums<1>(Op::name, x.N, weight_term{ h.r },
                               put_scale{ Op::slope_factor_of(c), pn_f32(c->dout[0]), w.number }, w.workspace));
        const pn_logits_gradients g = { c->din[0] ? pn_data(c->din[0]) : NULL, pn_f32_or_null(c->din[1]),
                                        pn_op_adds(c, 0), pn_op_adds(c, 1), NULL };
        return Way::backward(&x, h, g, w, Op::amend_of(h, x.type));
    }
    static constexpr pn_op_impl impl(const char *name) {
        pn_op_impl i = {};
        i.name = name;
        i.bf16 = i.fresh = true;
        i.takes = op::takes, i.scratch_bytes = op::scratch_bytes;
        i.forward = forward, i.backward = backward;
        return i;
    }
};

#endif
