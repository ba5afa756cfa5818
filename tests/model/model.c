/* Models: decoding equals one pass, candidates and paths, the loss's derivatives, sharing. */
#include <math.h>
#include <string.h>

#include "linear_cross_entropy/linear_cross_entropy.h"
#include "model.h"
#include "random_weights.h"
#include "tape.h"

enum { LAYERS = 3, VOCAB = 37, TOKENS = 40 };

static pn_model_config *config_of(const char *const block[LAYERS], bool tied) {
    pn_model_config *c = calloc(1, sizeof *c);
    *c = (pn_model_config){ .vocab = VOCAB,
                            .n_layers = LAYERS,
                            .tied = tied,
                            .bos = -1,
                            .eos = -1,
                            .initializer_range = 0.1,
                            .file_dtype = PN_F32 };
    c->dims = (pn_dims){ .hidden = 16,
                         .heads = 2,
                         .kv_heads = 1,
                         .head_dim = 8,
                         .intermediate = 20,
                         .rope_theta = 1e4,
                         .rms_norm_eps = 1e-6,
                         .qkv_bias = true };
    for (int l = 0; l < LAYERS; l++) {
        ck_ok(pn_block_spec_default(pn_block_find(block[l]), &c->layer[l]));
        if (c->layer[l].type == &pn_block_swa)
            ck_ok(pn_option_parse(pn_block_swa.options, "test", "6", 0, c->layer[l].options));
    }
    return c;
}

static const char *const attention_only[] = { "attention", "attention", "attention" };
static const char *const windowed[] = { "swa", "gated_deltanet", "swa" };
static const char *const mixed[] = { "jet", "attention", "gated_deltanet" };

static pn_model *model_of(const char *const block[LAYERS], bool tied, pn_dtype dtype) {
    pn_model_config *c = config_of(block, tied);
    pn_model *m;
    ck_ok(pn_model_create(c, dtype, NULL, &m));
    free(c);
    randomise(m->params);
    return m;
}

static pn_tensor *ids_of(pn_tape *t, int64_t from, int64_t n) {
    pn_tensor *ids;
    ck_ok(pn_tape_new(t, PN_I32, 1, &n, &ids));
    for (int64_t i = 0; i < n; i++) pn_i32(ids)[i] = (int32_t)((from + i) * (from + i) * 7 % VOCAB);
    return ids;
}

/* Logits of tokens from .. in one pass; the caller's. */
static pn_tensor *logits_of(const pn_model *m, const pn_path *path, pn_tape *t, const pn_docs *docs) {
    pn_tensor *hidden, *logits;
    ck_ok(pn_model_hidden(m, path, t, ids_of(t, 0, pn_docs_tokens(docs)), docs, &hidden));
    ck_ok(pn_model_logits(m, t, hidden, &logits));
    pn_tensor_retain(logits);
    pn_tape_reset(t);
    return logits;
}

static double distance(const pn_tensor *a, const pn_tensor *b) {
    ck_assert(pn_tensor_same_shape(a, b));
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < pn_tensor_elems(a); i++) {
        double d = get(a, i) - get(b, i);
        diff += d * d;
        norm += get(b, i) * get(b, i);
    }
    return sqrt(diff / norm);
}

static const int64_t whole[] = { 0, TOKENS };
static const pn_docs one_document = { .n = 1, .offset = whole };

/* The layers, called one by one, are the model. */
START_TEST(a_model_is_its_layers) {
    pn_model *m = model_of(mixed, false, PN_F32);
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    pn_tensor *want = logits_of(m, NULL, t, &one_document), *h, *got;
    pn_carry carry = { 0 };
    ck_ok(pn_model_embed(m, t, ids_of(t, 0, TOKENS), &h));
    for (int l = 0; l < LAYERS; l++) {
        pn_tensor *x, *y, *z, *sum;
        ck_ok(pn_model_mixer_input(m, l, t, h, &x));
        ck_ok(pn_block_forward(m->layer[l].candidate[0], t, x, &one_document, &carry, &y));
        ck_ok(pn_tape_new(t, PN_F32, 2, h->shape, &sum));
        for (int64_t i = 0; i < pn_tensor_elems(h); i++) pn_f32(sum)[i] = pn_f32(h)[i] + pn_f32(y)[i];
        ck_ok(pn_model_mlp_half(m, l, t, sum, NULL, &z));
        ck_ok(pn_model_mlp_half(m, l, t, h, y, &y));
        ck_assert_mem_eq(pn_f32(y), pn_f32(z), pn_tensor_bytes(z));
        ck_ok(pn_model_layer(m, l, 0, t, h, &one_document, &carry, &x));
        ck_assert_double_lt(distance(y, x), 1e-6);
        h = x;
    }
    ck_ok(pn_model_final(m, t, h, &h));
    ck_ok(pn_model_logits(m, t, h, &got));
    ck_assert_mem_eq(pn_f32(got), pn_f32(want), pn_tensor_bytes(want));
    ck_assert_int_eq(want->shape[1], VOCAB);
    ck_assert_ptr_ne(m->head, m->embed);
    pn_tensor_release(&want);
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
}
END_TEST

