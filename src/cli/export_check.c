#include "export_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model_load.h"
#include "rng.h"

enum { TEXTS = 3, ROW_TOKENS = 96, PIECE = 64, BLOCK = 4096 }; /* tokens of a text; rows of logits, weights at a time */

static const char *const texts[TEXTS] = {
    "The river had been low since spring, and the ferry could no longer reach the far bank. Every morning the miller "
    "walked down to the water, put a stick into the mud, and wrote the mark into his book. By the end of the summer "
    "there were ninety marks, one below the other, and the last of them was the first that stood higher than the one "
    "before. That night it rained until the bridge was gone.",
    "Trains on weekdays: 06:12, 07:42, 09:05, 11:30, 13:55, 16:20 and 18:48. A single ticket is 4.75, a return 8.20, "
    "and a card for ten journeys 39.00. If 3 people travel together on 2 days, they pay 3 * 2 * 8.20 = 49.20 for "
    "returns, or 2 cards, 78.00, and have 8 journeys left. The next train after 13:00 is the one of 13:55.",
    "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n"
    "        return ordered[middle]\n    return (ordered[middle - 1] + ordered[middle]) / 2\n\n"
    "print(median([3, 1, 2]))  # 2\nprint(median([4, 1, 3, 2]))  # 2.5\n",
};

typedef struct rows {
    pn_ids ids;
    int64_t offset[TEXTS + 1];
} rows;

static pn_status encode(const pn_tokenizer *t, rows *r) {
    for (int i = 0; i < TEXTS; i++) {
        if (pn_tokenizer_adds_bos(t)) PN_TRY(pn_ids_push(&r->ids, pn_tokenizer_bos(t)));
        PN_TRY(pn_tokenizer_encode(t, texts[i], strlen(texts[i]), false, &r->ids));
        if (r->ids.n > r->offset[i] + ROW_TOKENS) r->ids.n = r->offset[i] + ROW_TOKENS;
        r->offset[i + 1] = r->ids.n;
    }
    return PN_OK;
}

/* ---- logits ---- */

static pn_status logits_on(const pn_model *m, const rows *r, pn_tape *t, float *out) {
    const int64_t V = m->config.vocab, n = r->ids.n;
    pn_tensor *ids, *hidden;
    PN_TRY(pn_tape_new(t, PN_I32, 1, &n, &ids));
    memcpy(pn_i32(ids), r->ids.ids, (size_t)n * sizeof *r->ids.ids);
    PN_TRY(pn_model_hidden(m, NULL, t, ids, &(pn_docs){ .n = TEXTS, .offset = r->offset }, &hidden));
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t end = n - at < PIECE ? n : at + PIECE;
        pn_scope scope = pn_scope_open(t);
        pn_tensor *part, *z;
        PN_TRY(pn_tensor_rows(hidden, at, end, &part));
        PN_TRY(pn_tape_own(t, part));
        PN_TRY(pn_model_logits(m, t, part, &z));
        memcpy(out + at * V, pn_f32(z), (size_t)((end - at) * V) * sizeof *out);
        pn_scope_close(t, scope, NULL, 0);
    }
    return PN_OK;
}

/* [tokens, vocab]; the caller frees *out. */
static pn_status logits_of(const pn_model *m, const rows *r, float **out) {
    pn_tape *t;
    PN_CHECK(*out = malloc((size_t)(r->ids.n * m->config.vocab) * sizeof **out + 1), PN_MEMORY, "out of memory");
    PN_TRY(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    pn_status s = logits_on(m, r, t, *out);
    pn_tape_destroy(&t);
    return s;
}

/* ---- 1: weights and settings ---- */

/* Rounds m's weights to what was written, which the other's must be. */
static pn_status check_weights(pn_model *m, const pn_model *back, const char *shown, pn_dtype dtype) {
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i], *q = pn_params_find(back->params, p->name);
        PN_CHECK(q && pn_tensor_same_shape(p->value, q->value), PN_MISMATCH, "%s: weight %s did not come back", shown,
                 p->name);
        const pn_dtype as = p->keep_f32 ? PN_F32 : dtype;
        const float *b = pn_f32(q->value);
        float *a = pn_f32(p->value);
        for (int64_t k = 0, n = pn_tensor_elems(p->value), some; k < n; k += some) {
            float narrow[BLOCK];
            some = n - k < BLOCK ? n - k : BLOCK;
            pn_convert(narrow, as, a + k, PN_F32, some);
            pn_convert(a + k, PN_F32, narrow, as, some);
            PN_CHECK(!memcmp(a + k, b + k, (size_t)some * sizeof *a), PN_MISMATCH,
                     "%s: weight %s differs in value %lld or one of the next %d", shown, p->name, (long long)k, BLOCK);
        }
    }
    return PN_OK;
}

