/* Strategies on objectives whose optimum is known: exhaustive visits every path once, beam finds an additive optimum,
 * and where layers depend on each other each strategy is held against exhaustive. */
#include "config.h"
#include "harness.h"
#include "search.h"

#include <math.h>
#include <string.h>

enum { ATTENTION = 0, LINEAR = 1, WINDOW = 2, NONE = 3 };

#define SPEND_ATTENTION(k)                                                                                             \
    { "full_attention", ATTENTION, (k), true }
#define SPEND_WINDOWS(k)                                                                                               \
    { "swa", WINDOW, (k), true }
#define SPEND_NONE(k)                                                                                                  \
    { "none", NONE, (k), false }

static pn_space space_of(int n_layers, int n_limits, const pn_limit *limits) {
    pn_space s = pn_space_all_free(n_layers, LINEAR);
    s.n_limits = n_limits;
    memcpy(s.limit, limits, (size_t)n_limits * sizeof *limits);
    return s;
}

static pn_space eight(void) {
    return space_of(8, 1, (const pn_limit[]){ SPEND_ATTENTION(2) });
}

/* All three kinds on six layers. */
static pn_space three_kinds(void) {
    return space_of(6, 3, (const pn_limit[]){ SPEND_ATTENTION(2), SPEND_WINDOWS(1), SPEND_NONE(1) });
}

static const double gain[8] = { 0.1, 0.9, 0.2, 0.3, 0.05, 0.8, 0.4, 0.15 };

/* Lower is better: attention at layers 1 and 5 is optimal, a window at 6; removing any mixer costs half its gain. */
static double additive(const pn_path *p) {
    double value = 0;
    for (int l = 0; l < p->n; l++) {
        if (p->choice[l] == ATTENTION) value -= gain[l];
        if (p->choice[l] == WINDOW) value -= gain[l] / 4;
        if (p->choice[l] == NONE) value += gain[l] / 2;
    }
    return value;
}

/* Layer 3 is the best alone, but 1 and 5 together are better than anything with 3: what is added first misleads. */
static double misleading(const pn_path *p) {
    bool one = p->choice[1] == ATTENTION, three = p->choice[3] == ATTENTION, five = p->choice[5] == ATTENTION;
    return -(1.0 * three + 0.6 * one + 0.5 * five + (one && five ? 2 : 0));
}

typedef double (*objective)(const pn_path *p);

typedef struct outcome {
    int asked, complete, rounds;
    pn_path best;
    double value;
} outcome;

/* Every proposal is of the space, and has one more block placed than its parent (or another arrangement of them). */
static outcome run_input(const pn_search_type *type, const pn_search_input *in, objective f) {
    enum { MOST = 4096 };
    static pn_path seen[MOST];
    pn_search *s;
    outcome r = { .value = INFINITY };
    ck_ok(pn_search_create(type, in, &s));
    for (;;) {
        pn_proposal p[16];
        int n;
        ck_ok(pn_search_ask(s, p, 16, &n));
        if (!n) break;
        for (int i = 0; i < n; i++) {
            int before = r.asked, changed = 0;
            ck_assert_int_lt(r.asked, MOST);
            ck_assert_int_lt(p[i].parent, before);
            for (int l = 0; l < p[i].path.n && p[i].parent >= 0; l++)
                changed += p[i].path.choice[l] != seen[p[i].parent].choice[l];
            ck_assert(p[i].parent < 0 || changed == 1 || (type == &pn_search_swap && changed == 2));
            ck_assert_int_ge(p[i].round, r.rounds - 1);
            r.rounds = p[i].round + 1;
            seen[r.asked++] = p[i].path;
            double value = f(&p[i].path);
            ck_ok(pn_search_tell(s, &p[i].path, value, NULL));
            if (!pn_space_complete(&in->space, &p[i].path)) continue;
            r.complete++;
            if (value < r.value) {
                r.value = value;
                r.best = p[i].path;
            }
        }
    }
    pn_search_destroy(&s);
    return r;
}

/* Options as YAML keys would give them; NULL: the defaults. */
static outcome run(const pn_search_type *type, pn_space space, objective f, const char *options,
                   const pn_gates *gates) {
    _Alignas(8) char values[256] = { 0 };
    pn_config *c;
    ck_ok(pn_config_parse("test", options ? options : "{}", &c));
    if (type->options) ck_ok(pn_config_read(c, "", type->options, values));
    ck_ok(pn_config_finish(c));
    const pn_search_input in = { .space = space, .options = values, .seed = 1, .gates = gates };
    outcome r = run_input(type, &in, f);
    pn_config_destroy(&c);
    return r;
}