/* Two sequences, fed in pieces of their own, against one pass over each. */
START_TEST(extend_equals_forward) {
    const char *const *const blocks[] = { attention_only, mixed, windowed };
    for (int i = 0; i < 3; i++) {
        pn_model *m = model_of(blocks[i], i == 1, PN_F32);
        pn_tape *t;
        ck_ok(pn_tape_create(PN_CPU, &t));
        pn_tape_record(t, false);
        pn_tensor *want = logits_of(m, NULL, t, &one_document), *row;
        static const int64_t pieces[][2] = { { 1, 0 }, { 5, 2 }, { 0, 1 }, { 17, 20 }, { 1, 1 }, { 16, 6 } };
        pn_cache *cache;
        ck_ok(pn_cache_create(m, NULL, 2, &cache));
        int64_t done[2] = { 0 };
        for (size_t call = 0; call < sizeof pieces / sizeof *pieces; call++) {
            const int64_t offset[] = { 0, pieces[call][0], pieces[call][0] + pieces[call][1] };
            pn_tensor *ids, *hidden, *logits;
            ck_ok(pn_tape_new(t, PN_I32, 1, &offset[2], &ids));
            for (int s = 0; s < 2; s++) {
                pn_tensor *part = ids_of(t, done[s], pieces[call][s]);
                memcpy(pn_i32(ids) + offset[s], pn_i32(part), pn_tensor_bytes(part));
            }
            ck_ok(pn_model_extend(m, cache, t, ids, &(pn_docs){ .n = 2, .offset = offset }, &hidden));
            ck_ok(pn_model_logits(m, t, hidden, &logits));
            for (int s = 0; s < 2; s++) {
                if (!pieces[call][s]) continue;
                pn_tensor *got;
                ck_ok(pn_tensor_rows(logits, offset[s], offset[s + 1], &got));
                ck_ok(pn_tensor_rows(want, done[s], done[s] + pieces[call][s], &row));
                ck_assert_double_lt(distance(got, row), 1e-5);
                pn_tensor_release(&got);
                pn_tensor_release(&row);
                done[s] += pieces[call][s];
            }
            pn_tape_reset(t);
        }
        ck_assert_int_eq(done[0], TOKENS);
        pn_cache_destroy(&cache);
        pn_tensor_release(&want);
        pn_tape_destroy(&t);
        pn_model_destroy(&m);
    }
}
END_TEST

/* ---- candidates and paths ---- */

static void add(pn_model *m, int layer, const char *block, const char *option, const char *value, int want) {
    const pn_block_type *type = pn_block_find(block);
    pn_block_spec spec;
    int index;
    ck_ok(pn_block_spec_default(type, &spec));
    if (option) ck_ok(pn_option_parse(pn_option_find(type->options, option), "test", value, 0, spec.options));
    ck_ok(pn_model_add_candidate(m, layer, &spec, &index));
    ck_assert_int_eq(index, want);
}

static pn_model *super_network(void) {
    pn_model *m = model_of(attention_only, true, PN_F32);
    for (int l = 0; l < LAYERS; l++) {
        add(m, l, "jet", NULL, NULL, 1);
        add(m, l, "jet", "expand_v", "1", 2);
        add(m, l, "none", NULL, NULL, 3);
    }
    randomise(m->params);
    return m;
}

