/* The recurrence of blocks.md 5.3, token by token in double, and its gradient in reverse time. */
#include "gated_linear.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { C = PN_CHUNK };

/* One head of one document: the first elements of its rows, and how far apart they are. */
typedef struct head {
    int64_t T, dk, dv, ldq, ldk, ldv, ldg, ldo;
    int64_t g_step; /* from key channel to key channel: 1, or 0 for a scalar gate */
    double scale;
    const double *q, *k, *v, *g; /* g may be NULL */
    double *states; /* the state at the first chunk's start; chunks are `state_step` apart; NULL: not kept */
    int64_t state_step;
    int64_t q_at, k_at, v_at, g_at, o_at; /* offsets of the same elements, for gradients */
} head;

static head head_of(const pn_op_call *c, int64_t doc, int64_t j) {
    const pn_gated_linear_attr *a = c->attr;
    int64_t first = a->docs.offset[doc], size = (int64_t)a->dk * a->dv, g_width = a->vector_gate ? a->dk : 1;
    head h = { .T = a->docs.offset[doc + 1] - first, .dk = a->dk, .dv = a->dv, .scale = a->scale };
    h.ldq = (int64_t)a->q_heads * a->dk, h.ldk = (int64_t)a->k_heads * a->dk, h.ldv = (int64_t)a->v_heads * a->dv;
    h.ldo = (int64_t)a->heads * a->dv;
    h.q_at = first * h.ldq + j * a->q_heads / a->heads * a->dk;
    h.k_at = first * h.ldk + j * a->k_heads / a->heads * a->dk;
    h.v_at = first * h.ldv + j * a->v_heads / a->heads * a->dv;
    h.o_at = first * h.ldo + j * a->dv;
    h.q = pn_f64(c->in[0]) + h.q_at;
    h.k = pn_f64(c->in[1]) + h.k_at;
    h.v = pn_f64(c->in[2]) + h.v_at;
    if (c->in[3]) {
        h.ldg = a->g_heads * g_width;
        h.g_step = a->vector_gate;
        h.g_at = first * h.ldg + j * a->g_heads / a->heads * g_width;
        h.g = pn_f64(c->in[3]) + h.g_at;
    }
    h.state_step = a->heads * size;
    if (pn_tensor_elems(c->out[2]) > 0)
        h.states = pn_f64(c->out[2]) + pn_docs_chunks(&a->docs, doc) * h.state_step + j * size;
    return h;
}

static double decay(const head *h, int64_t t, int64_t i) {
    return h->g ? exp(h->g[t * h->ldg + i * h->g_step]) : 1;
}

/* S <- S_t from S_{t-1}. */
static void step(const head *h, int64_t t, double *S) {
    const double *k = h->k + t * h->ldk, *v = h->v + t * h->ldv;
    for (int64_t i = 0; i < h->dk; i++) {
        double e = decay(h, t, i);
        for (int64_t x = 0; x < h->dv; x++) S[i * h->dv + x] = e * S[i * h->dv + x] + k[i] * v[x];
    }
}

static void head_forward(const head *h, double *S, double *o) {
    for (int64_t t = 0; t < h->T; t++) {
        if (h->states && t % C == 0)
            memcpy(h->states + t / C * h->state_step, S, sizeof(double) * (size_t)(h->dk * h->dv));
        step(h, t, S);
        const double *q = h->q + t * h->ldq;
        for (int64_t x = 0; x < h->dv; x++) o[t * h->ldo + x] = 0;
        for (int64_t i = 0; i < h->dk; i++)
            for (int64_t x = 0; x < h->dv; x++) o[t * h->ldo + x] += h->scale * S[i * h->dv + x] * q[i];
    }
}

static size_t scratch_doubles(const pn_gated_linear_attr *a) {
    return (C + 2) * (size_t)a->dk * (size_t)a->dv; /* backward: the states of a chunk, G */
}
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? sizeof(double) * scratch_doubles(c->attr) * (size_t)omp_get_max_threads() : 0;
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    int64_t size = (int64_t)a->dk * a->dv;
    const double *S0 = pn_f64_or_null(c->in[4]);
    double *o = pn_f64(c->out[0]), *final = pn_f64(c->out[1]);
