/* ZeRO-1: 1, 2 and 3 ranks, whose gradients differ, train as one optimizer does with the sums of these. Gradients are
 * small multiples of 1/8, so that sums of them and of their squares are exact whatever the order: what differs is
 * wrong. */
#include "dist/ranks.h"

#include <math.h>

#include "add/add.h"
#include "optimizer.h"
#include "state_ranks.h"
#include "zero.h"

enum {
    WEIGHTS = 8,
    TRAINED = 7,
    PASSES = 2,
    BUCKET = 1000 /* bytes: several buckets, one of them of several weights */
};

static const struct {
    const char *name;
    int64_t rows, columns; /* columns 0: a vector */
    int layer;             /* whose part of the pass it is in */
} weights[WEIGHTS] = {
    { "model.embed_tokens.weight", 37, 5, -1 },
    { "model.layers.0.mlp.weight", 11, 7, 0 },
    { "model.layers.0.norm.weight", 7, 0, 0 },
    { "model.layers.0.unused.weight", 9, 0, 0 }, /* no rank has a gradient of it */
    { "model.layers.1.mlp.weight", 40, 13, 1 },
    { "model.layers.1.rare.weight", 3, 5, 1 }, /* rank 0 alone has one */
    { "model.norm.weight", 13, 0, 2 },
    { "model.layers.1.frozen.weight", 6, 6, 1 },
};
enum { UNUSED = 3, RARE = 5, LAYERS = 2 };

static const pn_adamw_settings settings = { 0.9, 0.95, 1e-8, 0.1, 1.0 }; /* every step is clipped */
static const double rate = 0.01;

static pn_status make_weights(uint64_t seed, pn_params **out) {
    pn_params *p;
    pn_param *x;
    PN_TRY(pn_params_create(PN_F32, &p));
    for (int i = 0; i < WEIGHTS; i++)
        PN_TRY(pn_params_declare(p,
                                 &(pn_param_spec){ .name = weights[i].name,
                                                   .rank = weights[i].columns ? 2 : 1,
                                                   .shape = { weights[i].rows, weights[i].columns },
                                                   .init = { PN_INIT_NORMAL, 1, 0 },
                                                   .decay = weights[i].columns > 0 },
                                 &x));
    PN_TRY(pn_params_init(p, seed));
    for (int i = 0; i < WEIGHTS; i++) p->item[i]->value->wants_grad = i < TRAINED;
    *out = p;
    return PN_OK;
}

static double gradient(int64_t step, int rank, int pass, int weight, int64_t k) {
    const uint64_t x = (uint64_t)((((step * 5 + rank) * 3 + pass) * 7 + weight) * 1009 + k) * 0x9e3779b97f4a7c15u;
    return (double)((int)(x >> 60) - 8) / 8;
}

static bool has_gradient(int rank, int weight) {
    return weight < TRAINED && weight != UNUSED && (weight != RARE || rank == 0);
}

/* ---- one optimizer, of everything ---- */

typedef struct whole {
    pn_params *params;
    pn_adamw *optim;
    pn_pool *pool;
} whole;

static pn_status whole_open(uint64_t seed, whole *w) {
    PN_TRY(make_weights(seed, &w->params));
    PN_TRY(pn_pool_create(PN_POOL_HOST, &w->pool));
    PN_TRY(pn_optimizer_create(w->params, NULL, &settings, &w->optim));
    return PN_OK;
}

static double sum_of_gradients(int64_t step, int n_ranks, int weight, int64_t k) {
    double sum = 0;
    for (int rank = 0; rank < n_ranks; rank++)
        for (int pass = 0; pass < PASSES && has_gradient(rank, weight); pass++)
            sum += gradient(step, rank, pass, weight, k);
    return sum;
}

