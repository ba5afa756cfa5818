/* Training on a tiny model and the recall skill: both local orders agree bit for bit, errors fall, a resumed run equals
 * an undisturbed one, extraction keeps the function. */
#include "supernet_fixture.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "evaluator.h"
#include "files.h"
#include "linear/linear.h"
#include "search.h"
#include "signals.h"

START_TEST(both_local_orders_give_the_same_weights) {
    setup();
    pn_model *a = tiny_supernet(), *b = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 30);
    pn_supernet_result layer = { 0 }, step = { 0 };
    ck_ok(train(a, &c, NULL, 0, &layer));
    c.phase[0].order = PN_ORDER_STEP;
    ck_ok(train(b, &c, NULL, 0, &step));
    ck_assert(same_weights(a, b));
    ck_assert_int_eq(layer.n_errors, 3);
    ck_assert_int_eq(step.n_errors, 3);
    for (int i = 0; i < layer.n_errors; i++) {
        ck_assert_double_lt(layer.error[i].last, 0.8 * layer.error[i].first);
        ck_assert_double_eq(layer.error[i].last, step.error[i].last);
    }
    pn_supernet_result_free(&layer);
    pn_supernet_result_free(&step);
    pn_model_destroy(&a);
    pn_model_destroy(&b);
    teardown();
}
END_TEST

START_TEST(sampled_paths_train_the_candidates_only) {
    setup();
    pn_model *m = tiny_supernet(), *fresh = tiny_supernet();
    pn_supernet_config c = one_phase(PN_SUPERNET_SAMPLED, 256 * 20);
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &c, NULL, 0, &r));
    ck_assert_int_gt(r.curve.n, 10);
    ck_assert(isfinite(r.curve.point[r.curve.n - 1].loss.total));
    ck_assert_int_gt(changed_candidates(m, fresh), 0);
    pn_supernet_result_free(&r);
    pn_model_destroy(&m);
    pn_model_destroy(&fresh);
    teardown();
}
END_TEST

/* Stops by budget half way, then goes on from the state: the schedule counts the whole budget, so the halves are run as
 * one job interrupted by a signal. */
