/* Gated training: the gradient of a gated pass against finite differences in double precision, schedules, the budget,
 * the cost term, candidates that are absent or `none`, recompute, planning, and that a resumed run equals an
 * undisturbed one. */
#include "supernet_fixture.h"

#include <math.h>
#include <stdlib.h>

#include "files.h"
#include "gate_softmax/gate_softmax.h"
#include "json.h"

/* ---- one pass ---- */

static pn_batch first_batch(void) {
    pn_batch b = { 0 };
    ck_ok(pn_batch_load(mixture, 0, 1, &b));
    return b;
}

static pn_tensor *logits_of(pn_pool *pool, pn_dtype type, int L, int C) {
    pn_tensor *a;
    ck_ok(pn_tensor_zeros(pool, type, 2, (const int64_t[]){ L, C }, &a));
    for (int i = 0; i < L * C; i++) {
        double x = 0.4 * sin(1 + 2.0 * i);
        if (type == PN_F64)
            pn_f64(a)[i] = x;
        else
            pn_f32(a)[i] = (float)x;
    }
    a->wants_grad = true;
    return a;
}

/* The loss of one batch with gates of these logits, and its gradients when asked. */
static double gated_pass(pn_tape *t, const pn_model *m, pn_tensor *logits, const pn_batch *batch, double budget,
                         int recompute, bool backward) {
    const pn_loss_weights weights = { .ce = 0.3, .kl = 1, .feature = 0.5, .temperature = 1 };
    pn_path teacher = pn_model_own_path(m);
    pn_distill pass = {
        .student = m, .teacher = m, .teacher_path = &teacher, .weights = &weights, .recompute = { .level = recompute }
    };
    pn_distill_losses losses;
    pn_loss_parts parts;
    pn_tensor *cost;
    pn_tape_reset(t);
    ck_ok(pn_gate_softmax(t, logits, NULL, 0.7, budget, &pass.gates, &cost));
    ck_ok(pn_distill_forward(t, &pass, batch, &losses));
    ck_ok(pn_distill_read(&losses, &parts));
    if (backward) ck_ok(pn_tape_backward(t, losses.total));
    return parts.total;
}

/* The tiny super-network in double precision. */
static pn_model *exact_supernet(void) {
    pn_model *m = tiny_base(), *exact;
    ck_ok(pn_model_create(&m->config, PN_F64, NULL, &exact));
    ck_ok(pn_params_init(exact->params, 1));
    pn_model_destroy(&m);
    pn_block_spec gdn;
    ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &gdn));
    ck_ok(pn_supernet_build(exact, &gdn, 1, true, 5));
    return exact;
}

