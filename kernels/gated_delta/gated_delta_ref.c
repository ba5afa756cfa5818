/* The recurrence of blocks.md 8.3, token by token in double, and its gradient in reverse time. */
#include "gated_delta.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { C = PN_CHUNK };

/* One value head of one document. Rows of q, k are `ldk` apart, of v and o `ldv`, of g and beta `ldg`. */
typedef struct head {
    int64_t T, dk, dv, ldk, ldv, ldg;
    double scale;
    const double *q, *k, *v, *g, *beta; /* g may be NULL; v in forward only */
    double *states;                     /* first chunk's state; chunks are `state_step` apart; NULL: not kept */
    double *e;                          /* as v; NULL: not kept */
    int64_t state_step;
} head;

static head head_of(const pn_op_call *c, int64_t doc, int64_t j) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t first = a->docs.offset[doc], size = (int64_t)a->dk * a->dv, qk = j / (a->v_heads / a->heads);
    head h = { .T = a->docs.offset[doc + 1] - first, .dk = a->dk, .dv = a->dv, .scale = a->scale };
    h.ldk = (int64_t)a->heads * a->dk, h.ldv = (int64_t)a->v_heads * a->dv, h.ldg = a->v_heads;
    h.q = pn_f64(c->in[0]) + first * h.ldk + qk * h.dk;
    h.k = pn_f64(c->in[1]) + first * h.ldk + qk * h.dk;
    h.g = c->in[3] ? pn_f64(c->in[3]) + first * h.ldg + j : NULL;
    h.beta = pn_f64(c->in[4]) + first * h.ldg + j;
    h.state_step = a->v_heads * size;
    if (pn_tensor_elems(c->out[2]) > 0)
        h.states = pn_f64(c->out[2]) + pn_docs_chunks(&a->docs, doc) * h.state_step + j * size;
    if (pn_tensor_elems(c->out[3]) > 0) h.e = pn_f64(c->out[3]) + first * h.ldv + j * h.dv;
    return h;
}

/* S <- e^g S. */
static void decay(const head *h, int64_t t, double *S) {
    double factor = h->g ? exp(h->g[t * h->ldg]) : 1;
    for (int64_t i = 0; i < h->dk * h->dv; i++) S[i] *= factor;
}
/* e = v - S^T k [dv], S decayed. */
static void answer(const head *h, int64_t t, const double *S, double *e) {
    const double *k = h->k + t * h->ldk, *v = h->v + t * h->ldv;
    for (int64_t x = 0; x < h->dv; x++) e[x] = v[x];
    for (int64_t i = 0; i < h->dk; i++)
        for (int64_t x = 0; x < h->dv; x++) e[x] -= S[i * h->dv + x] * k[i];
}
/* S += k (beta e)^T */
static void update(const head *h, int64_t t, const double *e, double *S) {
    const double *k = h->k + t * h->ldk;
    double beta = h->beta[t * h->ldg];
    for (int64_t i = 0; i < h->dk; i++)
        for (int64_t x = 0; x < h->dv; x++) S[i * h->dv + x] += k[i] * beta * e[x];
}

static void head_forward(const head *h, double *S, double *e, double *o) {
    size_t state_bytes = sizeof(double) * (size_t)(h->dk * h->dv);
    for (int64_t t = 0; t < h->T; t++) {
        if (h->states && t % C == 0) memcpy(h->states + t / C * h->state_step, S, state_bytes);
        decay(h, t, S);
        answer(h, t, S, e);
        update(h, t, e, S);
        if (h->e) memcpy(h->e + t * h->ldv, e, sizeof(double) * (size_t)h->dv);
        const double *q = h->q + t * h->ldk;
        for (int64_t x = 0; x < h->dv; x++) o[t * h->ldv + x] = 0;
        for (int64_t i = 0; i < h->dk; i++)
            for (int64_t x = 0; x < h->dv; x++) o[t * h->ldv + x] += h->scale * S[i * h->dv + x] * q[i];
    }
}

static size_t scratch_doubles(const pn_gated_delta_attr *a, bool backward) {
    size_t state = (size_t)a->dk * (size_t)a->dv, row = (size_t)a->dv;
    return backward ? (C + 2) * state + 2 * row : row; /* states of a chunk, G, du, dv | e */
}
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return sizeof(double) * scratch_doubles(c->attr, backward) * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    int64_t size = (int64_t)a->dk * a->dv;
    const double *S0 = c->n_in > 5 ? pn_f64_or_null(c->in[5]) : NULL;
    double *o = pn_f64(c->out[0]), *final = pn_f64(c->out[1]);
#pragma omp parallel for schedule(dynamic) if (a->docs.n * a->v_heads * size > 4096)
    for (int64_t task = 0; task < a->docs.n * a->v_heads; task++) {
        int64_t doc = task / a->v_heads, j = task % a->v_heads;
        head h = head_of(c, doc, j);
        h.v = pn_f64(c->in[2]) + a->docs.offset[doc] * h.ldv + j * h.dv;
        double *S = final + task * size, *e = (double *)c->scratch + omp_get_thread_num() * scratch_doubles(a, false);
        if (S0)
            memcpy(S, S0 + task * size, sizeof(double) * (size_t)size);
        else
            memset(S, 0, sizeof(double) * (size_t)size);
        head_forward(&h, S, e, o + a->docs.offset[doc] * h.ldv + j * h.dv);
    }
    return PN_OK;
}

