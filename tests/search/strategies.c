/* Strategies on objectives whose optimum is known: exhaustive visits every path once, beam finds an additive optimum.
 */
#include "harness.h"
#include "search.h"

#include <math.h>

static const pn_space eight = { .n_layers = 8, .linear = 1, .attention = 0, .none = -1, .full_attention = 2 };
static const pn_space with_none = {
    .n_layers = 6, .linear = 1, .attention = 0, .none = 2, .full_attention = 2, .max_none = 1
};

static const double gain[8] = { 0.1, 0.9, 0.2, 0.3, 0.05, 0.8, 0.4, 0.15 };

/* Lower is better: attention at layers 1 and 5 is optimal; removing any mixer costs half its gain. */
static double additive(const pn_space *s, const pn_path *p) {
    double value = 0;
    for (int l = 0; l < p->n; l++) {
        if (p->choice[l] == s->attention) value -= gain[l];
        if (s->none >= 0 && p->choice[l] == s->none) value += gain[l] / 2;
    }
    return value;
}

typedef struct outcome {
    int asked, complete;
    pn_path best;
    double value;
} outcome;

static outcome run(const pn_search_type *type, const pn_space *space, const void *options) {
    pn_search *s;
    outcome r = { .value = INFINITY };
    ck_ok(pn_search_create(type, space, options, &s));
    for (;;) {
        pn_path paths[16];
        int n;
        ck_ok(type->ask(s, paths, 16, &n));
        if (!n) break;
        for (int i = 0; i < n; i++) {
            double value = additive(space, &paths[i]);
            ck_ok(type->tell(s, &paths[i], value));
            r.asked++;
            if (!pn_space_complete(space, &paths[i])) continue;
            r.complete++;
            if (value < r.value) {
                r.value = value;
                r.best = paths[i];
            }
        }
    }
    pn_search_destroy(&s);
    return r;
}

static outcome run_defaults(const pn_search_type *type, const pn_space *space) {
    _Alignas(8) char options[256] = { 0 };
    if (type->options) ck_ok(pn_options_defaults(type->options, options));
    return run(type, space, options);
}

START_TEST(exhaustive_visits_every_placement_once) {
    outcome r = run_defaults(&pn_search_exhaustive, &eight);
    ck_assert_int_eq(r.asked, 28);
    ck_assert_int_eq(r.complete, 28);
    ck_assert_int_eq(r.best.choice[1], 0);
    ck_assert_int_eq(r.best.choice[5], 0);
    /* C(6,2) placements, each alone or with one of four layers removed */
    outcome n = run_defaults(&pn_search_exhaustive, &with_none);
    ck_assert_int_eq(n.asked, 15 * (1 + 4));
    ck_assert_int_eq(n.complete, n.asked);
}
END_TEST

START_TEST(beam_finds_the_additive_optimum) {
    outcome all = run_defaults(&pn_search_exhaustive, &eight), beam = run_defaults(&pn_search_beam, &eight);
    ck_assert_double_eq(beam.value, all.value);
    ck_assert(pn_path_equal(&beam.best, &all.best));
    ck_assert_int_lt(beam.asked, all.asked + 1 + 8);
    outcome none = run_defaults(&pn_search_beam, &with_none);
    ck_assert_int_gt(none.complete, 0);
}
END_TEST

START_TEST(uniform_spreads_evenly) {
    outcome r = run_defaults(&pn_search_uniform, &eight);
    ck_assert_int_eq(r.asked, 1);
    for (int l = 0; l < 8; l++) ck_assert_int_eq(r.best.choice[l], l == 2 || l == 6 ? 0 : 1);
}
END_TEST

START_TEST(limits_are_checked) {
    pn_space bad = eight;
    bad.full_attention = 9;
    pn_search *s = NULL;
    ck_assert_int_eq(pn_search_create(&pn_search_uniform, &bad, NULL, &s), PN_USAGE);
    struct {
        int64_t max_paths;
    } few = { 10 };
    ck_assert_int_eq(pn_search_create(&pn_search_exhaustive, &eight, &few, &s), PN_USAGE);
    struct {
        int64_t width, expand;
    } narrow = { 2, 1 }; /* one layer open, two to fill: the budget could never be spent */
    ck_assert_int_eq(pn_search_create(&pn_search_beam, &eight, &narrow, &s), PN_USAGE);
    narrow.expand = 2;
    outcome r = run(&pn_search_beam, &eight, &narrow);
    ck_assert_int_eq(r.complete, 1);
    ck_assert_double_eq(r.value, -(gain[1] + gain[5]));
}
END_TEST

TEST_MAIN("strategies", exhaustive_visits_every_placement_once, beam_finds_the_additive_optimum, uniform_spreads_evenly,
          limits_are_checked)