START_TEST(gradients_equal_finite_differences) {
    setup();
    pn_model *m = exact_supernet();
    pn_tape *t;
    ck_ok(pn_tape_create(PN_REF, &t));
    pn_batch batch = first_batch();
    int L = m->config.n_layers, C = m->layer[0].n_candidates;
    pn_tensor *a = logits_of(m->params->pool, PN_F64, L, C);
    for (int budgeted = 0; budgeted < 2; budgeted++) {
        double budget = budgeted ? 1.0 : -1, step = 1e-5;
        gated_pass(t, m, a, &batch, budget, false, true);
        double gradient[64];
        memcpy(gradient, pn_f64(a->grad), pn_tensor_bytes(a));
        pn_tensor_fill_zero(a->grad);
        for (int i = 0; i < L * C; i++) {
            double at = pn_f64(a)[i];
            pn_f64(a)[i] = at + step;
            double up = gated_pass(t, m, a, &batch, budget, false, false);
            pn_f64(a)[i] = at - step;
            double down = gated_pass(t, m, a, &batch, budget, false, false);
            pn_f64(a)[i] = at;
            ck_assert_double_eq_tol(gradient[i], (up - down) / (2 * step), 1e-7);
        }
        double size = 0;
        for (int i = 0; i < L * C; i++) size = fmax(size, fabs(gradient[i]));
        ck_assert_double_gt(size, 1e-3);
    }
    pn_tape_reset(t);
    pn_tensor_release(&a);
    pn_batch_free(&batch);
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(recompute_gives_the_same_gradients_and_a_plan_the_same_memory) {
    setup();
    pn_model *m = tiny_supernet();
    pn_tape *t, *plan;
    ck_ok(pn_tape_create(PN_CPU, &t));
    ck_ok(pn_tape_create(PN_PLAN, &plan));
    pn_batch batch = first_batch();
    pn_tensor *a = logits_of(m->params->pool, PN_F32, m->config.n_layers, m->layer[0].n_candidates);
    pn_tensor *w = pn_params_find(m->params, "model.layers.0.candidates.gated_deltanet.q_proj.weight")->value;
    enum { LEVELS = PN_RECOMPUTE_LAYERS + 1 };
    size_t most[LEVELS], planned[LEVELS];
    float gates[LEVELS][16], weights[LEVELS][4];
    for (int recompute = 0; recompute < LEVELS; recompute++) {
        gated_pass(plan, m, a, &batch, 1, recompute, true);
        planned[recompute] = pn_pool_peak_bytes(pn_tape_pool(plan));
        pn_tape_destroy(&plan);
        ck_ok(pn_tape_create(PN_PLAN, &plan));
        gated_pass(t, m, a, &batch, 1, recompute, true);
        most[recompute] = pn_pool_peak_bytes(pn_tape_pool(t));
        pn_tape_destroy(&t);
        ck_ok(pn_tape_create(PN_CPU, &t));
        memcpy(gates[recompute], pn_f32(a->grad), pn_tensor_bytes(a));
        memcpy(weights[recompute], pn_f32(w->grad), sizeof weights[0]);
        for (int i = 0; i < m->params->n; i++) pn_tensor_release(&m->params->item[i]->value->grad);
        pn_tensor_release(&a->grad);
        ck_assert_uint_eq(most[recompute], planned[recompute]);
    }
    for (int i = 1; i < LEVELS; i++) {
        ck_assert_mem_eq(gates[0], gates[i], pn_tensor_bytes(a));
        ck_assert_mem_eq(weights[0], weights[i], sizeof weights[0]);
        ck_assert_uint_lt(most[i], most[i - 1]);
    }
    pn_tensor_release(&a);
    pn_batch_free(&batch);
    pn_tape_destroy(&t);
    pn_tape_destroy(&plan);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* ---- schedules ---- */

START_TEST(temperatures_fall_from_the_first_to_the_last) {
    pn_gate_options o;
    ck_ok(pn_options_defaults(pn_gate_option_table, &o));
    o.temperature = 4;
    o.final_temperature = 0.25;
    ck_assert_double_eq(pn_gate_temperature(&o, 0, 5), 4);
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 1, 5), 2, 1e-12);
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 4, 5), 0.25, 1e-12);
    o.anneal = PN_ANNEAL_LINEAR;
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 2, 5), (4 + 0.25) / 2, 1e-12);
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 4, 5), 0.25, 1e-12);
    o.warmup = 0.4; /* steps 0 and 1 of 5 */
    ck_assert_int_eq(pn_gate_warmup_steps(&o, 5), 2);
    ck_assert_double_eq(pn_gate_temperature(&o, 1, 5), 4);
    ck_assert_double_eq(pn_gate_temperature(&o, 2, 5), 4);
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 3, 5), (4 + 0.25) / 2, 1e-12);
    ck_assert_double_eq_tol(pn_gate_temperature(&o, 4, 5), 0.25, 1e-12);
    o.warmup = 1;
    ck_assert_double_eq(pn_gate_temperature(&o, 4, 5), 4);
    ck_assert_double_eq(pn_gate_temperature(&o, 0, 1), 4);
}
END_TEST

/* ---- training ---- */

static double attention_share(const pn_gates *g) {
    double sum = 0;
    for (int l = 0; l < g->n_layers; l++) sum += g->p[l][0];
    return sum;
}

static void ck_distributions(const pn_gates *g, const pn_model *m) {
    ck_assert(g->present);
    ck_assert_int_eq(g->n_layers, m->config.n_layers);
    for (int l = 0; l < g->n_layers; l++) {
        double sum = 0;
        for (int c = 0; c < g->n_candidates; c++) {
            ck_assert(g->p[l][c] >= 0);
            if (c >= m->layer[l].n_candidates) ck_assert_double_eq(g->p[l][c], 0);
            sum += g->p[l][c];
        }
        ck_assert_double_eq_tol(sum, 1, 1e-12);
    }
}