/* As that of so many ranks. */
static pn_status whole_step(whole *w, int64_t step, int n_ranks, double *norm) {
    for (int i = 0; i < TRAINED; i++) {
        pn_tensor *v = w->params->item[i]->value;
        if (i == UNUSED) continue;
        PN_TRY(pn_tensor_create(w->pool, PN_F32, v->rank, v->shape, &v->grad));
        for (int64_t k = 0; k < pn_tensor_elems(v); k++)
            pn_f32(v->grad)[k] = (float)sum_of_gradients(step, n_ranks, i, k);
    }
    PN_TRY(pn_adamw_step(w->optim, rate, norm));
    return PN_OK;
}

static void whole_close(whole *w) {
    pn_adamw_destroy(&w->optim);
    pn_params_destroy(&w->params);
    pn_pool_destroy(&w->pool);
}

/* ---- a rank ---- */

typedef struct part {
    int rank, ranks;
    pn_comm *comm;
    pn_params *params;
    pn_zero *zero;
    pn_tape *tape;
} part;

static pn_status part_open(pn_control *control, uint64_t seed, part *x) {
    x->rank = pn_control_rank(control);
    x->ranks = pn_control_size(control);
    PN_TRY(x->ranks == 1 ? pn_comm_self(control, PN_POOL_HOST, &x->comm) : pn_comm_tcp(control, &x->comm));
    PN_TRY(make_weights(seed, &x->params));
    PN_TRY(pn_params_tape(x->params, &x->tape));
    PN_TRY(pn_zero_create(x->params, x->comm, &settings, BUCKET, &x->zero));
    return PN_OK;
}

static void part_close(part *x) {
    pn_zero_destroy(&x->zero);
    pn_tape_destroy(&x->tape);
    pn_params_destroy(&x->params);
    pn_comm_destroy(&x->comm);
}

/* Layer by layer, every weight that has a gradient is used once; backward begins with these. */
static pn_status part_pass(part *x, int64_t step, int pass, double spoilt) {
    pn_tensor *out[WEIGHTS], *given[WEIGHTS], *nothing;
    int n = 0;
    pn_tape_reset(x->tape);
    pn_zero_pass(x->zero, x->tape, pass == PASSES - 1);
    for (int layer = -1; layer <= LAYERS; layer++) {
        if (layer >= 0) PN_TRY(pn_tape_mark(x->tape, pn_zero_passed, x->zero, layer));
        for (int i = 0; i < TRAINED; i++) {
            pn_tensor *v = x->params->item[i]->value;
            if (weights[i].layer != layer || !has_gradient(x->rank, i)) continue;
            PN_TRY(pn_tape_new(x->tape, PN_F32, v->rank, v->shape, &nothing));
            PN_TRY(pn_tensor_fill_zero(nothing));
            PN_TRY(pn_add(x->tape, v, nothing, &out[n]));
            PN_TRY(pn_tape_new(x->tape, PN_F32, v->rank, v->shape, &given[n]));
            for (int64_t k = 0; k < pn_tensor_elems(v); k++)
                pn_f32(given[n])[k] = (float)gradient(step, x->rank, pass, i, k);
            if (i == 1 && x->rank == x->ranks - 1) pn_f32(given[n])[20] += (float)spoilt;
            n++;
        }
    }
    PN_TRY(pn_tape_backward_from(x->tape, out, given, n));
    return PN_OK;
}

static int weight_named(const char *array) {
    const char *name = strchr(array, '/') + 1;
    for (int i = 0; i < WEIGHTS; i++)
        if (!strcmp(name, weights[i].name)) return i;
    return -1;
}

