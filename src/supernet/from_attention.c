#include "from_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention_map.h"
#include "head_basis.h"
#include "linear/linear.h"
#include "softmax_attention.h"

/* ---- what an output projection takes ---- */

/* [N, V]: the block runs with rows of the identity for its output projection `out` [D, V], D channels at a time. The
 * projection is left overwritten. */
static pn_status features(pn_block *b, pn_tensor *out, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_tensor **f) {
    const int64_t N = x->shape[0], D = out->shape[0], V = out->shape[1];
    PN_TRY(pn_tape_new(t, PN_F32, 2, (int64_t[]){ N, V }, f));
    for (int64_t c = 0; c < V; c += D) {
        const int64_t n = D < V - c ? D : V - c;
        pn_scope scope = pn_scope_open(t);
        pn_carry carry = { 0 };
        pn_tensor *y;
        PN_TRY(pn_tensor_fill_zero(out));
        for (int64_t i = 0; i < n; i++) pn_f32(out)[i * V + c + i] = 1;
        PN_TRY(pn_block_forward(b, t, x, docs, &carry, &y));
        for (int64_t i = 0; i < N; i++) memcpy(pn_f32(*f) + i * V + c, pn_f32(y) + i * D, (size_t)n * sizeof(float));
        pn_scope_close(t, scope, NULL, 0);
    }
    return PN_OK;
}

/* ---- attention on the batch ---- */

/* On a copy of the block, whose own output projection stays as it is. */
static pn_status heads_of(const pn_block *attention, const pn_softmax_attention *a, pn_tape *t, pn_tensor *x,
                          const pn_docs *docs, pn_tensor **heads) {
    pn_params *params = NULL;
    pn_block *copy = NULL;
    pn_status s;
    PN_TRY_GOTO(s, pn_params_create(PN_F32, &params), done);
    PN_TRY_GOTO(s, pn_block_create(&attention->spec, &attention->dims, params, "", &copy), done);
    pn_softmax_attention *c = copy->data;
    pn_tensor *const from[] = { a->wq, a->wk, a->wv, a->bq, a->bk, a->bv };
    pn_tensor *const to[] = { c->wq, c->wk, c->wv, c->bq, c->bk, c->bv };
    for (int i = 0; i < 6; i++)
        if (from[i]) PN_TRY_GOTO(s, pn_tensor_copy(to[i], from[i]), done);
    PN_TRY_GOTO(s, features(copy, c->wo, t, x, docs, heads), done);
done:
    pn_block_destroy(&copy);
    pn_params_destroy(&params);
    return s;
}

pn_status pn_attention_batch_run(const pn_block *attention, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                                 pn_attention_batch *out) {
    PN_ASSERT(attention->spec.type->attention_weights && !pn_tape_recording(t));
    const pn_softmax_attention *a = attention->data;
    *out = (pn_attention_batch){ .block = attention, .x = x, .docs = docs };
    pn_tensor *const w[] = { a->wq, a->wk, a->wv };
    for (int i = 0; i < 3; i++) PN_TRY(pn_linear(t, x, w[i], NULL, &out->in[i]));
    PN_TRY(heads_of(attention, a, t, x, docs, &out->heads));
    return PN_OK;
}

/* ---- the parts ---- */

typedef struct start {
    const pn_attention_batch *a;
    pn_attention_map map;
    int64_t d, heads, group; /* attention's: head width, query heads, query heads of a key/value head */
    int64_t N, D;
    double *left, *right; /* factors for pn_head_basis */
    double *p, *r;        /* its bases of the heads of a part, one after another: of q or W_o, and of k or v */
    double *take;         /* [d], one row of a basis */
    pn_start_report *report;
} start;

/* The query head that head h of n starts from, and the key/value head that this one reads. */
static int64_t source(const start *s, int64_t h, int64_t n) {
    return h * s->heads / n;
}

static int64_t kv_source(const start *s, int64_t h, int64_t n) {
    return source(s, h, n) / s->group;
}

