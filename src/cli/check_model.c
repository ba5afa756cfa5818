#include "check_model.h"

#include <stdlib.h>
#include <string.h>

#include "agreement.h"
#include "check_report.h"
#include "golden.h"
#include "model_load.h"
#include "tape.h"

/* Logits are made this many rows at a time: a vocabulary is wide. */
enum { LOGIT_ROWS = 64 };

typedef struct model_check {
    const pn_safetensors *file;
    const pn_model *model;
    pn_tape *tape;
    pn_report report;
    int64_t sequences, tokens; /* B, T */
    int32_t *ids;              /* [B, T], owned */
    int64_t *offset;           /* of the sequences as packed documents; owned */
    pn_agreement *agreement;   /* what logits add to; NULL: to the error of the row being made */
} model_check;

static pn_status read_ids(model_check *c) {
    const char *path = pn_safetensors_path(c->file);
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(c->file, "input_ids", &info));
    PN_CHECK((info->rank == 1 || info->rank == 2) && info->n_elems > 0, PN_FORMAT,
             "%s: input_ids has shape %s; it must be [sequences, tokens]", path, pn_tensor_info_shape_text(info));
    c->sequences = info->rank == 2 ? info->shape[0] : 1;
    c->tokens = info->shape[info->rank - 1];
    int64_t *wide = malloc(sizeof *wide * (size_t)info->n_elems);
    c->ids = malloc(sizeof *c->ids * (size_t)info->n_elems);
    c->offset = malloc(sizeof *c->offset * (size_t)(c->sequences + 1));
    pn_status s = wide && c->ids && c->offset ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) pn_convert_unaligned(wide, PN_I64, info->data, info->dtype, info->n_elems);
    for (int64_t i = 0; !s && i < info->n_elems; i++) {
        if (wide[i] < 0 || wide[i] >= c->model->config.vocab)
            s = pn_fail_at(__FILE__, __LINE__, PN_FORMAT,
                           "%s: input_ids holds %lld at position %lld; the model's vocabulary is 0 .. %lld", path,
                           (long long)wide[i], (long long)i, (long long)c->model->config.vocab - 1);
        c->ids[i] = (int32_t)wide[i];
    }
    for (int64_t i = 0; !s && i <= c->sequences; i++) c->offset[i] = i * c->tokens;
    free(wide);
    return s;
}

/* [B, T, width] is what a tensor of the file must hold; *found false: there is none of that name. */
static pn_status expect_shape(const model_check *c, const char *name, int64_t width, bool *found) {
    const pn_tensor_info *info = pn_safetensors_find(c->file, name);
    *found = info != NULL;
    if (!info) return PN_OK;
    PN_TRY(pn_golden_info(c->file, name, &info));
    PN_CHECK(info->rank >= 2 && info->shape[info->rank - 1] == width &&
                 info->n_elems == c->sequences * c->tokens * width,
             PN_FORMAT, "%s: tensor %s has shape %s; with these input_ids this model gives [%lld, %lld, %lld]",
             pn_safetensors_path(c->file), name, pn_tensor_info_shape_text(info), (long long)c->sequences,
             (long long)c->tokens, (long long)width);
    return PN_OK;
}

static void row(model_check *c, const char *what, double error) {
    pn_row r = pn_row_start(what, "cpu");
    pn_row_error(&r, "rms", error, PN_LIMIT_OUTPUT);
    pn_row_end(&c->report, &r);
}

static pn_status check_hidden(model_check *c, int index, const pn_tensor *h) {
    char name[32];
    bool found;
    snprintf(name, sizeof name, "hidden.%d", index);
    PN_TRY(expect_shape(c, name, c->model->config.dims.hidden, &found));
    if (!found) return PN_OK;
    pn_golden_sum sum = { 0 };
    PN_TRY(pn_golden_add(c->file, name, 0, pn_f32(h), pn_tensor_elems(h), &sum));
    row(c, name, pn_golden_rms(&sum));
    return PN_OK;
}

static pn_status ids_tensor(model_check *c, const int32_t *ids, int64_t n, pn_tensor **out) {
    PN_TRY(pn_tape_new(c->tape, PN_I32, 1, &n, out));
    if (n) memcpy(pn_i32(*out), ids, (size_t)n * sizeof *ids);
    return PN_OK;
}

