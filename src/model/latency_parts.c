#include "latency_parts.h"

#include <math.h>

#include "device.h"
#include "latency_measure.h"
#include "machine.h"

enum { MOST_COPIES = PN_LATENCY_MOST_COPIES };

/* Copies of one part: either a block with its state, or a model that has nothing but the part. */
typedef struct copies {
    int n;
    int64_t sequences;
    pn_pool *pool; /* of the states */
    struct {
        pn_params *params; /* of the block */
        pn_block *block;
        pn_state *state;
        pn_model *model;
    } at[MOST_COPIES];
} copies;

static void copies_free(copies *c) {
    for (int i = 0; i < c->n; i++) {
        pn_state_destroy(&c->at[i].state);
        pn_block_destroy(&c->at[i].block);
        pn_params_destroy(&c->at[i].params);
        pn_model_destroy(&c->at[i].model);
    }
    pn_pool_destroy(&c->pool);
}

/* As many as take what the model uses between two uses of the part, or more than the caches hold. While a prompt runs,
 * a piece uses every weight for all of its tokens: where weights come from hardly matters, and one copy does. */
static int copies_for(double weights, double state, const pn_latency_setting *setting) {
    if (setting->pass == PN_LATENCY_PREFILL) return 1;
    double between = (double)setting->working_set + (double)setting->layers * state;
    double n = round(fmin(between, (double)pn_bytes_beyond_caches()) / (weights + state + 1));
    return n < MOST_COPIES ? (int)fmax(n, 1) : MOST_COPIES;
}

static pn_status check_memory(pn_backend on, const char *what, double bytes, const pn_latency_setting *setting) {
    double memory = pn_memory_bytes();
    if (on == PN_CUDA) {
        pn_device_info gpu;
        PN_TRY(pn_device_describe(&gpu));
        memory = (double)gpu.free_bytes;
    }
    PN_CHECK(bytes < memory, PN_USAGE,
             "latency: %s at a context of %lld tokens and batch %lld takes %.3g GB, this %s has %.3g%s; "
             "lower one of them",
             what, (long long)setting->context, (long long)pn_latency_sequences(setting), bytes / 1e9,
             on == PN_CUDA ? "GPU" : "machine", memory / 1e9, on == PN_CUDA ? " free" : "");
    return PN_OK;
}

/* To where it is measured; the first copy's weights are drawn, the others' copied from it. */
static pn_status fill(pn_params *first, pn_params *p, const pn_latency_setting *setting) {
    PN_TRY(pn_params_move(p, setting->backend, setting->dtype));
    if (p == first)
        PN_TRY(pn_params_init(p, 1));
    else
        PN_TRY(pn_params_copy(first, "", p, ""));
    return PN_OK;
}

static pn_latency_copy copy_at(void *ctx, int copy) {
    const copies *c = ctx;
    if (c->at[copy].model) return (pn_latency_copy){ .params = c->at[copy].model->params };
    return (pn_latency_copy){ .params = c->at[copy].params, .state = &c->at[copy].state, .n_states = 1 };
}

/* ---- a block ---- */

static pn_status run_block(void *ctx, int copy, const pn_latency_step *step) {
    copies *c = ctx;
    pn_carry carry = { 0 };
    pn_tensor *y;
    PN_TRY(pn_block_extend(c->at[copy].block, step->tape, step->x, &step->docs, c->at[copy].state, &carry, &y));
    return PN_OK;
}

static pn_status make_block(copies *c, const pn_block_spec *spec, const pn_dims *dims,
                            const pn_latency_setting *setting) {
    int i = c->n++;
    PN_TRY(pn_params_create(PN_F32, &c->at[i].params));
    PN_TRY(pn_block_create(spec, dims, c->at[i].params, "", &c->at[i].block));
    PN_TRY(fill(c->at[0].params, c->at[i].params, setting));
    PN_TRY(pn_state_create(c->at[i].block, c->sequences, c->pool, setting->dtype, &c->at[i].state));
    return PN_OK;
}

static pn_status make_blocks(copies *c, const pn_block_spec *spec, const pn_dims *dims,
                             const pn_latency_setting *setting) {
    double state;
    PN_TRY(pn_block_spec_cache_bytes(spec, dims, setting->context, pn_dtype_bytes(setting->dtype), &state));
    state *= (double)c->sequences;
    PN_TRY(check_memory(setting->backend, spec->type->name, 3 * state,
                        setting)); /* a cache grows to twice its rows, beside itself */
    PN_TRY(pn_pool_create(pn_backend_pool(setting->backend), &c->pool));
    PN_TRY(make_block(c, spec, dims, setting));
    double weights = (double)pn_params_count(c->at[0].params, false) * (double)pn_dtype_bytes(setting->dtype);
    for (int n = copies_for(weights, state, setting); c->n < n;) PN_TRY(make_block(c, spec, dims, setting));
    return PN_OK;
}

static pn_status measure(copies *c, const pn_dims *dims, int64_t vocab, bool head,
                         pn_status (*run)(void *ctx, int copy, const pn_latency_step *step),
                         const pn_latency_setting *setting, pn_timing *out) {
    const pn_latency_subject subject = {
        .hidden = dims->hidden, .vocab = vocab, .copies = c->n, .has_head = head, .copy = copy_at, .run = run, .ctx = c
    };
    PN_TRY(pn_latency_measure(&subject, setting, out));
    return PN_OK;
}