START_TEST(paths_round_trip) {
    pn_model *m = super_network();
    ck_assert_ptr_nonnull(pn_params_find(m->params, "model.layers.2.candidates.jet.q_proj.weight"));
    ck_assert_ptr_nonnull(pn_params_find(m->params, "model.layers.2.candidates.jet_2.q_proj.weight"));
    for (int code = 0; code < 64; code++) {
        pn_path path = { .n = LAYERS, .choice = { code & 3, (code >> 2) & 3, (code >> 4) & 3 } }, back;
        char text[256];
        pn_path_text(m, &path, text, sizeof text);
        ck_ok(pn_path_parse(m, text, &back));
        ck_assert_msg(pn_path_equal(&path, &back), "%s", text);
    }
    char text[256];
    pn_path path = pn_model_own_path(m);
    ck_assert_str_eq(pn_path_text(m, &path, text, sizeof text), "attention*3");
    path.choice[1] = 2;
    ck_assert_str_eq(pn_path_text(m, &path, text, sizeof text), "attention,jet_2,attention");
    path.choice[0] = 2;
    ck_assert_str_eq(pn_path_text(m, &path, text, sizeof text), "jet_2*2,attention");
    static const struct {
        const char *text, *message;
    } wrong[] = {
        { "attention*2", "2 layers named, the model has 3" },
        { "attention*4", "more than the model's 3 layers" },
        { "attention*0", "more than" },
        { "attention*99999999999999999999", "more than" },
        { "attention*", "no count" },
        { "attention*-1", "no count" },
        { "attention**2", "no count" },
        { "attention,,jet", "no block name" },
        { "attention,jet,jet_3", "layer 2 has no candidate jet_3" },
        { "attention;jet,jet", "has no candidate" },
        { "attention*3x", "names are joined by commas" },
        { "", "0 layers named" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_msg(pn_path_parse(m, wrong[i].text, &path) == PN_USAGE, "%s", wrong[i].text);
        ck_assert_msg(strstr(pn_error_message(), wrong[i].message) != NULL, "%s: %s", wrong[i].text,
                      pn_error_message());
    }
    pn_model_destroy(&m);
}
END_TEST

/* Along a path only its candidates act, in one pass and decoding, and cache bytes add up. */
START_TEST(a_path_runs_its_candidates) {
    pn_model *m = super_network();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    pn_path path, own = pn_model_own_path(m);
    ck_ok(pn_path_parse(m, "jet,none,jet_2", &path));
    pn_tensor *base = logits_of(m, &path, t, &one_document), *after;
    pn_tensor *also_null = logits_of(m, NULL, t, &one_document), *also_own = logits_of(m, &own, t, &one_document);
    ck_assert_mem_eq(pn_f32(also_null), pn_f32(also_own), pn_tensor_bytes(also_own));
    ck_assert_double_gt(distance(base, also_own), 1e-2);
    static const struct {
        const char *weight;
        bool acts;
    } weights[] = {
        { "model.layers.0.candidates.jet.o_proj.weight", true },
        { "model.layers.0.candidates.jet_2.o_proj.weight", false },
        { "model.layers.0.self_attn.o_proj.weight", false },
        { "model.layers.1.input_layernorm.weight", false },
        { "model.layers.1.post_attention_layernorm.weight", true },
        { "model.layers.2.candidates.jet_2.A_log", true },
        { "model.layers.2.candidates.jet.A_log", false },
    };
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        pn_param *p = pn_params_find(m->params, weights[i].weight);
        ck_assert_msg(p != NULL, "%s", weights[i].weight);
        float keep = pn_f32(p->value)[0];
        pn_f32(p->value)[0] += 1;
        after = logits_of(m, &path, t, &one_document);
        bool moved = memcmp(pn_f32(after), pn_f32(base), pn_tensor_bytes(base)) != 0;
        ck_assert_msg(moved == weights[i].acts, "%s", weights[i].weight);
        pn_f32(p->value)[0] = keep;
        pn_tensor_release(&after);
    }
    pn_cache *cache;
    pn_tensor *hidden, *logits;
    ck_ok(pn_cache_create(m, &path, 1, &cache));
    ck_ok(pn_model_extend(m, cache, t, ids_of(t, 0, TOKENS), &one_document, &hidden));
    ck_ok(pn_model_logits(m, t, hidden, &logits));
    ck_assert_double_lt(distance(logits, base), 1e-5);
    double bytes = 0;
    for (int l = 0; l < LAYERS; l++) bytes += pn_block_cache_bytes(m->layer[l].candidate[path.choice[l]], 100, 2);
    ck_assert_double_eq(pn_model_cache_bytes(m, &path, 100, 2), bytes);
    ck_assert_double_gt(pn_model_cache_bytes(m, NULL, 200, 2), pn_model_cache_bytes(m, NULL, 100, 2));
    ck_assert_double_eq(pn_model_cache_bytes(m, &path, 200, 2), bytes);
    pn_cache_destroy(&cache);
    pn_tensor_release(&base);
    pn_tensor_release(&also_null);
    pn_tensor_release(&also_own);
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
}
END_TEST