START_TEST(gates_move_within_their_budget) {
    setup();
    pn_model *m = tiny_supernet(), *fresh = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_GATED, 256 * 20);
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_gt(changed_candidates(m, fresh), 0);
    ck_assert_int_eq(r.gate_curve.n, r.curve.n);
    for (int i = 0; i < r.gate_curve.n; i++) {
        const pn_gate_point *p = &r.gate_curve.point[i];
        ck_distributions(&p->gates, m);
        ck_assert_double_eq_tol(attention_share(&p->gates), 1, 1e-12);
        ck_assert_int_eq(p->step, r.curve.point[i].step);
        ck_assert_int_eq(p->tokens, r.curve.point[i].tokens);
        if (i) ck_assert_double_lt(p->temperature, r.gate_curve.point[i - 1].temperature);
    }
    ck_assert_mem_eq(&r.gates, &r.gate_curve.point[r.gate_curve.n - 1].gates, sizeof r.gates);
    double moved = 0;
    for (int l = 0; l < r.gates.n_layers; l++) moved = fmax(moved, fabs(r.gates.p[l][0] - 1.0 / 3));
    ck_assert_double_gt(moved, 0.05);
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&fresh);
    teardown();
}
END_TEST

START_TEST(warmup_trains_branches_only) {
    setup();
    pn_model *m = tiny_supernet(), *fresh = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_GATED, 256 * 8);
    c.phase[0].gates.warmup = 0.5;
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_eq(r.gate_curve.n, 8);
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < 3; l++) ck_assert_double_eq_tol(r.gate_curve.point[i].gates.p[l][0], 1.0 / 3, 1e-12);
    ck_assert_double_ne(r.gate_curve.point[4].gates.p[0][0], r.gate_curve.point[3].gates.p[0][0]);
    pn_supernet_result_free(&r);
    c.phase[0].gates.warmup = 1;
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_gt(changed_candidates(m, fresh), 0);
    ck_assert_double_eq_tol(r.gates.p[2][0], 1.0 / 3, 1e-12);
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&fresh);
    teardown();
}
END_TEST

/* Without a budget the teacher's own attention wins every layer, unless its cache has a price. */
START_TEST(the_cost_of_the_cache_moves_gates) {
    setup();
    double share[2], none[2];
    for (int priced = 0; priced < 2; priced++) {
        pn_model *m = tiny_supernet();
        pn_supernet_config c = one_phase(PN_SUPERNET_GATED, 256 * 12);
        c.phase[0].gates.budget = PN_BUDGET_FREE;
        c.phase[0].gates.cost = priced ? PN_COST_CACHE_BYTES : PN_COST_NONE;
        c.phase[0].gates.cost_weight = 100;
        pn_supernet_result r = { 0 };
        ck_ok(train(m, &c, NULL, 0, &r));
        ck_distributions(&r.gates, m);
        share[priced] = attention_share(&r.gates);
        none[priced] = r.gates.p[0][2] + r.gates.p[1][2] + r.gates.p[2][2];
        pn_supernet_result_free(&r);
        pn_model_destroy(&m);
    }
    ck_assert_double_gt(share[0], 2.5);
    ck_assert_double_lt(share[1], 0.5);
    ck_assert_double_gt(none[1], none[0]);
    teardown();
}
END_TEST

/* Layers need not offer the same: a gate that is not there takes no part. */
START_TEST(layers_may_differ_in_their_candidates) {
    setup();
    pn_model *m = tiny_base();
    pn_block_spec gdn, none;
    int index;
    ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &gdn));
    ck_ok(pn_block_spec_default(&pn_block_none, &none));
    ck_ok(pn_supernet_build(m, &gdn, 1, false, 5));
    ck_ok(pn_model_add_candidate(m, 1, &none, &index));
    pn_supernet_config c = one_phase(PN_SUPERNET_GATED, 256 * 6);
    c.phase[0].train.recompute = PN_RECOMPUTE_LAYERS;
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_eq(r.gates.n_candidates, 3);
    ck_distributions(&r.gates, m);
    ck_assert_double_gt(r.gates.p[1][2], 0);
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

static void ck_same_result(const pn_supernet_result *a, const pn_supernet_result *b) {
    ck_assert_int_eq(a->n_errors, b->n_errors);
    if (a->n_errors) ck_assert_mem_eq(a->error, b->error, (size_t)a->n_errors * sizeof *a->error);
    ck_assert_int_eq(a->curve.n, b->curve.n);
    ck_assert_mem_eq(a->curve.point, b->curve.point, (size_t)a->curve.n * sizeof *a->curve.point);
    ck_assert_int_eq(a->gate_curve.n, b->gate_curve.n);
    for (int i = 0; i < a->gate_curve.n; i++) {
        const pn_gate_point *p = &a->gate_curve.point[i], *q = &b->gate_curve.point[i];
        ck_assert_int_eq(p->step, q->step);
        ck_assert_int_eq(p->tokens, q->tokens);
        ck_assert_double_eq(p->temperature, q->temperature);
        ck_assert_mem_eq(p->gates.p, q->gates.p, sizeof p->gates.p);
    }
    ck_assert_mem_eq(a->gates.p, b->gates.p, sizeof a->gates.p);
}

