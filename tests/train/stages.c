/* What a stage of finetune asks of the trainer: schedules, batches in parts, steps that are passed over, held-out
 * losses, a time limit; and that a run goes on from any of them with the same bits. */
#include <math.h>
#include <string.h>

#include "attention/attention_vary.h"
#include "files.h"
#include "latest_step.h"
#include "log.h"
#include "memory.h"
#include "meter.h"
#include "parts.h"
#include "signals.h"
#include "full_disk.h"
#include "supernet/supernet_fixture.h"

START_TEST(learning_rates_follow_their_schedules) {
    enum { STEPS = 100 };
    pn_schedule s = { .learning_rate = 2, .warmup = 0.1, .final = 0.25, .decay = 0.2 };
    for (int kind = 0; pn_schedule_names[kind]; kind++) {
        s.kind = kind;
        ck_assert_double_eq_tol(pn_schedule_rate(&s, 0, STEPS), 0.2, 1e-12); /* a tenth of the warm-up */
        ck_assert_double_eq_tol(pn_schedule_rate(&s, 9, STEPS), 2, 1e-12);
        const double end = pn_schedule_rate(&s, STEPS - 1, STEPS);
        ck_assert_double_eq_tol(end, kind == PN_SCHEDULE_CONSTANT ? 2 : 0.5, 1e-12);
        for (int i = 10; i < STEPS; i++)
            ck_assert_double_le(pn_schedule_rate(&s, i, STEPS), pn_schedule_rate(&s, i - 1, STEPS) + 1e-12);
    }
    s.kind = PN_SCHEDULE_LINEAR;
    ck_assert_double_eq_tol(pn_schedule_rate(&s, 54, STEPS), 1.25, 1e-12); /* half way down */
    s.kind = PN_SCHEDULE_WSD;
    ck_assert_double_eq_tol(pn_schedule_rate(&s, 79, STEPS), 2, 1e-12);
    ck_assert_double_eq_tol(pn_schedule_rate(&s, 89, STEPS), 1.25, 1e-12);
}
END_TEST

START_TEST(loss_weights_go_from_start_to_end) {
    const pn_loss_schedule l = { .ce = { 0, 1 }, .kl = { 1, 0.1 }, .feature = { 2, 2 }, .temperature = 3 };
    pn_loss_weights w = pn_loss_at(&l, 0, 11);
    ck_assert(w.ce == 0 && w.kl == 1 && w.feature == 2 && w.temperature == 3);
    w = pn_loss_at(&l, 5, 11);
    ck_assert_double_eq_tol(w.ce, 0.5, 1e-12);
    ck_assert_double_eq_tol(w.kl, 0.55, 1e-12);
    w = pn_loss_at(&l, 10, 11);
    ck_assert(w.ce == 1 && w.kl == 0.1 && w.feature == 2);
    w = pn_loss_at(&l, 0, 1);
    ck_assert(w.ce == 0 && w.kl == 1);
    w = pn_loss_most(&l);
    ck_assert(w.ce == 1 && w.kl == 1 && w.feature == 2);
}
END_TEST

START_TEST(a_warm_up_in_tokens) {
    pn_train_options o = options(1000);
    o.warmup_tokens = 250;
    pn_train_stage_settle(&o);
    ck_assert_double_eq(o.schedule.warmup, 0.25);
}
END_TEST

/* ---- parts ---- */

static const pn_loss_weights both = { .ce = 0.5, .kl = 1, .temperature = 2 };

