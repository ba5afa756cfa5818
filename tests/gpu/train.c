/* Training on the GPU: near the CPU's, the same bits every time and after a stop, and its model everywhere a model
 * goes. */
#include "gpu.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "model_load.h"
#include "sampler.h"
#include "supernet/supernet_fixture.h"

enum { STEPS = 20, TOKENS = 256 * STEPS };

typedef struct run {
    pn_model *m;
    pn_supernet_result result;
} run;

typedef struct place {
    pn_backend backend;
    pn_dtype dtype;
    pn_recompute_level recompute;
} place;
static const place cpu = { PN_CPU, PN_F32, 0 }, gpu = { PN_CUDA, PN_F32, 0 }, gpu_bf16 = { PN_CUDA, PN_BF16, 0 };

static pn_status run_on(const place *on, pn_supernet_mode mode, const char *state_dir, int64_t stop_after, run *r) {
    pn_supernet_config c = one_phase(mode, TOKENS);
    c.phase[0].train.recompute = (int)on->recompute;
    *r = (run){ .m = tiny_supernet() };
    ck_ok(pn_params_move(r->m->params, on->backend, on->dtype));
    return train(r->m, &c, state_dir, stop_after, &r->result);
}

static void run_free(run *r) {
    pn_supernet_result_free(&r->result);
    pn_model_destroy(&r->m);
}

/* What a run has seen: losses and norms along the curve, or local errors. */
static int series(const run *r, double out[4 * STEPS]) {
    int n = 0;
    for (int i = 0; i < r->result.curve.n; i++) {
        const pn_curve_point *p = &r->result.curve.point[i];
        out[n++] = p->loss.total;
        out[n++] = p->norm;
    }
    for (int i = 0; i < r->result.n_errors; i++) {
        out[n++] = r->result.error[i].start;
        out[n++] = r->result.error[i].last;
    }
    ck_assert_int_gt(n, 0);
    ck_assert_int_le(n, 4 * STEPS);
    return n;
}

static void ck_near(const run *a, const run *b, double tolerance, const char *what) {
    double x[4 * STEPS], y[4 * STEPS];
    int n = series(a, x);
    ck_assert_int_eq(series(b, y), n);
    for (int i = 0; i < n; i++)
        ck_assert_msg(fabs(x[i] - y[i]) <= tolerance * fabs(x[i]), "%s: value %d is %.9g, on the CPU %.9g", what, i,
                      y[i], x[i]);
}

static void ck_same_bits(const run *a, const run *b, const char *what) {
    double x[4 * STEPS], y[4 * STEPS];
    uint64_t hash[2];
    int n = series(a, x);
    ck_assert_int_eq(series(b, y), n);
    ck_assert_msg(!memcmp(x, y, (size_t)n * sizeof *x), "%s: losses have other bits", what);
    ck_ok(pn_params_hash(a->m->params, &hash[0]));
    ck_ok(pn_params_hash(b->m->params, &hash[1]));
    ck_assert_msg(hash[0] == hash[1], "%s: weights have other bits", what);
}

static const struct {
    pn_supernet_mode mode;
    const char *name;
} modes[] = { { PN_SUPERNET_LOCAL, "local" }, { PN_SUPERNET_SAMPLED, "sampled" }, { PN_SUPERNET_GATED, "gated" } };

static void near_the_cpu(int mode, const place *on, double tolerance) {
    run a, b;
    setup();
    ck_ok(run_on(&cpu, modes[mode].mode, NULL, 0, &a));
    ck_ok(run_on(on, modes[mode].mode, NULL, 0, &b));
    ck_near(&a, &b, tolerance, modes[mode].name);
    run_free(&a);
    run_free(&b);
    teardown();
}

START_TEST(local_training_is_near_the_cpus) {
    ck_need_gpu();
    near_the_cpu(0, &gpu, 2e-3);
    near_the_cpu(0, &gpu_bf16, 5e-2);
}
END_TEST

START_TEST(sampled_training_is_near_the_cpus) {
    ck_need_gpu();
    near_the_cpu(1, &gpu, 2e-3);
    near_the_cpu(1, &gpu_bf16, 5e-2);
}
END_TEST

START_TEST(gated_training_is_near_the_cpus) {
    ck_need_gpu();
    near_the_cpu(2, &gpu, 2e-3);
    near_the_cpu(2, &gpu_bf16, 5e-2);
}
END_TEST

START_TEST(training_has_the_same_bits_every_time) {
    ck_need_gpu();
    setup();
    for (int mode = 0; mode < 3; mode++) {
        run a, b;
        ck_ok(run_on(&gpu_bf16, modes[mode].mode, NULL, 0, &a));
        ck_ok(run_on(&gpu_bf16, modes[mode].mode, NULL, 0, &b));
        ck_same_bits(&a, &b, modes[mode].name);
        run_free(&a);
        run_free(&b);
    }
    teardown();
}
END_TEST

START_TEST(recompute_changes_no_bit) {
    ck_need_gpu();
    setup();
    for (int mode = 1; mode < 3; mode++) {
        run kept, again;
        ck_ok(run_on(&gpu_bf16, modes[mode].mode, NULL, 0, &kept));
        for (pn_recompute_level level = PN_RECOMPUTE_CHEAP; level <= PN_RECOMPUTE_LAYERS; level++) {
            const place on = { PN_CUDA, PN_BF16, level };
            ck_ok(run_on(&on, modes[mode].mode, NULL, 0, &again));
            ck_same_bits(&kept, &again, pn_recompute_names[level]);
            run_free(&again);
        }
        run_free(&kept);
    }
    teardown();
}
END_TEST

