/* What result.json says about gates: names, a row per layer at every point, and the last of them. */
#include "harness.h"

#include <string.h>

#include "json.h"
#include "result.h"

START_TEST(gates_have_a_row_per_layer) {
    pn_model_config c = { .dims = { .hidden = 16,
                                    .heads = 2,
                                    .kv_heads = 1,
                                    .head_dim = 8,
                                    .intermediate = 16,
                                    .rope_theta = 1e4,
                                    .rms_norm_eps = 1e-6 },
                          .vocab = 32,
                          .n_layers = 2,
                          .tied = true,
                          .initializer_range = 0.1 };
    pn_block_spec gdn;
    pn_model *m;
    for (int l = 0; l < c.n_layers; l++) ck_ok(pn_block_spec_default(&pn_block_attention, &c.layer[l]));
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &gdn));
    ck_ok(pn_supernet_build(m, &gdn, 1, true, 1));

    pn_gate_point *point = calloc(2, sizeof *point);
    for (int i = 0; i < 2; i++)
        point[i] = (pn_gate_point){ 10 * (i + 1),
                                    640 * (i + 1),
                                    1.0 / (i + 1),
                                    { true, 2, 3, { { 0.5, 0.25, 0.25 }, { 0.125 * i, 0.875 - 0.125 * i, 0.125 } } } };
    pn_supernet_result trained = { .gate_curve = { point, 2 }, .gates = point[1].gates };
    json_t *gates = pn_gates_json(m, &trained);
    char *text = json_dumps(gates, JSON_COMPACT | JSON_REAL_PRECISION(6));
    ck_assert_str_eq(text,
                     "{\"candidates\":[\"attention\",\"gated_deltanet\",\"none\"],\"points\":["
                     "{\"step\":10,\"tokens\":640,\"temperature\":1.0,\"p\":[[0.5,0.25,0.25],[0.0,0.875,0.125]]},"
                     "{\"step\":20,\"tokens\":1280,\"temperature\":0.5,\"p\":[[0.5,0.25,0.25],[0.125,0.75,0.125]]}],"
                     "\"final\":[[0.5,0.25,0.25],[0.125,0.75,0.125]]}");
    free(text);
    json_decref(gates);
    pn_supernet_result_free(&trained);
    pn_model_destroy(&m);
}
END_TEST

TEST_MAIN("result_gates", gates_have_a_row_per_layer)
