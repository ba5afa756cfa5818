/* What training takes, planned: against the numbers of the optimizer and of a tape that runs. */
#include "memory_advice.h"

#include <math.h>
#include <string.h>

#include "plan.h"
#include "supernet/supernet_fixture.h"

static pn_train_job job_of(const pn_train_options *o, pn_model *m, const pn_path *path, const pn_path *teacher) {
    return (pn_train_job){ .name = "planned",
                           .options = o,
                           .mixture = mixture,
                           .student = m,
                           .path = path,
                           .teacher = m,
                           .teacher_path = teacher };
}

static int64_t trained_values(const pn_model *m) {
    return pn_params_count(m->params, true);
}

/* What a tape takes in the first step. */
static double measured_step(const pn_train_job *job) {
    const pn_params *p = job->student->params;
    pn_batch batch = { 0 };
    pn_distill_losses losses;
    pn_tape *t;
    const pn_loss_weights weights = pn_loss_most(&job->options->loss);
    const pn_distill pass = { .student = job->student,
                              .path = job->path,
                              .teacher = job->teacher,
                              .teacher_path = job->teacher_path,
                              .weights = &weights,
                              .recompute = { .level = job->options->recompute } };
    ck_ok(pn_batch_load(mixture, 0, 2, &batch));
    ck_ok(pn_tape_create(PN_CPU, &t));
    ck_ok(pn_distill_forward(t, &pass, &batch, &losses));
    ck_ok(pn_tape_backward(t, losses.total));
    double took = (double)pn_pool_system_bytes(pn_tape_pool(t));
    pn_tape_destroy(&t);
    for (int i = 0; i < p->n; i++) pn_tensor_release(&p->item[i]->value->grad);
    pn_batch_free(&batch);
    return took;
}

START_TEST(a_plan_is_what_a_step_takes) {
    setup();
    enum { LEVELS = PN_RECOMPUTE_LAYERS + 1 };
    double step[LEVELS];
    for (int recompute = 0; recompute < LEVELS; recompute++) {
        pn_model *m = tiny_supernet();
        pn_path path, teacher = pn_model_own_path(m);
        pn_train_options o = options(256); /* one step */
        pn_memory_need need;
        o.recompute = recompute;
        ck_ok(pn_path_parse(m, "gated_deltanet,gated_deltanet,attention", &path));
        const pn_train_job job = job_of(&o, m, &path, &teacher);
        ck_ok(pn_train_plan(&job, INFINITY, NULL, &need));
        ck_assert_double_eq(need.optimizer, 8.0 * (double)trained_values(m));
        ck_assert_double_eq(need.optimizer, pn_optimizer_need(m->params));
        ck_assert_double_eq(need.step, measured_step(&job));
        for (int i = 0; i < m->params->n; i++) ck_assert_ptr_null(m->params->item[i]->value->grad);
        step[recompute] = need.step;
        pn_model_destroy(&m);
    }
    for (int i = 1; i < LEVELS; i++) ck_assert_double_lt(step[i], step[i - 1]);
    teardown();
}
END_TEST

START_TEST(phases_of_a_supernet_are_planned) {
    setup();
    static const pn_supernet_mode modes[] = { PN_SUPERNET_LOCAL, PN_SUPERNET_SAMPLED, PN_SUPERNET_GATED };
    double optimizer[3], step[3];
    pn_model *m = tiny_supernet();
    for (int i = 0; i < 3; i++) {
        pn_supernet_config c = one_phase(modes[i], 1024);
        const pn_supernet_job job = { .config = &c, .mixture = mixture, .seed = 1 };
        pn_memory_need need;
        ck_ok(pn_supernet_plan(m, &c.phase[0], &job, INFINITY, &need));
        optimizer[i] = need.optimizer;
        step[i] = need.step;
        ck_assert_double_eq(need.weights + need.data, 0);
        if (i) ck_assert_double_eq(pn_supernet_store_bytes(m, &c.phase[0]), 0);
    }
    ck_assert_double_eq(optimizer[1], 8.0 * (double)trained_values(m));
    ck_assert_double_eq(optimizer[0], optimizer[1] / 3); /* a layer at a time, of three alike */
    ck_assert_double_gt(step[0], 0);
    ck_assert_double_lt(step[0], step[1]); /* nothing through depth */
    ck_assert_double_lt(step[1], step[2]); /* all candidates at once */
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 1024);
    ck_assert_double_eq(pn_supernet_store_bytes(m, &c.phase[0]), 1024 * 32 * 4);
    c.phase[0].store = 1; /* BF16 */
    ck_assert_double_eq(pn_supernet_store_bytes(m, &c.phase[0]), 1024 * 32 * 2);
    c.phase[0].order = PN_ORDER_STEP;
    ck_assert_double_eq(pn_supernet_store_bytes(m, &c.phase[0]), 0);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* ---- what is said of too little ---- */

