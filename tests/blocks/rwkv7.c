/* RWKV-7: the sizes of a published shape, names and initial values, and v_first from the first of two blocks to the
 * second. */
#include "harness.h"
#include <math.h>
#include <string.h>

#include "block.h"
#include "rng.h"
#include "tape.h"

static pn_block_spec spec_with(const char *const option[][2], int n) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(&pn_block_rwkv7, &spec));
    for (int i = 0; i < n; i++)
        ck_ok(pn_option_parse(pn_option_find(spec.type->options, option[i][0]), "test", option[i][1], 0, spec.options));
    return spec;
}

static const char *const use_v_first[][2] = { { "use_v_first", "true" } };

/* ---- weights ---- */

/* blocks.md 12 and 9.1: the defaults at D = 1536, with v_lora and without. */
START_TEST(published_sizes) {
    pn_dims dims = { .hidden = 1536, .heads = 12, .kv_heads = 2, .head_dim = 128, .intermediate = 8960 };
    const pn_block_spec spec = spec_with(use_v_first, 1);
    double bytes;
    for (int first = 0; first < 2; first++) {
        pn_params *params;
        pn_block *b;
        dims.place.carried = !first;
        ck_ok(pn_params_create(PN_F32, &params));
        ck_ok(pn_block_create(&spec, &dims, params, "p.", &b));
        ck_assert_int_eq(pn_params_count(params, false), 10834944 - (first ? 198144 : 0));
        ck_assert_int_eq(pn_params_find(params, "p.v_lora.lora.2.bias") != NULL, !first);
        pn_block_destroy(&b);
        pn_params_destroy(&params);
    }
    ck_ok(pn_block_spec_cache_bytes(&spec, &dims, 1 << 20, 2, &bytes));
    ck_assert_double_eq(bytes, 393216 + 3072);
    ck_ok(pn_block_spec_cache_bytes(&spec, &dims, 1, 0, &bytes));
    ck_assert_double_eq(bytes, 393216);
}
END_TEST

/* Layer 2 of 4 at D = 64, N = 16 (blocks.md 9.2). */
START_TEST(names_and_initial_values) {
    static const struct {
        const char *name;
        int64_t n;
        bool decay, keep_f32;
        double first, last; /* elements; NAN: random */
    } want[] = {
        { "x_r", 64, false, true, 1, 0 }, /* the last of these six: below */
        { "x_w", 64, false, true, 1, 0 },
        { "x_k", 64, false, true, 1, 0 },
        { "x_v", 64, false, true, 1, 0 },
        { "x_a", 64, false, true, 1, 0 },
        { "x_g", 64, false, true, 1, 0 },
        { "k_k", 64, false, true, 0.76, 0.66 },
        { "k_a", 64, false, true, 1.02, 1.02 },
        { "r_k", 64, false, true, -0.04, -0.04 },
        { "r_proj.weight", 4096, true, false, NAN, NAN },
        { "k_proj.weight", 4096, true, false, NAN, NAN },
        { "v_proj.weight", 4096, true, false, NAN, NAN },
        { "o_proj.weight", 4096, true, false, 0, 0 },
        { "g_norm.weight", 64, false, true, 0.817604, 0.817604 }, /* (3/4)^0.7 */
        { "g_norm.bias", 64, false, true, 0, 0 },
        { "w_lora.lora.0.weight", 32 * 64, true, false, 0, 0 },
        { "w_lora.lora.2.weight", 64 * 32, true, false, NAN, NAN },
        { "w_lora.lora.2.bias", 64, false, true, -8, 3 },
        { "a_lora.lora.0.weight", 32 * 64, true, false, 0, 0 },
        { "a_lora.lora.2.weight", 64 * 32, true, false, NAN, NAN },
        { "a_lora.lora.2.bias", 64, false, true, -0.69, 0.31 },
        { "v_lora.lora.0.weight", 32 * 64, true, false, 0, 0 },
        { "v_lora.lora.2.weight", 64 * 32, true, false, NAN, NAN },
        { "v_lora.lora.2.bias", 64, false, true, 0.93, 0.53 },
        { "g_lora.lora.0.weight", 128 * 64, true, false, 0, 0 },
        { "g_lora.lora.2.weight", 64 * 128, true, false, NAN, NAN },
    };
    static const char *const option[][2] = { { "use_v_first", "true" },
                                             { "head_dim", "16" },
                                             { "gate_low_rank_dim", "128" } };
    const pn_dims dims = { .hidden = 64,
                           .heads = 2,
                           .kv_heads = 1,
                           .head_dim = 32,
                           .intermediate = 128,
                           .place = { .layer = 2, .n_layers = 4, .carried = true } };
    const pn_block_spec spec = spec_with(option, 3);
    pn_params *params;
    pn_block *b;
    ck_ok(pn_params_create(PN_F32, &params));
    ck_ok(pn_block_create(&spec, &dims, params, "", &b));
    ck_ok(pn_params_init(params, 20));
    ck_assert_int_eq(params->n, sizeof want / sizeof *want);
    for (int i = 0; i < params->n; i++) {
        const pn_param *p = params->item[i];
        const int64_t n = pn_tensor_elems(p->value);
        const float *x = pn_f32(p->value);
        ck_assert_str_eq(p->name, want[i].name);
        ck_assert_int_eq(n, want[i].n);
        ck_assert_int_eq(p->decay, want[i].decay);
        ck_assert_int_eq(p->keep_f32, want[i].keep_f32);
        if (isnan(want[i].first)) continue;
        double last = want[i].last;
        if (p->name[0] == 'x') { /* 1 - (63/64)^(e r1), r1 = 1/2 */
            const double e = strchr("rg", p->name[2]) ? 0.2 : strchr("wa", p->name[2]) ? 0.9 : 0.7;
            last = 1 - pow(63.0 / 64, e / 2);
        }
        ck_assert_msg(fabs((double)x[0] - want[i].first) < 1e-5 && fabs((double)x[n - 1] - last) < 1e-5,
                      "%s: %g .. %g, not %g .. %g", p->name, (double)x[0], (double)x[n - 1], want[i].first, last);
    }
    /* the gains of orthogonal matrices: the length of a row or column, whichever are orthonormal */
    static const struct {
        const char *name;
        int64_t stride;
        double gain;
    } gains[] = { { "r_proj.weight", 1, 1 },
                  { "k_proj.weight", 1, 0.1 },
                  { "v_proj.weight", 1, 1 },
                  { "w_lora.lora.2.weight", 32, 0.1 },                 /* columns */
                  { "g_lora.lora.2.weight", 1, 0.1 * 1.4142135623 } }; /* rows of 128, more than D */
    for (size_t i = 0; i < sizeof gains / sizeof *gains; i++) {
        const pn_tensor *w = pn_params_find(params, gains[i].name)->value;
        double sum = 0;
        for (int64_t k = 0; k < (gains[i].stride == 1 ? w->shape[1] : w->shape[0]); k++) {
            double x = (double)pn_f32(w)[k * gains[i].stride];
            sum += x * x;
        }
        ck_assert_msg(fabs(sqrt(sum) - gains[i].gain) < 1e-6, "%s: %g", gains[i].name, sqrt(sum));
    }
    pn_block_destroy(&b);
    pn_params_destroy(&params);
}
END_TEST

