/* What crosses layers (RWKV-7's v_first) in a super-network: modes that cannot hand it on refuse it, the evaluator,
 * recompute, extraction and files keep it. */
#include "supernet_fixture.h"

#include <math.h>
#include <unistd.h>

#include "distill.h"
#include "evaluator.h"
#include "files.h"
#include "model_load.h"
#include "rng.h"

static pn_block_spec rwkv7(const char *use_v_first) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(&pn_block_rwkv7, &spec));
    ck_ok(pn_option_parse(pn_option_find(spec.type->options, "use_v_first"), "test", use_v_first, 0, spec.options));
    return spec;
}

/* Candidates with weights away from their first values, which make an RWKV-7 block's output 0. */
static pn_model *carrying_supernet(void) {
    pn_model *m = tiny_base();
    const pn_block_spec spec = rwkv7("true");
    ck_ok(pn_supernet_build(m, &spec, 1, true, 5));
    for (int i = 0; i < m->params->n; i++) {
        pn_param *p = m->params->item[i];
        pn_rng rng;
        if (!strstr(p->name, ".candidates.")) continue;
        pn_rng_stream(20, p->name, 1, &rng);
        for (int64_t k = 0; k < pn_tensor_elems(p->value); k++)
            pn_f32(p->value)[k] += (float)(0.2 * pn_rng_normal(&rng));
    }
    return m;
}

START_TEST(modes_without_a_path_refuse) {
    setup();
    pn_model *m = carrying_supernet();
    pn_supernet_result r = { 0 };
    for (int k = 0; k < 2; k++) {
        pn_supernet_config c = one_phase(k ? PN_SUPERNET_GATED : PN_SUPERNET_LOCAL, 256 * 2);
        char want[200];
        snprintf(want, sizeof want,
                 "supernet: layer 0: rwkv7 with use_v_first depends on other layers, which mode %s does not hand it; "
                 "use use_v_first: false, or mode: sampled",
                 k ? "gated" : "local");
        ck_assert_int_eq(train(m, &c, NULL, 0, &r), PN_USAGE);
        ck_assert_msg(strstr(pn_error_message(), want) != NULL, "%s", pn_error_message());
        pn_supernet_result_free(&r);
    }
    pn_model_destroy(&m);
    m = tiny_base(); /* without it both train */
    const pn_block_spec spec = rwkv7("false");
    ck_ok(pn_supernet_build(m, &spec, 1, false, 5));
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 12);
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_eq(r.n_errors, 3);
    for (int i = 0; i < 3; i++) ck_assert_double_lt(r.error[i].last, r.error[i].first);
    pn_supernet_result_free(&r);
    c = one_phase(PN_SUPERNET_GATED, 256 * 2);
    ck_ok(train(m, &c, NULL, 0, &r));
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(sampled_paths_train_it) {
    setup();
    pn_model *m = carrying_supernet(), *fresh = carrying_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_SAMPLED, 256 * 8);
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &c, NULL, 0, &r));
    const char *const names[] = { "model.layers.1.candidates.rwkv7.v_lora.lora.2.bias",
                                  "model.layers.2.candidates.rwkv7.v_lora.lora.2.bias" };
    for (int i = 0; i < 2; i++) {
        const pn_param *p = pn_params_find(m->params, names[i]), *q = pn_params_find(fresh->params, names[i]);
        ck_assert_ptr_nonnull(p);
        ck_assert_msg(memcmp(pn_f32(p->value), pn_f32(q->value), pn_tensor_bytes(p->value)) != 0, "%s", names[i]);
    }
    ck_assert_ptr_null(pn_params_find(m->params, "model.layers.0.candidates.rwkv7.v_lora.lora.2.bias"));
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&fresh);
    teardown();
}
END_TEST

/* A step along `path` on packed documents; gradients stay in the weights. */
static double step(pn_model *m, const char *path_text, int recompute) {
    pn_path path, teacher = pn_model_own_path(m);
    pn_batch batch = { 0 };
    pn_tape *t;
    pn_distill_losses losses;
    pn_loss_parts parts;
    const pn_loss_weights weights = { .ce = 0.5, .kl = 1, .feature = 1, .temperature = 1 };
    ck_ok(pn_path_parse(m, path_text, &path));
    ck_ok(pn_tape_create(PN_CPU, &t));
    ck_ok(pn_batch_load(mixture, 0, 4, &batch));
    ck_assert_int_gt(batch.n_docs, 2);
    const pn_distill pass = { .student = m,
                              .path = &path,
                              .teacher = m,
                              .teacher_path = &teacher,
                              .weights = &weights,
                              .recompute = { .level = recompute } };
    ck_ok(pn_distill_forward(t, &pass, &batch, &losses));
    ck_ok(pn_tape_backward(t, losses.total));
    ck_ok(pn_distill_read(&losses, &parts));
    pn_batch_free(&batch);
    pn_tape_destroy(&t);
    return parts.total;
}

