/* Shapes that lists stand for, and the searches that put them into a path: against what is counted by hand. */
#include "harness.h"
#include "replace.h"
#include "run_variants.h"

#include <math.h>
#include <string.h>

static const pn_dims qwen = { .hidden = 1536, .heads = 12, .kv_heads = 2, .head_dim = 128 };

static int expand(const char *entry, const pn_dims *dims, pn_shape *list, pn_status expected) {
    pn_config *c;
    pn_shape_entry e;
    int n = 0;
    ck_ok(pn_config_parse("test", entry, &c));
    ck_ok(pn_shape_entry_read(c, "entry", &e));
    ck_assert_int_eq(pn_shapes_expand(&e, dims, list, PN_MAX_VARIANTS, &n), expected);
    pn_config_destroy(&c);
    return n;
}

static double option(const pn_shape *x, const char *name) {
    const pn_option *row = pn_option_find(x->spec.type->options, name);
    ck_assert_ptr_nonnull(row);
    const void *field = x->spec.options + row->offset;
    return row->kind == PN_OPTION_FLOAT ? *(const double *)field : (double)*(const int64_t *)field;
}

START_TEST(lists_multiply) {
    static pn_shape list[PN_MAX_VARIANTS];
    int n = expand("entry: { type: jet, num_heads: [6, 12], head_dim: 96, conv_size: [2, 3, 4] }", &qwen, list, PN_OK);
    ck_assert_int_eq(n, 6);
    for (int i = 0; i < n; i++) {
        ck_assert_double_eq(option(&list[i], "num_heads"), i < 3 ? 6 : 12);
        ck_assert_double_eq(option(&list[i], "conv_size"), 2 + i % 3);
        ck_assert_double_eq(option(&list[i], "head_dim"), 96);
    }
    char text[256];
    ck_assert_str_eq(pn_shape_text(list, n, 4, text, sizeof text), "jet num_heads 12 conv_size 3");
    ck_assert_str_eq(pn_shape_text(list, 1, 0, text, sizeof text), "jet");
    ck_assert_int_eq(expand("entry: { type: gla, num_heads: [4, 4] }", &qwen, list, PN_OK), 1);
}
END_TEST

/* d_k x d_v x heads = 294,912: the grid that the paper searched. */
START_TEST(budgets_are_met) {
    static pn_shape list[PN_MAX_VARIANTS];
    int n =
        expand("entry: { type: jet, num_heads: [4, 8, 12, 16], head_dim: [48, 64, 96, 128, 192, 256], state: 294912 }",
               &qwen, list, PN_OK);
    int possible = 0;
    static const int heads[] = { 4, 8, 12, 16 }, keys[] = { 48, 64, 96, 128, 192, 256 };
    for (int h = 0; h < 4; h++)
        for (int k = 0; k < 6; k++) {
            int dv = 294912 / (heads[h] * keys[k]);
            possible += heads[h] * keys[k] * dv == 294912 && dv <= 16 * keys[k];
        }
    ck_assert_int_eq(n, possible);
    for (int i = 0; i < n; i++) {
        double dk = option(&list[i], "head_dim"), dv = dk * option(&list[i], "expand_v");
        ck_assert_double_eq_tol(option(&list[i], "num_heads") * dk * dv, 294912, 0.5);
    }
}
END_TEST

START_TEST(impossible_shapes) {
    static pn_shape list[PN_MAX_VARIANTS];
    expand("entry: { type: gla, num_heads: [4, 7] }", &qwen, list, PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "entry: gla num_heads 7: "));
    expand("entry: { type: jet, num_heads: 5, head_dim: 7, state: 294912 }", &qwen, list, PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "no combination has a state of 294912 values"));
}
END_TEST

/* ---- searches ---- */

enum { LAYERS = 6, REPLACED = 1 };
static const int choices[] = { 4, 5, 6 };

static pn_path start(void) {
    pn_path p = { .n = LAYERS };
    for (int l = 0; l < LAYERS; l++) p.choice[l] = l == 2 ? 0 : REPLACED; /* layer 2 keeps attention */
    return p;
}

static double table[LAYERS][3] = { { 3, 1, 2 }, { 5, 5.5, 4 }, { 0, 0, 0 }, { 1, 2, 3 }, { 2, 1.5, 9 }, { 4, 3, 3.5 } };

static double additive(const pn_path *p) {
    double sum = 0;
    for (int l = 0; l < LAYERS; l++)
        if (p->choice[l] >= 4) sum += table[l][p->choice[l] - 4];
    return sum;
}

