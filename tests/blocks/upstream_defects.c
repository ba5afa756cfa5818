/* What published code of these blocks gets wrong (blocks.md 14, whose numbers the tests carry), and ours must not. */
#include "rig.h"

#include "../io/io_fixture.h"

#include "clock.h"
#include "golden.h"
#include "model_load.h"
#include "profile.h"

static subject subject_of(const pn_block_type *type) {
    subject s = { .dims = tiny };
    ck_ok(pn_block_spec_default(type, &s.spec));
    snprintf(s.label, sizeof s.label, "%s", type->name);
    if (type == &pn_block_mamba2 || type == &pn_block_rwkv7)
        set_option(&s.spec, "head_dim", "10"); /* divides tiny's 20 */
    return s;
}

static pn_tensor *rows_of(pn_tensor *t, int64_t begin, int64_t end) {
    pn_tensor *part;
    ck_ok(pn_tensor_rows(t, begin, end, &part));
    return part;
}

static void clear_rows(pn_tensor *t, int64_t begin, int64_t end) {
    memset(pn_f32(t) + begin * t->shape[1], 0, (size_t)((end - begin) * t->shape[1]) * sizeof(float));
}

static bool all_zero(const pn_tensor *t, int64_t begin, int64_t end) {
    for (int64_t i = begin * t->shape[1]; i < end * t->shape[1]; i++)
        if (pn_f32(t)[i] != 0) return false;
    return true;
}

static pn_tensor *weight(const pn_params *params, const char *name) {
    char full[PN_NAME_MAX];
    snprintf(full, sizeof full, "model.layers.0.self_attn.%s", name);
    const pn_param *p = pn_params_find(params, full);
    ck_assert_msg(p != NULL, "no %s", full);
    return p->value;
}

/* y of tokens begin .. end of x, which go on where the state's one sequence stopped; the caller's. */
static pn_tensor *extend(rig *r, pn_tensor *x, int64_t begin, int64_t end, pn_state *state) {
    const int64_t offset[] = { 0, end - begin };
    pn_tensor *piece = rows_of(x, begin, end), *y;
    pn_carry carry = { 0 };
    ck_ok(pn_block_extend(r->block, r->tape, piece, &(pn_docs){ .n = 1, .offset = offset }, state, &carry, &y));
    y = pn_tensor_retain(y);
    pn_tape_reset(r->tape);
    pn_tensor_release(&piece);
    return y;
}

static pn_state *state_of(rig *r, int64_t sequences) {
    pn_state *state;
    pn_tape_record(r->tape, false);
    ck_ok(pn_state_create(r->block, sequences, pn_tape_pool(r->tape), PN_F32, &state));
    return state;
}

/* ---- documents in one row ---- */

enum { FIRST = 5, TOKENS = 11 }; /* two documents */
static const int64_t both[] = { 0, FIRST, TOKENS }, second[] = { 0, TOKENS - FIRST };
static const pn_docs packed = { .n = 2, .offset = both }, alone = { .n = 1, .offset = second };

/* Gradient of one document's results reaches no value of the other, and no weight through it. */
static void gradients_stay_in_their_document(const pn_block_type *type) {
    const subject s = subject_of(type);
    rig r = rig_create(&s, PN_CPU), single = rig_create(&s, PN_CPU);
    pn_tensor *x = activations(&r, "x", TOKENS), *dy = activations(&r, "dy", TOKENS);
    pn_tensor *x_2 = rows_of(x, FIRST, TOKENS), *dy_2 = rows_of(dy, FIRST, TOKENS), *part;
    x_2->wants_grad = true;
    clear_rows(dy, 0, FIRST);
    pn_tensor *y = both_ways(&r, x, dy, &packed), *y_2 = both_ways(&single, x_2, dy_2, &alone);
    ck_assert_msg(all_zero(x->grad, 0, FIRST), "%s: the second document's gradient is in the first", s.label);
    part = rows_of(y, FIRST, TOKENS);
    FAR_FROM(&r, "y", distance(part, y_2), 1e-6);
    pn_tensor_release(&part);
    part = rows_of(x->grad, FIRST, TOKENS);
    FAR_FROM(&r, "dx", distance(part, x_2->grad), 1e-5);
    pn_tensor_release(&part);
    for (int i = 0; i < r.params->n; i++)
        FAR_FROM(&r, r.params->item[i]->name,
                 distance(r.params->item[i]->value->grad, single.params->item[i]->value->grad), 1e-5);
    pn_tensor_release(&x_2);
    pn_tensor_release(&dy_2);
    pn_tensor_release(&y_2);
    pn_tensor_release(&y);
    pn_tensor_release(&x->grad);
    pn_tensor_release(&dy);
    dy = activations(&r, "dy", TOKENS);
    clear_rows(dy, FIRST, TOKENS);
    y = both_ways(&r, x, dy, &packed);
    ck_assert_msg(all_zero(x->grad, FIRST, TOKENS), "%s: the first document's gradient is in the second", s.label);
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    pn_tensor_release(&y);
    rig_destroy(&r);
    rig_destroy(&single);
}