/* ---- v_first ---- */

enum { D = 12, TOKENS = 75 };

static const int64_t offsets[] = { 0, 3, 3, 4, 70, TOKENS };
static const pn_docs documents = { .n = 5, .offset = offsets };

/* Two blocks, the second on the output of the first. */
typedef struct stack {
    pn_params *params;
    pn_block *block[2];
    pn_tape *tape;
} stack;

static double get(const pn_tensor *t, int64_t i) {
    return t->dtype == PN_F64 ? pn_f64(t)[i] : (double)pn_f32(t)[i];
}
static void set(pn_tensor *t, int64_t i, double x) {
    if (t->dtype == PN_F64)
        pn_f64(t)[i] = x;
    else
        pn_f32(t)[i] = (float)x;
}

static stack stack_create(pn_backend backend) {
    static const char *const option[][2] = { { "use_v_first", "true" }, { "head_dim", "4" } };
    const pn_block_spec spec = spec_with(option, 2);
    stack s;
    ck_ok(pn_params_create(pn_backend_dtype(backend), &s.params));
    ck_ok(pn_tape_create(backend, &s.tape));
    for (int l = 0; l < 2; l++) {
        const pn_dims dims = { .hidden = D,
                               .heads = 2,
                               .kv_heads = 1,
                               .head_dim = 6,
                               .intermediate = 24,
                               .place = { .layer = l, .n_layers = 2, .carried = l > 0 } };
        ck_ok(pn_block_create(&spec, &dims, s.params, l ? "second." : "first.", &s.block[l]));
    }
    ck_ok(pn_params_init(s.params, 20));
    for (int i = 0; i < s.params->n; i++) {
        pn_param *p = s.params->item[i];
        pn_rng rng;
        pn_rng_stream(20, p->name, 1, &rng);
        for (int64_t k = 0; k < pn_tensor_elems(p->value); k++)
            set(p->value, k, (float)(get(p->value, k) + 0.2 * pn_rng_normal(&rng)));
        p->value->wants_grad = true;
    }
    return s;
}