/* What blocks take here is measured once and then stays: a table in which attention is dear moves the gates, the same
 * table gives the same gates, and a run goes on with the times that it began with. */
static pn_status train_timed(pn_model *m, const pn_supernet_config *c, const char *table, const char *start,
                             const char *state_dir, int64_t stop_after, int64_t *measured, pn_supernet_result *out) {
    pn_latency_options o;
    pn_latency *t;
    ck_ok(pn_options_defaults(pn_latency_option_table, &o));
    o.seconds = 0.01;
    ck_ok(pn_latency_open(table, start, &t));
    const pn_supernet_job job = { .config = c,
                                  .mixture = mixture,
                                  .seed = 1,
                                  .full_attention = 1,
                                  .latency = t,
                                  .latency_options = &o,
                                  .state_dir = state_dir,
                                  .stop_after = stop_after };
    pn_status s = pn_supernet_train(m, &job, out);
    *measured = pn_latency_measured(t);
    pn_latency_close(&t);
    return s;
}

/* The table with attention's times multiplied. */
static void make_attention_dear(const char *from, const char *to, double times) {
    json_t *root = json_load_file(from, 0, NULL), *row;
    size_t i, changed = 0;
    ck_assert_ptr_nonnull(root);
    json_array_foreach(json_object_get(root, "entries"), i, row) {
        const char *part = json_string_value(json_object_get(json_object_get(row, "key"), "part"));
        if (strcmp(part, "attention")) continue;
        changed++;
        for (const char *const *name = (const char *const[]){ "seconds", "least", "most", NULL }; *name; name++)
            json_object_set_new(row, *name, json_real(times * json_real_value(json_object_get(row, *name))));
    }
    ck_assert_uint_eq(changed, 1);
    ck_ok(pn_json_write(to, root));
    json_decref(root);
}

START_TEST(measured_seconds_move_gates_and_are_measured_once) {
    setup();
    char dir[] = "/tmp/pn_gated_XXXXXX", first[64], dear[64], own[64], state[64];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(first, sizeof first, "%s/first.json", dir);
    snprintf(dear, sizeof dear, "%s/dear.json", dir);
    snprintf(own, sizeof own, "%s/own.json", dir);
    snprintf(state, sizeof state, "%s/state", dir);
    pn_supernet_config c = one_phase(PN_SUPERNET_GATED, 256 * 12);
    c.phase[0].gates.budget = PN_BUDGET_FREE;
    c.phase[0].gates.cost = PN_COST_SECONDS;
    c.phase[0].gates.cost_weight = 30;
    c.phase[0].gates.cost_context = 300;
    pn_supernet_result r = { 0 }, undisturbed = { 0 };
    int64_t measured;
    pn_model *m = tiny_supernet();
    ck_ok(train_timed(m, &c, first, NULL, NULL, 0, &measured, &r));
    ck_assert_int_eq(measured, 2); /* attention and the linear block are the same in every layer; none takes nothing */
    double cheap = attention_share(&r.gates);
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);

    make_attention_dear(first, dear, 1000);
    m = tiny_supernet();
    ck_ok(train_timed(m, &c, dear, NULL, NULL, 0, &measured, &undisturbed));
    ck_assert_int_eq(measured, 0);
    ck_distributions(&undisturbed.gates, m);
    ck_assert_double_lt(attention_share(&undisturbed.gates), cheap);
    for (int part = 0; part < 3;
         part++) { /* from that table: stopped, then to the end, then the finished state alone */
        pn_model *again = tiny_supernet();
        ck_assert_int_eq(train_timed(again, &c, own, dear, state, part ? 0 : 5, &measured, &r),
                         part ? PN_OK : PN_INTERRUPTED);
        ck_assert_int_eq(measured, 0);
        if (part) ck_assert(same_weights(again, m));
        if (part) ck_same_result(&undisturbed, &r);
        pn_supernet_result_free(&r);
        pn_model_destroy(&again);
        if (!part) ck_ok(pn_remove_tree(dear));
    }
    ck_ok(pn_remove_tree(own)); /* other times are another job */
    ck_assert_int_eq(train_timed(m, &c, own, first, state, 0, &measured, &r), PN_USAGE);
    pn_supernet_result_free(&r);
    pn_supernet_result_free(&undisturbed);
    pn_model_destroy(&m);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* Local training, then gated: stopped in the second phase, both go on from what is on disk. */