/* Logits of rows begin .. of hidden against n rows of the file from first_row. */
static pn_status add_logits(model_check *c, pn_tensor *hidden, int64_t begin, int64_t n, int64_t first_row,
                            pn_golden_sum *sum) {
    const int64_t V = c->model->config.vocab;
    for (int64_t at = 0; at < n; at += LOGIT_ROWS) {
        int64_t rows = n - at < LOGIT_ROWS ? n - at : LOGIT_ROWS;
        pn_scope scope = pn_scope_open(c->tape);
        pn_tensor *part, *logits;
        PN_TRY(pn_tensor_rows(hidden, begin + at, begin + at + rows, &part));
        PN_TRY(pn_tape_own(c->tape, part));
        PN_TRY(pn_model_logits(c->model, c->tape, part, &logits));
        if (c->agreement)
            PN_TRY(pn_agreement_add(c->file, first_row + at, pn_f32(logits), rows, V, c->agreement));
        else
            PN_TRY(pn_golden_add(c->file, "logits", (first_row + at) * V, pn_f32(logits), rows * V, sum));
        pn_scope_close(c->tape, scope, NULL, 0);
    }
    return PN_OK;
}

static void agreement_row(model_check *c, const pn_check_agreement *limit) {
    char what[64];
    snprintf(what, sizeof what, "logits, %lld tokens", (long long)c->agreement->tokens);
    pn_row r = pn_row_start(what, "cpu");
    pn_row_error(&r, "mean KL", pn_agreement_kl(c->agreement), limit->kl);
    pn_row_error(&r, "top-1 differs", pn_agreement_differ(c->agreement), 1 - limit->top1);
    pn_row_end(&c->report, &r);
    fprintf(c->report.out, "      first choice equal for %lld of %lld tokens; largest KL of a token %.2e\n",
            (long long)c->agreement->equal, (long long)c->agreement->tokens, c->agreement->worst);
}

/* Every sequence whole, layer by layer. */
static pn_status check_pass(model_check *c) {
    const pn_model *m = c->model;
    const int n = m->config.n_layers;
    const pn_docs docs = { .n = c->sequences, .offset = c->offset };
    pn_tensor *ids, *h, *next;
    pn_carry carry = { 0 };
    pn_golden_sum sum = { 0 };
    PN_TRY(ids_tensor(c, c->ids, c->sequences * c->tokens, &ids));
    pn_scope scope = pn_scope_open(c->tape);
    PN_TRY(pn_model_embed(m, c->tape, ids, &h));
    PN_TRY(check_hidden(c, 0, h));
    for (int l = 0; l < n; l++) {
        PN_TRY(pn_model_layer(m, l, 0, c->tape, h, &docs, &carry, &next));
        pn_tensor *keep[] = { next, carry.v_first };
        pn_scope_close(c->tape, scope, keep, 2);
        h = next;
        if (l + 1 < n) PN_TRY(check_hidden(c, l + 1, h));
    }
    PN_TRY(pn_model_final(m, c->tape, h, &h));
    PN_TRY(check_hidden(c, n, h));
    PN_TRY(add_logits(c, h, 0, c->sequences * c->tokens, 0, &sum));
    if (!c->agreement) row(c, "logits", pn_golden_rms(&sum));
    pn_tape_reset(c->tape);
    return PN_OK;
}

/* `piece`: how many tokens sequence i gets in a call; the sequences may be at different places. */
static pn_status decode(model_check *c, pn_cache *cache, int64_t (*piece)(int64_t call, int64_t sequence),
                        int64_t *offset, int64_t *done, int32_t *ids, pn_golden_sum *sum) {
    const int64_t B = c->sequences, T = c->tokens;
    memset(done, 0, sizeof *done * (size_t)B);
    offset[0] = 0;
    for (int64_t call = 0, left = B * T; left > 0; call++) {
        for (int64_t i = 0; i < B; i++) {
            int64_t n = piece(call, i);
            if (n > T - done[i]) n = T - done[i];
            memcpy(ids + offset[i], c->ids + i * T + done[i], (size_t)n * sizeof *ids);
            offset[i + 1] = offset[i] + n;
        }
        pn_tensor *in, *hidden;
        PN_TRY(ids_tensor(c, ids, offset[B], &in));
        PN_TRY(pn_model_extend(c->model, cache, c->tape, in, &(pn_docs){ .n = B, .offset = offset }, &hidden));
        for (int64_t i = 0; i < B; i++) {
            int64_t n = offset[i + 1] - offset[i];
            PN_TRY(add_logits(c, hidden, offset[i], n, i * T + done[i], sum));
            done[i] += n;
            left -= n;
        }
        pn_tape_reset(c->tape);
    }
    return PN_OK;
}