START_TEST(a_resumed_run_equals_an_undisturbed_one) {
    setup();
    char dir[] = "/tmp/pn_resume_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    pn_train_options o = options(256 * 12);
    o.loss = pn_loss_constant(&(pn_loss_weights){ .ce = 1, .temperature = 1 });
    o.checkpoint_seconds = 1e-9; /* after every step */
    pn_model *whole = tiny_base(), *half = tiny_base(), *rest = tiny_base();
    pn_model *models[] = { whole, half, rest };
    for (int i = 0; i < 3; i++) pn_params_train(models[i]->params, "*", true);
    pn_train_job job = { .name = "base", .options = &o, .mixture = mixture, .student = whole };
    pn_curve undisturbed = { 0 }, curve = { 0 };
    ck_ok(pn_train_run(&job, &undisturbed));
    ck_assert_int_eq(undisturbed.n, 12);

    job.student = half;
    job.state_dir = dir;
    job.stop_after = 5;
    ck_assert_int_eq(pn_train_run(&job, NULL), PN_INTERRUPTED);
    ck_assert(!same_weights(whole, half));
    job.student = rest;
    job.stop_after = 0;
    for (int again = 0; again < 2; again++) { /* the rest of the steps, then the finished state alone */
        ck_ok(pn_train_run(&job, &curve));
        ck_assert(same_weights(whole, rest));
        ck_assert_int_eq(curve.n, undisturbed.n);
        ck_assert_mem_eq(curve.point, undisturbed.point, (size_t)curve.n * sizeof *curve.point);
    }
    pn_curve_free(&curve);
    pn_curve_free(&undisturbed);
    job.identity = 1; /* other first weights */
    ck_assert_int_eq(pn_train_run(&job, NULL), PN_USAGE);
    job.identity = 0;

    o.weight_decay = 0.5; /* another job must not continue from this state */
    ck_assert_int_eq(pn_train_run(&job, NULL), PN_USAGE);
    for (int i = 0; i < 3; i++) pn_model_destroy(&models[i]);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* Local training that is stopped again and again, the state of one layer lost on the way, gives what undisturbed
 * training gives; so does a store in BF16, which a run that goes on fills again. */
START_TEST(stopped_local_training_goes_on_inside_a_layer) {
    setup();
    enum { STEPS = 6, QUESTIONS = 5 }; /* neither divides the other: stops fall on every layer and many steps */
    char dir[] = "/tmp/pn_local_XXXXXX", layer[64];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * STEPS);
    static const struct {
        int64_t order, store;
    } ways[] = { { PN_ORDER_LAYER, 0 }, { PN_ORDER_LAYER, 1 }, { PN_ORDER_STEP, 0 } };
    for (int w = 0; w < 3; w++) {
        pn_supernet_result first = { 0 }, again = { 0 };
        pn_model *whole = tiny_supernet();
        c.phase[0].order = ways[w].order;
        c.phase[0].store = ways[w].store;
        ck_ok(train(whole, &c, NULL, 0, &first));
        pn_status s = PN_INTERRUPTED;
        int stops = 0;
        for (; s == PN_INTERRUPTED; stops++) {
            pn_model *m = tiny_supernet(); /* as a new process would begin */
            /* order: layer asks at every step of the store too, and passes finished layers again: later each time */
            pn_interrupt_after(QUESTIONS + (ways[w].order == PN_ORDER_LAYER ? STEPS + stops * QUESTIONS : 0));
            if (stops == 2) {
                snprintf(layer, sizeof layer, "%s/layer-1", dir);
                ck_ok(pn_remove_tree(layer));
            }
            s = train(m, &c, dir, 0, &again);
            if (!s) {
                ck_assert(same_weights(whole, m));
                ck_assert_int_eq(first.n_errors, again.n_errors);
                ck_assert_mem_eq(first.error, again.error, (size_t)first.n_errors * sizeof *first.error);
            }
            pn_supernet_result_free(&again);
            pn_model_destroy(&m);
        }
        ck_assert_int_eq(s, PN_OK);
        ck_assert_int_gt(stops, 3);

        pn_model *known = tiny_supernet();
        pn_interrupt_after(1); /* nothing is left to train, so nothing asks */
        ck_ok(train(known, &c, dir, 0, &again));
        pn_interrupt_after(0);
        ck_assert(same_weights(whole, known));
        pn_supernet_result_free(&again);
        pn_model_destroy(&known);
        known = tiny_supernet();
        c.phase[0].train.clip = 0.5; /* another job must not use this state */
        ck_assert_int_eq(train(known, &c, dir, 0, &again), PN_USAGE);
        c.phase[0].train.clip = 1;
        pn_supernet_result_free(&again);
        pn_supernet_result_free(&first);
        pn_model_destroy(&known);
        pn_model_destroy(&whole);
        ck_ok(pn_remove_tree(dir));
    }
    teardown();
}
END_TEST

/* A process that trains, its state written after every layer of every step, and dies. */
static void train_and_die(pn_supernet_config c, const char *dir, unsigned microseconds) {
    char path[96];
    pid_t child = fork();
    if (child == 0) {
        pn_supernet_result unused = { 0 };
        c.phase[0].train.checkpoint_seconds = 1e-9;
        _exit(train(tiny_supernet(), &c, dir, 0, &unused) != PN_OK);
    }
    snprintf(path, sizeof path, "%s/layer-0/latest", dir);
    while (!pn_file_exists(path) && waitpid(child, NULL, WNOHANG) == 0) usleep(200);
    usleep(microseconds);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ck_assert(pn_file_exists(path));
}