/* Each rank's slots have their ranges of the sums, exactly. */
static pn_status check_sums(part *x, int64_t step) {
    pn_adamw *o = pn_zero_optimizer(x->zero);
    const int n = pn_adamw_slots(o);
    pn_checkpoint_array *a = calloc((size_t)n * PN_OPTIMIZER_ARRAYS + 1, sizeof *a);
    char(*names)[PN_OPTIMIZER_NAME] = calloc((size_t)n * PN_OPTIMIZER_ARRAYS + 1, sizeof *names);
    PN_CHECK(pn_zero_arrays(x->zero, a, names) == n * PN_OPTIMIZER_ARRAYS, PN_MISMATCH, "arrays of %d slots", n);
    for (int s = 0; s < n; s++) {
        const pn_checkpoint_array *of = &a[s * PN_OPTIMIZER_ARRAYS];
        const int i = weight_named(of->name);
        PN_CHECK(i >= 0 && of->total == pn_tensor_elems(x->params->item[i]->value), PN_MISMATCH, "%s: %lld", of->name,
                 (long long)of->total);
        const pn_tensor *g = pn_adamw_value(o, s)->grad;
        for (int64_t k = 0; k < of->n; k++) {
            const double want = sum_of_gradients(step, x->ranks, i, of->offset + k);
            PN_CHECK(g && pn_f32(g)[k] == (float)want, PN_MISMATCH, "%s: gradient %lld is %g, not %g", of->name,
                     (long long)(of->offset + k), g ? pn_f32(g)[k] : NAN, want);
        }
    }
    free(a);
    free(names);
    return PN_OK;
}

/* spoilt: added to a gradient of the last rank, in the last pass. */
static pn_status part_step(part *x, int64_t step, double spoilt, double *norm) {
    for (int pass = 0; pass < PASSES; pass++) PN_TRY(part_pass(x, step, pass, pass == PASSES - 1 ? spoilt : 0));
    PN_TRY(pn_zero_reduce(x->zero));
    if (spoilt == 0) PN_TRY(check_sums(x, step));
    PN_TRY(pn_adamw_begin(pn_zero_optimizer(x->zero), rate, NULL));
    PN_TRY(pn_zero_gather(x->zero));
    PN_TRY(pn_adamw_finish(pn_zero_optimizer(x->zero), norm));
    return PN_OK;
}

/* Bit for bit with one rank; more cut loops elsewhere, and what a compiler makes of a loop's ends may round otherwise.
 */
static pn_status check_weights(const pn_params *got, const pn_params *want, bool exact) {
    const double most = exact ? 0 : 2e-6;
    for (int i = 0; i < WEIGHTS; i++) {
        const float *x = pn_f32(got->item[i]->value), *y = pn_f32(want->item[i]->value);
        for (int64_t k = 0; k < pn_tensor_elems(want->item[i]->value); k++)
            PN_CHECK(fabs(x[k] - y[k]) <= most, PN_MISMATCH, "%s: element %lld is %.9g, not %.9g", weights[i].name,
                     (long long)k, x[k], y[k]);
    }
    return PN_OK;
}

/* ---- tests ---- */

enum { SEED = 3, STEPS = 4 };

/* Weights move into arrays of their own and stay what they are, there and when the arrays' owner is gone. */
static int weights_stay(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    part x = { 0 };
    whole w = { 0 };
    pn_tensor *was[WEIGHTS];
    RANK_OK(report, whole_open(SEED, &w));
    RANK_OK(report, part_open(control, SEED, &x));
    for (int i = 0; i < WEIGHTS; i++) was[i] = x.params->item[i]->value;
    const pn_storage *flat = was[0]->storage;
    for (int i = 0; i < WEIGHTS; i++) {
        RANK_CHECK(report, (was[i]->storage == flat) == (i < TRAINED), "%s lies elsewhere", weights[i].name);
        RANK_CHECK(report, was[i]->rank == (weights[i].columns ? 2 : 1) && was[i]->shape[0] == weights[i].rows,
                   "%s has another shape", weights[i].name);
    }
    RANK_OK(report, check_weights(x.params, w.params, true));
    RANK_OK(report, pn_zero_gather(x.zero));
    RANK_OK(report, check_weights(x.params, w.params, true));
    pn_zero_destroy(&x.zero);
    for (int i = 0; i < WEIGHTS; i++) RANK_CHECK(report, x.params->item[i]->value == was[i], "another tensor");
    RANK_OK(report, check_weights(x.params, w.params, true));
    part_close(&x);
    whole_close(&w);
    return 0;
}