static int64_t one(int64_t call, int64_t sequence) {
    (void)call, (void)sequence;
    return 1;
}
static int64_t pieces(int64_t call, int64_t sequence) {
    static const int64_t size[] = { 1, 2, 5, 16, 3 };
    return size[(call + sequence) % 5];
}

static pn_status check_decoding(model_check *c) {
    static const struct {
        const char *name;
        int64_t (*piece)(int64_t call, int64_t sequence);
    } ways[] = { { "logits, one token at a time", one }, { "logits, in pieces", pieces } };
    pn_status s = PN_OK;
    pn_cache *cache = NULL;
    size_t B = (size_t)c->sequences;
    int64_t *offset = malloc(sizeof *offset * (B + 1)), *done = malloc(sizeof *done * B);
    int32_t *ids = malloc(sizeof *ids * B * (size_t)c->tokens);
    if (!offset || !done || !ids) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        pn_golden_sum sum = { 0 };
        PN_TRY_GOTO(s, pn_cache_create(c->model, NULL, c->sequences, &cache), fail);
        PN_TRY_GOTO(s, decode(c, cache, ways[i].piece, offset, done, ids, &sum), fail);
        row(c, ways[i].name, pn_golden_rms(&sum));
        pn_cache_destroy(&cache);
    }
fail:
    pn_cache_destroy(&cache);
    free(offset);
    free(done);
    free(ids);
    return s;
}

static pn_status check_fits(model_check *c) {
    bool found;
    char beyond[32];
    snprintf(beyond, sizeof beyond, "hidden.%d", c->model->config.n_layers + 1);
    PN_CHECK(!pn_safetensors_find(c->file, beyond), PN_FORMAT, "%s: it has %s, but the model has %d layers",
             pn_safetensors_path(c->file), beyond, c->model->config.n_layers);
    PN_TRY(read_ids(c));
    PN_TRY(expect_shape(c, "logits", c->model->config.vocab, &found));
    PN_CHECK(found, PN_FORMAT, "%s: no tensor logits", pn_safetensors_path(c->file));
    return PN_OK;
}

static pn_status check(const char *path, const char *expected, const pn_check_agreement *limit, FILE *out) {
    pn_safetensors *file;
    pn_model *model = NULL;
    PN_TRY(pn_safetensors_open(expected, &file));
    pn_agreement agreement = { 0 };
    model_check c = { .file = file, .report = { .out = out }, .agreement = limit ? &agreement : NULL };
    pn_status s;
    PN_TRY_GOTO(s, pn_model_load(path, PN_F32, &model), done);
    c.model = model;
    PN_TRY_GOTO(s, check_fits(&c), done);
    PN_TRY_GOTO(s, pn_tape_create(PN_CPU, &c.tape), done);
    pn_tape_record(c.tape, false);
    PN_TRY_GOTO(s, check_pass(&c), done);
    if (limit)
        agreement_row(&c, limit);
    else
        PN_TRY_GOTO(s, check_decoding(&c), done);
    s = pn_report_end(&c.report);
done:
    pn_tape_destroy(&c.tape);
    pn_model_destroy(&model);
    pn_safetensors_close(&file);
    free(c.ids);
    free(c.offset);
    return s;
}

pn_status pn_check_model(const char *path, const char *expected, FILE *out) {
    return check(path, expected, NULL, out);
}

pn_status pn_check_model_agrees(const char *path, const char *expected, const pn_check_agreement *limit, FILE *out) {
    return check(path, expected, limit, out);
}