static void is_refused(const pn_search_type *type, pn_space space, const char *options, const pn_gates *gates,
                       const char *message) {
    _Alignas(8) char values[256] = { 0 };
    pn_config *c;
    pn_search *s = NULL;
    ck_ok(pn_config_parse("test", options ? options : "{}", &c));
    if (type->options) ck_ok(pn_config_read(c, "", type->options, values));
    const pn_search_input in = { .space = space, .options = values, .gates = gates };
    ck_assert_int_eq(pn_search_create(type, &in, &s), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), message);
    ck_assert_ptr_null(s);
    pn_config_destroy(&c);
}

START_TEST(exhaustive_visits_every_placement_once) {
    outcome r = run(&pn_search_exhaustive, eight(), additive, NULL, NULL);
    ck_assert_int_eq(r.asked, 28);
    ck_assert_int_eq(r.complete, 28);
    ck_assert_int_eq(r.best.choice[1], ATTENTION);
    ck_assert_int_eq(r.best.choice[5], ATTENTION);
    /* C(6,2) placements, a window in one of four, alone or with one of three layers removed */
    outcome n = run(&pn_search_exhaustive, three_kinds(), additive, NULL, NULL);
    ck_assert_int_eq(n.asked, 15 * 4 * (1 + 3));
    ck_assert_int_eq(n.complete, n.asked);
    ck_assert_double_eq(pn_space_paths(&(pn_space){ 0 }), 1);
}
END_TEST

START_TEST(earlier_placements_stay) {
    pn_space whole = three_kinds();
    pn_path placed = pn_space_all_linear(&whole);
    placed.choice[0] = placed.choice[5] = ATTENTION;
    pn_space windows = pn_space_part(&whole, 1, 1, &placed), none = pn_space_part(&whole, 2, 1, &placed);
    ck_assert(pn_space_complete(&none, &placed)); /* at most one */
    ck_assert(!pn_space_complete(&windows, &placed));
    const pn_search_type *types[] = { &pn_search_exhaustive, &pn_search_beam, &pn_search_greedy, &pn_search_uniform,
                                      &pn_search_random };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        outcome r = run(types[i], windows, additive, types[i] == &pn_search_random ? "samples: 4" : NULL, NULL);
        ck_assert_int_ge(r.complete, 1);
        ck_assert_int_eq(r.best.choice[0], ATTENTION);
        ck_assert_int_eq(r.best.choice[5], ATTENTION);
        ck_assert_int_eq(pn_space_count(&r.best, WINDOW), 1);
        if (types[i] != &pn_search_uniform) ck_assert_int_eq(r.best.choice[1], WINDOW);
    }
    outcome e = run(&pn_search_exhaustive, none, additive, NULL, NULL);
    ck_assert_int_eq(e.asked, 1 + 4);
    ck_assert(pn_path_equal(&e.best, &placed)); /* removing a mixer only costs */
}
END_TEST

START_TEST(beam_finds_the_additive_optimum) {
    outcome all = run(&pn_search_exhaustive, eight(), additive, NULL, NULL);
    outcome beam = run(&pn_search_beam, eight(), additive, NULL, NULL);
    ck_assert_double_eq(beam.value, all.value);
    ck_assert(pn_path_equal(&beam.best, &all.best));
    ck_assert_int_lt(beam.asked, all.asked + 1 + 8);
    ck_assert_int_eq(beam.rounds, 3);
    outcome three = run(&pn_search_beam, three_kinds(), additive, NULL, NULL);
    outcome best = run(&pn_search_exhaustive, three_kinds(), additive, NULL, NULL);
    ck_assert_double_eq(three.value, best.value);
    ck_assert_int_eq(three.rounds, 1 + 2 + 1 + 1);
}
END_TEST

