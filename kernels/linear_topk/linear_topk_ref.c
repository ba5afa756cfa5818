#include <math.h>

#include "linear_topk.h"

/* One more word: the largest that is not taken, the first of equal ones. */
static void take_best(const double *z, int64_t V, char *taken) {
    int64_t best = -1;
    for (int64_t v = 0; v < V; v++)
        if (!taken[v] && (best < 0 || z[v] > z[best])) best = v;
    taken[best] = 1;
}

static pn_status forward(const pn_op_call *c) {
    const pn_linear_topk_attr *attr = c->attr;
    int64_t N = c->in[0]->shape[0], D = c->in[0]->shape[1], V = c->in[1]->shape[0], k = attr->k;
    double *z = c->scratch;
    char *taken = (char *)(z + V);
    for (int64_t n = 0; n < N; n++) {
        const double *h = pn_f64(c->in[0]) + n * D;
        double max = -INFINITY, sum = 0;
        for (int64_t v = 0; v < V; v++) {
            z[v] = 0;
            for (int64_t i = 0; i < D; i++) z[v] += h[i] * pn_f64(c->in[1])[v * D + i];
            z[v] /= attr->temperature;
            max = fmax(max, z[v]);
        }
        for (int64_t v = 0; v < V; v++) sum += exp(z[v] - max);
        for (int64_t v = 0; v < V; v++) taken[v] = k == V;
        for (int64_t j = 0; j < k && k < V; j++) take_best(z, V, taken);
        for (int64_t v = 0, j = 0; v < V; v++) {
            if (!taken[v]) continue;
            pn_i32(c->out[0])[n * k + j] = (int32_t)v;
            pn_f64(c->out[1])[n * k + j] = z[v] - max - log(sum);
            j++;
        }
    }
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    (void)backward;
    return (size_t)c->in[1]->shape[0] * (sizeof(double) + 1);
}

static const pn_op_impl impl = { .name = "linear_topk/ref", .scratch_bytes = scratch_bytes, .forward = forward };
extern const pn_op_impl *const linear_topk_ref[];
const pn_op_impl *const linear_topk_ref[] = { &impl, NULL };