/* Gradients of a batch of four rows taken in n parts, and what the parts' losses add up to. */
static double gradients(pn_model *m, int n, const pn_loss_weights *weights, pn_batch *batch, float *out) {
    pn_path path, teacher = pn_model_own_path(m);
    pn_parts parts = { 0 };
    pn_tape *t;
    double loss = 0;
    ck_ok(pn_path_parse(m, "gated_deltanet,gated_deltanet,attention", &path));
    ck_ok(pn_tape_create(PN_CPU, &t));
    pn_parts_open(&parts, batch, batch->n_tokens / n, 1, 0);
    ck_assert_int_eq(parts.n, n);
    for (int i = 0; i < n; i++) {
        bool loses;
        pn_distill_losses losses;
        pn_loss_parts read;
        ck_ok(pn_parts_take(&parts, i, weights, &loses));
        if (!loses) continue;
        const pn_distill pass = {
            .student = m, .path = &path, .teacher = m, .teacher_path = &teacher, .weights = &parts.weights
        };
        pn_tape_reset(t);
        ck_ok(pn_distill_forward(t, &pass, pn_parts_batch(&parts), &losses));
        ck_ok(pn_distill_read(&losses, &read));
        ck_ok(pn_tape_backward(t, losses.total));
        loss += read.total;
    }
    for (int i = 0, at = 0; i < m->params->n; i++) {
        pn_tensor *v = m->params->item[i]->value;
        if (!v->wants_grad) continue;
        const int64_t count = pn_tensor_elems(v);
        if (v->grad)
            memcpy(out + at, pn_f32(v->grad), (size_t)count * sizeof *out);
        else
            memset(out + at, 0, (size_t)count * sizeof *out);
        at += (int)count;
        pn_tensor_release(&v->grad);
    }
    pn_tape_destroy(&t);
    pn_parts_free(&parts);
    return loss;
}

static double distance(const float *a, const float *b, int64_t n) {
    double d = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)a[i] * a[i];
    }
    return sqrt(d / size);
}