static bool same_option(const pn_option *row, const void *a, const void *b) {
    if (row->kind == PN_OPTION_FLOAT) { /* fla's files have the exact ratio of an expansion */
        const double x = *(const double *)((const char *)a + row->offset),
                     y = *(const double *)((const char *)b + row->offset);
        return fabs(x - y) <= 1e-5 * fabs(x);
    }
    pn_buf p = { 0 }, q = { 0 };
    pn_option_text(row, a, &p);
    pn_option_text(row, b, &q);
    bool same = !strcmp(pn_buf_string(&p), pn_buf_string(&q));
    pn_buf_free(&p);
    pn_buf_free(&q);
    return same;
}

static pn_status check_settings(const pn_model_config *a, const pn_model_config *b, const char *shown) {
    bool attention = false;
    for (int l = 0; l < a->n_layers; l++) {
        const pn_block_type *type = a->layer[l].type;
        attention = attention || type->attention_weights;
        PN_CHECK(b->layer[l].type == type, PN_MISMATCH, "%s: layer %d came back as %s, it is %s", shown, l,
                 b->layer[l].type->name, type->name);
        for (const pn_option *row = type->options; row && row->name; row++)
            PN_CHECK(same_option(row, a->layer[l].options, b->layer[l].options), PN_MISMATCH,
                     "%s: %s of layer %d came back with another value", shown, row->name, l);
    }
    PN_CHECK(a->dims.rms_norm_eps == b->dims.rms_norm_eps && a->tied == b->tied && a->bos == b->bos &&
                 a->eos == b->eos && (!attention || a->dims.rope_theta == b->dims.rope_theta),
             PN_MISMATCH,
             "%s: rms_norm_eps, rope_theta, tie_word_embeddings or a token id came back with another value", shown);
    return PN_OK;
}

/* ---- 2: the same function ---- */

static pn_status check_equal(const float *a, const float *b, int64_t tokens, int64_t vocab, const char *shown) {
    for (int64_t i = 0; i < tokens * vocab; i++) {
        PN_CHECK(isfinite(b[i]), PN_MISMATCH,
                 "%s: logit %lld of token %lld is not finite: the model's weights are beyond "
                 "what the written type holds, or not finite themselves",
                 shown, (long long)(i % vocab), (long long)(i / vocab));
        PN_CHECK(a[i] == b[i], PN_MISMATCH,
                 "%s: logit %lld of token %lld is %.9g read back and %.9g in the model with the same weights", shown,
                 (long long)(i % vocab), (long long)(i / vocab), (double)b[i], (double)a[i]);
    }
    return PN_OK;
}

/* ---- 3: what rounding does ---- */

static double mean_of(const float *z, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += z[i];
    return sum / (double)n;
}