static const pn_tensor *attention_weight(const start *s, int part) {
    const pn_softmax_attention *a = s->a->block->data;
    const pn_tensor *const w[] = { a->wq, a->wk, a->wv };
    return w[part];
}

/* NULL: none, or the block has no place for it. */
static const float *bias_of(const start *s, int part) {
    const pn_softmax_attention *a = s->a->block->data;
    const pn_tensor *const bias[] = { a->bq, a->bk, a->bv };
    return s->map.part[part].bias && bias[part] ? pn_f32(bias[part]) : NULL;
}

/* Rows of a head's activations: to [N, d]. */
static void gather_activations(const start *s, int part, int64_t head, double *to) {
    const pn_tensor *in = s->a->in[part];
    const float *bias = bias_of(s, part);
    for (int64_t i = 0; i < s->N; i++)
        for (int64_t c = 0; c < s->d; c++)
            to[i * s->d + c] = pn_f32(in)[i * in->shape[1] + head * s->d + c] + (bias ? bias[head * s->d + c] : 0);
}

/* Columns of a head in W_o: to [D, d]. */
static void gather_columns(const start *s, int64_t head, double *to) {
    const pn_softmax_attention *a = s->a->block->data;
    for (int64_t i = 0; i < s->D; i++)
        for (int64_t c = 0; c < s->d; c++) to[i * s->d + c] = pn_f32(a->wo)[i * a->wo->shape[1] + head * s->d + c];
}

/* Channel i of a head: sum_c take[c] (channel c of attention's), by row i of mix; mix NULL: channel i itself. False
 * where there is nothing to take: the channel is beyond attention's, or the basis has less. */
static bool channel(const start *s, const double *mix, int64_t i) {
    double *out = s->take;
    if (!mix) {
        for (int64_t c = 0; c < s->d; c++) out[c] = c == i;
        return i < s->d;
    }
    memcpy(out, mix + i * s->d, (size_t)s->d * sizeof *out);
    for (int64_t c = 0; c < s->d; c++)
        if (out[c] != 0) return true;
    return false;
}

/* Rows of head h of a part from attention's head `from`. Channels with nothing to take: 0, or as they are. */
static void put_rows(const start *s, int part, int64_t h, int64_t from, const double *mix, bool zero) {
    const double *take = s->take;
    const pn_head_rows *to = &s->map.part[part];
    const float *w = pn_f32(attention_weight(s, part)) + from * s->d * s->D, *bias = bias_of(s, part);
    for (int64_t i = 0; i < to->width; i++) {
        const int64_t at = to->first + h * to->width + i;
        float *row = pn_f32(to->w) + at * s->D;
        bool taken = channel(s, mix, i);
        if (!taken && !zero) continue;
        memset(row, 0, (size_t)s->D * sizeof *row);
        for (int64_t c = 0; taken && c < s->d; c++)
            for (int64_t k = 0; take[c] != 0 && k < s->D; k++) row[k] += (float)take[c] * w[c * s->D + k];
        if (!bias) continue;
        double sum = 0;
        for (int64_t c = 0; taken && c < s->d; c++) sum += take[c] * bias[from * s->d + c];
        pn_f32(to->bias)[at] = (float)sum;
    }
}

static pn_status put_queries_and_keys(start *s) {
    const pn_head_rows *q = &s->map.part[PN_MAP_Q], *k = &s->map.part[PN_MAP_K];
    const int64_t group = q->heads / k->heads;
    const bool narrow = k->width < s->d;
    s->report->kept_qk = 1;
    for (int64_t j = 0; j < k->heads; j++) {
        const int64_t key = kv_source(s, j * group, q->heads);
        double kept = 1;
        if (narrow) {
            for (int64_t i = 0; i < group; i++)
                gather_activations(s, PN_MAP_Q, source(s, j * group + i, q->heads), s->left + i * s->N * s->d);
            gather_activations(s, PN_MAP_K, key, s->right);
            PN_TRY(pn_head_basis(s->left, group * s->N, s->right, s->N, s->d, k->width, s->p, s->r, &kept));
        }
        for (int64_t i = 0; i < group; i++)
            put_rows(s, PN_MAP_Q, j * group + i, source(s, j * group + i, q->heads), narrow ? s->p : NULL, false);
        put_rows(s, PN_MAP_K, j, key, narrow ? s->r : NULL, true);
        s->report->kept_qk = fmin(s->report->kept_qk, kept);
    }
    return PN_OK;
}