START_TEST(a_student_shares_its_teachers_weights) {
    pn_model *teacher = super_network(), *student;
    pn_model_config *c = config_of(mixed, true);
    int64_t before = pn_params_count(teacher->params, false);
    ck_ok(pn_model_create(c, PN_F32, teacher->params, &student));
    ck_assert_ptr_eq(student->embed, teacher->embed);
    ck_assert_ptr_eq(student->layer[0].post_norm, teacher->layer[0].post_norm);
    ck_assert_int_eq(pn_params_count(teacher->params, false), before);
    /* what the student has no place for is not taken, what has another shape in it is made anew */
    ck_assert_ptr_null(pn_params_find(student->params, "model.layers.0.candidates.jet.q_proj.weight"));
    ck_assert_ptr_ne(pn_params_find(student->params, "model.layers.0.self_attn.k_proj.weight"),
                     pn_params_find(teacher->params, "model.layers.0.self_attn.k_proj.weight"));
    ck_assert_ptr_eq(pn_params_find(student->params, "model.layers.1.self_attn.k_proj.weight"),
                     pn_params_find(teacher->params, "model.layers.1.self_attn.k_proj.weight"));
    pn_model_destroy(&teacher); /* the student's share stays */
    for (int i = 0; i < student->params->n; i++) ck_assert_ptr_nonnull(student->params->item[i]->value->storage);
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tensor *logits = logits_of(student, NULL, t, &one_document);
    ck_assert(isfinite(pn_f32(logits)[0]));
    pn_tensor_release(&logits);
    pn_tape_destroy(&t);
    pn_model_destroy(&student);
    free(c);
}
END_TEST

/* ---- the loss ---- */

static double loss_of(pn_model *m, pn_tape *t, bool backward) {
    static const int64_t offset[] = { 0, 5, 12 };
    pn_tensor *ids = ids_of(t, 0, 12), *targets = ids_of(t, 1, 12), *hidden, *loss;
    pn_i32(targets)[4] = PN_IGNORE;
    ck_ok(pn_model_hidden(m, NULL, t, ids, &(pn_docs){ .n = 2, .offset = offset }, &hidden));
    ck_ok(pn_linear_cross_entropy(t, hidden, m->head, targets, NULL, &loss, NULL));
    double value = get(loss, 0);
    if (backward) ck_ok(pn_tape_backward(t, loss));
    pn_tape_reset(t);
    return value;
}

START_TEST(loss_gradients_are_derivatives) {
    for (int tied = 0; tied < 2; tied++) {
        pn_model *m = model_of(mixed, tied, PN_F64);
        pn_tape *t;
        ck_ok(pn_tape_create(PN_REF, &t));
        ck_assert_int_eq(pn_params_train(m->params, "*", true), m->params->n);
        ck_assert_int_eq(pn_params_train(m->params, "*.mlp.up_proj.*", false), LAYERS);
        loss_of(m, t, true);
        pn_tape_record(t, false);
        for (int i = 0; i < m->params->n; i++) {
            pn_tensor *w = m->params->item[i]->value;
            const char *name = m->params->item[i]->name;
            if (strstr(name, "up_proj")) {
                ck_assert_ptr_null(w->grad); /* frozen */
                continue;
            }
            ck_assert_msg(w->grad != NULL, "%s", name);
            int64_t n = pn_tensor_elems(w), stride = n > 6 ? n / 6 + 1 : 1;
            double diff = 0, norm = 0;
            for (int64_t k = 0; k < n; k += stride) {
                double keep = pn_f64(w)[k], step = 1e-5;
                pn_f64(w)[k] = keep + step;
                double up = loss_of(m, t, false);
                pn_f64(w)[k] = keep - step;
                double slope = (up - loss_of(m, t, false)) / (2 * step), d = pn_f64(w->grad)[k] - slope;
                pn_f64(w)[k] = keep;
                diff += d * d;
                norm += slope * slope;
            }
            /* differences of a loss near 4 carry rounding of 1e-10; gradients far below that are absolute */
            ck_assert_msg(sqrt(diff) <= 1e-6 * sqrt(norm) + 1e-9, "%s: %g of %g", name, sqrt(diff), sqrt(norm));
        }
        pn_tape_destroy(&t);
        pn_model_destroy(&m);
    }
}
END_TEST