static void stack_destroy(stack *s) {
    pn_tape_destroy(&s->tape);
    for (int l = 0; l < 2; l++) pn_block_destroy(&s->block[l]);
    pn_params_destroy(&s->params);
}

static pn_tensor *activations(stack *s, const char *stream) {
    pn_tensor *t;
    pn_rng rng;
    pn_rng_stream(20, stream, 2, &rng);
    ck_ok(pn_tensor_create(pn_tape_pool(s->tape), pn_tape_dtype(s->tape), 2, (int64_t[]){ TOKENS, D }, &t));
    for (int64_t i = 0; i < TOKENS * D; i++) set(t, i, (float)pn_rng_normal(&rng));
    return t;
}

/* One block as a function of x and, unless it is the first, v_first. */
static pn_status one_block(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    pn_carry carry = { .v_first = n_in > 1 ? in[1] : NULL };
    PN_TRY(pn_block_forward(*(pn_block *const *)ctx, t, in[0], &documents, &carry, &out[0]));
    if (n_out > 1) out[1] = carry.v_first;
    return PN_OK;
}

typedef enum way { PLAIN, RECOMPUTED } way;

/* y, the caller's; gradients of x and weights. */
static pn_tensor *both_ways(stack *s, way w, pn_tensor *x, pn_tensor *dy) {
    pn_tensor *between[2], *y;
    if (w == RECOMPUTED) {
        ck_ok(pn_tape_recompute(s->tape, one_block, &s->block[0], sizeof s->block[0], &x, 1, between, 2));
        ck_ok(pn_tape_recompute(s->tape, one_block, &s->block[1], sizeof s->block[1], between, 2, &y, 1));
    } else {
        ck_ok(one_block(s->tape, &s->block[0], &x, 1, between, 2));
        ck_ok(one_block(s->tape, &s->block[1], between, 2, &y, 1));
    }
    y = pn_tensor_retain(y);
    if (pn_tape_recording(s->tape)) ck_ok(pn_tape_backward_from(s->tape, &y, &dy, 1));
    pn_tape_reset(s->tape);
    return y;
}

static double objective(stack *s, pn_tensor *x, pn_tensor *dy) {
    pn_tensor *y = both_ways(s, PLAIN, x, dy);
    double sum = 0;
    for (int64_t i = 0; i < TOKENS * D; i++) sum += get(y, i) * get(dy, i);
    pn_tensor_release(&y);
    return sum;
}

/* Of the first block's value weights in particular, which reach the loss by the way of v_first too. */
START_TEST(gradients_of_two_blocks_are_derivatives) {
    stack s = stack_create(PN_REF);
    pn_tensor *x = activations(&s, "x"), *dy = activations(&s, "dy"), *y = both_ways(&s, PLAIN, x, dy);
    pn_tape_record(s.tape, false);
    static const char *const names[] = { "first.v_proj.weight",
                                         "first.x_v",
                                         "second.v_lora.lora.0.weight",
                                         "second.v_lora.lora.2.weight",
                                         "second.v_lora.lora.2.bias",
                                         "second.v_proj.weight",
                                         "second.x_v" };
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        pn_tensor *w = pn_params_find(s.params, names[k])->value;
        ck_assert_msg(w->grad != NULL, "%s", names[k]);
        double diff = 0, norm = 0;
        const double step = 1e-5;
        for (int64_t i = 0; i < pn_tensor_elems(w); i += 5) {
            const double keep = pn_f64(w)[i];
            pn_f64(w)[i] = keep + step;
            const double up = objective(&s, x, dy);
            pn_f64(w)[i] = keep - step;
            const double slope = (up - objective(&s, x, dy)) / (2 * step), d = pn_f64(w->grad)[i] - slope;
            pn_f64(w)[i] = keep;
            diff += d * d;
            norm += slope * slope;
        }
        ck_assert_double_gt(norm, 1e-6);
        ck_assert_msg(sqrt(diff / norm) < 1e-6, "%s: off by %.2e", names[k], sqrt(diff / norm));
    }
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    pn_tensor_release(&y);
    stack_destroy(&s);
}
END_TEST

