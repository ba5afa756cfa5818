/* The recurrence of blocks.md 9.3, token by token in double, and its gradient in reverse time. */
#include "dplr.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { C = PN_CHUNK };

/* One head of one document: the first elements of its rows, `ldk` apart in q, k, a, b and g, `ldv` in v and o. */
typedef struct head {
    int64_t T, dk, dv, size, ldk, ldv;
    int64_t k_at, v_at; /* of those first elements in their tensors */
    double scale;
    const double *q, *k, *v, *a, *b, *g;
    double *states; /* the state at the first chunk's start; chunks are `state_step` apart; NULL: not kept */
    int64_t state_step;
} head;

static head head_of(const pn_op_call *c, int64_t doc, int64_t j) {
    const pn_dplr_attr *attr = c->attr;
    int64_t first = attr->docs.offset[doc];
    head h = { .T = attr->docs.offset[doc + 1] - first, .dk = attr->dk, .dv = attr->dv, .scale = attr->scale };
    h.size = h.dk * h.dv;
    h.ldk = attr->heads * h.dk, h.ldv = attr->heads * h.dv;
    h.k_at = first * h.ldk + j * h.dk, h.v_at = first * h.ldv + j * h.dv;
    h.q = pn_f64(c->in[0]) + h.k_at;
    h.k = pn_f64(c->in[1]) + h.k_at;
    h.v = pn_f64(c->in[2]) + h.v_at;
    h.a = pn_f64(c->in[3]) + h.k_at;
    h.b = pn_f64(c->in[4]) + h.k_at;
    h.g = pn_f64(c->in[5]) + h.k_at;
    h.state_step = attr->heads * h.size;
    if (pn_tensor_elems(c->out[2]) > 0)
        h.states = pn_f64(c->out[2]) + pn_docs_chunks(&attr->docs, doc) * h.state_step + j * h.size;
    return h;
}

/* S <- S_t from S_{t-1}; p = S_{t-1}^T a [dv]. */
static void step(const head *h, int64_t t, double *S, double *p) {
    const double *k = h->k + t * h->ldk, *v = h->v + t * h->ldv;
    const double *a = h->a + t * h->ldk, *b = h->b + t * h->ldk, *g = h->g + t * h->ldk;
    for (int64_t x = 0; x < h->dv; x++) p[x] = 0;
    for (int64_t i = 0; i < h->dk; i++)
        for (int64_t x = 0; x < h->dv; x++) p[x] += S[i * h->dv + x] * a[i];
    for (int64_t i = 0; i < h->dk; i++) {
        double e = exp(g[i]);
        for (int64_t x = 0; x < h->dv; x++) S[i * h->dv + x] = e * S[i * h->dv + x] + b[i] * p[x] + k[i] * v[x];
    }
}

static void head_forward(const head *h, double *S, double *p, double *o) {
    for (int64_t t = 0; t < h->T; t++) {
        if (h->states && t % C == 0) memcpy(h->states + t / C * h->state_step, S, sizeof(double) * (size_t)h->size);
        step(h, t, S, p);
        const double *q = h->q + t * h->ldk;
        for (int64_t x = 0; x < h->dv; x++) o[t * h->ldv + x] = 0;
        for (int64_t i = 0; i < h->dk; i++)
            for (int64_t x = 0; x < h->dv; x++) o[t * h->ldv + x] += h->scale * S[i * h->dv + x] * q[i];
    }
}

static size_t scratch_doubles(const pn_dplr_attr *attr, bool backward) {
    size_t row = (size_t)attr->dv, state = (size_t)attr->dk * row;
    return backward ? (C + 2) * state + (C + 1) * row : row; /* states and p of a chunk, G, dp | p */
}
static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return sizeof(double) * scratch_doubles(c->attr, backward) * (size_t)omp_get_max_threads();
}

static pn_status forward(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    int64_t size = (int64_t)attr->dk * attr->dv;
    const double *S0 = pn_f64_or_null(c->in[6]);
    double *o = pn_f64(c->out[0]), *final = pn_f64(c->out[1]);
#pragma omp parallel for schedule(dynamic) if (attr->docs.n * attr->heads * size > 4096)
    for (int64_t task = 0; task < attr->docs.n * attr->heads; task++) {
        head h = head_of(c, task / attr->heads, task % attr->heads);
        double *p = (double *)c->scratch + (size_t)omp_get_thread_num() * scratch_doubles(attr, false);
        double *S = final + task * size;
        if (S0)
            memcpy(S, S0 + task * size, sizeof(double) * (size_t)size);
        else
            memset(S, 0, sizeof(double) * (size_t)size);
        head_forward(&h, S, p, o + h.v_at);
    }
    return PN_OK;
}

typedef struct head_grad { /* of the head's own rows; each may be NULL */
    const double *dout;
    double *dq, *dk, *dv, *da, *db, *dg;
} head_grad;