/* Rows differ in the weight of their targets: parts counted alike would be another loss. */
START_TEST(parts_add_up_to_the_whole_batch) {
    setup();
    pn_model *m = tiny_supernet();
    pn_batch batch = { 0 };
    const int64_t n = pn_params_count(m->params, true);
    float *whole = malloc((size_t)n * sizeof *whole), *parted = malloc((size_t)n * sizeof *parted);
    ck_ok(pn_batch_load(mixture, 0, 4, &batch));
    for (int64_t i = 0; i < batch.n_tokens / 4; i++) batch.weights[i] *= 5;
    for (int64_t i = batch.n_tokens / 2; i < batch.n_tokens * 3 / 4; i++) batch.weights[i] = 0;
    const double loss = gradients(m, 1, &both, &batch, whole);
    for (int k = 2; k <= 4; k += 2) {
        const double again = gradients(m, k, &both, &batch, parted);
        ck_assert_double_eq_tol(again, loss, 1e-6 * loss);
        ck_assert_double_lt(distance(whole, parted, n), 2e-6); /* 3e-7 was measured: float sums in another order */
    }
    /* Nothing of a row has weight, and only the features are compared. */
    const pn_loss_weights feature = { .feature = 1, .temperature = 1 };
    const double alike = gradients(m, 4, &feature, &batch, parted), first = gradients(m, 1, &feature, &batch, whole);
    ck_assert_double_gt(alike, first / 2); /* the variance is that of a part */
    ck_assert_double_lt(alike, first * 2);
    free(whole);
    free(parted);
    pn_batch_free(&batch);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

/* ---- runs ---- */

typedef struct spoiling { /* the loss of steps first .. last is NaN */
    int64_t first, last;
    int calls; /* of shows() */
    pn_loss_parts heldout[8];
} spoiling;

static pn_status spoil_some(void *ctx, pn_tape *t, int64_t step, pn_distill *pass) {
    const spoiling *s = ctx;
    return step >= s->first && step <= s->last ? spoil_loss(&step, t, step, pass) : PN_OK;
}

static pn_status note_heldout(void *ctx, const pn_curve *curve, const pn_curve *heldout) {
    spoiling *s = ctx;
    ck_assert_int_gt(curve->n, 0);
    ck_assert_int_le(heldout->n, 8);
    s->calls++;
    for (int i = 0; i < heldout->n; i++) s->heldout[i] = heldout->point[i].loss;
    return PN_OK;
}

typedef struct run {
    pn_train_options o;
    spoiling spoil;
    const char *state;
    int64_t stop_after;
    uint64_t hash; /* of the weights at its end */
    pn_curve curve;
} run;

static pn_status train_one(run *r) {
    pn_model *m = tiny_base();
    pn_params_train(m->params, "*", true);
    const pn_train_job job = { .name = "stage",
                               .options = &r->o,
                               .mixture = mixture,
                               .student = m,
                               .before = spoil_some,
                               .shows = note_heldout,
                               .ctx = &r->spoil,
                               .state_dir = r->state,
                               .stop_after = r->stop_after };
    pn_status s = pn_train_run(&job, &r->curve);
    ck_ok(pn_params_hash(m->params, &r->hash));
    pn_model_destroy(&m);
    return s;
}

static run stage_run(int64_t steps) {
    run r = { .o = options(256 * steps), .spoil = { .first = -1, .last = -1 } };
    r.o.micro_batch_tokens = 128;
    r.o.loss = (pn_loss_schedule){ .ce = { 1, 0.5 }, .temperature = 1 };
    r.o.skip_steps = 2;
    r.o.skip_steps_in_all = 3;
    r.o.heldout_tokens = 256;
    r.o.evaluate_tokens = 512;
    return r;
}

/* In parts, with a skipped step before and after, and evaluations. */
START_TEST(a_stopped_stage_goes_on_with_the_same_bits) {
    setup();
    char dir[] = "/tmp/pn_stages_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    run whole = stage_run(8);
    whole.spoil.first = 2;
    whole.spoil.last = 3;
    ck_ok(train_one(&whole));
    ck_assert_int_eq(whole.spoil.calls, 4 + 1);
    ck_assert_int_eq(whole.curve.n, 6); /* those that were made */
    for (int i = 0; i < 4; i++) ck_assert(isfinite(whole.spoil.heldout[i].ce) && whole.spoil.heldout[i].ce > 0);
    ck_assert_double_lt(whole.spoil.heldout[3].ce, whole.spoil.heldout[0].ce);
    for (int stop = 1; stop < 8; stop += 2) {
        run parts = stage_run(8);
        char state[64];
        snprintf(state, sizeof state, "%s/%d", dir, stop);
        parts.spoil = (spoiling){ .first = 2, .last = 3 };
        parts.state = state;
        parts.stop_after = stop;
        ck_assert_int_eq(train_one(&parts), PN_INTERRUPTED);
        parts.stop_after = 0;
        ck_ok(train_one(&parts));
        ck_assert(parts.hash == whole.hash);
        ck_assert_int_eq(parts.curve.n, whole.curve.n);
        for (int i = 0; i < whole.curve.n; i++)
            ck_assert(parts.curve.point[i].loss.total == whole.curve.point[i].loss.total);
        ck_assert(!memcmp(parts.spoil.heldout, whole.spoil.heldout, sizeof whole.spoil.heldout));
        pn_curve_free(&parts.curve);
    }
    pn_curve_free(&whole.curve);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

START_TEST(only_so_many_steps_are_passed_over) {
    setup();
    run row = stage_run(8);
    row.spoil = (spoiling){ .first = 3, .last = 5 }; /* three in a row, where two are allowed */
    ck_assert_int_eq(train_one(&row), PN_NUMERIC);
    ck_assert_ptr_nonnull(
        strstr(pn_error_message(), "step 6, after 2 passed over in a row and 2 in all: the loss is "));
    run none = stage_run(8);
    none.o.skip_steps = none.o.skip_steps_in_all = 0;
    none.spoil = (spoiling){ .first = 3, .last = 3 };
    ck_assert_int_eq(train_one(&none), PN_NUMERIC);
    run all = stage_run(8);
    all.o.skip_steps = 8;
    all.spoil = (spoiling){ .first = 1, .last = 7 };
    ck_assert_int_eq(train_one(&all), PN_NUMERIC);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "step 5, after 3 passed over in a row and 3 in all"));
    teardown();
}
END_TEST

/* No checkpoint was due: what is there is what the end of training left. Where more steps may be passed over it goes on
 * from there with the bits of a run that was told so at once. */