/* What greedy took first it keeps; a beam that is wide enough, or the refinement, comes to the optimum. */
START_TEST(layers_that_depend_on_each_other) {
    outcome all = run(&pn_search_exhaustive, eight(), misleading, NULL, NULL);
    outcome greedy = run(&pn_search_greedy, eight(), misleading, NULL, NULL);
    outcome narrow = run(&pn_search_beam, eight(), misleading, "width: 1", NULL);
    outcome wide = run(&pn_search_beam, eight(), misleading, "width: 2", NULL);
    ck_assert_double_eq(all.value, -(0.6 + 0.5 + 2));
    ck_assert_double_eq(greedy.value, -1.6);
    ck_assert(pn_path_equal(&greedy.best, &narrow.best));
    ck_assert_int_eq(greedy.asked, narrow.asked);
    ck_assert_double_eq(wide.value, all.value);

    pn_swap_options swap = { .rounds = 3, .from = greedy.best, .loss = greedy.value };
    pn_search_input in = { .space = eight(), .options = &swap };
    outcome refined = run_input(&pn_search_swap, &in, misleading);
    ck_assert(pn_path_equal(&refined.best, &all.best));
    ck_assert_int_eq(refined.asked, 2 * 12); /* 2 x 6 neighbours, and once more to see that none is better */
    ck_assert_int_eq(refined.complete, refined.asked);
    swap.rounds = 1;
    ck_assert_int_eq(run_input(&pn_search_swap, &in, misleading).asked, 12);
}
END_TEST

START_TEST(expand_tries_the_important_layers) {
    outcome r = run(&pn_search_beam, eight(), additive, "expand: 2", NULL);
    ck_assert_int_eq(r.asked, 1 + 8 + 1);
    ck_assert_int_eq(r.complete, 1);
    ck_assert_double_eq(r.value, -(gain[1] + gain[5]));
    /* each kind has important layers of its own */
    outcome three = run(&pn_search_greedy, three_kinds(), additive, "expand: 2", NULL);
    ck_assert_int_eq(three.asked, 1 + 6 + 1 + 4 + 3);
    ck_assert_int_eq(pn_space_count(&three.best, WINDOW), 1);
}
END_TEST

/* Layers 0 and 1 are the best for either kind. */
static double contested(const pn_path *p) {
    double value = 0;
    for (int l = 0; l < p->n; l++) {
        if (p->choice[l] == ATTENTION) value -= l == 0 ? 1 : l == 1 ? 0.99 : 0;
        if (p->choice[l] == WINDOW) value -= l < 2 ? 1 : 0.01 * l;
    }
    return value;
}

/* Each placement that is kept has attention where the other's important layer for a window is: with both closed to it,
 * neither could be completed. */
START_TEST(expand_never_leaves_a_placement_unfinished) {
    pn_space space = space_of(6, 2, (const pn_limit[]){ SPEND_ATTENTION(1), SPEND_WINDOWS(2) });
    outcome r = run(&pn_search_beam, space, contested, "{ width: 2, expand: 2 }", NULL);
    outcome all = run(&pn_search_exhaustive, space, contested, NULL, NULL);
    ck_assert_int_gt(r.complete, 0);
    ck_assert_double_eq(r.value, all.value);
}
END_TEST

/* Gates that prefer attention in layers 1 and 6 and no mixer in 4. */
static void set_gates(pn_gates *g) {
    *g = (pn_gates){ .present = true, .n_layers = 8, .n_candidates = 4 };
    for (int l = 0; l < 8; l++) {
        g->p[l][ATTENTION] = l == 1 ? 0.5 : l == 6 ? 0.4 : l == 5 ? 0.3 : 0.1;
        g->p[l][NONE] = l == 4 ? 0.5 : 0.1;
        g->p[l][WINDOW] = l == 1 ? 0.2 : l == 2 ? 0.15 : 0.05;
        g->p[l][LINEAR] = 1 - g->p[l][ATTENTION] - g->p[l][NONE] - g->p[l][WINDOW];
    }
}