/* The gradient of v_first goes from one record to the other: the same bits as without. */
START_TEST(recomputed_gradients_are_the_same) {
    stack s[2] = { stack_create(PN_CPU), stack_create(PN_CPU) };
    pn_tensor *y[2], *x[2], *dy[2];
    for (int w = 0; w < 2; w++) {
        x[w] = activations(&s[w], "x"), dy[w] = activations(&s[w], "dy");
        x[w]->wants_grad = true;
        y[w] = both_ways(&s[w], (way)w, x[w], dy[w]);
    }
    ck_assert_mem_eq(pn_f32(y[0]), pn_f32(y[1]), pn_tensor_bytes(y[0]));
    ck_assert_mem_eq(pn_f32(x[0]->grad), pn_f32(x[1]->grad), pn_tensor_bytes(x[0]));
    for (int i = 0; i < s[0].params->n; i++) {
        const pn_tensor *a = s[0].params->item[i]->value->grad, *b = s[1].params->item[i]->value->grad;
        ck_assert_msg(a && b && !memcmp(pn_f32(a), pn_f32(b), pn_tensor_bytes(a)), "%s", s[0].params->item[i]->name);
    }
    for (int w = 0; w < 2; w++) {
        pn_tensor_release(&x[w]);
        pn_tensor_release(&dy[w]);
        pn_tensor_release(&y[w]);
        stack_destroy(&s[w]);
    }
}
END_TEST

/* All documents at once give what each gives alone, token by token, its decode states handed on. */
START_TEST(packed_documents_decode_as_if_alone) {
    stack s = stack_create(PN_CPU);
    pn_tape_record(s.tape, false);
    pn_tensor *x = activations(&s, "x"), *packed = both_ways(&s, PLAIN, x, NULL);
    double diff = 0, norm = 0;
    for (int64_t d = 0; d < documents.n; d++) {
        pn_state *state[2];
        for (int l = 0; l < 2; l++) ck_ok(pn_state_create(s.block[l], 1, pn_tape_pool(s.tape), PN_F32, &state[l]));
        for (int64_t t = offsets[d]; t < offsets[d + 1]; t++) {
            const int64_t offset[] = { 0, 1 };
            const pn_docs one = { .n = 1, .offset = offset };
            pn_carry carry = { 0 };
            pn_tensor *row, *y;
            ck_ok(pn_tensor_rows(x, t, t + 1, &row));
            ck_ok(pn_tape_own(s.tape, row));
            ck_ok(pn_block_extend(s.block[0], s.tape, row, &one, state[0], &carry, &y));
            ck_assert_ptr_nonnull(carry.v_first);
            ck_ok(pn_block_extend(s.block[1], s.tape, y, &one, state[1], &carry, &y));
            for (int64_t i = 0; i < D; i++) {
                double e = get(y, i) - get(packed, t * D + i);
                diff += e * e;
                norm += get(y, i) * get(y, i);
            }
            pn_tape_reset(s.tape);
        }
        for (int l = 0; l < 2; l++) pn_state_destroy(&state[l]);
    }
    ck_assert_double_lt(sqrt(diff / norm), 1e-5);
    pn_tensor_release(&x);
    pn_tensor_release(&packed);
    stack_destroy(&s);
}
END_TEST

/* A block with v_lora that finds no v_first is the first of its path: v_lora makes no difference. */
START_TEST(whoever_finds_no_v_first_makes_it) {
    stack s = stack_create(PN_CPU);
    pn_tape_record(s.tape, false);
    pn_tensor *x = activations(&s, "x"), *before, *after, *first;
    const struct {
        const char *name;
        bool moves;
    } weights[] = { { "second.v_lora.lora.2.bias", false }, { "second.v_proj.weight", true } };
    for (int k = 0; k < 2; k++) {
        pn_tensor *w = pn_params_find(s.params, weights[k].name)->value;
        pn_carry carry = { 0 };
        ck_ok(pn_block_forward(s.block[1], s.tape, x, &documents, &carry, &before));
        ck_assert_ptr_nonnull(first = carry.v_first);
        ck_assert(pn_tensor_same_shape(first, x));
        pn_f32(w)[0] += 1;
        carry = (pn_carry){ 0 };
        ck_ok(pn_block_forward(s.block[1], s.tape, x, &documents, &carry, &after));
        ck_assert_int_eq(memcmp(pn_f32(before), pn_f32(after), pn_tensor_bytes(before)) != 0, weights[k].moves);
        ck_assert_int_eq(memcmp(pn_f32(first), pn_f32(carry.v_first), pn_tensor_bytes(first)) != 0, weights[k].moves);
        carry.v_first = x; /* with another's v_first both do */
        ck_ok(pn_block_forward(s.block[1], s.tape, x, &documents, &carry, &before));
        pn_f32(w)[0] -= 1;
        ck_ok(pn_block_forward(s.block[1], s.tape, x, &documents, &carry, &after));
        ck_assert_int_ne(memcmp(pn_f32(before), pn_f32(after), pn_tensor_bytes(before)), 0);
        pn_tape_reset(s.tape);
    }
    pn_tensor_release(&x);
    stack_destroy(&s);
}
END_TEST

TEST_MAIN("rwkv7", published_sizes, names_and_initial_values, gradients_of_two_blocks_are_derivatives,
          recomputed_gradients_are_the_same, packed_documents_decode_as_if_alone, whoever_finds_no_v_first_makes_it)
