/* Lists of weights: what they share, where they are, what their hash sees. */
#include "param.h"

#include "harness.h"

#include <string.h>

static pn_param *declare(pn_params *p, const char *name, int rank, bool keep_f32) {
    const pn_param_spec spec = {
        .name = name, .rank = rank, .shape = { 3, 4 }, .init = { PN_INIT_NORMAL, 1, 0 }, .keep_f32 = keep_f32
    };
    pn_param *x;
    ck_ok(pn_params_declare(p, &spec, &x));
    return x;
}

START_TEST(what_is_no_matrix_stays_wide) {
    pn_params *p;
    ck_ok(pn_params_plan(PN_BF16, &p));
    ck_assert_int_eq(declare(p, "matrix", 2, false)->value->dtype, PN_BF16);
    ck_assert_int_eq(declare(p, "kept", 2, true)->value->dtype, PN_F32);
    ck_assert_int_eq(declare(p, "bias", 1, false)->value->dtype, PN_F32);
    for (int i = 0; i < p->n; i++) ck_assert_int_eq(p->item[i]->value->grad_dtype, PN_F32);
    pn_params_destroy(&p);
}
END_TEST

START_TEST(moving_to_where_they_are_changes_nothing) {
    pn_params *p;
    uint64_t before, after;
    ck_ok(pn_params_create(PN_F32, &p));
    const pn_tensor *w = declare(p, "w", 2, false)->value;
    ck_ok(pn_params_init(p, 3));
    const void *data = pn_data(w);
    ck_ok(pn_params_hash(p, &before));
    ck_ok(pn_params_move(p, PN_CPU, PN_F32));
    ck_ok(pn_params_hash(p, &after));
    ck_assert_uint_eq(before, after);
    ck_assert_ptr_eq(pn_data(w), data);
    ck_assert_uint_eq(pn_params_fingerprint(p, 5), 5);
    pn_params_destroy(&p);
}
END_TEST

START_TEST(a_hash_sees_names_and_values_and_no_order) {
    pn_params *p, *q;
    uint64_t a, b;
    ck_ok(pn_params_create(PN_F32, &p));
    ck_ok(pn_params_create_like(p, &q));
    declare(p, "x", 2, false), declare(p, "y", 2, false);
    declare(q, "y", 2, false), declare(q, "x", 2, false);
    ck_ok(pn_params_init(p, 3));
    ck_ok(pn_params_init(q, 3));
    ck_ok(pn_params_hash(p, &a));
    ck_ok(pn_params_hash(q, &b));
    ck_assert_uint_eq(a, b);
    pn_f32(q->item[0]->value)[11] += 1;
    ck_ok(pn_params_hash(q, &b));
    ck_assert_uint_ne(a, b);
    pn_params_destroy(&p);
    pn_params_destroy(&q);
}
END_TEST

START_TEST(tapes_are_those_of_the_weights) {
    static const pn_dtype types[] = { PN_F32, PN_F64 };
    static const pn_backend backends[] = { PN_CPU, PN_REF };
    for (int i = 0; i < 2; i++) {
        pn_params *p;
        pn_tape *t;
        ck_ok(pn_params_create(types[i], &p));
        ck_ok(pn_params_tape(p, &t));
        ck_assert_int_eq(pn_tape_backend(t), backends[i]);
        ck_assert_int_eq(pn_tape_dtype(t), types[i]);
        pn_tape_destroy(&t);
        pn_params_destroy(&p);
    }
}
END_TEST

TEST_MAIN("param", what_is_no_matrix_stays_wide, moving_to_where_they_are_changes_nothing,
          a_hash_sees_names_and_values_and_no_order, tapes_are_those_of_the_weights)
