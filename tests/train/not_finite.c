/* Training that is no longer finite ends, changes nothing more, and says where. */
#include <math.h>
#include <string.h>

#include "supernet/supernet_fixture.h"

static const pn_loss_weights both = { .ce = 1, .kl = 1, .feature = 0, .temperature = 1 };

/* All of a weight becomes x. */
static void spoil(pn_model *m, const char *name, float x) {
    pn_param *p = pn_params_find(m->params, name);
    ck_assert_ptr_nonnull(p);
    for (int64_t i = 0; i < pn_tensor_elems(p->value); i++) pn_f32(p->value)[i] = x;
}

static void ck_located_in(pn_model *m, const pn_loss_weights *weights, pn_batch *batch, const char *path_text,
                          float *term, const char *expected) {
    pn_path path, teacher = pn_model_own_path(m);
    pn_tape *t;
    char where[PN_DISTILL_WHERE];
    ck_ok(pn_path_parse(m, path_text, &path));
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_distill pass = { .student = m, .path = &path, .teacher = m, .teacher_path = &teacher, .weights = weights };
    if (term) {
        ck_ok(pn_tape_new(t, PN_F32, 1, (int64_t[]){ 1 }, &pass.term));
        *pn_f32(pass.term) = *term;
    }
    ck_ok(pn_distill_locate(t, &pass, batch, where));
    ck_assert_str_eq(where, expected);
    ck_assert(pn_tape_recording(t));
    pn_tape_destroy(&t);
}

static void ck_located(const char *name, const char *path_text, const char *expected) {
    pn_model *m = tiny_supernet();
    pn_batch batch = { 0 };
    if (name) spoil(m, name, INFINITY);
    ck_ok(pn_batch_load(mixture, 0, 2, &batch));
    ck_located_in(m, &both, &batch, path_text, NULL, expected);
    pn_batch_free(&batch);
    pn_model_destroy(&m);
}

static const char linear[] = "gated_deltanet,gated_deltanet,attention";

START_TEST(the_first_place_is_named) {
    setup();
    ck_located(NULL, linear, "");
    ck_located("model.layers.1.candidates.gated_deltanet.o_proj.weight", linear,
               "student, layer 1, the output of gated_deltanet");
    ck_located("model.layers.0.mlp.down_proj.weight", linear, "student, layer 0, after the MLP");
    ck_located("model.embed_tokens.weight", linear, "student, the embedding");
    ck_located("model.layers.1.self_attn.o_proj.weight", linear, "teacher, layer 1, the output of attention");
    ck_located("model.norm.weight", linear, "student, the final norm");
    teardown();
}
END_TEST

/* The row of a word that is in no batch: the embedding never sees it, every logit of it is not a number. */
START_TEST(the_head_is_named) {
    setup();
    pn_model *m = tiny_supernet();
    pn_batch batch = { 0 };
    const int64_t hidden = m->config.dims.hidden, unused = m->config.vocab - 1;
    const float bad[] = { NAN, INFINITY };
    ck_ok(pn_batch_load(mixture, 0, 2, &batch));
    for (int i = 0; i < 2; i++) {
        for (int64_t k = 0; k < hidden; k++) pn_f32(m->head)[unused * hidden + k] = bad[i];
        ck_located_in(m, &both, &batch, linear, NULL, "student, lm_head, whose weights are the embedding's");
    }
    pn_batch_free(&batch);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* Where all that leads to it is finite. (Of finite logits ce is always finite, but for overflow.) */
START_TEST(the_loss_is_named) {
    setup();
    static const pn_loss_weights kl = { .kl = 1, .temperature = 1e-40 }, feature = { .feature = 1, .temperature = 1 };
    static const pn_loss_weights ce = { .ce = 1, .temperature = 1 }, huge = { .ce = 1e300, .temperature = 1 };
    pn_model *m = tiny_supernet();
    pn_batch batch = { 0 };
    float nan = NAN, one = 1;
    ck_ok(pn_batch_load(mixture, 0, 2, &batch));
    ck_located_in(m, &kl, &batch, linear, NULL, "the kl loss");
    ck_located_in(m, &feature, &batch, linear, NULL, "");
    ck_located_in(m, &ce, &batch, linear, &one, "");
    ck_located_in(m, &ce, &batch, linear, &nan, "the term that the gates add to the loss");
    ck_located_in(m, &huge, &batch, linear, NULL, "the sum of the losses");
    spoil(m, "model.layers.1.candidates.gated_deltanet.o_proj.weight", 1e25f); /* whose square is infinite */
    ck_located_in(m, &feature, &batch, linear, NULL, "the feature loss");
    /* A teacher that no loss asks is not looked at. */
    spoil(m, "model.layers.1.self_attn.o_proj.weight", NAN);
    ck_located_in(m, &ce, &batch, linear, NULL, "");
    pn_batch_free(&batch);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(training_stops_and_keeps_what_it_had) {
    setup();
    pn_model *m = tiny_supernet(), *same = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_SAMPLED, 256 * 4);
    pn_supernet_result r = { 0 };
    for (int i = 0; i < 2; i++) spoil(i ? same : m, "model.layers.2.mlp.up_proj.weight", INFINITY);
    ck_assert_int_eq(train(m, &c, NULL, 0, &r), PN_NUMERIC);
    ck_assert(same_weights(m, same));
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&same);
    teardown();
}
END_TEST

START_TEST(a_run_keeps_what_it_had_before_the_bad_step) {
    setup();
    ck_stops_before_a_bad_step(PN_CPU, PN_F32);
    teardown();
}
END_TEST

START_TEST(local_training_names_the_candidate) {
    setup();
    pn_model *m = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 4);
    pn_supernet_result r = { 0 };
    spoil(m, "model.layers.1.candidates.gated_deltanet.o_proj.weight", INFINITY);
    ck_assert_int_eq(train(m, &c, NULL, 0, &r), PN_NUMERIC);
    ck_assert_msg(strstr(pn_error_message(), "layer 1, step 1: the error of gated_deltanet is"), "%s",
                  pn_error_message());
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

TEST_MAIN("not finite", the_first_place_is_named, the_head_is_named, the_loss_is_named,
          training_stops_and_keeps_what_it_had, a_run_keeps_what_it_had_before_the_bad_step,
          local_training_names_the_candidate)