/* Sequences of one call have a state each, as if each had been alone. */
static void sequences_have_their_own_state(const pn_block_type *type) {
    const subject s = subject_of(type);
    rig r = rig_create(&s, PN_CPU);
    pn_tensor *x = activations(&r, "x", TOKENS), *y;
    pn_state *pair = state_of(&r, 2);
    pn_carry carry = { 0 };
    ck_ok(pn_block_extend(r.block, r.tape, x, &packed, pair, &carry, &y));
    y = pn_tensor_retain(y);
    pn_tape_reset(r.tape);
    for (int d = 0; d < 2; d++) {
        pn_state *own = state_of(&r, 1);
        pn_tensor *want = extend(&r, x, both[d], both[d + 1], own), *part = rows_of(y, both[d], both[d + 1]);
        FAR_FROM(&r, "y", distance(part, want), PN_LIMIT_OUTPUT);
        pn_tensor_release(&want);
        pn_tensor_release(&part);
        for (int i = 0; i < own->n_tensors; i++) {
            part = rows_of(pair->tensor[i], d, d + 1);
            FAR_FROM(&r, own->name[i], distance(part, own->tensor[i]), PN_LIMIT_OUTPUT);
            pn_tensor_release(&part);
        }
        pn_state_destroy(&own);
    }
    pn_state_destroy(&pair);
    pn_tensor_release(&x);
    pn_tensor_release(&y);
    rig_destroy(&r);
}

/* 14.1: both backward kernels of the dynamic convolution ignore document borders. */
START_TEST(dynamic_convolution_backward_respects_documents) {
    gradients_stay_in_their_document(&pn_block_jet);
}
END_TEST

/* 14.2: in evaluation the dynamic convolution ignores borders, and keeps one window for the whole pack. */
START_TEST(dynamic_convolution_decodes_documents_apart) {
    sequences_have_their_own_state(&pn_block_jet);
}
END_TEST

/* 14.7: the layer has no document packing. */
START_TEST(mamba2_packs_documents) {
    gradients_stay_in_their_document(&pn_block_mamba2);
    sequences_have_their_own_state(&pn_block_mamba2);
}
END_TEST

/* 14.5: the decoder layer does not tell its mixer about packing. */
START_TEST(layers_pass_packing_on) {
    static const pn_block_type *const types[] = { &pn_block_jet, &pn_block_attention, &pn_block_mamba2 };
    pn_model_config c = { .dims = tiny, .vocab = 30, .n_layers = 3, .bos = -1, .eos = -1 };
    c.initializer_range = 0.02;
    for (int l = 0; l < 3; l++) c.layer[l] = subject_of(types[l]).spec;
    pn_model *m;
    pn_tape *t;
    pn_tensor *ids[2], *hidden[2];
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    randomise(m->params);
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    for (int k = 0; k < 2; k++) {
        const pn_docs *docs = k ? &alone : &packed;
        const int64_t n = pn_docs_tokens(docs);
        ck_ok(pn_tape_new(t, PN_I32, 1, &n, &ids[k]));
        for (int64_t i = 0; i < n; i++) pn_i32(ids[k])[i] = (int32_t)((i + (k ? FIRST : 0)) * 7 % 30);
        ck_ok(pn_model_hidden(m, NULL, t, ids[k], docs, &hidden[k]));
    }
    pn_tensor *part = rows_of(hidden[0], FIRST, TOKENS);
    ck_assert_double_lt(distance(part, hidden[1]), PN_LIMIT_OUTPUT);
    pn_tensor_release(&part);
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
}
END_TEST

/* ---- groups of heads ---- */

enum { HEADS = 4, GROUPS = 2, KEYS = 3, WIDTH = 5, INNER = HEADS * WIDTH }; /* INNER is tiny's hidden size */