/* Choice 6 in layers 0 and 5 together pays; either alone costs. */
static double misleading(const pn_path *p) {
    bool first = p->choice[0] == 6, last = p->choice[5] == 6;
    return additive(p) + (first && last ? -20 : 5.0 * first + 5.0 * last);
}

static double search(const pn_search_type *type, int64_t width, double (*f)(const pn_path *), pn_path *best) {
    pn_replace_options o = { .from = start(), .replaced = REPLACED, .choice = choices, .n = 3, .width = width };
    if (type == &pn_search_mix) {
        o.replaced = choices[0];
        for (int l = 0; l < LAYERS; l++)
            if (o.from.choice[l] == REPLACED) o.from.choice[l] = (uint8_t)choices[0];
    }
    const pn_search_input in = { .space = { .start = o.from, .linear = o.replaced }, .options = &o };
    pn_search *s;
    double least = INFINITY;
    ck_ok(pn_search_create(type, &in, &s));
    for (;;) {
        pn_proposal p[4];
        int n;
        ck_ok(pn_search_ask(s, p, 4, &n));
        if (!n) break;
        for (int i = 0; i < n; i++) {
            double loss = f(&p[i].path);
            ck_assert_int_eq(p[i].path.choice[2], 0);
            for (int l = 0; l < LAYERS; l++) ck_assert(l == 2 || p[i].path.choice[l] >= 4);
            if (loss < least) *best = p[i].path;
            least = fmin(least, loss);
            ck_ok(pn_search_tell(s, &p[i].path, loss, NULL));
        }
    }
    pn_search_destroy(&s);
    return least;
}

static double optimum(double (*f)(const pn_path *)) {
    double least = INFINITY;
    for (int k = 0; k < 3 * 3 * 3 * 3 * 3; k++) {
        pn_path p = start();
        for (int l = 0, rest = k; l < LAYERS; l++) {
            if (l == 2) continue;
            p.choice[l] = (uint8_t)choices[rest % 3];
            rest /= 3;
        }
        least = fmin(least, f(&p));
    }
    return least;
}

START_TEST(each_measures_every_block) {
    pn_path best;
    double least = fmin(3 + 5 + 1 + 2 + 4, fmin(1 + 5.5 + 2 + 1.5 + 3, 2 + 4 + 3 + 9 + 3.5));
    ck_assert_double_eq_tol(search(&pn_search_each, 0, additive, &best), least, 1e-12);
    for (int l = 0; l < LAYERS; l++) ck_assert_int_eq(best.choice[l], l == 2 ? 0 : 5);
}
END_TEST

START_TEST(mix_finds_an_additive_optimum) {
    pn_path best;
    ck_assert_double_eq_tol(search(&pn_search_mix, 1, additive, &best), optimum(additive), 1e-12);
}
END_TEST

START_TEST(mix_needs_width_where_layers_depend) {
    pn_path best;
    ck_assert_double_gt(search(&pn_search_mix, 1, misleading, &best), optimum(misleading) + 1);
    ck_assert_double_eq_tol(search(&pn_search_mix, 64, misleading, &best), optimum(misleading), 1e-12);
}
END_TEST

/* Half the cost is worth what `worth` says, whichever the cost. */
START_TEST(worth_of_half_the_cost) {
    pn_variant item[2] = { { .choice = 4 }, { .choice = 5 } };
    pn_variants_config config = { .worth = { [PN_VARIANT_STATE] = 0.25, [PN_VARIANT_DECODE] = 0.5 } };
    const pn_variants v = { .config = &config, .item = item, .n = 2 };
    item[0].cost[PN_VARIANT_STATE] = 4096;
    item[1].cost[PN_VARIANT_STATE] = 2048;
    item[0].cost[PN_VARIANT_DECODE] = item[1].cost[PN_VARIANT_DECODE] = 3e-6;
    item[0].cost[PN_VARIANT_FLOPS] = 7; /* worth nothing here */
    pn_path a = { .n = 3, .choice = { 4, 0, 4 } }, b = { .n = 3, .choice = { 5, 0, 5 } };
    ck_assert_double_eq_tol(pn_variants_penalty(&v, &a) - pn_variants_penalty(&v, &b), 0.25, 1e-12);
    item[1].cost[PN_VARIANT_DECODE] = 6e-6;
    ck_assert_double_eq_tol(pn_variants_penalty(&v, &a) - pn_variants_penalty(&v, &b), 0.25 - 0.5, 1e-12);
}
END_TEST

TEST_MAIN("search_variants", lists_multiply, budgets_are_met, impossible_shapes, each_measures_every_block,
          mix_finds_an_additive_optimum, mix_needs_width_where_layers_depend, worth_of_half_the_cost)
