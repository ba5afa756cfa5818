/* What training takes, planned: against the numbers of the optimizer and of a tape that runs. */
#include "memory.h"

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

START_TEST(too_little_is_said_in_numbers) {
    const pn_memory_need need = { .weights = 1e9, .optimizer = 2e9, .step = 3.5e9, .data = 0.5e9 };
    ck_assert_double_eq(pn_memory_sum(&need), 7e9);
    ck_ok(pn_memory_check(&need, 7e9, "stage 1/1 long"));
    ck_assert_int_eq(pn_memory_check(&need, 6.99e9, "stage 1/1 long"), PN_USAGE);
    static const char *const parts[] = { "stage 1/1 long: training needs 7.00 GB",
                                         "optimizer 2.00",
                                         "a step 3.50",
                                         "6.99 are free",
                                         "batch_tokens",
                                         "recompute" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ck_assert_msg(strstr(pn_error_message(), parts[i]), "%s: %s", parts[i], pn_error_message());
}
END_TEST

TEST_MAIN("memory", a_plan_is_what_a_step_takes, phases_of_a_supernet_are_planned, too_little_is_said_in_numbers)