/* y of all tokens, with out_proj the identity: channels of heads. piece 0: training's forward; else so many at once. */
static void heads_of(rig *r, pn_tensor *x, int64_t piece, float y[TOKENS][INNER]) {
    const int64_t offset[] = { 0, TOKENS };
    pn_tensor *part;
    pn_tape_record(r->tape, !piece);
    if (!piece) {
        part = pn_tensor_retain(forward(r, x, &(pn_docs){ .n = 1, .offset = offset }));
        memcpy(y, pn_f32(part), pn_tensor_bytes(part));
        pn_tensor_release(&part);
        pn_tape_reset(r->tape);
        return;
    }
    pn_state *state = state_of(r, 1);
    for (int64_t t = 0; t < TOKENS; t += piece) {
        part = extend(r, x, t, t + piece < TOKENS ? t + piece : TOKENS, state);
        memcpy(y[t], pn_f32(part), pn_tensor_bytes(part));
        pn_tensor_release(&part);
    }
    pn_state_destroy(&state);
}

/* 14.6: prefill without CUDA gives head h group h mod M, decoding floor(h M / H). Here another B and C for one group
 * moves its neighbouring heads, each of them, and no bit of the others, in both. */
START_TEST(mamba2_groups_are_neighbouring_heads) {
    static const int64_t pieces[] = { 0, TOKENS, 1, 3 };
    static float before[TOKENS][INNER], after[TOKENS][INNER];
    subject s = subject_of(&pn_block_mamba2);
    set_option(&s.spec, "expand", "1");
    set_option(&s.spec, "head_dim", "5");
    set_option(&s.spec, "state_size", "3");
    set_option(&s.spec, "n_groups", "2");
    rig r = rig_create(&s, PN_CPU);
    pn_tensor *x = activations(&r, "x", TOKENS), *in = weight(r.params, "in_proj.weight");
    pn_tensor *out = weight(r.params, "out_proj.weight");
    for (int64_t i = 0; i < INNER * INNER; i++) set(out, i, i % (INNER + 1) == 0);
    for (int k = 0; k < 4; k++)
        for (int group = 0; group < GROUPS; group++) {
            heads_of(&r, x, pieces[k], before);
            for (int of_c = 0; of_c < 2; of_c++) { /* rows of in_proj: z, x, B of each group, C of each group, dt */
                const int64_t row = 2 * INNER + (of_c * GROUPS + group) * KEYS;
                for (int64_t i = row * INNER; i < (row + KEYS) * INNER; i++)
                    set(in, i, get(in, i) + 0.25 * (double)(i % 5 - 2));
            }
            heads_of(&r, x, pieces[k], after);
            for (int h = 0; h < HEADS; h++) {
                bool moved = false, own = h / (HEADS / GROUPS) == group;
                for (int t = 0; t < TOKENS; t++)
                    moved = moved || memcmp(&before[t][h * WIDTH], &after[t][h * WIDTH], WIDTH * sizeof(float)) != 0;
                ck_assert_msg(moved == own, "pieces of %d: group %d %s head %d", (int)pieces[k], group,
                              moved ? "moves" : "does not move", h);
            }
        }
    pn_tensor_release(&x);
    rig_destroy(&r);
}
END_TEST

/* ---- a prompt in pieces ---- */

