/* Small models with random weights on the GPU. */
#ifndef PN_TESTS_GPU_HYBRID_H
#define PN_TESTS_GPU_HYBRID_H

#include "gpu.h"
#include "model.h"
#include "random_weights.h"

enum { VOCAB = 61, MOST_LAYERS = 6 };

/* The blocks of its layers, NULL-ended; windows are of 24 tokens. */
static inline pn_model *hybrid_of(const char *const block[MOST_LAYERS + 1], pn_dtype dtype) {
    static pn_model_config c;
    c = (pn_model_config){ .vocab = VOCAB, .tied = true, .bos = -1, .eos = -1, .initializer_range = 0.1 };
    c.dims = (pn_dims){ .hidden = 128,
                        .heads = 2,
                        .kv_heads = 1,
                        .head_dim = 64,
                        .intermediate = 160,
                        .rope_theta = 1e4,
                        .rms_norm_eps = 1e-6,
                        .qkv_bias = true };
    for (; block[c.n_layers]; c.n_layers++) {
        pn_block_spec *spec = &c.layer[c.n_layers];
        ck_ok(pn_block_spec_default(pn_block_find(block[c.n_layers]), spec));
        if (spec->type == &pn_block_swa) ck_ok(pn_option_parse(pn_block_swa.options, "test", "24", 0, spec->options));
    }
    pn_model *m;
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    randomise(m->params);
    ck_ok(pn_params_move(m->params, PN_CUDA, dtype));
    return m;
}

#endif