START_TEST(killed_local_training_goes_on) {
    setup();
    char dir[2][24] = { "/tmp/pn_local_XXXXXX", "/tmp/pn_local_XXXXXX" };
    static const pn_local_order ways[] = { PN_ORDER_LAYER, PN_ORDER_STEP };
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * 12);
    for (int w = 0; w < 2; w++) { /* all children come first: OpenMP has no threads yet that they would miss */
        ck_assert_ptr_nonnull(mkdtemp(dir[w]));
        c.phase[0].order = ways[w];
        for (unsigned kills = 0; kills < 4; kills++) train_and_die(c, dir[w], 5000 * kills);
    }
    pn_model *whole = tiny_supernet();
    pn_supernet_result first = { 0 };
    ck_ok(train(whole, &c, NULL, 0, &first));
    for (int w = 0; w < 2; w++) {
        pn_supernet_result again = { 0 };
        pn_model *rest = tiny_supernet();
        c.phase[0].order = ways[w];
        ck_ok(train(rest, &c, dir[w], 0, &again));
        ck_assert(same_weights(whole, rest));
        ck_assert_mem_eq(first.error, again.error, (size_t)first.n_errors * sizeof *first.error);
        pn_supernet_result_free(&again);
        pn_model_destroy(&rest);
        ck_ok(pn_remove_tree(dir[w]));
    }
    pn_supernet_result_free(&first);
    pn_model_destroy(&whole);
    teardown();
}
END_TEST

static pn_status prepare_task(pn_task_kind kind, const pn_skill_type *skill, pn_task **out) {
    pn_task_spec spec = { .options = { .name = "asked",
                                       .kind = kind,
                                       .skill = skill->name,
                                       .documents = 8,
                                       .document_bytes = 96,
                                       .seed = 1 } };
    ck_ok(pn_skill_create(skill, NULL, "test", &spec.skill));
    pn_status s = pn_task_prepare(&spec, tokenizer, PN_SPLIT_SEARCH, 0, out);
    pn_skill_destroy(&spec.skill);
    return s;
}

static pn_task *recall_task(void) {
    pn_task *task;
    ck_ok(prepare_task(PN_TASK_RECALL, &pn_skill_recall, &task));
    return task;
}

START_TEST(tasks_that_score_nothing_are_refused) {
    setup();
    pn_task *task = NULL;
    ck_assert_int_eq(prepare_task(PN_TASK_RECALL, &pn_skill_text, &task), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "task asked: documents of skill text hold no answers;"));
    ck_assert_int_eq(prepare_task(PN_TASK_CHOICE, &pn_skill_recall, &task), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "hold no answers with choices;"));
    ck_assert_ptr_null(task);
    ck_ok(prepare_task(PN_TASK_PERPLEXITY, &pn_skill_text, &task));
    pn_task_destroy(&task);
    teardown();
}
END_TEST

/* The teacher of a kl task stays the model that was measured first, its output matrix included. */
START_TEST(a_kl_task_keeps_its_teacher) {
    setup();
    pn_model *teacher = tiny_base(), *other = tiny_base();
    pn_task *task;
    pn_metrics metrics;
    pn_path own = pn_model_own_path(teacher);
    for (int64_t i = 0; i < pn_tensor_elems(other->head); i++) pn_f32(other->head)[i] *= 2;
    ck_ok(prepare_task(PN_TASK_KL, &pn_skill_text, &task));
    pn_model *models[] = { teacher, other };
    for (int i = 0; i < 2; i++) {
        pn_evaluator *e;
        ck_ok(pn_evaluator_create(models[i], &task, 1, NULL, &e));
        ck_ok(pn_evaluator_run(e, &own, 1, NULL, &metrics));
        pn_evaluator_destroy(&e);
        if (!i) {
            ck_assert_double_eq_tol(*pn_metrics_get(&metrics, "kl"), 0, 1e-6);
            pn_model_destroy(&teacher); /* what the task keeps does not need the model */
        }
    }
    /* Rows of the embedding twice as large change the tied logits, and with them the distribution. */
    pn_tape *t;
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_tape_record(t, false);
    double want = 0, n = 0;
    for (int b = 0; b < task->n_batches; b++) {
        pn_tensor *ids, *targets, *weights, *hidden, *mine, *theirs;
        const pn_task_batch *batch = &task->batch[b];
        ck_ok(pn_batch_tensors(&batch->tokens, t, &ids, &targets, &weights));
        ck_ok(pn_model_hidden(other, NULL, t, ids, &batch->tokens.docs, &hidden));
        ck_ok(pn_model_logits(other, t, hidden, &mine));
        ck_ok(pn_linear(t, batch->teacher, batch->teacher_head, NULL, &theirs));
        int64_t V = other->config.vocab;
        for (int64_t i = 0; i < batch->tokens.n_tokens; i++, n++) {
            const float *p = pn_f32(theirs) + i * V, *q = pn_f32(mine) + i * V;
            double zp = 0, zq = 0;
            for (int64_t v = 0; v < V; v++) zp += exp((double)p[v]), zq += exp((double)q[v]);
            for (int64_t v = 0; v < V; v++) want += exp((double)p[v]) / zp * ((double)p[v] - q[v] - log(zp) + log(zq));
        }
    }
    pn_tape_destroy(&t);
    ck_assert_double_gt(want / n, 0.01);
    ck_assert_double_eq_tol(*pn_metrics_get(&metrics, "kl"), want / n, 1e-5);
    pn_task_destroy(&task);
    pn_model_destroy(&other);
    teardown();
}
END_TEST