pn_status pn_latency_time_block(const pn_block_spec *spec, const pn_dims *dims, const pn_latency_setting *setting,
                                pn_timing *out) {
    copies c = { .sequences = pn_latency_sequences(setting) };
    pn_status s = make_blocks(&c, spec, dims, setting);
    if (!s) s = measure(&c, dims, 1, false, run_block, setting, out);
    copies_free(&c);
    return s;
}

/* ---- models of one layer without mixer ---- */

static pn_status run_rest(void *ctx, int copy, const pn_latency_step *step) {
    const copies *c = ctx;
    const pn_model *m = c->at[copy].model;
    pn_tensor *x, *y;
    PN_TRY(pn_model_mixer_input(m, 0, step->tape, step->x, &x));
    PN_TRY(pn_model_mlp_half(m, 0, step->tape, step->x, x, &y)); /* as if x were what the mixer made of it */
    return PN_OK;
}

static pn_status run_ends(void *ctx, int copy, const pn_latency_step *step) {
    const copies *c = ctx;
    const pn_model *m = c->at[copy].model;
    pn_tensor *h = step->x, *logits;
    if (step->body) {
        PN_TRY(pn_model_embed(m, step->tape, step->ids, &h));
        PN_TRY(pn_model_final(m, step->tape, h, &h));
    }
    if (step->head) PN_TRY(pn_model_logits(m, step->tape, h, &logits));
    return PN_OK;
}

static pn_status make_model(copies *c, const pn_model_config *config, const pn_latency_setting *setting) {
    int i = c->n++;
    PN_TRY(pn_model_create(config, PN_F32, NULL, &c->at[i].model));
    PN_TRY(fill(c->at[0].model->params, c->at[i].model->params, setting));
    return PN_OK;
}

static pn_status make_models(copies *c, const pn_dims *dims, int64_t vocab, const pn_latency_setting *setting) {
    pn_model_config config = {
        .dims = *dims, .vocab = vocab, .n_layers = 1, .tied = true, .bos = -1, .eos = -1, .initializer_range = 0.02
    };
    PN_TRY(pn_block_spec_default(&pn_block_none, &config.layer[0]));
    PN_TRY(make_model(c, &config, setting));
    double weights = (double)pn_params_count(c->at[0].model->params, false) * (double)pn_dtype_bytes(setting->dtype);
    for (int n = copies_for(weights, 0, setting); c->n < n;) PN_TRY(make_model(c, &config, setting));
    return PN_OK;
}

pn_status pn_latency_time_rest(const pn_dims *dims, const pn_latency_setting *setting, pn_timing *out) {
    copies c = { 0 };
    pn_status s = make_models(&c, dims, 1, setting);
    if (!s) s = measure(&c, dims, 1, false, run_rest, setting, out);
    copies_free(&c);
    return s;
}

pn_status pn_latency_time_ends(const pn_dims *dims, int64_t vocab, const pn_latency_setting *setting, pn_timing *out) {
    pn_dims narrow = *dims;
    copies c = { 0 };
    narrow.intermediate = 1; /* the MLP is not asked for */
    pn_status s = make_models(&c, &narrow, vocab, setting);
    if (!s) s = measure(&c, dims, vocab, true, run_ends, setting, out);
    copies_free(&c);
    return s;
}

/* ---- a whole model ---- */

typedef struct whole {
    const pn_model *m;
    pn_cache *cache;
} whole;

static pn_latency_copy whole_copy(void *ctx, int copy) {
    const whole *w = ctx;
    (void)copy;
    return (pn_latency_copy){ .params = w->m->params, .state = w->cache->layer, .n_states = w->cache->n_layers };
}

static pn_status run_model(void *ctx, int copy, const pn_latency_step *step) {
    const whole *w = ctx;
    pn_tensor *hidden = step->x, *logits;
    (void)copy;
    if (step->body) PN_TRY(pn_model_extend(w->m, w->cache, step->tape, step->ids, &step->docs, &hidden));
    if (step->head) PN_TRY(pn_model_logits(w->m, step->tape, hidden, &logits));
    return PN_OK;
}

pn_status pn_latency_model(const pn_model *m, const pn_path *path, const pn_latency_setting *setting, pn_timing *out) {
    const int64_t n = pn_latency_sequences(setting);
    const double state = (double)n * pn_model_cache_bytes(m, path, setting->context, pn_dtype_bytes(m->params->dtype));
    PN_TRY(check_memory(m->params->backend, "the model's state", 2 * state, setting));
    whole w = { .m = m };
    PN_TRY(pn_cache_create(m, path, n, &w.cache));
    const pn_latency_subject subject = { .hidden = m->config.dims.hidden,
                                         .vocab = m->config.vocab,
                                         .copies = 1,
                                         .has_head = true,
                                         .copy = whole_copy,
                                         .run = run_model,
                                         .ctx = &w };
    pn_status s = pn_latency_measure(&subject, setting, out);
    pn_cache_destroy(&w.cache);
    return s;
}