START_TEST(gates_choose_and_order) {
    static pn_gates g;
    set_gates(&g);
    pn_space space = space_of(8, 3, (const pn_limit[]){ SPEND_ATTENTION(2), SPEND_WINDOWS(1), SPEND_NONE(2) });
    outcome r = run(&pn_search_gates, space, additive, NULL, &g);
    ck_assert_int_eq(r.asked, 1);
    static const uint8_t want[8] = { LINEAR, ATTENTION, WINDOW, LINEAR, NONE, LINEAR, ATTENTION, LINEAR };
    for (int l = 0; l < 8; l++) ck_assert_int_eq(r.best.choice[l], want[l]);

    /* the three layers of the largest gates: 1, 6 and 5, of which 1 and 5 are the best */
    outcome beam = run(&pn_search_beam, eight(), additive, "{ width: 1, expand: 3, order: gates }", &g);
    ck_assert_int_eq(beam.asked, 1 + 3 + 2);
    ck_assert_double_eq(beam.value, -(gain[1] + gain[5]));

    pn_gates none = { .present = false };
    is_refused(&pn_search_gates, eight(), NULL, &none,
               "strategy gates needs the gates of a super-network; train one with supernet.mode: gated, or "
               "search without gates");
    is_refused(&pn_search_beam, eight(), "{ expand: 3, order: gates }", NULL,
               "search.beam.order gates needs the gates of a super-network; train one with supernet.mode: gated, or "
               "search without gates");
    is_refused(&pn_search_greedy, eight(), "order: gates", &g,
               "search.greedy.order gates changes nothing while every layer is tried; set expand to how many are");
}
END_TEST

START_TEST(uniform_spreads_evenly) {
    outcome r = run(&pn_search_uniform, eight(), additive, NULL, NULL);
    ck_assert_int_eq(r.asked, 1);
    for (int l = 0; l < 8; l++) ck_assert_int_eq(r.best.choice[l], l == 2 || l == 6 ? ATTENTION : LINEAR);
    /* windows at even distances among the layers left: 0 1 3 4 5 7; what need not be spent is not */
    pn_space space = space_of(8, 3, (const pn_limit[]){ SPEND_ATTENTION(2), SPEND_WINDOWS(2), SPEND_NONE(1) });
    outcome w = run(&pn_search_uniform, space, additive, NULL, NULL);
    static const uint8_t want[8] = { LINEAR, WINDOW, ATTENTION, LINEAR, LINEAR, WINDOW, ATTENTION, LINEAR };
    for (int l = 0; l < 8; l++) ck_assert_int_eq(w.best.choice[l], want[l]);
    ck_assert_int_eq(w.complete, 1);
}
END_TEST

/* All 240 paths are drawn once; of many draws of one path each is as frequent as the others. */
START_TEST(random_draws_evenly) {
    outcome r = run(&pn_search_random, three_kinds(), additive, "samples: 240", NULL);
    outcome all = run(&pn_search_exhaustive, three_kinds(), additive, NULL, NULL);
    ck_assert_int_eq(r.complete, all.complete);
    ck_assert_double_eq(r.value, all.value);
    ck_assert(pn_path_equal(&r.best, &all.best));

    int removed = 0;
    enum { DRAWS = 2000 };
    struct {
        int64_t samples;
    } one = { 1 };
    for (uint64_t seed = 0; seed < DRAWS; seed++) {
        const pn_search_input in = { .space = three_kinds(), .options = &one, .seed = seed };
        outcome a = run_input(&pn_search_random, &in, additive), b = run_input(&pn_search_random, &in, additive);
        ck_assert(pn_path_equal(&a.best, &b.best));
        removed += pn_space_count(&a.best, NONE);
    }
    /* three of four paths have a layer removed: 1500 of 2000, standard deviation 19 */
    ck_assert_int_gt(removed, 1500 - 80);
    ck_assert_int_lt(removed, 1500 + 80);
}
END_TEST

/* ---- strategies that rank layers by what tasks measure ---- */

static const pn_task_spec tasks[] = {
    { .options = { .name = "text", .kind = PN_TASK_PERPLEXITY } },
    { .options = { .name = "recall", .kind = PN_TASK_RECALL } },
    { .options = { .name = "teacher", .kind = PN_TASK_KL } },
    { .options = { .name = "facts", .kind = PN_TASK_CHOICE } },
    { .options = { .name = "recall2", .kind = PN_TASK_RECALL } },
    { .options = { .name = "teacher2", .kind = PN_TASK_KL } },
};
enum { TASKS = sizeof tasks / sizeof *tasks };

/* What the tasks measure with one layer changed, by layer. The first kl task and the second disagree. */
static const double kl[8] = { 0.9, 0.5, 0.7, 0.2, 0.8, 0.5, 0.6, 1.0 }, kl2[8] = { 1, 2, 3, 4, 5, 6, 0.5, 0.25 };
/* Layer 2 costs recall alone, 5 recall and some common sense, 4 the most recall and much common sense. */
static const double recall[8] = { 1, 1, 0.8, 1, 0.2, 0.5, 1, 0.9 }, facts[8] = { 0.9, 0.5, 1, 1, 0.1, 0.9, 0.7, 0.6 };
/* By this one layer 7 costs recall, and little common sense. */
static const double recall2[8] = { 1, 1, 1, 1, 1, 1, 1, 0.1 };