/* A path whose score is no number must not win or vanish: the search stops and says which. */
START_TEST(scores_that_are_no_numbers_are_refused) {
    setup();
    pn_model *m = tiny_base();
    pn_task *task = recall_task();
    pn_evaluator *e;
    pn_metrics metrics;
    pn_path own = pn_model_own_path(m);
    for (int64_t i = 0; i < pn_tensor_elems(m->norm); i++) pn_f32(m->norm)[i] = NAN;
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &e));
    ck_assert_int_eq(pn_evaluator_run(e, &own, 1, NULL, &metrics), PN_NUMERIC);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "task asked: nll of attention*3 is"));
    pn_evaluator_destroy(&e);
    pn_task_destroy(&task);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(extraction_keeps_the_function_and_prefixes_are_shared) {
    setup();
    pn_model *m = tiny_supernet();
    pn_path path;
    ck_ok(pn_path_parse(m, "gated_deltanet,attention,none", &path));
    pn_model *hybrid;
    ck_ok(pn_supernet_extract(m, &path, &hybrid));
    char text[256];
    pn_path own = pn_model_own_path(hybrid);
    ck_assert_str_eq(pn_path_text(hybrid, &own, text, sizeof text), "gated_deltanet,attention,none");

    pn_task *task = recall_task();
    pn_evaluator *net, *alone;
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &net));
    ck_ok(pn_evaluator_create(hybrid, &task, 1, NULL, &alone));
    pn_path paths[3] = { path, path, path };
    paths[1].choice[2] = 0;
    paths[2].choice[0] = 0;
    pn_metrics together[3], single;
    ck_ok(pn_evaluator_run(net, paths, 3, NULL, together));
    for (int i = 0; i < 3; i++) {
        ck_ok(pn_evaluator_run(net, &paths[i], 1, NULL, &single));
        ck_assert(!memcmp(&single, &together[i], sizeof single)); /* a shared prefix changes nothing */
    }
    ck_ok(pn_evaluator_run(alone, &own, 1, NULL, &single));
    ck_assert(!memcmp(&single, &together[0], sizeof single));
    ck_assert_ptr_nonnull(pn_metrics_get(&single, "accuracy"));
    ck_assert_double_eq_tol(*pn_metrics_get(&single, "accuracy_chance"), 1.0 / 26, 1e-9);

    pn_evaluator_destroy(&net);
    pn_evaluator_destroy(&alone);
    pn_task_destroy(&task);
    pn_model_destroy(&hybrid);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* The base's attention with a window, beside a linear block: its weights, trained as a copy, and the window of the
 * linear block's state: 2 heads of 16 x 64 in F32, 8192 bytes, are 128 keys and values of width 16 in bf16. */