/* 14.3: a piece of 2 or 3 tokens on top of a cache overwrites the window's last entries without shifting the others. */
START_TEST(windows_shift_under_short_pieces) {
    static const pn_block_type *const types[] = { &pn_block_jet, &pn_block_gated_deltanet, &pn_block_deltanet,
                                                  &pn_block_mamba2 };
    enum { W = 4, BEFORE = 6 };
    for (int k = 0; k < 4; k++)
        for (int64_t n = 1; n <= W + 1; n++) {
            const subject s = subject_of(types[k]);
            rig r = rig_create(&s, PN_CPU);
            pn_tensor *x = activations(&r, "x", TOKENS);
            pn_state *pieces = state_of(&r, 1), *whole = state_of(&r, 1);
            pn_tensor *y = extend(&r, x, 0, BEFORE, pieces), *before[PN_STATE_TENSORS] = { NULL };
            for (int i = 0; i < pieces->n_tensors; i++) {
                const pn_tensor *now = pieces->tensor[i];
                ck_ok(pn_tensor_zeros(pn_tape_pool(r.tape), PN_F32, now->rank, now->shape, &before[i]));
                ck_ok(pn_tensor_copy(before[i], now));
            }
            pn_tensor_release(&y);
            y = extend(&r, x, BEFORE, BEFORE + n, pieces);
            pn_tensor *want = extend(&r, x, 0, BEFORE + n, whole), *part = rows_of(want, BEFORE, BEFORE + n);
            FAR_FROM(&r, "y", distance(y, part), PN_LIMIT_OUTPUT);
            int windows = 0;
            for (int i = 0; i < pieces->n_tensors; i++) {
                FAR_FROM(&r, pieces->name[i], distance(pieces->tensor[i], whole->tensor[i]), PN_LIMIT_OUTPUT);
                if (pieces->tensor[i]->rank != 3) continue; /* S */
                windows++;
                ck_assert_int_eq(pieces->tensor[i]->shape[2], W);
                for (int64_t c = 0; c < pieces->tensor[i]->shape[1]; c++)
                    for (int64_t j = 0; j + n < W; j++)
                        ck_assert_msg(get(pieces->tensor[i], c * W + j) == get(before[i], c * W + j + n),
                                      "%s: a piece of %d tokens does not shift entry %d of window %s", s.label, (int)n,
                                      (int)(j + n), pieces->name[i]);
            }
            ck_assert_int_gt(windows, 0);
            for (int i = 0; i < pieces->n_tensors; i++) pn_tensor_release(&before[i]);
            pn_tensor_release(&part);
            pn_tensor_release(&want);
            pn_tensor_release(&y);
            pn_tensor_release(&x);
            pn_state_destroy(&pieces);
            pn_state_destroy(&whole);
            rig_destroy(&r);
        }
}
END_TEST

/* 14.5: a piece of several tokens after a full window meets a mask that is one key short. */
START_TEST(pieces_after_a_full_window_see_all_of_it) {
    enum { WINDOW = 4 };
    for (int64_t filled = WINDOW - 1; filled <= WINDOW + 2; filled++)
        for (int64_t n = 2; filled + n <= TOKENS; n++) {
            subject s = subject_of(&pn_block_swa);
            set_option(&s.spec, "window_size", "4");
            rig r = rig_create(&s, PN_CPU);
            pn_state *state = state_of(&r, 1);
            const int64_t offset[] = { 0, TOKENS };
            pn_tensor *x = activations(&r, "x", TOKENS);
            pn_tensor *want = pn_tensor_retain(forward(&r, x, &(pn_docs){ .n = 1, .offset = offset }));
            pn_tape_reset(r.tape);
            pn_tensor *y = extend(&r, x, 0, filled, state);
            pn_tensor_release(&y);
            y = extend(&r, x, filled, filled + n, state);
            pn_tensor *part = rows_of(want, filled, filled + n);
            FAR_FROM(&r, "y", distance(y, part), PN_LIMIT_OUTPUT);
            pn_tensor_release(&part);
            pn_tensor_release(&want);
            pn_tensor_release(&y);
            pn_tensor_release(&x);
            pn_state_destroy(&state);
            rig_destroy(&r);
        }
}
END_TEST

/* 14.9: documents of up to 64 tokens are trained by the step kernel, which for JetBlock has no gradient. */
START_TEST(short_documents_train_like_long_ones) {
    static const pn_block_type *const types[] = { &pn_block_jet, &pn_block_deltanet, &pn_block_gla };
    static const int64_t lengths[] = { 2, 16, 63, 64 };
    for (int k = 0; k < 3; k++)
        for (int l = 0; l < 4; l++) {
            const int64_t n = lengths[l];
            const subject s = subject_of(types[k]);
            rig r = rig_create(&s, PN_CPU), longer = rig_create(&s, PN_CPU);
            pn_tensor *x = activations(&r, "x", 65), *dy = activations(&r, "dy", 65), *x_n = rows_of(x, 0, n);
            pn_tensor *dy_n = rows_of(dy, 0, n), *y, *y_n, *part;
            const int64_t offset[] = { 0, 65 }, offset_n[] = { 0, n };
            x_n->wants_grad = true;
            clear_rows(dy, n, 65);
            pn_profile_start(pn_seconds);
            y_n = both_ways(&r, x_n, dy_n, &(pn_docs){ .n = 1, .offset = offset_n });
            pn_profile_stop();
            int rows;
            const pn_profile_row *row = pn_profile_rows(&rows);
            for (int i = 0; i < rows; i++)
                ck_assert_msg(!strstr(row[i].name, "step"), "%s: %d tokens are trained by %s", s.label, (int)n,
                              row[i].name);
            y = both_ways(&longer, x, dy, &(pn_docs){ .n = 1, .offset = offset });
            part = rows_of(y, 0, n);
            FAR_FROM(&r, "y", distance(y_n, part), 1e-6);
            pn_tensor_release(&part);
            part = rows_of(x->grad, 0, n);
            FAR_FROM(&r, "dx", distance(x_n->grad, part), 1e-5);
            pn_tensor_release(&part);
            for (int i = 0; i < r.params->n; i++)
                FAR_FROM(&r, r.params->item[i]->name,
                         distance(r.params->item[i]->value->grad, longer.params->item[i]->value->grad), 1e-5);
            pn_tensor_release(&x_n);
            pn_tensor_release(&dy_n);
            pn_tensor_release(&y_n);
            pn_tensor_release(&x);
            pn_tensor_release(&dy);
            pn_tensor_release(&y);
            rig_destroy(&r);
            rig_destroy(&longer);
        }
}
END_TEST