static void add(double *to, int64_t at, double x) {
    if (to) to[at] += x;
}

/* Token t in reverse time: G becomes dS_{t-1}. prev = S_{t-1}, S = S_t, p = S_{t-1}^T a; dp [dv] is work. */
static void step_backward(const head *h, const head_grad *d, int64_t t, const double *prev, const double *S,
                          const double *p, double *G, double *dp) {
    int64_t row = t * h->ldk, out = t * h->ldv, dv = h->dv;
    const double *dout = d->dout ? d->dout + out : NULL;
    for (int64_t x = 0; x < dv; x++) dp[x] = 0;
    for (int64_t i = 0; i < h->dk; i++) { /* G += scale q do^T;  dq = scale S do;  dp = G^T b */
        double dq = 0;
        for (int64_t x = 0; x < dv; x++) {
            if (dout) {
                G[i * dv + x] += h->scale * h->q[row + i] * dout[x];
                dq += h->scale * S[i * dv + x] * dout[x];
            }
            dp[x] += G[i * dv + x] * h->b[row + i];
        }
        add(d->dq, row + i, dq);
    }
    for (int64_t i = 0; i < h->dk; i++) {
        double dk = 0, da = 0, db = 0, dg = 0, e = exp(h->g[row + i]);
        for (int64_t x = 0; x < dv; x++) {
            double now = G[i * dv + x], before = prev[i * dv + x];
            dk += now * h->v[out + x]; /* dk = G v */
            db += now * p[x];          /* db = G p */
            da += before * dp[x];      /* da = S_{t-1} dp */
            dg += e * before * now;    /* dg = e^g rowsum(S_{t-1} * G) */
            add(d->dv, out + x, now * h->k[row + i]);
            G[i * dv + x] = e * now + h->a[row + i] * dp[x];
        }
        add(d->dk, row + i, dk);
        add(d->da, row + i, da);
        add(d->db, row + i, db);
        add(d->dg, row + i, dg);
    }
}

static void head_backward(const head *h, const head_grad *d, double *G, double *work) {
    double *S = work, *p = S + (C + 1) * h->size, *dp = p + C * h->dv;
    for (int64_t chunk = (h->T + C - 1) / C - 1; chunk >= 0; chunk--) {
        int64_t first = chunk * C, n = h->T - first < C ? h->T - first : C;
        memcpy(S, h->states + chunk * h->state_step, sizeof(double) * (size_t)h->size);
        for (int64_t i = 0; i < n; i++) { /* forward again inside the chunk, keeping every state */
            memcpy(S + (i + 1) * h->size, S + i * h->size, sizeof(double) * (size_t)h->size);
            step(h, first + i, S + (i + 1) * h->size, p + i * h->dv);
        }
        for (int64_t i = n - 1; i >= 0; i--)
            step_backward(h, d, first + i, S + i * h->size, S + (i + 1) * h->size, p + i * h->dv, G, dp);
    }
}

static double *grad_at(const pn_op_call *c, int i, int64_t offset) {
    return c->din[i] ? pn_f64(c->din[i]) + offset : NULL;
}

static pn_status backward(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    if (!pn_op_has_din(c)) return PN_OK;
    int64_t size = (int64_t)attr->dk * attr->dv;
    const double *dout = pn_f64_or_null(c->dout[0]), *dS_T = pn_f64_or_null(c->dout[1]);
#pragma omp parallel for schedule(dynamic) if (attr->docs.n * attr->heads * size > 4096)
    for (int64_t task = 0; task < attr->docs.n * attr->heads; task++) {
        double *G = (double *)c->scratch + (size_t)omp_get_thread_num() * scratch_doubles(attr, true);
        head h = head_of(c, task / attr->heads, task % attr->heads);
        head_grad d = { .dout = dout ? dout + h.v_at : NULL,
                        .dq = grad_at(c, 0, h.k_at),
                        .dk = grad_at(c, 1, h.k_at),
                        .dv = grad_at(c, 2, h.v_at),
                        .da = grad_at(c, 3, h.k_at),
                        .db = grad_at(c, 4, h.k_at),
                        .dg = grad_at(c, 5, h.k_at) };
        for (int64_t i = 0; i < size; i++) G[i] = dS_T ? dS_T[task * size + i] : 0;
        head_backward(&h, &d, G, G + size);
        double *dS0 = grad_at(c, 6, task * size);
        for (int64_t i = 0; dS0 && i < size; i++) dS0[i] += G[i];
    }
    return PN_OK;
}

static const pn_op_impl impl = {
    .name = "dplr/ref", .scratch_bytes = scratch_bytes, .forward = forward, .backward = backward
};
extern const pn_op_impl *const dplr_ref[];
const pn_op_impl *const dplr_ref[] = { &impl, NULL };