/* What a stage of finetune is told. */
typedef struct stage_case {
    pn_memory_need need;
    double short_of;
    int64_t micro_batch_tokens;
    int recompute;
    int ranks;
    const char *advice;
} stage_case;

static const stage_case stages[] = {
    /* Activations: a pass of 8 rows of 128 tokens, of which half must go. */
    { { .optimizer = 1e9, .step = 8e9 },
      4e9,
      0,
      PN_RECOMPUTE_AUTO,
      1,
      "set micro_batch_tokens: 512 or less, or set precision: bf16" },
    { { .optimizer = 1e9, .step = 8e9 }, 5e9, 512, PN_RECOMPUTE_AUTO, 1, "set micro_batch_tokens: 128 or less" },
    { { .optimizer = 1e9, .step = 8e9 },
      2e9,
      512,
      PN_RECOMPUTE_CHEAP,
      1,
      "set recompute: layers, set micro_batch_tokens: 256 or less, or set precision: bf16" },
    { { .optimizer = 1e9, .step = 8e9 },
      2e9,
      1024,
      PN_RECOMPUTE_LAYERS,
      1,
      "set micro_batch_tokens: 512 or less, or set precision: bf16" },
    /* A pass of one row. */
    { { .optimizer = 1e9, .step = 8e9 },
      5e9,
      128,
      PN_RECOMPUTE_AUTO,
      1,
      "lower sequence_length, and micro_batch_tokens with it" },
    /* The optimizer: what a pass holds is too little to help. */
    { { .optimizer = 8e9, .step = 2e9, .gradients = 1e9 },
      3e9,
      512,
      PN_RECOMPUTE_CHEAP,
      1,
      "train less of the model (trains, frozen), or train with more ranks, which share the optimizer" },
    { { .optimizer = 8e9, .step = 2e9, .gradients = 1e9 },
      3e9,
      512,
      PN_RECOMPUTE_CHEAP,
      8,
      "train less of the model (trains, frozen)" },
    /* Nothing alone: gradients stay whatever the pass. */
    { { .optimizer = 2e9, .step = 3e9, .gradients = 1e9 },
      3.5e9,
      512,
      PN_RECOMPUTE_AUTO,
      8,
      "train less of the model (trains, frozen), lower sequence_length, and micro_batch_tokens with it and set "
      "precision: bf16" },
    { { .weights = 9e9, .optimizer = 1e9, .step = 1e9 },
      9e9,
      128,
      PN_RECOMPUTE_LAYERS,
      8,
      "take a smaller model or a GPU with more memory; less is needed, but not enough less, if you lower "
      "sequence_length, and micro_batch_tokens with it, train less of the model (trains, frozen) and set precision: "
      "bf16" },
};