static double log_sum_exp(const float *z, int64_t n) {
    double most = z[0], sum = 0;
    for (int64_t i = 1; i < n; i++) most = fmax(most, z[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(z[i] - most);
    return most + log(sum);
}

/* rms(after - before) / rms(before), each about the mean of its row, which softmax does not see. */
static double change(const float *before, const float *after, int64_t tokens, int64_t vocab) {
    double change = 0, size = 0;
    for (int64_t t = 0; t < tokens; t++, before += vocab, after += vocab) {
        const double p_mean = mean_of(before, vocab), q_mean = mean_of(after, vocab);
        for (int64_t i = 0; i < vocab; i++) {
            const double p = before[i] - p_mean, d = after[i] - q_mean - p;
            size += p * p;
            change += d * d;
        }
    }
    return change == 0 ? 0 : sqrt(change / size);
}

static void measure(const float *before, const float *after, int64_t tokens, int64_t vocab, pn_export_check *out) {
    out->rms = change(before, after, tokens, vocab);
    for (int64_t t = 0; t < tokens; t++, before += vocab, after += vocab) {
        const double p_log = log_sum_exp(before, vocab), q_log = log_sum_exp(after, vocab);
        for (int64_t i = 0; i < vocab; i++) {
            const double log_p = before[i] - p_log;
            out->worst = fmax(out->worst, fabs((double)after[i] - before[i]));
            out->kl += exp(log_p) * (log_p - (after[i] - q_log)) / (double)tokens;
        }
    }
}

/* Adds what rounding to the type would, at random. */
static void add_noise(pn_model *m, pn_dtype dtype) {
    const float spacing = dtype == PN_BF16 ? 0x1p-7f : 0x1p-10f; /* of values in 1 .. 2 */
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (p->keep_f32) continue;
        pn_rng rng;
        pn_rng_stream(1, p->name, 0, &rng);
        float *w = pn_f32(p->value);
        for (int64_t k = 0, n = pn_tensor_elems(p->value); k < n; k++) {
            uint32_t bits;
            float power; /* the power of two below w */
            memcpy(&bits, &w[k], sizeof bits);
            bits &= 0x7f800000;
            memcpy(&power, &bits, sizeof power);
            w[k] += spacing * power * (float)(pn_rng_uniform(&rng) - 0.5);
        }
    }
}

/* ---- all of it ---- */

typedef struct check {
    rows rows;
    pn_model *back;
    float *before, *rounded, *after, *noisy; /* [tokens, vocab] each */
} check;

static pn_status check_rounding(check *c, const char *shown, pn_dtype dtype, pn_export_check *out) {
    const int64_t V = c->back->config.vocab;
    measure(c->before, c->after, out->tokens, V, out);
    if (out->rms == 0) return PN_OK; /* the model's values are of that type already */
    add_noise(c->back, dtype);
    PN_TRY(logits_of(c->back, &c->rows, &c->noisy));
    out->limit = 3 * change(c->after, c->noisy, out->tokens, V);
    PN_CHECK(
        out->rms <= out->limit, PN_MISMATCH,
        "%s: writing %s changed the logits by %.2g of their size, but rounding alone by at most %.2g; write the model "
        "with --dtype f32",
        shown, pn_dtype_name(dtype), out->rms, out->limit);
    return PN_OK;
}

static pn_status run(check *c, pn_model *m, const pn_tokenizer *t, const char *dir, const char *shown, pn_dtype dtype,
                     pn_export_check *out) {
    const int64_t V = m->config.vocab;
    PN_TRY(encode(t, &c->rows));
    PN_TRY(logits_of(m, &c->rows, &c->before));
    PN_TRY(pn_model_load(dir, PN_F32, &c->back));
    PN_TRY(check_settings(&m->config, &c->back->config, shown));
    PN_TRY(check_weights(m, c->back, shown, dtype));
    if (dtype != PN_F32) PN_TRY(logits_of(m, &c->rows, &c->rounded));
    PN_TRY(logits_of(c->back, &c->rows, &c->after));
    *out = (pn_export_check){ .tokens = c->rows.ids.n };
    PN_TRY(check_equal(c->rounded ? c->rounded : c->before, c->after, out->tokens, V, shown));
    if (dtype != PN_F32) PN_TRY(check_rounding(c, shown, dtype, out));
    return PN_OK;
}

pn_status pn_export_check_run(pn_model *m, const pn_tokenizer *t, const char *dir, const char *shown, pn_dtype dtype,
                              pn_export_check *out) {
    check c = { 0 };
    pn_status s = run(&c, m, t, dir, shown, dtype, out);
    pn_ids_free(&c.rows.ids);
    pn_model_destroy(&c.back);
    free(c.before);
    free(c.rounded);
    free(c.after);
    free(c.noisy);
    return s;
}
