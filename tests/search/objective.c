/* Objectives: what a text means, what it is worth on given metrics, and what is refused. */
#include "harness.h"

#include <math.h>
#include <string.h>

#include "objective.h"

static pn_config *config;
static pn_task_spec *tasks;
static int n_tasks;

static void setup(void) {
    ck_ok(pn_config_parse("test.yaml",
                          "tasks: [ { name: recall, kind: recall, skill: recall },\n"
                          "         { name: facts.hard, kind: multiple_choice, skill: facts },\n"
                          "         { name: text, kind: perplexity, skill: text } ]\n",
                          &config));
    ck_ok(pn_task_specs_read(config, "tasks", &tasks, &n_tasks));
}

static void teardown(void) {
    pn_task_specs_free(&tasks, n_tasks);
    pn_config_destroy(&config);
}

static pn_objective parse(const char *text, bool normalised) {
    pn_objective o;
    ck_ok(pn_objective_parse(text, "here", tasks, n_tasks, normalised, &o));
    ck_assert_str_eq(o.text, text);
    return o;
}

/* recall: accuracy, nll; facts.hard: accuracy, nll; text: nll, perplexity. */
static void metrics(pn_metrics *m, double a, double b, double c, double d, double e) {
    memset(m, 0, 3 * sizeof *m);
    pn_metrics_add(&m[0], "accuracy", a);
    pn_metrics_add(&m[0], "nll", b);
    pn_metrics_add(&m[1], "accuracy", c);
    pn_metrics_add(&m[1], "nll", d);
    pn_metrics_add(&m[2], "nll", e);
    pn_metrics_add(&m[2], "perplexity", exp(e));
}

START_TEST(one_metric_reads_as_it_is) {
    setup();
    pn_metrics m[3];
    metrics(m, 0.7, 1.0 / 3, 0.25, 2.5, 1.1);
    pn_objective nll = parse("recall.nll", false), accuracy = parse(" facts.hard.accuracy ", false);
    ck_assert(pn_objective_value(&nll, m) == 1.0 / 3 && !nll.ascending);
    ck_assert(pn_objective_loss(&nll, 2) == 2);
    ck_assert(pn_objective_value(&accuracy, m) == 0.25 && accuracy.ascending);
    ck_assert(pn_objective_loss(&accuracy, 2) == -2);
    ck_assert(pn_objective_uses(&accuracy, 1) && !pn_objective_uses(&accuracy, 0));
    teardown();
}
END_TEST

START_TEST(sums_weigh_and_take_sides) {
    setup();
    pn_metrics m[3];
    metrics(m, 0.7, 0.5, 0.25, 2.5, 1.25);
    static const struct {
        const char *text;
        double value;
        bool ascending;
    } cases[] = {
        { "recall.nll + 0.5 facts.hard.nll", 0.5 + 1.25, false },
        { "recall.nll+0.5*facts.hard.nll", 0.5 + 1.25, false },
        { "2 recall.nll + text.nll + .25 * facts.hard.nll", 1 + 1.25 + 0.625, false },
        { "recall.accuracy + 2 facts.hard.accuracy", 0.7 + 0.5, true },
        { "facts.hard.accuracy + text.nll", 1.25 - 0.25, false }, /* the accuracy counts against the loss */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pn_objective o = parse(cases[i].text, false);
        ck_assert_double_eq_tol(pn_objective_value(&o, m), cases[i].value, 1e-15);
        ck_assert(o.ascending == cases[i].ascending);
    }
    teardown();
}
END_TEST

START_TEST(normalised_is_0_all_linear_and_1_teacher) {
    setup();
    pn_metrics linear[3], teacher[3], m[3];
    metrics(linear, 0.1, 4, 0.25, 3, 2);
    metrics(teacher, 0.9, 0, 0.75, 1, 2);
    metrics(m, 0.5, 1, 0.25, 1, 2);
    pn_objective o = parse("recall.nll + 3 facts.hard.accuracy", true);
    ck_ok(pn_objective_scale(&o, tasks, linear, teacher));
    ck_assert(o.ascending);
    ck_assert_double_eq_tol(pn_objective_value(&o, linear), 0, 1e-15);
    ck_assert_double_eq_tol(pn_objective_value(&o, teacher), 1, 1e-15);
    ck_assert_double_eq_tol(pn_objective_value(&o, m), (0.75 + 3 * 0) / 4, 1e-15);
    o = parse("recall.nll + text.nll", true);
    ck_assert_int_eq(pn_objective_scale(&o, tasks, linear, teacher), PN_NUMERIC);
    ck_assert_str_eq(pn_error_message(), "search.normalise: text.nll of the teacher and of the all-linear path are the "
                                         "same, so there is no scale from one to the other; leave the term out, or set "
                                         "normalise: false");
    teardown();
}
END_TEST

START_TEST(what_is_no_objective_is_refused) {
    static const struct {
        const char *text, *message;
    } cases[] = {
        { NULL, "here: name what decides, for example recall.nll" },
        { "", "here: task.metric is missing; write the objective like recall.nll + 0.5 facts.nll" },
        { "recall", "here: \"recall\" is no task.metric; write the objective like recall.nll, or recall.nll + 0.5 "
                    "facts.nll" },
        { "recall.", "here: \"recall.\" is no task.metric; write the objective like recall.nll, or recall.nll + 0.5 "
                     "facts.nll" },
        { "facts.nll", "here: no task is named facts" },
        { "recall.kl", "here: task recall measures accuracy and nll, not kl" },
        { "recall.nll + text.accuracy", "here: task text measures nll and perplexity, not accuracy" },
        { "recall.nll + ", "here: task.metric is missing; write the objective like recall.nll + 0.5 facts.nll" },
        { "2 * + text.nll", "here: task.metric is missing; write the objective like recall.nll + 0.5 facts.nll" },
        { "recall.nll - text.nll", "here: \"- text.nll\" follows a term; terms are joined by +" },
        { "recall.nll text.nll", "here: \"text.nll\" follows a term; terms are joined by +" },
        { "-1 recall.nll",
          "here: weight -1 must be a positive number; whether more is better is known from the metric" },
        { "0 recall.nll", "here: weight 0 must be a positive number; whether more is better is known from the metric" },
        { "nan recall.nll",
          "here: weight nan must be a positive number; whether more is better is known from the metric" },
        { "1e999 recall.nll",
          "here: weight 1e999 must be a positive number; whether more is better is known from the metric" },
        { "text.nll+text.nll+text.nll+text.nll+text.nll+text.nll+text.nll+text.nll+text.nll",
          "here: more than 8 terms" },
    };
    setup();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pn_objective o;
        ck_assert_int_eq(pn_objective_parse(cases[i].text, "here", tasks, n_tasks, false, &o), PN_USAGE);
        ck_assert_str_eq(pn_error_message(), cases[i].message);
    }
    char text[512] = "text.nll";
    memset(text + 8, ' ', 400);
    pn_objective o;
    ck_assert_int_eq(pn_objective_parse(text, "here", tasks, n_tasks, false, &o), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), "here: longer than 255 characters");
    teardown();
}
END_TEST

TEST_MAIN("search/objective", one_metric_reads_as_it_is, sums_weigh_and_take_sides,
          normalised_is_0_all_linear_and_1_teacher, what_is_no_objective_is_refused)