static void measure(const pn_path *p, int usual, pn_metrics m[TASKS]) {
    int layer = 0;
    while (layer < 7 && p->choice[layer] == usual) layer++;
    memset(m, 0, TASKS * sizeof *m);
    pn_metrics_add(&m[0], "nll", 1);
    pn_metrics_add(&m[1], "accuracy", recall[layer]);
    pn_metrics_add(&m[2], "top1", 1 - kl2[layer]);
    pn_metrics_add(&m[2], "kl", kl[layer]);
    pn_metrics_add(&m[3], "accuracy", facts[layer]);
    pn_metrics_add(&m[4], "accuracy", recall2[layer]);
    pn_metrics_add(&m[5], "kl", kl2[layer]);
}

/* The last path asked for has attention in the layers of `want` alone; before it, each layer was changed once in a path
 * that is otherwise `usual`. Losses are told that would lead elsewhere. */
static void ranks(const pn_search_type *type, const char *options, int room, int usual, int other, int k,
                  const int *want) {
    _Alignas(8) char values[256] = { 0 };
    pn_config *c;
    pn_search *s;
    ck_ok(pn_config_parse("test", options, &c));
    ck_ok(pn_config_read(c, "", type->options, values));
    pn_space space = space_of(8, 1, (const pn_limit[]){ SPEND_ATTENTION(k) });
    const pn_search_input in = { .space = space, .options = values, .tasks = tasks, .n_tasks = TASKS };
    ck_ok(pn_search_create(type, &in, &s));
    ck_assert(type->decides);
    pn_path last = { 0 };
    for (int asked = 0;;) {
        pn_proposal p[16];
        int n;
        ck_ok(pn_search_ask(s, p, room, &n));
        ck_assert_int_le(n, room);
        if (!n) {
            ck_assert_int_eq(asked, 8 + 1);
            break;
        }
        for (int i = 0; i < n; i++, asked++) {
            pn_metrics m[TASKS];
            last = p[i].path;
            ck_assert_int_eq(p[i].round, asked == 8);
            for (int l = 0; l < 8 && asked < 8; l++) ck_assert_int_eq(last.choice[l], l == asked ? other : usual);
            measure(&last, usual, m);
            ck_ok(pn_search_tell(s, &last, asked, m));
        }
    }
    ck_assert(pn_space_complete(&space, &last));
    for (int i = 0; i < k; i++) ck_assert_msg(last.choice[want[i]] == ATTENTION, "layer %d is not chosen", want[i]);
    pn_search_destroy(&s);
    pn_config_destroy(&c);
}

/* Lowest kl first, the lower of equal layers first. */
START_TEST(kl_guided_keeps_the_layers_nearest_to_the_teacher) {
    ranks(&pn_search_kl_guided, "{}", 16, LINEAR, ATTENTION, 0, NULL);
    ranks(&pn_search_kl_guided, "{}", 16, LINEAR, ATTENTION, 1, (const int[]){ 3 });
    ranks(&pn_search_kl_guided, "{}", 3, LINEAR, ATTENTION, 2, (const int[]){ 3, 1 });
    ranks(&pn_search_kl_guided, "task: teacher", 16, LINEAR, ATTENTION, 4, (const int[]){ 3, 1, 5, 6 });
    ranks(&pn_search_kl_guided, "task: teacher2", 1, LINEAR, ATTENTION, 3, (const int[]){ 7, 6, 0 });
}
END_TEST

/* 2: 0.2 / 0. 5: 0.5 / 0.1 = 5. 4: 0.8 / 0.9. 7: 0.1 / 0.4. Others lose no recall, 3 neither. */
START_TEST(recall_ratio_keeps_what_recall_needs_and_common_sense_does_not) {
    const pn_search_type *type = &pn_search_recall_ratio;
    ranks(type, "{}", 16, ATTENTION, LINEAR, 1, (const int[]){ 2 });
    ranks(type, "{}", 5, ATTENTION, LINEAR, 2, (const int[]){ 2, 5 });
    ranks(type, "{ recall: recall, commonsense: facts }", 1, ATTENTION, LINEAR, 4, (const int[]){ 2, 5, 4, 7 });
    ranks(type, "{}", 16, ATTENTION, LINEAR, 5, (const int[]){ 2, 5, 4, 7, 0 });
    ranks(type, "recall: recall2", 16, ATTENTION, LINEAR, 1, (const int[]){ 7 });
}
END_TEST