/* ---- initial values ---- */

static double rms(const pn_tensor *t) {
    double sum = 0;
    for (int64_t i = 0; i < pn_tensor_elems(t); i++) sum += get(t, i) * get(t, i);
    return sqrt(sum / (double)pn_tensor_elems(t));
}

/* 14.4: the kernel generator starts with both matrices zero, where no gradient reaches either; or a model's initialiser
 * overwrites them and the static kernel. */
START_TEST(kernel_generator_learns_from_its_first_step) {
    pn_model_config c = { .dims = tiny, .vocab = 30, .n_layers = 1, .bos = -1, .eos = -1 };
    c.initializer_range = 0.02;
    c.layer[0] = subject_of(&pn_block_jet).spec;
    pn_model *m;
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    ck_ok(pn_params_init(m->params, 20));
    ck_assert_int_gt(pn_params_train(m->params, "*self_attn*", true), 0);
    const char *const prefix = "dynamic_conv1d.kernel_generator.";
    char name[3][64];
    static const char *const names[] = { "w1.weight", "w2.weight", "w2.bias" };
    for (int i = 0; i < 3; i++) snprintf(name[i], sizeof name[i], "%s%s", prefix, names[i]);
    pn_tensor *w1 = weight(m->params, name[0]), *w2 = weight(m->params, name[1]), *b2 = weight(m->params, name[2]);
    for (int64_t i = 0; i < pn_tensor_elems(b2); i++)
        ck_assert_double_eq(get(b2, i), i % 4 == 3); /* passes v through */
    ck_assert_double_gt(rms(w1), 0.01);
    ck_assert_double_eq(rms(w2), 0);

    const subject s = subject_of(&pn_block_jet);
    rig r = { .s = &s, .params = m->params, .block = m->layer[0].candidate[0] };
    ck_ok(pn_tape_create(PN_CPU, &r.tape));
    pn_tensor *x = activations(&r, "x", TOKENS), *dy = activations(&r, "dy", TOKENS), *y;
    for (int step = 0; step < 2; step++) {
        drop_grads(&r);
        y = both_ways(&r, x, dy, &packed);
        pn_tensor_release(&y);
        ck_assert_double_gt(rms(w2->grad), 1e-6);
        ck_assert_double_gt(rms(b2->grad), 1e-6);
        ck_assert_msg((rms(w1->grad) > 1e-6) == (step > 0), "step %d: the gradient of w1 is %g", step, rms(w1->grad));
        for (int64_t i = 0; i < pn_tensor_elems(w2); i++) set(w2, i, get(w2, i) - get(w2->grad, i));
    }
    pn_tensor_release(&x);
    pn_tensor_release(&dy);
    pn_tape_destroy(&r.tape);
    pn_model_destroy(&m);
}
END_TEST

/* The largest |<w_i, w_j> - gain^2 [i = j]| of the rows, over gain^2. */
static double from_orthogonal(const pn_tensor *w, double gain) {
    double worst = 0;
    for (int64_t i = 0; i < w->shape[0]; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = 0; k < w->shape[1]; k++) sum += get(w, i * w->shape[1] + k) * get(w, j * w->shape[1] + k);
            worst = fmax(worst, fabs(sum / (gain * gain) - (i == j)));
        }
    return worst;
}

