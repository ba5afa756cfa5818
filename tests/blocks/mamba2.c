/* Mamba-2: the sizes of a published shape, names, and initial values. */
#include <math.h>

#include "block_option.h"

static pn_block_spec spec_with(const char *const option[][2], int n) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(&pn_block_mamba2, &spec));
    for (int i = 0; i < n; i++) set_option(&spec, option[i][0], option[i][1]);
    return spec;
}

/* blocks.md 12: the defaults at D = 1536. */
START_TEST(published_sizes) {
    const pn_dims dims = { .hidden = 1536, .heads = 12, .kv_heads = 2, .head_dim = 128, .intermediate = 8960 };
    const pn_block_spec spec = spec_with(NULL, 0);
    pn_params *params;
    pn_block *b;
    double bytes;
    ck_ok(pn_params_create(PN_F32, &params));
    ck_ok(pn_block_create(&spec, &dims, params, "p.", &b));
    ck_assert_int_eq(pn_params_count(params, false), 14642576);
    ck_ok(pn_block_spec_cache_bytes(&spec, &dims, 1 << 20, 2, &bytes));
    ck_assert_double_eq(bytes, 1572864 + 26624);
    ck_ok(pn_block_spec_cache_bytes(&spec, &dims, 1, 0, &bytes));
    ck_assert_double_eq(bytes, 1572864);
    pn_block_destroy(&b);
    pn_params_destroy(&params);
}
END_TEST

START_TEST(names_and_initial_values) {
    static const char *const option[][2] = { { "head_dim", "1" }, { "n_groups", "8" }, { "state_size", "2" } };
    static const struct {
        const char *name;
        int64_t n;
        bool decay, keep_f32;
        double lo, hi;
    } want[] = {
        { "in_proj.weight", (128 + 160 + 128) * 64, true, false, -0.12, 0.12 },
        { "conv1d.weight", 160 * 4, true, false, -0.5, 0.5 },
        { "conv1d.bias", 160, false, false, -0.5, 0.5 },
        { "dt_bias", 128, false, true, log(expm1(1e-3)), log(expm1(0.1)) },
        { "A_log", 128, false, true, 0, log(16) },
        { "D", 128, false, true, 1, 1 },
        { "norm.weight", 128, false, true, 1, 1 },
        { "out_proj.weight", 64 * 128, true, false, -0.12, 0.12 },
    };
    const pn_dims dims = { .hidden = 64, .heads = 2, .kv_heads = 1, .head_dim = 32, .intermediate = 128 };
    const pn_block_spec spec = spec_with(option, 3);
    pn_params *params;
    pn_block *b;
    ck_ok(pn_params_create(PN_F32, &params));
    ck_ok(pn_block_create(&spec, &dims, params, "", &b));
    ck_ok(pn_params_init(params, 20));
    ck_assert_int_eq(params->n, sizeof want / sizeof *want);
    for (int i = 0; i < params->n; i++) {
        const pn_param *p = params->item[i];
        ck_assert_str_eq(p->name, want[i].name);
        ck_assert_int_eq(pn_tensor_elems(p->value), want[i].n);
        ck_assert_int_eq(p->decay, want[i].decay);
        ck_assert_int_eq(p->keep_f32, want[i].keep_f32);
        double lo = INFINITY, hi = -INFINITY;
        for (int64_t k = 0; k < want[i].n; k++) {
            lo = fmin(lo, (double)pn_f32(p->value)[k]);
            hi = fmax(hi, (double)pn_f32(p->value)[k]);
        }
        double reach = want[i].hi - want[i].lo; /* the draws fill their range */
        ck_assert_msg(lo >= want[i].lo - 1e-6 && lo <= want[i].lo + 0.4 * reach && hi <= want[i].hi + 1e-6 &&
                          hi >= want[i].hi - 0.4 * reach,
                      "%s is in %g .. %g, not %g .. %g", p->name, lo, hi, want[i].lo, want[i].hi);
    }
    pn_block_destroy(&b);
    pn_params_destroy(&params);
}
END_TEST

TEST_MAIN("mamba2", published_sizes, names_and_initial_values)