START_TEST(a_resumed_gated_run_equals_an_undisturbed_one) {
    setup();
    char dir[] = "/tmp/pn_gated_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    pn_model *whole = tiny_supernet(), *half = tiny_supernet(), *rest = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 4);
    c.phase[c.n_phases++] = one_phase(PN_SUPERNET_GATED, 256 * 12).phase[0];
    c.phase[1].gates.warmup = 0.25;
    c.phase[1].gates.cost = PN_COST_CACHE_BYTES;
    pn_supernet_result undisturbed = { 0 }, stopped = { 0 }, r = { 0 };
    ck_ok(train(whole, &c, NULL, 0, &undisturbed));
    ck_assert_int_eq(undisturbed.n_errors, 3);
    ck_assert_int_eq(undisturbed.gate_curve.n, 12);

    ck_assert_int_eq(train(half, &c, dir, 5, &stopped), PN_INTERRUPTED);
    ck_assert(!same_weights(whole, half));
    pn_supernet_result_free(&stopped);
    for (int again = 0; again < 2; again++) { /* the rest of the steps, then the finished state alone */
        ck_ok(train(rest, &c, dir, 0, &r));
        ck_assert(same_weights(whole, rest));
        ck_same_result(&undisturbed, &r);
        pn_supernet_result_free(&r);
        pn_model_destroy(&rest);
        rest = tiny_supernet();
    }
    c.phase[1].gates.learning_rate *= 2; /* another job must not continue from this state */
    ck_assert_int_eq(train(rest, &c, dir, 0, &r), PN_USAGE);
    pn_supernet_result_free(&r);
    pn_supernet_result_free(&undisturbed);
    pn_model_destroy(&whole);
    pn_model_destroy(&half);
    pn_model_destroy(&rest);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* ---- configuration ---- */

static pn_status read_config(const char *text, pn_supernet_config *out) {
    pn_config *file;
    ck_ok(pn_config_parse("test.yaml", text, &file));
    pn_status s = pn_supernet_config_read(file, "supernet", out);
    if (!s) s = pn_config_finish(file);
    pn_config_destroy(&file);
    return s;
}

static void ck_refused(const char *text, const char *part) {
    pn_supernet_config c;
    ck_assert_int_eq(read_config(text, &c), PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), part), "\"%s\" does not say \"%s\"", pn_error_message(), part);
    pn_error_clear();
}

START_TEST(phases_are_read_from_a_configuration) {
    pn_supernet_config c;
    ck_ok(read_config("supernet: { mode: gated, tokens: 7, gates: { cost: cache_bytes, cost_weight: 3 } }", &c));
    ck_assert_int_eq(c.n_phases, 1);
    ck_assert_int_eq(c.phase[0].mode, PN_SUPERNET_GATED);
    ck_assert_int_eq(c.phase[0].train.tokens, 7);
    ck_assert_int_eq(c.phase[0].gates.cost, PN_COST_CACHE_BYTES);
    ck_assert_double_eq(c.phase[0].gates.cost_weight, 3);
    ck_ok(read_config("supernet: { tokens: 7, then: { tokens: 5, gates: { budget: free } } }", &c));
    ck_assert_int_eq(c.n_phases, 2);
    ck_assert_int_eq(c.phase[0].mode, PN_SUPERNET_LOCAL);
    ck_assert_int_eq(c.phase[1].mode, PN_SUPERNET_GATED);
    ck_assert_int_eq(c.phase[1].train.tokens, 5);
    ck_assert_int_eq(c.phase[1].gates.budget, PN_BUDGET_FREE);
    ck_refused("supernet: { mode: sampled, then: { mode: gated } }", "comes after local training, but mode is sampled");
    ck_refused("supernet: { then: { mode: local } }", "mode is local again");
    ck_refused("supernet: { then: { mode: gated, order: step } }", "order");
    ck_refused("supernet: { gates: { temperature: 0 } }", "temperature");
}
END_TEST

TEST_MAIN("gated", gradients_equal_finite_differences, recompute_gives_the_same_gradients_and_a_plan_the_same_memory,
          temperatures_fall_from_the_first_to_the_last, gates_move_within_their_budget, warmup_trains_branches_only,
          the_cost_of_the_cache_moves_gates, measured_seconds_move_gates_and_are_measured_once,
          layers_may_differ_in_their_candidates, a_resumed_gated_run_equals_an_undisturbed_one,
          phases_are_read_from_a_configuration)
