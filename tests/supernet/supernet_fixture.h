/* A tiny model, its super-network and a mixture of the recall skill, for the tests of this folder. */
#ifndef TESTS_SUPERNET_FIXTURE_H
#define TESTS_SUPERNET_FIXTURE_H

#include "harness.h"

#include <math.h>
#include <string.h>

#include "supernet.h"

static pn_tokenizer *tokenizer;
static pn_mixture *mixture;

static void setup(void) {
    static const char *const specials[] = { "<|end|>" };
    ck_ok(pn_tokenizer_bytes(specials, 1, &tokenizer));
    static const pn_mixture_part part = { .weight = { 1, 1 },
                                          .class_weight = { 0.1, 1, 1 },
                                          .skill = &pn_skill_recall };
    const pn_mixture_config config = { .tokenizer = tokenizer,
                                       .frame = pn_doc_frame_default(tokenizer),
                                       .sequence_length = 128,
                                       .seed = 3,
                                       .parts = &part,
                                       .n_parts = 1 };
    ck_ok(pn_mixture_create(&config, &mixture));
}

static void teardown(void) {
    pn_mixture_destroy(&mixture);
    pn_tokenizer_destroy(&tokenizer);
}

static pn_model *tiny_base(void) {
    pn_model_config c = { .dims = { .hidden = 32,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .head_dim = 16,
                                    .intermediate = 64,
                                    .rope_theta = 1e4,
                                    .rms_norm_eps = 1e-6,
                                    .qkv_bias = true },
                          .vocab = 260,
                          .n_layers = 3,
                          .tied = true,
                          .bos = -1,
                          .eos = 256,
                          .initializer_range = 0.1,
                          .file_dtype = PN_F32 };
    for (int l = 0; l < c.n_layers; l++) ck_ok(pn_block_spec_default(&pn_block_attention, &c.layer[l]));
    pn_model *m;
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    ck_ok(pn_params_init(m->params, 1));
    return m;
}

static inline pn_model *tiny_supernet(void) {
    pn_model *m = tiny_base();
    pn_block_spec gdn;
    ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &gdn));
    ck_ok(pn_supernet_build(m, &gdn, 1, true, 5));
    return m;
}

static inline pn_train_options options(int64_t tokens) {
    pn_train_options o = { 0 };
    ck_ok(pn_options_defaults(pn_train_option_table, &o));
    o.tokens = tokens;
    o.batch_tokens = 256;
    o.schedule.learning_rate = 3e-3;
    return o;
}

static inline bool same_weights(const pn_model *a, const pn_model *b) {
    for (int i = 0; i < a->params->n; i++) {
        const pn_param *p = a->params->item[i], *q = pn_params_find(b->params, p->name);
        if (!q || memcmp(pn_data(p->value), pn_data(q->value), pn_tensor_bytes(p->value))) return false;
    }
    return a->params->n == b->params->n;
}

static inline pn_supernet_config one_phase(pn_supernet_mode mode, int64_t tokens) {
    pn_supernet_config c = { .phase = { { .mode = mode, .train = options(tokens) } }, .n_phases = 1 };
    ck_ok(pn_options_defaults(pn_gate_option_table, &c.phase[0].gates));
    return c;
}

static inline pn_status train(pn_model *m, const pn_supernet_config *config, const char *state_dir, int64_t stop_after,
                              pn_supernet_result *out) {
    const pn_supernet_job job = { .config = config,
                                  .mixture = mixture,
                                  .seed = 1,
                                  .full_attention = 1,
                                  .state_dir = state_dir,
                                  .stop_after = stop_after };
    return pn_supernet_train(m, &job, out);
}

/* How many weights of candidates differ; no other weight may. */
static inline int changed_candidates(const pn_model *m, const pn_model *before) {
    int changed = 0;
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i], *q = pn_params_find(before->params, p->name);
        bool same = !memcmp(pn_data(p->value), pn_data(q->value), pn_tensor_bytes(p->value));
        if (!strstr(p->name, ".candidates.")) ck_assert_msg(same, "%s is frozen and changed", p->name);
        changed += !same;
    }
    return changed;
}

/* For a trainer: the loss of the step of that index is NaN, whose gradients are finite. */
static inline pn_status spoil_loss(void *index, pn_tape *t, int64_t step, pn_distill *pass) {
    if (step != *(const int64_t *)index) return PN_OK;
    PN_TRY(pn_tape_new(t, pn_wide_dtype(pn_tape_dtype(t)), 1, (int64_t[]){ 1 }, &pass->term));
    PN_TRY(pn_tensor_write(pass->term, &(double){ NAN }, PN_F64));
    return PN_OK;
}

/* A run whose loss is not finite any more has the weights of one that was stopped before that step. */
static inline void ck_stops_before_a_bad_step(pn_backend backend, pn_dtype dtype) {
    int64_t bad = 3;
    uint64_t hash[3];
    pn_train_options o = options(256 * 8);
    o.loss = pn_loss_constant(&(pn_loss_weights){ .ce = 1, .temperature = 1 });
    for (int i = 0; i < 2; i++) {
        pn_model *m = tiny_base();
        pn_params_train(m->params, "*", true);
        ck_ok(pn_params_move(m->params, backend, dtype));
        ck_ok(pn_params_hash(m->params, &hash[2]));
        pn_train_job job = { .name = "base", .options = &o, .mixture = mixture, .student = m };
        if (i) {
            job.before = spoil_loss;
            job.ctx = &bad;
        } else {
            job.stop_after = bad;
        }
        ck_assert_int_eq(pn_train_run(&job, NULL), i ? PN_NUMERIC : PN_INTERRUPTED);
        ck_assert_ptr_nonnull(strstr(pn_error_message(), i ? "the loss is " : "at step 3 of 8"));
        ck_ok(pn_params_hash(m->params, &hash[i]));
        pn_model_destroy(&m);
    }
    ck_assert(hash[0] == hash[1]);
    ck_assert(hash[0] != hash[2]);
}

#endif