START_TEST(advice_names_what_suffices) {
    setup();
    pn_model *m = tiny_supernet();
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        const stage_case *x = &stages[i];
        const pn_world world = { .size = x->ranks };
        pn_train_options o = options(4096);
        pn_memory_settings settings = { 0 };
        char advice[PN_MEMORY_ADVICE];
        o.batch_tokens = 1024;
        o.checkpoint_keep = 1;
        o.micro_batch_tokens = x->micro_batch_tokens;
        o.recompute = x->recompute;
        const pn_train_job job = { .options = &o, .mixture = mixture, .student = m, .world = &world };
        pn_memory_job_settings(&job, &x->need, pn_memory_sum(&x->need) - x->short_of, &settings);
        pn_memory_advice(&settings, x->short_of, advice);
        ck_assert_msg(!strcmp(advice, x->advice), "case %zu: %s", i, advice);
    }
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(a_teacher_gives_way_to_its_logits_where_kl_alone_follows_it) {
    setup();
    pn_model *m = tiny_supernet(), *teacher = tiny_base();
    const double own = pn_own_bytes(teacher, m);
    ck_assert_double_gt(own, 0);
    ck_assert_double_eq(pn_own_bytes(m, m), 0);
    for (int feature = 0; feature < 2; feature++) {
        const pn_loss_weights w = { .kl = 1, .feature = feature, .temperature = 1 };
        const pn_memory_need need = { .weights = own };
        pn_train_options o = options(4096);
        pn_memory_settings settings = { 0 };
        char advice[PN_MEMORY_ADVICE];
        o.checkpoint_keep = 1;
        o.loss = pn_loss_constant(&w);
        const pn_train_job job = { .options = &o, .mixture = mixture, .student = m, .teacher = teacher };
        pn_memory_job_settings(&job, &need, own / 2, &settings);
        pn_memory_advice(&settings, own / 2, advice);
        ck_assert_str_eq(advice, feature ? "take a smaller model or a GPU with more memory"
                                         : "read what the teacher says (teacher_logits) instead of running it");
    }
    pn_model_destroy(&teacher);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* A search has no key micro_batch_tokens, no ranks, and one phase that recompute does nothing for. */
START_TEST(a_search_is_told_its_own_settings) {
    setup();
    static const pn_supernet_mode modes[] = { PN_SUPERNET_LOCAL, PN_SUPERNET_SAMPLED, PN_SUPERNET_GATED };
    static const char *const finetunes[] = { "micro_batch_tokens", "ranks", "trains", "teacher_logits" };
    pn_model *m = tiny_supernet();
    for (int i = 0; i < 3; i++) {
        pn_supernet_config c = one_phase(modes[i], 1024);
        const pn_supernet_job job = { .config = &c, .mixture = mixture, .seed = 1 };
        c.phase[0].order = PN_ORDER_STEP;
        c.phase[0].train.recompute = PN_RECOMPUTE_NONE;
        ck_ok(pn_supernet_check(m, &c.phase[0], &job, 0, 1e12));
        ck_assert_int_eq(pn_supernet_check(m, &c.phase[0], &job, 0, 1e3), PN_USAGE);
        const char *said = pn_error_message();
        for (int k = 0; k < 4; k++) ck_assert_msg(!strstr(said, finetunes[k]), "%s", said);
        ck_assert_msg(strstr(said, "batch_tokens"), "%s", said);
        ck_assert_msg(strstr(said, "train half as many candidates, or smaller ones"), "%s", said);
        ck_assert_msg((strstr(said, "set order: layer") != NULL) == (modes[i] == PN_SUPERNET_LOCAL), "%s", said);
        ck_assert_msg((strstr(said, "recompute") == NULL) == (modes[i] == PN_SUPERNET_LOCAL), "%s", said);
        ck_assert_int_eq(pn_supernet_check(m, &c.phase[0], &job, 1e12, 1e12), PN_USAGE);
        ck_assert_msg(strstr(pn_error_message(), "weights to make 1000.00"), "%s", pn_error_message());
    }
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(too_little_is_said_in_numbers) {
    const pn_memory_need need = { .weights = 1e9, .optimizer = 2e9, .step = 3.5e9, .gradients = 1e9, .data = 0.5e9 };
    pn_memory_settings settings = { .memory_gb = 8 };
    pn_memory_may(&settings, 0, "this saves nothing");
    pn_memory_may(&settings, 2e9, "lower something");
    ck_assert_double_eq(pn_memory_sum(&need), 7e9);
    ck_ok(pn_memory_check(&need, 7e9, &settings, "stage 1/1 long"));
    ck_assert_int_eq(pn_memory_check(&need, 6.99e9, &settings, "stage 1/1 long"), PN_USAGE);
    ck_assert_str_eq(
        pn_error_message(),
        "stage 1/1 long: training needs 7.00 GB of the GPU's memory (weights to make 1.00, optimizer 2.00, "
        "a step 3.50, of which gradients 1.00, stored activations 0.50), and 6.99 are free within "
        "memory_gb 8: lower something");
}
END_TEST

START_TEST(passes_divide_what_a_rank_has) {
    static const int64_t row = 128;
    static const struct {
        int64_t rows, most, pass;
    } x[] = {
        { 8, 8, 8 }, { 8, 7, 4 }, { 12, 5, 4 }, { 12, 6, 6 }, { 7, 6, 1 }, { 9, 3, 3 }, { 1, 9, 1 }, { 8, 0, 1 }
    };
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        ck_assert_int_eq(pn_train_pass_within(x[i].rows * row, row, x[i].most * row + 5), x[i].pass * row);
}
END_TEST

TEST_MAIN("memory", a_plan_is_what_a_step_takes, phases_of_a_supernet_are_planned, advice_names_what_suffices,
          a_teacher_gives_way_to_its_logits_where_kl_alone_follows_it, a_search_is_told_its_own_settings,
          too_little_is_said_in_numbers, passes_divide_what_a_rank_has)