START_TEST(a_window_starts_from_attention) {
    setup();
    pn_model *m = tiny_base();
    pn_block_spec blocks[2];
    ck_ok(pn_block_spec_default(&pn_block_swa, &blocks[0]));
    ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &blocks[1]));
    const pn_option *expand_v = pn_option_find(blocks[1].type->options, "expand_v");
    ck_ok(pn_option_parse(expand_v, "test", "4", 0, blocks[1].options));
    ck_ok(pn_supernet_build(m, blocks, 2, false, 5));
    pn_path path, own = pn_model_own_path(m);
    ck_ok(pn_path_parse(m, "swa,swa,gated_deltanet", &path));
    const pn_block *swa = m->layer[0].candidate[1];
    ck_assert_double_eq(pn_block_cache_bytes(swa, 1 << 20, 2), 128 * 2 * 16 * 2);
    for (int i = 0; i < m->params->n; i++) {
        const char *at = strstr(m->params->item[i]->name, ".candidates.swa.");
        if (!at) continue;
        char base[PN_NAME_MAX];
        snprintf(base, sizeof base, "%.*s.self_attn.%s", (int)(at - m->params->item[i]->name), m->params->item[i]->name,
                 at + strlen(".candidates.swa."));
        const pn_param *p = pn_params_find(m->params, base);
        ck_assert_msg(p && p != m->params->item[i], "%s", base);
        ck_assert(!p->value->wants_grad && m->params->item[i]->value->wants_grad);
        ck_assert_mem_eq(pn_data(p->value), pn_data(m->params->item[i]->value), pn_tensor_bytes(p->value));
    }
    /* documents are no longer than the window, so an untrained swa is the teacher */
    pn_task *task = recall_task();
    pn_evaluator *e;
    pn_metrics metrics[2];
    pn_path paths[] = { own, own };
    paths[1].choice[0] = paths[1].choice[1] = paths[1].choice[2] = 1;
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &e));
    ck_ok(pn_evaluator_run(e, paths, 2, NULL, metrics));
    ck_assert_double_eq_tol(*pn_metrics_get(&metrics[0], "nll"), *pn_metrics_get(&metrics[1], "nll"), 1e-6);
    pn_evaluator_destroy(&e);

    const pn_supernet_config local = one_phase(PN_SUPERNET_LOCAL, 256 * 4);
    pn_supernet_result r = { 0 };
    ck_ok(train(m, &local, NULL, 0, &r));
    ck_assert_int_eq(r.n_errors, 6);
    pn_supernet_result_free(&r);
    pn_param *trained = pn_params_find(m->params, "model.layers.0.candidates.swa.o_proj.weight");
    pn_f32(trained->value)[0] += 1; /* the copy alone moves */
    pn_model *hybrid;
    ck_ok(pn_supernet_extract(m, &path, &hybrid));
    ck_assert(pn_block_spec_equal(&hybrid->config.layer[0], &swa->spec));
    pn_param *extracted = pn_params_find(hybrid->params, "model.layers.0.self_attn.o_proj.weight");
    ck_assert_mem_eq(pn_data(extracted->value), pn_data(trained->value), pn_tensor_bytes(trained->value));
    pn_path alone = pn_model_own_path(hybrid);
    pn_evaluator *two[2];
    ck_ok(pn_evaluator_create(m, &task, 1, NULL, &two[0]));
    ck_ok(pn_evaluator_create(hybrid, &task, 1, NULL, &two[1]));
    ck_ok(pn_evaluator_run(two[0], &path, 1, NULL, &metrics[0]));
    ck_ok(pn_evaluator_run(two[1], &alone, 1, NULL, &metrics[1]));
    ck_assert(!memcmp(&metrics[0], &metrics[1], sizeof metrics[0]));
    for (int i = 0; i < 2; i++) pn_evaluator_destroy(&two[i]);
    pn_model_destroy(&hybrid);
    pn_model_destroy(&m);

    m = tiny_base();
    ck_assert_int_eq(pn_supernet_build(m, blocks, 1, false, 5), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "no linear block whose state it could match; write a number"));
    pn_task_destroy(&task);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

TEST_MAIN("supernet", a_window_starts_from_attention, both_local_orders_give_the_same_weights,
          sampled_paths_train_the_candidates_only, a_resumed_run_equals_an_undisturbed_one,
          stopped_local_training_goes_on_inside_a_layer, killed_local_training_goes_on,
          scores_that_are_no_numbers_are_refused, tasks_that_score_nothing_are_refused, a_kl_task_keeps_its_teacher,
          extraction_keeps_the_function_and_prefixes_are_shared)