START_TEST(recompute_gives_the_same_gradients) {
    setup();
    static const char *const paths[] = { "rwkv7,rwkv7,rwkv7", "rwkv7,attention,rwkv7", "none,rwkv7,rwkv7",
                                         "attention,attention,rwkv7" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        pn_model *m[2] = { carrying_supernet(), carrying_supernet() };
        ck_assert_double_eq(step(m[0], paths[i], PN_RECOMPUTE_NONE), step(m[1], paths[i], PN_RECOMPUTE_LAYERS));
        int moved = 0;
        for (int k = 0; k < m[0]->params->n; k++) {
            const pn_param *p = m[0]->params->item[k], *q = m[1]->params->item[k];
            ck_assert_msg(!p->value->grad == !q->value->grad, "%s: %s", paths[i], p->name);
            if (!p->value->grad) continue;
            ck_assert_msg(!memcmp(pn_f32(p->value->grad), pn_f32(q->value->grad), pn_tensor_bytes(p->value)), "%s: %s",
                          paths[i], p->name);
            moved++;
        }
        ck_assert_int_gt(moved, 20);
        for (int w = 0; w < 2; w++) pn_model_destroy(&m[w]);
    }
    teardown();
}
END_TEST

static pn_task *recall_task(void) {
    pn_task_spec spec = { .options = { .name = "asked",
                                       .kind = PN_TASK_RECALL,
                                       .skill = "recall",
                                       .documents = 8,
                                       .document_bytes = 96,
                                       .seed = 1 } };
    pn_task *task;
    ck_ok(pn_skill_create(&pn_skill_recall, NULL, "test", &spec.skill));
    ck_ok(pn_task_prepare(&spec, tokenizer, PN_SPLIT_SEARCH, 0, &task));
    pn_skill_destroy(&spec.skill);
    return task;
}

static pn_metrics measure(const pn_model *m, pn_task *task, const pn_path *path) {
    pn_evaluator *e;
    pn_metrics metrics;
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &e));
    ck_ok(pn_evaluator_run(e, path, 1, NULL, &metrics));
    pn_evaluator_destroy(&e);
    return metrics;
}

/* The hybrid's first RWKV-7 layer has no v_lora, whichever layer it is, and computes what the path did; so does what is
 * read back from its files. */
START_TEST(the_evaluator_extraction_and_files_keep_it) {
    setup();
    static const char *const texts[] = { "rwkv7,attention,rwkv7", "rwkv7,rwkv7,rwkv7", "attention,rwkv7,rwkv7",
                                         "none,rwkv7,attention", "attention,none,rwkv7" };
    enum { N = sizeof texts / sizeof *texts };
    char dir[] = "/tmp/pn_carry_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    pn_model *m = carrying_supernet();
    pn_task *task = recall_task();
    pn_path paths[N];
    pn_metrics together[N];
    pn_evaluator *e;
    for (int i = 0; i < N; i++) ck_ok(pn_path_parse(m, texts[i], &paths[i]));
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &e));
    ck_ok(pn_evaluator_run(e, paths, N, NULL, together));
    pn_evaluator_destroy(&e);
    for (int i = 0; i < N; i++) {
        pn_model *hybrid, *back;
        pn_metrics alone = measure(m, task, &paths[i]);
        ck_assert_msg(!memcmp(&alone, &together[i], sizeof alone), "%s", texts[i]);
        ck_ok(pn_supernet_extract(m, &paths[i], &hybrid));
        bool seen = false;
        for (int l = 0; l < 3; l++) {
            char name[PN_NAME_MAX];
            snprintf(name, sizeof name, "model.layers.%d.self_attn.v_lora.lora.0.weight", l);
            bool is = hybrid->config.layer[l].type == &pn_block_rwkv7;
            ck_assert_msg((pn_params_find(hybrid->params, name) != NULL) == (is && seen), "%s: %s", texts[i], name);
            seen = seen || is;
        }
        pn_path own = pn_model_own_path(hybrid);
        alone = measure(hybrid, task, &own);
        ck_assert_msg(!memcmp(&alone, &together[i], sizeof alone), "%s", texts[i]);
        hybrid->config.max_position = 128;
        ck_ok(pn_model_save(hybrid, dir, &(pn_save_options){ .dtype = PN_F32 }));
        ck_ok(pn_model_load(dir, PN_F32, &back));
        alone = measure(back, task, &own);
        ck_assert_msg(!memcmp(&alone, &together[i], sizeof alone), "%s", texts[i]);
        pn_model_destroy(&back);
        pn_model_destroy(&hybrid);
    }
    /* and v_first matters */
    pn_tensor *w = pn_params_find(m->params, "model.layers.2.candidates.rwkv7.v_lora.lora.2.bias")->value;
    for (int64_t k = 0; k < pn_tensor_elems(w); k++) pn_f32(w)[k] += 1;
    for (int i = 0; i < N; i++) {
        pn_metrics moved = measure(m, task, &paths[i]);
        ck_assert_msg((memcmp(&moved, &together[i], sizeof moved) != 0) == (i < 3), "%s", texts[i]);
    }
    ck_ok(pn_remove_tree(dir));
    pn_task_destroy(&task);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

TEST_MAIN("carry", modes_without_a_path_refuse, sampled_paths_train_it, recompute_gives_the_same_gradients,
          the_evaluator_extraction_and_files_keep_it)
