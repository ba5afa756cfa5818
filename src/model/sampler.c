#include "sampler.h"

#include <math.h>
#include <stdlib.h>

#include "decode.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

static int by_logit(const void *a_, const void *b_) {
    const candidate *a = a_, *b = b_;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->token < b->token ? -1 : a->token > b->token;
}

pn_status pn_sampler_pick(pn_sampler *s, const float *logits, int64_t n, int32_t *token) {
    int64_t best = 0;
    for (int64_t i = 0; i < n; i++) {
        PN_CHECK(!isnan(logits[i]), PN_NUMERIC, "a logit is not a number: the weights are damaged");
        if (logits[i] > logits[best]) best = i;
    }
    *token = (int32_t)best;
    if (s->temperature <= 0) return PN_OK;
    candidate *c = malloc((size_t)n * sizeof *c);
    PN_CHECK(c, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i < n; i++) c[i] = (candidate){ logits[i], (int32_t)i };
    qsort(c, (size_t)n, sizeof *c, by_logit);
    int64_t keep = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    double total = 0;
    for (int64_t i = 0; i < keep; i++) total += exp((c[i].logit - c[0].logit) / s->temperature);
    double cut = 0, limit = s->top_p * total;
    int64_t last = 0;
    for (; last < keep; last++) {
        cut += exp((c[last].logit - c[0].logit) / s->temperature);
        if (cut >= limit) break;
    }
    if (last == keep) last = keep - 1;
    double draw = pn_rng_uniform(&s->rng) * cut, sum = 0;
    for (int64_t i = 0; i <= last; i++) {
        *token = c[i].token;
        sum += exp((c[i].logit - c[0].logit) / s->temperature);
        if (sum > draw) break;
    }
    free(c);
    return PN_OK;
}

/* The prompt into the cache; the logits of its last token, [vocab]. */
static pn_status advance(const pn_model *m, pn_cache *cache, pn_tape *t, const int32_t *ids, int64_t n, float *logits) {
    pn_tensor *tokens, *hidden, *last, *out;
    pn_tape_reset(t);
    PN_TRY(pn_tape_new(t, PN_I32, 1, &n, &tokens));
    PN_TRY(pn_tensor_write(tokens, ids, PN_I32));
    const int64_t offset[] = { 0, n };
    PN_TRY(pn_model_extend(m, cache, t, tokens, &(pn_docs){ .n = 1, .offset = offset }, &hidden));
    PN_TRY(pn_tensor_rows(hidden, n - 1, n, &last));
    PN_TRY(pn_tape_own(t, last));
    PN_TRY(pn_model_logits(m, t, last, &out));
    PN_TRY(pn_tensor_read(out, logits, PN_F32));
    return PN_OK;
}

pn_status pn_generate(const pn_model *m, const pn_path *path, const int32_t *prompt, int64_t n_prompt,
                      int64_t max_tokens, int32_t stop, pn_sampler *sampler, bool (*emit)(void *ctx, int32_t token),
                      void *ctx) {
    PN_CHECK(n_prompt > 0, PN_USAGE, "generate: the prompt is empty");
    pn_cache *cache = NULL;
    pn_tape *t = NULL;
    pn_model_decoder *decoder = NULL;
    pn_tensor *out;
    pn_status s;
    float *logits = malloc((size_t)m->config.vocab * sizeof *logits);
    if (!logits) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    PN_TRY_GOTO(s, pn_cache_create(m, path, 1, &cache), done);
    PN_TRY_GOTO(s, pn_params_tape(m->params, &t), done);
    pn_tape_record(t, false);
    PN_TRY_GOTO(s, advance(m, cache, t, prompt, n_prompt, logits), done);
    PN_TRY_GOTO(s, pn_model_decoder_create(m, cache, t, &decoder), done);
    for (int64_t i = 0; i < max_tokens; i++) {
        int32_t token;
        PN_TRY_GOTO(s, pn_sampler_pick(sampler, logits, m->config.vocab, &token), done);
        if (token == stop || !emit(ctx, token)) break;
        if (i + 1 == max_tokens) break;
        PN_TRY_GOTO(s, pn_model_decoder_step(decoder, &token, &out), done);
        PN_TRY_GOTO(s, pn_tensor_read(out, logits, PN_F32), done);
    }
done:
    free(logits);
    pn_model_decoder_destroy(&decoder);
    pn_tape_destroy(&t);
    pn_cache_destroy(&cache);
    return s;
}
