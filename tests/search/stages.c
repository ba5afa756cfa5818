/* From limits and objectives to stages: which kinds are placed together, and in what order. */
#include "harness.h"

#include <string.h>

#include "search_config.h"

/* Limits of 2, 2 and 1; a kind of choice -1 is not offered. */
static pn_search_config *config(int attention, int swa, int none, const char *const objective[PN_KINDS]) {
    static pn_search_config c;
    const int choice[PN_KINDS] = { attention, swa, none };
    memset(&c, 0, sizeof c);
    memcpy(c.choice, choice, sizeof choice);
    for (int k = 0; k < PN_KINDS; k++) {
        c.limit[k] = k == PN_KIND_NONE ? 1 : 2;
        strcpy(c.objective[k].text, objective[k]);
    }
    return &c;
}

static void is_stage(const pn_stage *s, int first, int n, const char *objective) {
    ck_assert_int_eq(s->first, first);
    ck_assert_int_eq(s->n, n);
    ck_assert_str_eq(s->objective->text, objective);
}

START_TEST(kinds_that_share_an_objective_are_placed_together) {
    static const char *const same[] = { "a.nll", "a.nll", "a.nll" }, *const window[] = { "a.nll", "b.nll", "a.nll" },
                             *const late[] = { "a.nll", "a.nll", "b.nll" };
    pn_stage stage[PN_MAX_LIMITS];
    pn_search_config *c = config(0, 2, 3, same);
    pn_space s = pn_search_config_space(c, 8);
    ck_assert_int_eq(s.n_limits, 3);
    for (int k = 0; k < 3; k++) {
        ck_assert_str_eq(s.limit[k].name, pn_kind_names[k]);
        ck_assert_int_eq(s.limit[k].choice, c->choice[k]);
        ck_assert_int_eq(s.limit[k].count, k == 2 ? 1 : 2);
        ck_assert(s.limit[k].exact == (k < 2));
    }
    ck_assert_int_eq(pn_search_config_stages(c, &s, stage), 1);
    is_stage(&stage[0], 0, 3, "a.nll");

    c = config(0, 2, 3, window); /* the windows stand between: no mixer is placed after them */
    ck_assert_int_eq(pn_search_config_stages(c, &s, stage), 3);
    is_stage(&stage[0], 0, 1, "a.nll");
    is_stage(&stage[1], 1, 1, "b.nll");
    is_stage(&stage[2], 2, 1, "a.nll");

    c = config(0, 2, 3, late);
    ck_assert_int_eq(pn_search_config_stages(c, &s, stage), 2);
    is_stage(&stage[0], 0, 2, "a.nll");
    is_stage(&stage[1], 2, 1, "b.nll");

    c = config(0, -1, 2, window); /* without windows their objective decides nothing */
    s = pn_search_config_space(c, 8);
    ck_assert_int_eq(s.n_limits, 2);
    ck_assert_int_eq(s.limit[1].choice, 2);
    ck_assert_int_eq(pn_search_config_stages(c, &s, stage), 1);
    is_stage(&stage[0], 0, 2, "a.nll");
}
END_TEST

TEST_MAIN("search/stages", kinds_that_share_an_objective_are_placed_together)
