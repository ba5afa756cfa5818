#include "attention.h"

#include <math.h>
#include <stdlib.h>

/* One query head of one token. */
typedef struct row {
    int64_t q, kv; /* element offsets: of the head in q and o, of the kv head in k and v at the document's first key */
    int64_t lse;   /* index into lse */
    int64_t first, end; /* visible keys */
} row;

static pn_status each_row(const pn_op_call *c, void (*visit)(const pn_op_call *c, const row *r, double *score)) {
    const pn_attention_attr *a = c->attr;
    int64_t d = a->head_dim, most = 1;
    for (int64_t i = 0; i < a->docs.n; i++) {
        int64_t keys = pn_attention_doc_at(a, i).keys;
        most = keys > most ? keys : most;
    }
    double *score = malloc((size_t)most * sizeof *score);
    PN_CHECK(score, PN_MEMORY, "attention: out of memory");
    for (int64_t doc = 0; doc < a->docs.n; doc++) {
        pn_attention_doc x = pn_attention_doc_at(a, doc);
        for (int64_t i = 0; i < x.queries; i++) {
            int64_t position = pn_attention_position(&x, i);
            for (int64_t h = 0; h < a->heads; h++) {
                row r = { .q = ((x.query0 + i) * a->heads + h) * d,
                          .kv = (x.key0 * a->kv_heads + h / (a->heads / a->kv_heads)) * d,
                          .lse = (x.query0 + i) * a->heads + h,
                          .first = pn_attention_first(a, position),
                          .end = position + 1 };
                visit(c, &r, score);
            }
        }
    }
    free(score);
    return PN_OK;
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* o = sum_j softmax(scale <q, k_j>) v_j */
static void forward_row(const pn_op_call *c, const row *r, double *score) {
    const pn_attention_attr *a = c->attr;
    int64_t d = a->head_dim, ld = a->kv_heads * d;
    const double *q = pn_f64(c->in[0]) + r->q, *k = pn_f64(c->in[1]) + r->kv, *v = pn_f64(c->in[2]) + r->kv;
    double *o = pn_f64(c->out[0]) + r->q, most = -INFINITY, sum = 0;
    for (int64_t j = r->first; j < r->end; j++) {
        score[j] = a->scale * dot(q, k + j * ld, d);
        most = fmax(most, score[j]);
    }
    for (int64_t j = r->first; j < r->end; j++) sum += exp(score[j] - most);
    double lse = most + log(sum);
    for (int64_t i = 0; i < d; i++) {
        o[i] = 0;
        for (int64_t j = r->first; j < r->end; j++) o[i] += exp(score[j] - lse) * v[j * ld + i];
    }
    pn_f64(c->out[1])[r->lse] = lse;
}

/* dp = <do, v_j>, ds = p (dp - <do, o>), dq += scale ds k_j, dk_j += scale ds q, dv_j += p do */
static void backward_row(const pn_op_call *c, const row *r, double *score) {
    (void)score;
    const pn_attention_attr *a = c->attr;
    int64_t d = a->head_dim, ld = a->kv_heads * d;
    const double *q = pn_f64(c->in[0]) + r->q, *k = pn_f64(c->in[1]) + r->kv, *v = pn_f64(c->in[2]) + r->kv;
    const double *o = pn_f64(c->out[0]) + r->q, *d_o = pn_f64(c->dout[0]) + r->q;
    double *dq = pn_f64_or_null(c->din[0]), *dk = pn_f64_or_null(c->din[1]), *dv = pn_f64_or_null(c->din[2]);
    double lse = pn_f64(c->out[1])[r->lse], delta = dot(d_o, o, d);
    for (int64_t j = r->first; j < r->end; j++) {
        double p = exp(a->scale * dot(q, k + j * ld, d) - lse), ds = p * (dot(d_o, v + j * ld, d) - delta);
        for (int64_t i = 0; i < d; i++) {
            if (dq) dq[r->q + i] += a->scale * ds * k[j * ld + i];
            if (dk) dk[r->kv + j * ld + i] += a->scale * ds * q[i];
            if (dv) dv[r->kv + j * ld + i] += p * d_o[i];
        }
    }
}

static pn_status forward(const pn_op_call *c) {
    PN_TRY(each_row(c, forward_row));
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    if (c->dout[0]) PN_TRY(each_row(c, backward_row));
    return PN_OK;
}

static const pn_op_impl impl = { .name = "attention/ref", .forward = forward, .backward = backward };
extern const pn_op_impl *const attention_ref[];
const pn_op_impl *const attention_ref[] = { &impl, NULL };