START_TEST(a_stopped_run_ends_as_if_undisturbed) {
    ck_need_gpu();
    setup();
    for (int mode = 1; mode < 3; mode++) {
        char dir[] = "/tmp/pn_gpu_train_XXXXXX";
        run whole, first, second, other;
        ck_assert_ptr_nonnull(mkdtemp(dir));
        ck_ok(run_on(&gpu_bf16, modes[mode].mode, NULL, 0, &whole));
        ck_assert_int_eq(run_on(&gpu_bf16, modes[mode].mode, dir, 7, &first), PN_INTERRUPTED);
        ck_assert_int_eq(run_on(&gpu, modes[mode].mode, dir, 0, &other), PN_USAGE); /* begun in another precision */
        ck_ok(run_on(&gpu_bf16, modes[mode].mode, dir, 0, &second));
        ck_same_bits(&whole, &second, modes[mode].name);
        run_free(&whole);
        run_free(&first);
        run_free(&second);
        run_free(&other);
        ck_ok(pn_remove_tree(dir));
    }
    teardown();
}
END_TEST

START_TEST(a_run_keeps_what_it_had_before_the_bad_step) {
    ck_need_gpu();
    setup();
    ck_stops_before_a_bad_step(PN_CUDA, PN_F32);
    ck_stops_before_a_bad_step(PN_CUDA, PN_BF16);
    teardown();
}
END_TEST

/* Layers that were finished are read, and the same. */
START_TEST(local_training_is_read_back) {
    ck_need_gpu();
    char dir[] = "/tmp/pn_gpu_train_XXXXXX";
    run a, b;
    setup();
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(run_on(&gpu_bf16, PN_SUPERNET_LOCAL, dir, 0, &a));
    ck_ok(run_on(&gpu_bf16, PN_SUPERNET_LOCAL, dir, 0, &b));
    ck_same_bits(&a, &b, "read back");
    run_free(&a);
    run_free(&b);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* Both orders of local training make the same updates, with the store on the GPU. */
START_TEST(both_orders_agree) {
    ck_need_gpu();
    setup();
    run by_layer, by_step = { .m = tiny_supernet() };
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, TOKENS);
    c.phase[0].order = PN_ORDER_STEP;
    ck_ok(run_on(&gpu, PN_SUPERNET_LOCAL, NULL, 0, &by_layer));
    ck_ok(pn_params_move(by_step.m->params, PN_CUDA, PN_F32));
    ck_ok(train(by_step.m, &c, NULL, 0, &by_step.result));
    ck_same_bits(&by_layer, &by_step, "order");
    run_free(&by_layer);
    run_free(&by_step);
    teardown();
}
END_TEST

enum { PROMPT = 40, NEW = 24 };
typedef struct text {
    int32_t token[NEW];
    int n;
} text;
static bool emit(void *ctx, int32_t token) {
    text *t = ctx;
    t->token[t->n++] = token;
    return true;
}

static void generate(const pn_model *m, const pn_path *path, text *out) {
    pn_sampler greedy = { 0 };
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (i * 7 + 3) % 250;
    *out = (text){ 0 };
    ck_ok(pn_generate(m, path, prompt, PROMPT, NEW, -1, &greedy, emit, out));
}

/* A path through the super-network, extracted: shares what is frozen, decodes as the path does and as on the CPU, and
 * comes back from its files. */
START_TEST(the_hybrid_goes_everywhere) {
    ck_need_gpu();
    setup();
    char dir[] = "/tmp/pn_gpu_train_XXXXXX";
    pn_model *net = tiny_supernet(), *hybrid, *back;
    net->config.max_position = 128; /* files name one */
    pn_path path;
    text on_cpu, on_gpu, extracted, read;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_path_parse(net, "gated_deltanet,attention,gated_deltanet", &path));
    generate(net, &path, &on_cpu);
    ck_assert_int_eq(on_cpu.n, NEW);
    ck_ok(pn_params_move(net->params, PN_CUDA, PN_F32));
    generate(net, &path, &on_gpu);
    ck_assert_mem_eq(&on_gpu, &on_cpu, sizeof on_cpu);
    ck_ok(pn_supernet_extract(net, &path, &hybrid));
    ck_assert_ptr_eq(hybrid->embed, net->embed);
    ck_assert_int_eq(hybrid->params->backend, PN_CUDA);
    generate(hybrid, NULL, &extracted);
    ck_assert_mem_eq(&extracted, &on_cpu, sizeof on_cpu);
    const pn_save_options save = { .dtype = PN_F32, .kind = PN_HF_JET_NEMOTRON };
    ck_ok(pn_model_save(hybrid, dir, &save));
    ck_ok(pn_model_load(dir, PN_F32, &back));
    generate(back, NULL, &read);
    ck_assert_mem_eq(&read, &on_cpu, sizeof on_cpu);
    pn_model_destroy(&back);
    pn_model_destroy(&hybrid);
    pn_model_destroy(&net);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

TEST_MAIN("train", local_training_is_near_the_cpus, sampled_training_is_near_the_cpus, gated_training_is_near_the_cpus,
          training_has_the_same_bits_every_time, recompute_changes_no_bit, a_stopped_run_ends_as_if_undisturbed,
          a_run_keeps_what_it_had_before_the_bad_step, local_training_is_read_back, both_orders_agree,
          the_hybrid_goes_everywhere)
