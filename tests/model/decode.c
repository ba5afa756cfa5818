/* A decoder's steps are those of pn_model_extend; on the CPU nothing is recorded. */
#include "decode.h"

#include <string.h>

#include "random_weights.h"

enum { VOCAB = 61, SEQUENCES = 3, LAYERS = 4, STEPS = 70 };

static pn_model *model_of(const char *const block[LAYERS]) {
    static pn_model_config c;
    c = (pn_model_config){ .vocab = VOCAB, .n_layers = LAYERS, .tied = true, .bos = -1, .eos = -1 };
    c.dims = (pn_dims){ .hidden = 32,
                        .heads = 2,
                        .kv_heads = 1,
                        .head_dim = 16,
                        .intermediate = 20,
                        .rope_theta = 1e4,
                        .rms_norm_eps = 1e-6 };
    for (int l = 0; l < LAYERS; l++) {
        ck_ok(pn_block_spec_default(pn_block_find(block[l]), &c.layer[l]));
        if (c.layer[l].type == &pn_block_swa)
            ck_ok(pn_option_parse(pn_block_swa.options, "test", "24", 0, c.layer[l].options));
    }
    pn_model *m;
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    randomise(m->params);
    return m;
}

/* Sequences that have seen 5, 0 and 30 tokens: caches grow from 64 rows on the way, and a window is passed. */
static void start(const pn_model *m, pn_tape *t, pn_cache **cache) {
    static const int64_t offset[SEQUENCES + 1] = { 0, 5, 5, 35 };
    pn_tensor *ids, *hidden;
    ck_ok(pn_cache_create(m, NULL, SEQUENCES, cache));
    ck_ok(pn_tape_new(t, PN_I32, 1, &offset[SEQUENCES], &ids));
    for (int i = 0; i < offset[SEQUENCES]; i++) pn_i32(ids)[i] = i * i * 7 % VOCAB;
    ck_ok(pn_model_extend(m, *cache, t, ids, &(pn_docs){ .n = SEQUENCES, .offset = offset }, &hidden));
    pn_tape_reset(t);
}

START_TEST(a_decoder_extends) {
    static const char *const blocks[][LAYERS] = { { "jet", "attention", "swa", "mamba2" },
                                                  { "retnet", "attention", "rwkv7", "gla" } };
    static const int64_t offset[] = { 0, 1, 2, 3 };
    for (int i = 0; i < 2; i++) {
        pn_model *m = model_of(blocks[i]);
        pn_tape *t, *plain;
        pn_cache *cache, *other;
        pn_model_decoder *d;
        ck_ok(pn_params_tape(m->params, &t));
        ck_ok(pn_params_tape(m->params, &plain));
        pn_tape_record(t, false);
        pn_tape_record(plain, false);
        start(m, t, &cache);
        start(m, plain, &other);
        ck_ok(pn_model_decoder_create(m, cache, t, &d));
        for (int step = 0; step < STEPS; step++) {
            int32_t id[SEQUENCES];
            pn_tensor *got, *ids, *hidden, *want;
            for (int k = 0; k < SEQUENCES; k++) id[k] = (step * step + 11 * k) % VOCAB;
            ck_ok(pn_model_decoder_step(d, id, &got));
            pn_tape_reset(plain);
            ck_ok(pn_tape_new(plain, PN_I32, 1, &offset[SEQUENCES], &ids));
            ck_ok(pn_tensor_write(ids, id, PN_I32));
            ck_ok(pn_model_extend(m, other, plain, ids, &(pn_docs){ .n = SEQUENCES, .offset = offset }, &hidden));
            ck_ok(pn_model_logits(m, plain, hidden, &want));
            ck_assert_mem_eq(pn_f32(got), pn_f32(want), pn_tensor_bytes(want));
            for (int l = 0; l < LAYERS; l++)
                ck_assert_mem_eq(cache->layer[l]->past, other->layer[l]->past, sizeof(int64_t[SEQUENCES]));
            ck_assert_int_eq(cache->layer[1]->past[0], 5 + step + 1);
        }
        ck_assert_int_eq(cache->layer[1]->capacity, 128);
        ck_assert_int_eq(pn_replay_launches(pn_model_decoder_replay(d)), 0);
        pn_model_decoder_destroy(&d);
        pn_cache_destroy(&cache);
        pn_cache_destroy(&other);
        pn_tape_destroy(&t);
        pn_tape_destroy(&plain);
        pn_model_destroy(&m);
    }
}
END_TEST

TEST_MAIN("decode", a_decoder_extends)