/* The digest: of the weights after some steps. */
static int trains(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    part x = { 0 };
    whole w = { 0 };
    RANK_OK(report, whole_open(SEED, &w));
    RANK_OK(report, part_open(control, SEED, &x));
    for (int64_t step = 0; step < STEPS; step++) {
        double norm, wanted;
        RANK_OK(report, part_step(&x, step, 0, &norm));
        RANK_OK(report, whole_step(&w, step, r->n, &wanted));
        RANK_CHECK(report, norm > 1 && norm == wanted, "the norm is %.17g, not %.17g", norm, wanted);
        RANK_OK(report, check_weights(x.params, w.params, r->n == 1));
    }
    RANK_OK(report, pn_params_hash(x.params, &report->digest));
    part_close(&x);
    whole_close(&w);
    return 0;
}

/* A gradient of one rank that is not finite is an error on all, which have changed nothing and go on. */
static int one_is_not_finite(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    part x = { 0 };
    whole w = { 0 };
    double norm;
    RANK_OK(report, whole_open(SEED, &w));
    RANK_OK(report, part_open(control, SEED, &x));
    RANK_OK(report, part_step(&x, 0, 0, &norm));
    RANK_OK(report, whole_step(&w, 0, r->n, NULL));
    const double spoilt[] = { INFINITY, NAN, -INFINITY };
    for (int i = 0; i < 3; i++) {
        const pn_status s = part_step(&x, 1, spoilt[i], &norm);
        RANK_CHECK(report, s == PN_NUMERIC && strstr(pn_error_message(), "is not finite"), "status %d: %s", (int)s,
                   pn_error_message());
        RANK_OK(report, check_weights(x.params, w.params, r->n == 1));
    }
    RANK_OK(report, part_step(&x, 2, 0, &norm));
    RANK_OK(report, whole_step(&w, 2, r->n, NULL));
    RANK_OK(report, check_weights(x.params, w.params, r->n == 1));
    part_close(&x);
    whole_close(&w);
    return 0;
}

/* A failure while gradients are on their way: their buffers go, and the ranks with them. */
static int fails_in_a_step(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    part x = { 0 };
    RANK_OK(report, part_open(control, SEED, &x));
    for (int pass = 0; pass < PASSES; pass++) {
        const pn_status passed = part_pass(&x, 0, pass, 0);
        RANK_OK(report, pn_control_failed(control) ? PN_OK : passed); /* rank 1 may be ahead, and gone */
    }
    if (rank == 1) pn_control_abort(control, "what ended the step");
    pn_zero_destroy(&x.zero);
    RANK_CHECK(report, rank != 1 || x.comm->abandoned, "nothing was on its way");
    pn_tape_destroy(&x.tape);
    while (!pn_control_failed(control)) usleep(1000);
    report_failure(report, pn_control_status(control));
    part_close(&x);
    return strcmp(report->message, "rank 1 failed: what ended the step") ? 13 : 0;
}