static void lacks_task(const pn_search_type *type, const char *options, const pn_task_spec *own, int n,
                       const char *message) {
    _Alignas(8) char values[256] = { 0 };
    pn_config *c;
    pn_search *s = NULL;
    ck_ok(pn_config_parse("test", options, &c));
    ck_ok(pn_config_read(c, "", type->options, values));
    const pn_search_input in = { .space = eight(), .options = values, .tasks = own, .n_tasks = n };
    ck_assert_int_eq(pn_search_create(type, &in, &s), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), message);
    pn_config_destroy(&c);
}

START_TEST(rankers_say_which_task_they_lack) {
    lacks_task(&pn_search_kl_guided, "{}", tasks, 2,
               "strategy kl_guided needs a task of kind kl; add one to search.tasks");
    lacks_task(&pn_search_recall_ratio, "{}", tasks, 1,
               "strategy recall_ratio needs a task of kind recall; add one to search.tasks");
    lacks_task(&pn_search_recall_ratio, "{}", tasks, 3,
               "strategy recall_ratio needs a task of kind multiple_choice; add one to search.tasks");
    lacks_task(&pn_search_kl_guided, "task: facts", tasks, TASKS,
               "search.kl_guided.task: task facts is of kind multiple_choice; name one of kind kl");
    lacks_task(&pn_search_recall_ratio, "commonsense: sense", tasks, TASKS,
               "search.recall_ratio.commonsense: no task is named sense");
    is_refused(&pn_search_kl_guided, three_kinds(), NULL, NULL,
               "strategy kl_guided places full attention only; set search.limits.swa to 0, or use beam");
    is_refused(&pn_search_recall_ratio, space_of(8, 2, (const pn_limit[]){ SPEND_ATTENTION(2), SPEND_NONE(1) }), NULL,
               NULL, "strategy recall_ratio places full attention only; set search.limits.none to 0, or use beam");
}
END_TEST

START_TEST(what_cannot_be_met_is_refused) {
    pn_space nine = space_of(8, 1, (const pn_limit[]){ SPEND_ATTENTION(9) });
    pn_space much = space_of(8, 3, (const pn_limit[]){ SPEND_ATTENTION(4), SPEND_WINDOWS(4), SPEND_NONE(1) });
    is_refused(&pn_search_uniform, nine, NULL, NULL, "search.limits: 9 full_attention do not fit 8 layers; lower it");
    is_refused(&pn_search_uniform, much, NULL, NULL,
               "search.limits: 4 full_attention and 4 swa and 1 none do not fit 8 layers; lower one of them");
    is_refused(&pn_search_exhaustive, eight(), "max_paths: 10", NULL,
               "exhaustive search has 28 paths, more than max_paths 10; use beam (and compare.exhaustive: false), or "
               "raise search.exhaustive.max_paths");
    is_refused(&pn_search_random, eight(), "samples: 29", NULL,
               "search.random.samples 29 is more than the 28 placements there are; lower it, or use exhaustive");
    is_refused(&pn_search_beam, eight(), "expand: 1", NULL,
               "search.beam.expand 1 leaves too few layers for limits.full_attention 2; raise it, or use 0 for all");
    is_refused(&pn_search_greedy, three_kinds(), "expand: 1", NULL,
               "search.greedy.expand 1 leaves too few layers for limits.full_attention 2; raise it, or use 0 for all");
}
END_TEST

TEST_MAIN("strategies", exhaustive_visits_every_placement_once, earlier_placements_stay,
          beam_finds_the_additive_optimum, layers_that_depend_on_each_other, expand_tries_the_important_layers,
          expand_never_leaves_a_placement_unfinished, gates_choose_and_order, uniform_spreads_evenly,
          random_draws_evenly, kl_guided_keeps_the_layers_nearest_to_the_teacher,
          recall_ratio_keeps_what_recall_needs_and_common_sense_does_not, rankers_say_which_task_they_lack,
          what_cannot_be_met_is_refused)