#pragma omp parallel for schedule(dynamic) if (a->docs.n * a->heads * size > 4096)
    for (int64_t task = 0; task < a->docs.n * a->heads; task++) {
        head h = head_of(c, task / a->heads, task % a->heads);
        double *S = final + task * size;
        if (S0)
            memcpy(S, S0 + task * size, sizeof(double) * (size_t)size);
        else
            memset(S, 0, sizeof(double) * (size_t)size);
        head_forward(&h, S, o + h.o_at);
    }
    return PN_OK;
}

typedef struct head_grad { /* of the head's own rows; each may be NULL */
    const double *dout;
    double *dq, *dk, *dv, *dg;
} head_grad;

/* Token t in reverse time: G becomes dS_{t-1}. prev = S_{t-1}, S = S_t. */
static void step_backward(const head *h, const head_grad *d, int64_t t, const double *prev, const double *S,
                          double *G) {
    const double *q = h->q + t * h->ldq, *k = h->k + t * h->ldk, *v = h->v + t * h->ldv;
    const double *dout = d->dout ? d->dout + t * h->ldo : NULL;
    for (int64_t i = 0; i < h->dk; i++) {
        double dq = 0, dk = 0, dg = 0, e = decay(h, t, i);
        for (int64_t x = 0; x < h->dv; x++) {
            int64_t at = i * h->dv + x;
            if (dout) { /* G += scale q do^T;  dq = scale S do */
                G[at] += h->scale * q[i] * dout[x];
                dq += h->scale * S[at] * dout[x];
            }
            dk += G[at] * v[x];         /* dk = G v */
            dg += e * prev[at] * G[at]; /* dg = e^g rowsum(S_{t-1} * G) */
            if (d->dv) d->dv[t * h->ldv + x] += G[at] * k[i];
            G[at] *= e;
        }
        if (d->dq) d->dq[t * h->ldq + i] += dq;
        if (d->dk) d->dk[t * h->ldk + i] += dk;
        if (d->dg) d->dg[t * h->ldg + i * h->g_step] += dg;
    }
}

static void head_backward(const head *h, const head_grad *d, double *G, double *S) {
    int64_t size = h->dk * h->dv;
    for (int64_t chunk = (h->T + C - 1) / C - 1; chunk >= 0; chunk--) {
        int64_t first = chunk * C, n = h->T - first < C ? h->T - first : C;
        memcpy(S, h->states + chunk * h->state_step, sizeof(double) * (size_t)size);
        for (int64_t i = 0; i < n; i++) { /* forward again inside the chunk, keeping every state */
            memcpy(S + (i + 1) * size, S + i * size, sizeof(double) * (size_t)size);
            step(h, first + i, S + (i + 1) * size);
        }
        for (int64_t i = n - 1; i >= 0; i--) step_backward(h, d, first + i, S + i * size, S + (i + 1) * size, G);
    }
}

static double *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return c->din[i] ? pn_f64(c->din[i]) + offset : NULL;
}

/* Heads may share what they add to, so a document is one task. */
static pn_status backward(const pn_op_call *c) {
    const pn_gated_linear_attr *a = c->attr;
    if (!pn_op_has_din(c)) return PN_OK;
    int64_t size = (int64_t)a->dk * a->dv;
    const double *dout = pn_f64_or_null(c->dout[0]), *dS_T = pn_f64_or_null(c->dout[1]);
#pragma omp parallel for schedule(dynamic) if (a->docs.n * a->heads * size > 4096)
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        double *G = (double *)c->scratch + (size_t)omp_get_thread_num() * scratch_doubles(a);
        for (int64_t j = 0; j < a->heads; j++) {
            head h = head_of(c, doc, j);
            head_grad d = { .dout = dout ? dout + h.o_at : NULL,
                            .dq = grad_at(c, 0, h.q_at),
                            .dk = grad_at(c, 1, h.k_at),
                            .dv = grad_at(c, 2, h.v_at),
                            .dg = grad_at(c, 3, h.g_at) };
            int64_t state = (doc * a->heads + j) * size;
            for (int64_t i = 0; i < size; i++) G[i] = dS_T ? dS_T[state + i] : 0;
            head_backward(&h, &d, G, G + size);
            double *dS0 = grad_at(c, 4, state);
            for (int64_t i = 0; dS0 && i < size; i++) dS0[i] += G[i];
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "gated_linear/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const gated_linear_ref[];
const pn_op_impl *const gated_linear_ref[] = { &impl, NULL };
