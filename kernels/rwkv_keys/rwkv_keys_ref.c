#include <math.h>

#include "rwkv_keys.h"

enum { K, A, K_K, K_A };
enum { KEY, REMOVE, ADD };

/* 1 / norm of the head whose first channel is `first`, of the token at `k`. */
static double unit(const pn_op_call *c, const double *k, int64_t first) {
    const pn_rwkv_keys_attr *attr = c->attr;
    double sum = attr->eps;
    for (int64_t i = first; i < first + attr->head_dim; i++) {
        double u = k[i] * pn_f64(c->in[K_K])[i];
        sum += u * u;
    }
    return 1 / fmax(sqrt(sum), attr->floor);
}

static pn_status forward(const pn_op_call *c) {
    const pn_rwkv_keys_attr *attr = c->attr;
    const double *k_k = pn_f64(c->in[K_K]), *k_a = pn_f64(c->in[K_A]);
    int64_t C = c->in[K]->shape[1];
    for (int64_t n = 0; n < c->in[K]->shape[0]; n++) {
        const double *k = pn_f64(c->in[K]) + n * C, *a = pn_f64(c->in[A]) + n * C;
        for (int64_t first = 0; first < C; first += attr->head_dim) {
            double r = unit(c, k, first);
            for (int64_t i = first; i < first + attr->head_dim; i++) {
                double kk = k[i] * k_k[i] * r;
                pn_f64(c->out[KEY])[n * C + i] = k[i] * (1 + (a[i] - 1) * k_a[i]);
                pn_f64(c->out[REMOVE])[n * C + i] = -kk;
                pn_f64(c->out[ADD])[n * C + i] = kk * a[i];
            }
        }
    }
    return PN_OK;
}

static double at(const pn_tensor *x, int64_t i) {
    return x ? pn_f64(x)[i] : 0;
}

static void add(pn_tensor *x, int64_t i, double value) {
    if (x) pn_f64(x)[i] += value;
}

/* dkk = a * d_add - d_remove, du = r (dkk - kk <dkk, kk>) */
static pn_status backward(const pn_op_call *c) {
    const pn_rwkv_keys_attr *attr = c->attr;
    const double *k_k = pn_f64(c->in[K_K]), *k_a = pn_f64(c->in[K_A]);
    int64_t C = c->in[K]->shape[1];
    for (int64_t n = 0; n < c->in[K]->shape[0]; n++) {
        const double *k = pn_f64(c->in[K]) + n * C, *a = pn_f64(c->in[A]) + n * C;
        for (int64_t first = 0; first < C; first += attr->head_dim) {
            double r = unit(c, k, first), dot = 0;
            for (int64_t i = first; i < first + attr->head_dim; i++) {
                double dkk = a[i] * at(c->dout[ADD], n * C + i) - at(c->dout[REMOVE], n * C + i);
                dot += dkk * k[i] * k_k[i] * r;
            }
            for (int64_t i = first, j = n * C + first; i < first + attr->head_dim; i++, j++) {
                double kk = k[i] * k_k[i] * r, dkey = at(c->dout[KEY], j), dadd = at(c->dout[ADD], j);
                double du = r * (a[i] * dadd - at(c->dout[REMOVE], j) - kk * dot);
                add(c->din[K], j, dkey * (1 + (a[i] - 1) * k_a[i]) + k_k[i] * du);
                add(c->din[A], j, kk * dadd + k[i] * k_a[i] * dkey);
                add(c->din[K_K], i, k[i] * du);
                add(c->din[K_A], i, k[i] * (a[i] - 1) * dkey);
            }
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "rwkv_keys/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const rwkv_keys_ref[];
const pn_op_impl *const rwkv_keys_ref[] = { &impl, NULL };
