/* Mamba-2: which group a head reads (blocks.md 14.6), the sizes of a published shape, names, and initial values. */
#include "harness.h"
#include <math.h>
#include <string.h>

#include "block.h"
#include "rng.h"
#include "tape.h"

static pn_block_spec spec_with(const char *const option[][2], int n) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(&pn_block_mamba2, &spec));
    for (int i = 0; i < n; i++)
        ck_ok(pn_option_parse(pn_option_find(spec.type->options, option[i][0]), "test", option[i][1], 0, spec.options));
    return spec;
}

/* ---- head h reads group floor(h M / H) ---- */

enum { D = 8, HEADS = 4, GROUPS = 2, KEYS = 3, P = D / HEADS, TOKENS = 70 };

/* Channel i of y is channel i of the normed heads: expand is 1 and out_proj the identity. */
static pn_block *four_heads(pn_params *params) {
    static const char *const option[][2] = {
        { "expand", "1" }, { "head_dim", "2" }, { "state_size", "3" }, { "n_groups", "2" }
    };
    const pn_dims dims = { .hidden = D, .heads = 1, .kv_heads = 1, .head_dim = 8, .intermediate = 8 };
    const pn_block_spec spec = spec_with(option, 4);
    pn_block *b;
    ck_ok(pn_block_create(&spec, &dims, params, "", &b));
    ck_ok(pn_params_init(params, 20));
    pn_rng rng;
    pn_rng_stream(20, "in_proj", 1, &rng);
    pn_tensor *in = pn_params_find(params, "in_proj.weight")->value;
    for (int64_t i = 0; i < pn_tensor_elems(in); i++) pn_f32(in)[i] = (float)(0.5 * pn_rng_normal(&rng));
    pn_tensor *out = pn_params_find(params, "out_proj.weight")->value;
    for (int i = 0; i < D * D; i++) pn_f32(out)[i] = i % (D + 1) == 0;
    return b;
}

/* Adds to the rows of B and C that belong to one group. */
static void move_group(pn_params *params, int group, float by) {
    float *w = pn_f32(pn_params_find(params, "in_proj.weight")->value);
    for (int of_c = 0; of_c < 2; of_c++) {
        const int row = 2 * D + of_c * GROUPS * KEYS + group * KEYS;
        for (int i = 0; i < KEYS * D; i++) w[row * D + i] += by * (float)(i % 5 - 2);
    }
}

typedef struct result {
    float y[TOKENS][D], S[HEADS][KEYS][P]; /* S only of decoding */
} result;

/* piece 0: training's forward; else the tokens in pieces. */
static void run(pn_block *b, int64_t piece, result *r) {
    pn_tape *t;
    pn_state *state = NULL;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, piece == 0);
    memset(r, 0, sizeof *r);
    if (piece) ck_ok(pn_state_create(b, 1, pn_tape_pool(t), PN_F32, &state));
    const int64_t step = piece ? piece : TOKENS;
    for (int64_t done = 0; done < TOKENS; done += step) {
        const int64_t n = step < TOKENS - done ? step : TOKENS - done, offset[] = { 0, n };
        const pn_docs docs = { .n = 1, .offset = offset };
        pn_tensor *x, *y;
        pn_carry carry = { 0 };
        ck_ok(pn_tape_new(t, PN_F32, 2, (int64_t[]){ n, D }, &x));
        for (int64_t i = 0; i < n * D; i++) pn_f32(x)[i] = sinf((float)(done * D + i));
        x->wants_grad = piece == 0;
        if (piece)
            ck_ok(pn_block_extend(b, t, x, &docs, state, &carry, &y));
        else
            ck_ok(pn_block_forward(b, t, x, &docs, &carry, &y));
        memcpy(r->y[done], pn_f32(y), (size_t)(n * D) * sizeof(float));
        pn_tape_reset(t);
    }
    for (int i = 0; state && i < state->n_tensors; i++)
        if (!strcmp(state->name[i], "S")) memcpy(r->S, pn_f32(state->tensor[i]), sizeof r->S);
    pn_state_destroy(&state);
    pn_tape_destroy(&t);
}

/* Another B and C for one group moves its neighbouring heads, each of them, and no bit of the others. */
START_TEST(groups_are_neighbouring_heads) {
    static const int64_t pieces[] = { 0, TOKENS, 1, 3 };
    static result before, after;
    pn_params *params;
    ck_ok(pn_params_create(PN_F32, &params));
    pn_block *b = four_heads(params);
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++)
        for (int group = 0; group < GROUPS; group++) {
            run(b, pieces[k], &before);
            move_group(params, group, 0.25f);
            run(b, pieces[k], &after);
            move_group(params, group, -0.25f);
            for (int h = 0; h < HEADS; h++) {
                bool moved = false, own = h / (HEADS / GROUPS) == group;
                for (int n = 0; n < TOKENS; n++)
                    moved = moved || memcmp(&before.y[n][h * P], &after.y[n][h * P], P * sizeof(float)) != 0;
                ck_assert_msg(moved == own, "pieces of %d: group %d %s head %d", (int)pieces[k], group,
                              moved ? "moves" : "does not move", h);
                if (!pieces[k]) continue;
                moved = memcmp(before.S[h], after.S[h], sizeof before.S[h]) != 0;
                ck_assert_msg(moved == own, "pieces of %d: group %d %s the state of head %d", (int)pieces[k], group,
                              moved ? "moves" : "does not move", h);
            }
        }
    pn_block_destroy(&b);
    pn_params_destroy(&params);
}
END_TEST

/* ---- weights ---- */

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

TEST_MAIN("mamba2", groups_are_neighbouring_heads, published_sizes, names_and_initial_values)
