/* The gradient. With y = h W^T / tau, lse = log sum_v exp(y_v), and lse_tail the same over v not in S:
 *
 *     log q_v = y_v - lse,   log q_tail = lse_tail - lse
 *     kl = const - sum_{v in S} p_v y_v - p_tail lse_tail + P lse,   P = sum_{v in S} p_v + p_tail
 *
 * where P is 1 but for rounding, and is kept so that this is the gradient of what is computed. By d lse / d y_v = q_v
 * and d lse_tail / d y_v = exp(y_v - lse_tail) for the words that it sums:
 *
 *     d kl / d y_v = P q_v - p_v                           v in S
 *                  = P q_v - p_tail exp(y_v - lse_tail)    else: the teacher's tail, shared out as the student's is
 *
 * and with tau^2 before the loss and 1 / tau within y:
 *
 *     dz = tau (d kl / d y) w_n / sum(w) dloss,   dh = dz W,   dW = dz^T h. */
#include <math.h>

#include "infer.h"
#include "linear_kl_topk.h"

static double weight(const pn_op_call *c, int64_t n) {
    return c->in[4] ? pn_f64(c->in[4])[n] : 1;
}

static double total_weight(const pn_op_call *c) {
    double total = 0;
    for (int64_t n = 0; n < c->in[0]->shape[0]; n++) total += weight(c, n);
    return total;
}

static double logit(const pn_op_call *c, int64_t n, int64_t v) {
    int64_t D = c->in[0]->shape[1];
    const double *h = pn_f64(c->in[0]) + n * D, *w = pn_f64(c->in[1]) + v * D;
    double sum = 0;
    for (int64_t i = 0; i < D; i++) sum += h[i] * w[i];
    return sum;
}

/* log sum exp(y_v) over all words, or over those that are not among the k ids, which ascend. */
static double log_sum_exp(const double *y, int64_t V, const int32_t *ids, int64_t k) {
    double max = -INFINITY, sum = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t v = 0, j = 0; v < V; v++) {
            if (j < k && ids[j] == v) {
                j++;
                continue;
            }
            if (pass == 0)
                max = fmax(max, y[v]);
            else
                sum += exp(y[v] - max);
        }
    return max + log(sum);
}

static pn_status forward(const pn_op_call *c) {
    double tau = ((const pn_linear_kl_topk_attr *)c->attr)->temperature, loss = 0, total = total_weight(c);
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0], k = c->in[2]->shape[1];
    double *kl = pn_f64(c->out[1]), *y = c->scratch;
    PN_TRY(pn_need_ascending("linear_kl_topk", "id", c->in[2], V));
    PN_TRY(pn_need_weights("linear_kl_topk", c->in[4]));
    for (int64_t n = 0; n < N; n++) {
        const int32_t *ids = pn_i32(c->in[2]) + n * k;
        const double *log_p = pn_f64(c->in[3]) + n * k;
        double *listed = pn_f64(c->out[2]) + n * k, *sums = pn_f64(c->out[3]) + n * PN_TOPK_SUMS, p = 0;
        for (int64_t v = 0; v < V; v++) y[v] = logit(c, n, v) / tau;
        for (int64_t j = 0; j < k; j++) {
            listed[j] = tau * y[ids[j]];
            p += exp(log_p[j]);
        }
        double lse = log_sum_exp(y, V, NULL, 0), lse_tail = k < V ? log_sum_exp(y, V, ids, k) : lse;
        double p_tail = k < V ? fmax(0, 1 - p) : 0;
        kl[n] = p_tail > 0 ? p_tail * (log(p_tail) - (lse_tail - lse)) : 0;
        for (int64_t j = 0; j < k; j++) kl[n] += exp(log_p[j]) * (log_p[j] - (y[ids[j]] - lse));
        sums[PN_TOPK_LSE] = lse;
        sums[PN_TOPK_LSE_TAIL] = lse_tail;
        sums[PN_TOPK_P_TAIL] = p_tail;
        sums[PN_TOPK_P_ALL] = p + p_tail;
        loss += weight(c, n) * kl[n];
    }
    pn_f64(c->out[0])[0] = total > 0 ? tau * tau * loss / total : 0;
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (!c->dout[0]) return PN_OK;
    double tau = ((const pn_linear_kl_topk_attr *)c->attr)->temperature, total = total_weight(c);
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0], k = c->in[2]->shape[1];
    const double *h = pn_f64(c->in[0]), *W = pn_f64(c->in[1]);
    double *dh = pn_f64_or_null(c->din[0]), *dW = pn_f64_or_null(c->din[1]);
    for (int64_t n = 0; n < N; n++) {
        const int32_t *ids = pn_i32(c->in[2]) + n * k;
        const double *log_p = pn_f64(c->in[3]) + n * k, *sums = pn_f64(c->out[3]) + n * PN_TOPK_SUMS;
        if (weight(c, n) == 0) continue;
        for (int64_t v = 0, j = 0; v < V; v++) {
            double y = logit(c, n, v) / tau, dy = sums[PN_TOPK_P_ALL] * exp(y - sums[PN_TOPK_LSE]);
            if (j < k && ids[j] == v)
                dy -= exp(log_p[j++]);
            else
                dy -= sums[PN_TOPK_P_TAIL] * exp(y - sums[PN_TOPK_LSE_TAIL]);
            double dz = tau * dy * weight(c, n) / total * pn_f64(c->dout[0])[0];
            for (int64_t i = 0; dh && i < D; i++) dh[n * D + i] += dz * W[v * D + i];
            for (int64_t i = 0; dW && i < D; i++) dW[v * D + i] += dz * h[n * D + i];
        }
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    return backward_pass ? 0 : (size_t)c->in[1]->shape[0] * sizeof(double);
}

static const pn_op_impl impl = {
    .name = "linear_kl_topk/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const linear_kl_topk_ref[];
const pn_op_impl *const linear_kl_topk_ref[] = { &impl, NULL };