START_TEST(a_bad_step_costs_none_of_the_good_ones) {
    setup();
    char dir[] = "/tmp/pn_stages_XXXXXX", state[64], cause[256];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(state, sizeof state, "%s/state", dir);
    run none = stage_run(8), whole = stage_run(8);
    none.o.checkpoint_seconds = 0;
    none.state = state;
    none.o.skip_steps = none.o.skip_steps_in_all = 0;
    none.spoil = (spoiling){ .first = 0, .last = 0 };
    ck_assert_int_eq(train_one(&none), PN_NUMERIC);
    ck_assert_int_eq(latest_step(state), -1); /* nothing was made that could be kept */
    none.spoil = whole.spoil = (spoiling){ .first = 3, .last = 4 };
    let_files_grow(64);
    pn_status s = train_one(&none);
    snprintf(cause, sizeof cause, "%s", pn_error_message());
    let_files_grow(RLIM_INFINITY);
    ck_assert_int_eq(s, PN_NUMERIC); /* of the two failures the first */
    ck_assert_msg(strstr(cause, "the loss is ") != NULL, "%s", cause);
    ck_assert_int_eq(latest_step(state), -1);
    ck_assert_int_eq(train_one(&none), PN_NUMERIC);
    ck_assert_int_eq(latest_step(state), 3);
    ck_assert_int_eq(train_one(&none), PN_NUMERIC); /* from there */
    ck_assert_int_eq(latest_step(state), 3);
    none.o.skip_steps = 1;
    none.o.skip_steps_in_all = 8;
    ck_assert_int_eq(train_one(&none), PN_NUMERIC);
    ck_assert_int_eq(latest_step(state), 4);
    none.o.skip_steps = whole.o.skip_steps = 2;
    whole.o.skip_steps_in_all = 8;
    ck_ok(train_one(&none));
    ck_ok(train_one(&whole));
    ck_assert(none.hash == whole.hash);
    pn_curve_free(&none.curve);
    pn_curve_free(&whole.curve);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* A step that was passed over left no gradient behind: the weights are those of the other steps alone. */
START_TEST(a_step_that_is_passed_over_leaves_nothing) {
    setup();
    run skipped = stage_run(2), one = stage_run(2);
    skipped.spoil = (spoiling){ .first = 0, .last = 0 };
    skipped.o.schedule.kind = one.o.schedule.kind = PN_SCHEDULE_CONSTANT;
    skipped.o.schedule.warmup = one.o.schedule.warmup = 0;
    skipped.o.loss.ce = one.o.loss.ce = (pn_ramp){ 1, 1 };
    ck_ok(train_one(&skipped));
    /* The same from step 1 on: its data are taken by a run that stops there, and had a learning rate of 0. */
    one.spoil = (spoiling){ .first = 0, .last = 0 };
    one.o.micro_batch_tokens = 0;
    ck_ok(train_one(&one));
    ck_assert_int_eq(skipped.curve.n, 1);
    ck_assert_int_eq(one.curve.n, 1);
    ck_assert_double_eq_tol(skipped.curve.point[0].loss.total, one.curve.point[0].loss.total, 1e-5);
    ck_assert_double_eq_tol(skipped.curve.point[0].norm, one.curve.point[0].norm, 1e-5);
    pn_curve_free(&skipped.curve);
    pn_curve_free(&one.curve);
    teardown();
}
END_TEST

START_TEST(a_time_limit_saves_and_stops) {
    setup();
    char dir[] = "/tmp/pn_stages_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    run r = stage_run(6), whole = stage_run(6);
    r.state = dir;
    pn_interrupt_in(1e-9);
    ck_assert_int_eq(train_one(&r), PN_INTERRUPTED);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "stopped by the time limit at step 1 of 6; state saved"));
    pn_interrupt_in(0);
    ck_ok(train_one(&r));
    ck_ok(train_one(&whole));
    ck_assert(r.hash == whole.hash);
    pn_curve_free(&r.curve);
    pn_curve_free(&whole.curve);
    ck_ok(pn_remove_tree(dir));
    teardown();
}
END_TEST