START_TEST(a_failure_in_the_middle_of_a_step) {
    ranks *r = ranks_new(3);
    ranks_start(r, fails_in_a_step);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

/* Run state: as the trainer's, the optimizer's parts and its number of steps. */
typedef struct state {
    pn_checkpoint_array *array;
    char (*names)[PN_OPTIMIZER_NAME];
    int n;
} state;

static state state_of(part *x) {
    const size_t n = (size_t)pn_adamw_slots(pn_zero_optimizer(x->zero)) * PN_OPTIMIZER_ARRAYS;
    state s = { .array = calloc(n + 1, sizeof *s.array), .names = calloc(n + 1, sizeof *s.names) };
    s.n = pn_zero_arrays(x->zero, s.array, s.names);
    s.array[s.n++] = pn_checkpoint_data("optimizer_steps", PN_I64, 1, pn_adamw_steps(pn_zero_optimizer(x->zero)));
    return s;
}

static void state_free(state *s) {
    free(s->array);
    free(s->names);
}

static int64_t made;   /* steps, by earlier ranks */
static int before[16]; /* how many ranks made each of them */

/* Goes on from what other ranks saved, by a step. */
static int one_more(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    const pn_checkpoint_ranks of = pn_state_ranks(control);
    char dir[80];
    snprintf(dir, sizeof dir, "%s/state", r->dir);
    const pn_checkpoint_place where = { .dir = dir, .fingerprint = 1, .ranks = r->n > 1 ? &of : NULL };
    part x = { 0 };
    whole w = { 0 };
    int64_t step;
    double norm;
    RANK_OK(report, whole_open(SEED, &w));
    for (int64_t i = 0; i < made; i++) RANK_OK(report, whole_step(&w, i, before[i], NULL));
    RANK_OK(report, part_open(control, made ? SEED + 1 : SEED, &x)); /* what is not read is wrong */
    if (made) RANK_OK(report, pn_tensor_copy(x.params->item[TRAINED]->value, w.params->item[TRAINED]->value));
    state s = state_of(&x);
    RANK_OK(report, pn_checkpoint_read(&where, s.array, s.n, &step));
    RANK_CHECK(report, step == (made ? made : -1), "step %lld is there", (long long)step);
    RANK_OK(report, pn_zero_gather(x.zero));
    RANK_CHECK(report, *pn_adamw_steps(pn_zero_optimizer(x.zero)) == made, "the optimizer's steps");
    RANK_OK(report, check_weights(x.params, w.params, false));
    RANK_OK(report, part_step(&x, made, 0, &norm));
    RANK_OK(report, whole_step(&w, made, r->n, NULL));
    RANK_OK(report, check_weights(x.params, w.params, false));
    RANK_OK(report, pn_checkpoint_write(&where, made + 1, s.array, s.n));
    state_free(&s);
    part_close(&x);
    whole_close(&w);
    return 0;
}

static void run(int n, rank_program *program, uint64_t *digest) {
    ranks *r = ranks_new(n);
    ranks_start(r, program);
    ranks_all_succeed(r);
    for (int i = 0; i < n && digest; i++) ck_assert(r->report[i].digest == r->report[0].digest);
    if (digest) *digest = r->report[0].digest;
    ranks_free(r);
}

START_TEST(weights_move_and_stay_what_they_are) {
    for (int n = 1; n <= 3; n++) run(n, weights_stay, NULL);
}
END_TEST

START_TEST(ranks_train_as_one_optimizer_does) {
    for (int n = 1; n <= 3; n++) {
        uint64_t digest, again;
        run(n, trains, &digest);
        run(n, trains, &again);
        ck_assert(digest == again);
    }
}
END_TEST

START_TEST(a_gradient_that_is_not_finite_stops_all) {
    for (int n = 1; n <= 3; n++) run(n, one_is_not_finite, NULL);
}
END_TEST

START_TEST(any_number_goes_on_from_what_another_saved) {
    static const int numbers[] = { 2, 3, 1, 3, 2 };
    ranks *r = ranks_new(1);
    for (int i = 0; i < 5; i++) {
        r->n = numbers[i];
        ranks_start(r, one_more);
        ranks_all_succeed(r);
        before[made++] = r->n;
    }
    ranks_free(r);
}
END_TEST

TEST_MAIN("zero", weights_move_and_stay_what_they_are, ranks_train_as_one_optimizer_does,
          a_gradient_that_is_not_finite_stops_all, a_failure_in_the_middle_of_a_step,
          any_number_goes_on_from_what_another_saved)