typedef struct head_grad { /* of the head's own rows; each may be NULL except do_, which may be NULL too */
    const double *do_;
    double *dq, *dk, *dv, *dg, *dbeta;
} head_grad;

/* Token t in reverse time: G becomes dS_{t-1}. prev = S_{t-1}, S = S_t. */
static void step_backward(const head *h, const head_grad *d, int64_t t, const double *prev, const double *S, double *G,
                          double *du, double *dv) {
    const double *q = h->q + t * h->ldk, *k = h->k + t * h->ldk, *e = h->e + t * h->ldv,
                 *dout = d->do_ ? d->do_ + t * h->ldv : NULL;
    double factor = h->g ? exp(h->g[t * h->ldg]) : 1, beta = h->beta[t * h->ldg], dbeta = 0, dg = 0;
    for (int64_t i = 0; dout && i < h->dk; i++) { /* G += scale q do^T;  dq = scale S do */
        double dq = 0;
        for (int64_t x = 0; x < h->dv; x++) {
            G[i * h->dv + x] += h->scale * q[i] * dout[x];
            dq += h->scale * S[i * h->dv + x] * dout[x];
        }
        if (d->dq) d->dq[t * h->ldk + i] += dq;
    }
    for (int64_t x = 0; x < h->dv; x++) du[x] = 0; /* du = G^T k */
    for (int64_t i = 0; i < h->dk; i++)
        for (int64_t x = 0; x < h->dv; x++) du[x] += G[i * h->dv + x] * k[i];
    for (int64_t x = 0; x < h->dv; x++) {
        dbeta += du[x] * e[x];
        dv[x] = beta * du[x];
        if (d->dv) d->dv[t * h->ldv + x] += dv[x];
    }
    for (int64_t i = 0; i < h->dk; i++) { /* dk = G u - Sd dv;  dSd = G - k dv^T;  dg = sum Sd * dSd */
        double dk = 0;
        for (int64_t x = 0; x < h->dv; x++) {
            double Sd = factor * prev[i * h->dv + x], g = G[i * h->dv + x], dSd = g - k[i] * dv[x];
            dk += g * beta * e[x] - Sd * dv[x];
            dg += Sd * dSd;
            G[i * h->dv + x] = factor * dSd;
        }
        if (d->dk) d->dk[t * h->ldk + i] += dk;
    }
    if (d->dbeta) d->dbeta[t * h->ldg] += dbeta;
    if (d->dg) d->dg[t * h->ldg] += dg;
}

static void head_backward(const head *h, const head_grad *d, double *G, double *work) {
    int64_t size = h->dk * h->dv;
    double *S = work, *du = S + (C + 1) * size, *dv = du + h->dv;
    for (int64_t chunk = (h->T + C - 1) / C - 1; chunk >= 0; chunk--) {
        int64_t first = chunk * C, n = h->T - first < C ? h->T - first : C;
        memcpy(S, h->states + chunk * h->state_step, sizeof(double) * (size_t)size);
        for (int64_t i = 0; i < n; i++) { /* forward again inside the chunk, keeping every state */
            memcpy(S + (i + 1) * size, S + i * size, sizeof(double) * (size_t)size);
            decay(h, first + i, S + (i + 1) * size);
            update(h, first + i, h->e + (first + i) * h->ldv, S + (i + 1) * size);
        }
        for (int64_t i = n - 1; i >= 0; i--)
            step_backward(h, d, first + i, S + i * size, S + (i + 1) * size, G, du, dv);
    }
}

static double *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return i < c->n_in && c->din[i] ? pn_f64(c->din[i]) + offset : NULL;
}

static pn_status backward(const pn_op_call *c) {
    const pn_gated_delta_attr *a = c->attr;
    if (!pn_op_has_din(c)) return PN_OK;
    int64_t size = (int64_t)a->dk * a->dv, group = a->v_heads / a->heads;
    const double *do_ = pn_f64_or_null(c->dout[0]), *dS_T = pn_f64_or_null(c->dout[1]);
#pragma omp parallel for schedule(dynamic) if (a->docs.n * a->v_heads * size > 4096)
    for (int64_t task = 0; task < a->docs.n * a->heads;
         task++) { /* value heads of one q/k head add to the same dq, dk */
        int64_t doc = task / a->heads, qk = task % a->heads, first = a->docs.offset[doc];
        double *work = (double *)c->scratch + omp_get_thread_num() * scratch_doubles(a, true), *G = work;
        work += size;
        for (int64_t j = qk * group; j < (qk + 1) * group; j++) {
            head h = head_of(c, doc, j);
            head_grad d = { .do_ = do_ ? do_ + first * h.ldv + j * h.dv : NULL,
                            .dq = grad_at(c, 0, first * h.ldk + qk * h.dk),
                            .dk = grad_at(c, 1, first * h.ldk + qk * h.dk),
                            .dv = grad_at(c, 2, first * h.ldv + j * h.dv),
                            .dg = grad_at(c, 3, first * h.ldg + j),
                            .dbeta = grad_at(c, 4, first * h.ldg + j) };
            int64_t state = (doc * a->v_heads + j) * size;
            for (int64_t i = 0; i < size; i++) G[i] = dS_T ? dS_T[state + i] : 0;
            head_backward(&h, &d, G, work);
            double *dS0 = grad_at(c, 5, state);
            for (int64_t i = 0; dS0 && i < size; i++) dS0[i] += G[i];
        }
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "gated_delta/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const gated_delta_ref[];
const pn_op_impl *const gated_delta_ref[] = { &impl, NULL };