/* limit: what a rounding of the weights leaves of orthogonality. */
static void starts_as_rwkv7(const pn_params *params, double limit) {
    static const struct {
        const char *name;
        double gain;
    } orthogonal[] = {
        { "r_proj.weight", 1 }, { "k_proj.weight", 0.1 }, { "v_proj.weight", 1 }, { "w_lora.lora.2.weight", 0.1 }
    };
    for (int i = 0; i < 4; i++) {
        const pn_tensor *w = weight(params, orthogonal[i].name);
        const double wide = w->shape[1] > w->shape[0] ? (double)w->shape[1] / (double)w->shape[0] : 1;
        const double error = from_orthogonal(w, orthogonal[i].gain * sqrt(wide));
        ck_assert_msg(error < limit, "%s: %g from orthogonal", orthogonal[i].name, error);
    }
    ck_assert_double_eq(rms(weight(params, "o_proj.weight")), 0);
}

/* 14.8: RWKV-7's orthogonal matrices are made in a copy when weights are not fp32, so that they never arrive, and a
 * model's initialiser replaces the zero o_proj. */
START_TEST(rwkv7_starts_orthogonal_and_silent) {
    pn_model_config c = { .dims = tiny, .vocab = 30, .n_layers = 1, .bos = -1, .eos = -1, .max_position = 64 };
    c.initializer_range = 0.02;
    c.layer[0] = subject_of(&pn_block_rwkv7).spec;
    pn_model *m, *back;
    ck_ok(pn_model_create(&c, PN_F64, NULL, &m));
    ck_ok(pn_params_init(m->params, 20));
    starts_as_rwkv7(m->params, 1e-12);
    pn_model_destroy(&m);
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    ck_ok(pn_params_init(m->params, 20));
    starts_as_rwkv7(m->params, 1e-6);
    ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_BF16 }));
    ck_ok(pn_model_load(scratch("."), PN_F32, &back));
    ck_assert_int_eq(back->config.file_dtype, PN_BF16);
    starts_as_rwkv7(back->params, 0.01);
    pn_model_destroy(&back);
    pn_model_destroy(&m);
}
END_TEST

/* ---- epsilons ---- */

/* What the block makes of tokens so small that an epsilon counts. */
static pn_tensor *of_small_tokens(const subject *s, rig *r) {
    *r = rig_create(s, PN_CPU);
    pn_tape_record(r->tape, false);
    pn_tensor *x = activations(r, "x", TOKENS);
    for (int64_t i = 0; i < pn_tensor_elems(x); i++) set(x, i, 1e-2 * get(x, i));
    pn_tensor *y = pn_tensor_retain(forward(r, x, &packed));
    pn_tensor_release(&x);
    return y;
}

/* 14.10: a port normalises JetBlock's output with rms_norm_eps, 1e-6; it is norm_eps, 1e-5 unless the config says so.
 */
START_TEST(output_norm_has_its_own_epsilon) {
    subject s[4];
    rig r[4];
    pn_tensor *y[4];
    for (int i = 0; i < 4; i++) s[i] = subject_of(&pn_block_jet);
    s[1].dims.rms_norm_eps = 0.1;
    set_option(&s[2].spec, "norm_eps", "1e-5");
    set_option(&s[3].spec, "norm_eps", "1e-6");
    for (int i = 0; i < 4; i++) y[i] = of_small_tokens(&s[i], &r[i]);
    ck_assert_mem_eq(pn_f32(y[0]), pn_f32(y[1]), pn_tensor_bytes(y[0]));
    ck_assert_mem_eq(pn_f32(y[0]), pn_f32(y[2]), pn_tensor_bytes(y[0]));
    ck_assert_double_gt(distance(y[3], y[0]), 0.01);
    for (int i = 0; i < 4; i++) {
        pn_tensor_release(&y[i]);
        rig_destroy(&r[i]);
    }
}
END_TEST

TEST_MAIN("upstream defects", dynamic_convolution_backward_respects_documents,
          dynamic_convolution_decodes_documents_apart, mamba2_packs_documents, layers_pass_packing_on,
          mamba2_groups_are_neighbouring_heads, windows_shift_under_short_pieces,
          pieces_after_a_full_window_see_all_of_it, short_documents_train_like_long_ones,
          kernel_generator_learns_from_its_first_step, rwkv7_starts_orthogonal_and_silent,
          output_norm_has_its_own_epsilon)