/* Leaves the bases in p and r: W_o follows when all else stands. */
static pn_status put_values(start *s) {
    const pn_head_rows *v = &s->map.part[PN_MAP_V];
    const int64_t H = s->map.out_heads, group = H / v->heads, size = v->width * s->d;
    const bool narrow = v->width < s->d;
    s->report->kept_v = 1;
    for (int64_t j = 0; j < v->heads; j++) {
        const int64_t value = kv_source(s, j * group, H);
        double *p = s->p + j * size, *r = s->r + j * size, kept = 1;
        if (narrow) {
            for (int64_t i = 0; i < group; i++)
                gather_columns(s, source(s, j * group + i, H), s->left + i * s->D * s->d);
            gather_activations(s, PN_MAP_V, value, s->right);
            PN_TRY(pn_head_basis(s->left, group * s->D, s->right, s->N, s->d, v->width, p, r, &kept));
        }
        put_rows(s, PN_MAP_V, j, value, narrow ? r : NULL, false);
        s->report->kept_v = fmin(s->report->kept_v, kept);
    }
    return PN_OK;
}

static void make_row_sums_positive(pn_tensor *w) {
    for (int64_t i = 0; i < w->shape[0]; i++) {
        float *row = pn_f32(w) + i * w->shape[1];
        double sum = 0;
        for (int64_t k = 0; k < w->shape[1]; k++) sum += row[k];
        for (int64_t k = 0; sum < 0 && k < w->shape[1]; k++) row[k] = -row[k];
    }
}

static void put_rest(const start *s) {
    for (int i = 0; i < 3; i++) {
        pn_tensor *conv = s->map.conv[i];
        const int64_t n = conv ? pn_tensor_elems(conv) : 0, W = conv ? conv->shape[2] : 1;
        for (int64_t k = 0; k < n; k++) pn_f32(conv)[k] = k % W == W - 1;
    }
    for (int i = 0; i < s->map.n_values; i++) {
        pn_tensor *w = s->map.value[i].weight;
        for (int64_t k = 0; k < pn_tensor_elems(w); k++) pn_f32(w)[k] = (float)s->map.value[i].value;
    }
    if (s->map.gate_rows) make_row_sums_positive(s->map.gate_rows);
}

/* ---- the output projection ---- */

/* Root mean square over the batch of the channels that output head h takes over. */
static double own_rms(const start *s, const pn_tensor *f, int64_t h) {
    const int64_t dv = s->map.part[PN_MAP_V].width, n = dv < s->d ? dv : s->d;
    double sum = 0;
    for (int64_t i = 0; i < s->N; i++)
        for (int64_t c = 0; c < n; c++) {
            double x = pn_f32(f)[i * f->shape[1] + h * dv + c];
            sum += x * x;
        }
    return sqrt(sum / (double)(s->N * n));
}

/* The same channels of attention's head `from`. r NULL: they are its own. */
static double attention_rms(const start *s, int64_t from, const double *r) {
    const pn_tensor *o = s->a->heads;
    const int64_t dv = s->map.part[PN_MAP_V].width, n = dv < s->d ? dv : s->d;
    double sum = 0;
    for (int64_t i = 0; i < s->N; i++) {
        const float *head = pn_f32(o) + i * o->shape[1] + from * s->d;
        for (int64_t k = 0; k < n; k++) {
            double x = r ? 0 : head[k];
            for (int64_t c = 0; r && c < s->d; c++) x += r[k * s->d + c] * head[c];
            sum += x * x;
        }
    }
    return sqrt(sum / (double)(s->N * n));
}