/* How much memory a step takes, asked before it: with the real weights, which the step then uses. */
START_TEST(a_plan_knows_a_steps_peak) {
    static const int64_t offset[] = { 0, 5, TOKENS };
    pn_model *m = model_of(mixed, true, PN_F32);
    pn_params_train(m->params, "*.self_attn.*", true);
    size_t peak[2], took[2];
    for (int plan = 1; plan >= 0; plan--) {
        pn_tape *t, *memory;
        pn_tensor *hidden, *loss;
        ck_ok(pn_tape_create(plan ? PN_PLAN : PN_CPU, &t));
        ck_ok(pn_tape_create(PN_CPU, &memory));
        pn_tensor *ids = ids_of(memory, 0, TOKENS), *targets = ids_of(memory, 1, TOKENS);
        ck_ok(pn_model_hidden(m, NULL, t, ids, &(pn_docs){ .n = 2, .offset = offset }, &hidden));
        ck_ok(pn_linear_cross_entropy(t, hidden, m->head, targets, NULL, &loss, NULL));
        ck_ok(pn_tape_backward(t, loss));
        peak[plan] = pn_pool_peak_bytes(pn_tape_pool(t));
        took[plan] = pn_pool_system_bytes(pn_tape_pool(t));
        pn_tape_destroy(&t);
        pn_tape_destroy(&memory);
    }
    ck_assert_uint_eq(peak[0], peak[1]);
    ck_assert_uint_eq(took[0], took[1]);
    pn_model_destroy(&m);
}
END_TEST

/* ---- wrong configurations ---- */

START_TEST(absurd_sizes_are_refused) {
    static const struct {
        size_t offset;
        int64_t value;
        const char *message;
    } cases[] = {
        { offsetof(pn_model_config, vocab), 0, "vocab_size is 0" },
        { offsetof(pn_model_config, vocab), (int64_t)1 << 40, "vocab_size" },
        { offsetof(pn_model_config, dims.hidden), -1, "hidden_size is -1" },
        { offsetof(pn_model_config, dims.intermediate), (int64_t)1 << 62, "intermediate_size" },
        { offsetof(pn_model_config, dims.heads), 3, "" },
        { offsetof(pn_model_config, dims.kv_heads), 0, "num_key_value_heads" },
        { offsetof(pn_model_config, dims.kv_heads), 4, "num_key_value_heads" },
        { offsetof(pn_model_config, dims.head_dim), 7, "head_dim 7 is odd" },
        { offsetof(pn_model_config, dims.head_dim), 0, "head_dim" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pn_model_config *c = config_of(attention_only, true);
        pn_model *m = NULL;
        c->dims.kv_heads = 2;
        memcpy((char *)c + cases[i].offset, &cases[i].value, sizeof cases[i].value);
        ck_assert_msg(pn_model_create(c, PN_F32, NULL, &m) == PN_USAGE, "case %zu", i);
        ck_assert_msg(strstr(pn_error_message(), cases[i].message) != NULL, "%s", pn_error_message());
        ck_assert_ptr_null(m);
        free(c);
    }
    pn_model_config *c = config_of(attention_only, true);
    pn_model *m = NULL;
    c->n_layers = PN_MAX_LAYERS + 1;
    ck_assert_int_eq(pn_model_create(c, PN_F32, NULL, &m), PN_USAGE);
    c->n_layers = LAYERS;
    c->layer[1].type = pn_block_find("mlp");
    ck_assert_int_eq(pn_model_create(c, PN_F32, NULL, &m), PN_USAGE);
    c->layer[1].type = NULL;
    ck_assert_int_eq(pn_model_create(c, PN_F32, NULL, &m), PN_USAGE);
    c->layer[1] = c->layer[0];
    c->dims.rope_theta = NAN;
    ck_assert_int_eq(pn_model_create(c, PN_F32, NULL, &m), PN_USAGE);
    free(c);
    c = config_of(attention_only, true);
    ck_ok(pn_model_create(c, PN_F32, NULL, &m));
    pn_tape *t;
    pn_tensor *hidden, *ids;
    ck_ok(pn_tape_create(PN_CPU, &t));
    ids = ids_of(t, 0, TOKENS);
    pn_i32(ids)[3] = VOCAB;
    ck_assert_int_eq(pn_model_hidden(m, NULL, t, ids, &one_document, &hidden), PN_USAGE);
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
    free(c);
}
END_TEST

TEST_MAIN("model", a_model_is_its_layers, extend_equals_forward, paths_round_trip, a_path_runs_its_candidates,
          a_student_shares_its_teachers_weights, loss_gradients_are_derivatives, a_plan_knows_a_steps_peak,
          absurd_sizes_are_refused)