/* ---- what is told ---- */

START_TEST(peaks_go_by_name) {
    ck_assert_double_eq(pn_gpu_peak("NVIDIA H100 80GB HBM3"), 989e12);
    ck_assert_double_eq(pn_gpu_peak("NVIDIA H100 PCIe"), 756e12);
    ck_assert_double_eq(pn_gpu_peak("NVIDIA A100-SXM4-80GB"), 312e12);
    ck_assert_double_eq(pn_gpu_peak("NVIDIA L4"), 121e12);
    ck_assert_double_eq(pn_gpu_peak("GeForce 256"), 0);
}
END_TEST

/* What the log holds after a training on a GPU of that name began. */
static char *log_of_peak(const char *gpu) {
    static char text[4096];
    char dir[] = "/tmp/pn_stages_XXXXXX", path[64], *said;
    size_t n;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/log.jsonl", dir);
    ck_ok(pn_log_open(path));
    ck_assert_double_eq(pn_gpu_peak_told(gpu, "stage 1/1"), pn_gpu_peak(gpu));
    pn_log_close();
    ck_ok(pn_file_read(path, sizeof text - 1, &said, &n));
    snprintf(text, sizeof text, "%s", said);
    free(said);
    ck_ok(pn_remove_tree(dir));
    return text;
}

START_TEST(a_gpu_without_a_known_peak_is_told) {
    ck_assert_ptr_nonnull(strstr(log_of_peak("GeForce 256"),
                                 "no peak of the GeForce 256 is known: set mfu_tflops to its dense BF16 TFLOP/s"));
    ck_assert_ptr_null(strstr(log_of_peak("NVIDIA L4"), "mfu_tflops"));
}
END_TEST

START_TEST(useful_work_is_that_of_the_whole_pass) {
    setup();
    pn_model *m = tiny_base();
    pn_params_train(m->params, "*", true);
    run r = stage_run(4);
    pn_train_job job = { .name = "stage", .options = &r.o, .mixture = mixture, .student = m, .mfu_tflops = 1 };
    pn_meter meter;
    ck_ok(pn_meter_open(&job, &meter));
    /* Six operations per weight and token, but for what embedding, norms and attention add and leave out. */
    const double weights = (double)pn_params_count(m->params, false);
    ck_assert_double_gt(meter.flops_per_token, 5 * weights);
    ck_assert_double_lt(meter.flops_per_token, 9 * weights);
    ck_assert_double_eq(pn_meter_mfu(&meter, 1e12 / meter.flops_per_token), 1);
    pn_model_destroy(&m);
    teardown();
}
END_TEST

START_TEST(what_may_vary_is_said_and_identified) {
    pn_train_options o = options(1000);
    const uint64_t repeats = pn_train_options_hash(&o);
    ck_assert(o.deterministic);
    o.deterministic = false;
    ck_assert_uint_ne(pn_train_options_hash(&o), repeats);
    setenv("PN_CUDA_VARY", "1", 1);
    pn_train_options_apply(&o, PN_CPU); /* not asked there */
    ck_assert(pn_attention_varies());
    o.deterministic = true; /* says more than the environment */
    pn_train_options_apply(&o, PN_CUDA);
    ck_assert(!pn_attention_varies());
    unsetenv("PN_CUDA_VARY");
    o.deterministic = false;
    pn_train_options_apply(&o, PN_CUDA);
    ck_assert(pn_attention_varies());
}
END_TEST

TEST_MAIN("stages", what_may_vary_is_said_and_identified, learning_rates_follow_their_schedules,
          loss_weights_go_from_start_to_end, a_warm_up_in_tokens, parts_add_up_to_the_whole_batch,
          a_stopped_stage_goes_on_with_the_same_bits, only_so_many_steps_are_passed_over,
          a_bad_step_costs_none_of_the_good_ones, a_step_that_is_passed_over_leaves_nothing,
          a_time_limit_saves_and_stops, peaks_go_by_name, a_gpu_without_a_known_peak_is_told,
          useful_work_is_that_of_the_whole_pass)