static void put_columns(const start *s, int64_t h, int64_t from, const double *mix, double scale) {
    const double *take = s->take;
    const pn_softmax_attention *a = s->a->block->data;
    const int64_t dv = s->map.part[PN_MAP_V].width, V = s->map.out->shape[1];
    for (int64_t i = 0; i < dv; i++) {
        float *to = pn_f32(s->map.out) + h * dv + i;
        bool taken = channel(s, mix, i);
        for (int64_t k = 0; k < s->D; k++) to[k * V] = 0;
        for (int64_t c = 0; taken && c < s->d; c++)
            for (int64_t k = 0; take[c] != 0 && k < s->D; k++)
                to[k * V] += (float)(scale * take[c]) * pn_f32(a->wo)[k * a->wo->shape[1] + from * s->d + c];
    }
}

static pn_status put_output(start *s, pn_block *b, pn_tape *t) {
    const pn_head_rows *v = &s->map.part[PN_MAP_V];
    const int64_t H = s->map.out_heads, size = v->width * s->d;
    const bool narrow = v->width < s->d;
    pn_tensor *f;
    PN_TRY(features(b, s->map.out, t, s->a->x, s->a->docs, &f));
    s->report->least_scale = INFINITY;
    s->report->most_scale = 0;
    for (int64_t h = 0; h < H; h++) {
        const int64_t from = source(s, h, H), j = h * v->heads / H;
        int64_t sharers = 0;
        for (int64_t i = 0; i < H; i++) sharers += source(s, i, H) == from;
        const double own = own_rms(s, f, h);
        const double ratio = own > 0 ? attention_rms(s, from, narrow ? s->r + j * size : NULL) / own : 1;
        PN_CHECK(isfinite(ratio), PN_NUMERIC, "%s: not finite on the calibration batch", b->prefix);
        put_columns(s, h, from, narrow ? s->p + j * size : NULL, ratio / (double)sharers);
        s->report->least_scale = fmin(s->report->least_scale, ratio);
        s->report->most_scale = fmax(s->report->most_scale, ratio);
    }
    return PN_OK;
}

/* ---- all of it ---- */

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static pn_status reserve(start *s) {
    const pn_head_rows *q = &s->map.part[PN_MAP_Q], *k = &s->map.part[PN_MAP_K], *v = &s->map.part[PN_MAP_V];
    const int64_t queries = q->heads / k->heads * s->N, columns = s->map.out_heads / v->heads * s->D;
    const int64_t bases = most(k->width, v->heads * v->width);
    s->left = malloc((size_t)(most(queries, columns) * s->d) * sizeof *s->left);
    s->right = malloc((size_t)(s->N * s->d) * sizeof *s->right);
    s->p = malloc((size_t)(bases * s->d) * sizeof *s->p);
    s->r = malloc((size_t)(bases * s->d) * sizeof *s->r);
    s->take = malloc((size_t)s->d * sizeof *s->take);
    PN_CHECK(s->left && s->right && s->p && s->r && s->take, PN_MEMORY, "out of memory");
    return PN_OK;
}

static pn_status put_all(start *s, pn_block *b, pn_tape *t) {
    PN_TRY(reserve(s));
    PN_TRY(put_queries_and_keys(s));
    PN_TRY(put_values(s));
    put_rest(s);
    PN_TRY(put_output(s, b, t));
    return PN_OK;
}

pn_status pn_start_from_attention(pn_block *b, const pn_attention_batch *a, pn_tape *t, pn_start_report *report) {
    const pn_dims *dims = &a->block->dims;
    start s = { .a = a,
                .d = dims->head_dim,
                .heads = dims->heads,
                .group = dims->heads / dims->kv_heads,
                .N = a->x->shape[0],
                .D = dims->hidden,
                .report = report };
    PN_ASSERT(b->spec.type->attention_map && !pn_tape_recording(t));
    b->spec.type->attention_map(b, &s.map);
    pn_scope scope = pn_scope_open(t);
    pn_status status = put_all(&s, b, t);
    if (!status) pn_scope_close(t, scope, NULL, 0);
    free(s.left);
    free(s.right);
    free(s.p);
    free(s.r);
    free(s.take);
    return status;
}
