/* Gated training: every layer runs all of its candidates and mixes them with its gates (gates.h).
 *
 * The trainer makes the steps; the losses are those of sampled paths, on the mixture. Branches are updated as always,
 * the logits of the gates by a rule of their own: AdamW's, but with one second moment for all of them. Divided each by
 * its own, every logit would move at the same speed, and a layer that matters a little would rise as fast as one that
 * matters a lot; what is wanted of gates is that order. */
#include "gated.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "gate_softmax/gate_softmax.h"
#include "mix/mix.h"
#include "monitor.h"
#include "start.h"

static const double gate_epsilon = 1e-12;

typedef struct gated {
    const pn_model *m;
    const pn_gate_options *options;
    const pn_train_options *train;
    int L, C; /* layers, and the most candidates of any */
    int64_t steps;
    double budget; /* of gate_softmax */
    pn_pool *pool;
    pn_tensor *logits; /* [L, C] */
    pn_tensor *cost;   /* [L, C], the weight in it; NULL: none */
    /* Measured costs are part of the job: its state goes on with those that it began with, or not at all. 0: none. */
    uint64_t cost_hash;
    float *momentum;  /* L x C */
    double square[2]; /* the second moment, and how many updates are in both */
    double *record;   /* points x L x C: gates at the points of the loss curve */
    pn_tape *exact;   /* double precision, for the record */
    pn_checkpoint_array state[4];
} gated;

static pn_status before_step(void *ctx, pn_tape *t, int64_t step, pn_distill *pass) {
    gated *g = ctx;
    pn_tensor *cost;
    double temperature = pn_gate_temperature(g->options, step, g->steps);
    g->logits->wants_grad = step >= pn_gate_warmup_steps(g->options, g->steps);
    PN_TRY(pn_gate_softmax(t, g->logits, g->cost, temperature, g->budget, &pass->gates, &cost));
    if (g->cost) pass->term = cost;
    return PN_OK;
}

static pn_status update(gated *g) {
    static float a[PN_MAX_LAYERS * PN_MAX_CANDIDATES], grad[PN_MAX_LAYERS * PN_MAX_CANDIDATES];
    int64_t n = (int64_t)g->L * g->C;
    PN_TRY(pn_tensor_read(g->logits, a, PN_F32));
    PN_TRY(pn_tensor_read(g->logits->grad, grad, PN_F32));
    double b1 = g->train->beta1, b2 = g->train->beta2, sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)grad[i] * grad[i];
    g->square[0] = b2 * g->square[0] + (1 - b2) * sum / (double)n;
    g->square[1]++;
    double rate = g->options->learning_rate / (1 - pow(b1, g->square[1]));
    double scale = sqrt(g->square[0] / (1 - pow(b2, g->square[1]))) + gate_epsilon;
    for (int64_t i = 0; i < n; i++) {
        g->momentum[i] = (float)(b1 * g->momentum[i] + (1 - b1) * grad[i]);
        a[i] -= (float)(rate * g->momentum[i] / scale);
    }
    PN_TRY(pn_tensor_write(g->logits, a, PN_F32));
    PN_TRY(pn_tensor_fill_zero(g->logits->grad));
    return PN_OK;
}

/* The gates that the logits mean at a step, in double precision: near 0 and 1 they still tell layers apart. */
static pn_status exact_gates(gated *g, int64_t step, double *out) {
    pn_tensor *a, *p, *cost;
    double temperature = pn_gate_temperature(g->options, step, g->steps);
    pn_tape_reset(g->exact);
    PN_TRY(pn_tape_new(g->exact, PN_F64, 2, g->logits->shape, &a));
    PN_TRY(pn_tensor_copy(a, g->logits));
    PN_TRY(pn_gate_softmax(g->exact, a, NULL, temperature, g->budget, &p, &cost));
    PN_TRY(pn_tensor_read(p, out, PN_F64));
    return PN_OK;
}

/* One series for all layers: TensorBoard groups the candidates of a kind. */
static void show_gates(const gated *g, int64_t step, const double *p) {
    static char names[PN_MAX_LAYERS * PN_MAX_CANDIDATES][64];
    pn_scalar scalars[PN_MAX_LAYERS * PN_MAX_CANDIDATES];
    int n = 0;
    for (int l = 0; l < g->L; l++) {
        for (int c = 0; c < g->m->layer[l].n_candidates; c++, n++) {
            snprintf(names[n], sizeof names[n], "%s/layer %02d", g->m->layer[l].candidate[c]->spec.type->name, l);
            scalars[n] = (pn_scalar){ names[n], p[l * g->C + c] };
        }
    }
    pn_monitor_point("gates", step, scalars, n);
}

static pn_status after_step(void *ctx, int64_t step, int64_t point) {
    gated *g = ctx;
    if (g->logits->wants_grad) PN_TRY(update(g));
    if (point >= 0) {
        double *p = g->record + point * g->L * g->C;
        PN_TRY(exact_gates(g, step, p));
        show_gates(g, step + 1, p);
    }
    return PN_OK;
}

static pn_gates gates_of(const gated *g, const double *p) {
    pn_gates out = { .present = true, .n_layers = g->L, .n_candidates = g->C };
    for (int l = 0; l < g->L; l++) memcpy(out.p[l], p + (int64_t)l * g->C, (size_t)g->C * sizeof *p);
    return out;
}

static pn_status report(const gated *g, pn_supernet_result *out) {
    int n = out->curve.n;
    out->gate_curve.point = calloc((size_t)n, sizeof *out->gate_curve.point);
    PN_CHECK(out->gate_curve.point, PN_MEMORY, "out of memory");
    out->gate_curve.n = n;
    for (int i = 0; i < n; i++) {
        const pn_curve_point *p = &out->curve.point[i];
        out->gate_curve.point[i] =
            (pn_gate_point){ p->step, p->tokens, pn_gate_temperature(g->options, p->step - 1, g->steps),
                             gates_of(g, g->record + (int64_t)i * g->L * g->C) };
    }
    out->gates = out->gate_curve.point[n - 1].gates;
    return PN_OK;
}

/* [L, C], where the model is. */
static pn_status make_table(gated *g, const float *values, pn_tensor **out) {
    PN_TRY(pn_tensor_create(g->pool, PN_F32, 2, (int64_t[]){ g->L, g->C }, out));
    PN_TRY(pn_tensor_write(*out, values, PN_F32));
    return PN_OK;
}

/* Logits of 0 for the candidates that a layer has, -infinity for the others. */
static pn_status make_logits(gated *g, const pn_model *m) {
    static float logit[PN_MAX_LAYERS * PN_MAX_CANDIDATES];
    for (int l = 0; l < g->L; l++)
        for (int c = 0; c < g->C; c++) logit[l * g->C + c] = c < m->layer[l].n_candidates ? 0 : -INFINITY;
    PN_TRY(pn_pool_create(pn_backend_pool(m->params->backend), &g->pool));
    PN_TRY(make_table(g, logit, &g->logits));
    PN_TRY(pn_tensor_zeros(g->pool, PN_F32, 2, g->logits->shape, &g->logits->grad));
    return PN_OK;
}

/* What the candidates of all layers cost, L x C: bytes or seconds. */
static pn_status bytes_of_candidates(const gated *g, double *out) {
    for (int l = 0; l < g->L; l++)
        for (int c = 0; c < g->m->layer[l].n_candidates; c++)
            out[l * g->C + c] = pn_block_cache_bytes(g->m->layer[l].candidate[c], g->options->cost_context, 2);
    return PN_OK;
}

static pn_status seconds_of_candidates(const gated *g, const pn_supernet_job *job, double *out) {
    pn_latency_setting setting;
    pn_timing step;
    PN_ASSERT(job->latency && job->latency_options);
    PN_TRY(pn_latency_setting_of(job->latency_options, PN_LATENCY_DECODE, g->options->cost_context, &g->m->config,
                                 &setting));
    if (job->finished) pn_latency_freeze(job->latency);
    for (int l = 0; l < g->L; l++)
        for (int c = 0; c < g->m->layer[l].n_candidates; c++) {
            const pn_block *b = g->m->layer[l].candidate[c];
            PN_TRY(pn_latency_block(job->latency, &b->spec, &b->dims, &setting, &step));
            out[l * g->C + c] = step.median;
        }
    return PN_OK;
}

/* What every choice costs as a part of what attention in all layers does. */
static pn_status make_cost(gated *g, const pn_supernet_job *job) {
    static float table[PN_MAX_LAYERS * PN_MAX_CANDIDATES];
    double cost[PN_MAX_LAYERS * PN_MAX_CANDIDATES] = { 0 }, all = 0;
    switch ((pn_gate_cost)g->options->cost) {
    case PN_COST_NONE: return PN_OK;
    case PN_COST_CACHE_BYTES: PN_TRY(bytes_of_candidates(g, cost)); break;
    case PN_COST_SECONDS: PN_TRY(seconds_of_candidates(g, job, cost)); break;
    }
    for (int l = 0; l < g->L; l++) all += cost[l * g->C];
    for (int i = 0; i < g->L * g->C; i++) table[i] = (float)(g->options->cost_weight * cost[i] / all);
    g->cost_hash = XXH3_64bits(table, (size_t)(g->L * g->C) * sizeof *table);
    PN_TRY(make_table(g, table, &g->cost));
    return PN_OK;
}

static pn_status start(gated *g, const pn_supernet_job *job) {
    const pn_model *m = g->m;
    g->L = m->config.n_layers;
    for (int l = 0; l < g->L; l++)
        if (m->layer[l].n_candidates > g->C) g->C = m->layer[l].n_candidates;
    PN_CHECK(g->C <= PN_MIX_MAX, PN_USAGE, "supernet: %d candidates in a layer; mode gated mixes up to %d", g->C,
             (int)PN_MIX_MAX);
    g->steps = g->train->tokens / g->train->batch_tokens;
    int64_t n = (int64_t)g->L * g->C, points = pn_curve_points(g->steps);
    PN_TRY(make_logits(g, m));
    PN_TRY(make_cost(g, job));
    PN_TRY(pn_tape_create(PN_REF, &g->exact));
    g->momentum = calloc((size_t)n, sizeof *g->momentum);
    g->record = calloc((size_t)(points * n), sizeof *g->record);
    PN_CHECK(g->momentum && g->record, PN_MEMORY, "out of memory");
    g->state[0] = pn_checkpoint_tensor("gates/logits", PN_F32, g->logits);
    g->state[1] = pn_checkpoint_data("gates/momentum", PN_F32, n, g->momentum);
    g->state[2] = pn_checkpoint_data("gates/square", PN_F64, 2, g->square);
    g->state[3] = pn_checkpoint_data("gates/record", PN_F64, points * n, g->record);
    return PN_OK;
}

static void free_gated(gated *g) {
    pn_tensor_release(&g->logits);
    pn_tensor_release(&g->cost);
    pn_tape_destroy(&g->exact);
    pn_pool_destroy(&g->pool);
    free(g->momentum);
    free(g->record);
}

pn_status pn_supernet_train_gated(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                                  const char *state_dir, pn_supernet_result *out) {
    gated g = { .m = m,
                .options = &phase->gates,
                .train = &phase->train,
                .budget = phase->gates.budget == PN_BUDGET_LIMIT ? (double)job->full_attention : -1 };
    pn_path teacher = pn_model_own_path(m);
    uint64_t weights;
    pn_status s;
    PN_TRY_GOTO(s, pn_train_options_check(&phase->train, job->mixture, "supernet"), done);
    PN_TRY_GOTO(s, start(&g, job), done);
    PN_TRY_GOTO(s, pn_params_hash(m->params, &weights), done);
    const uint64_t whole[] = { weights + pn_supernet_start_hash(job), pn_gate_options_hash(&phase->gates),
                               (uint64_t)job->full_attention, g.cost_hash };
    const pn_train_job train = { .name = "super-network, gated",
                                 .options = &phase->train,
                                 .mixture = job->mixture,
                                 .student = m,
                                 .teacher = m,
                                 .teacher_path = &teacher,
                                 .before = before_step,
                                 .after = after_step,
                                 .ctx = &g,
                                 .arrays = g.state,
                                 .n_arrays = sizeof g.state / sizeof *g.state,
                                 .identity = XXH3_64bits(whole, sizeof whole),
                                 .state_dir = state_dir,
                                 .finished = job->finished,
                                 .stop_after = job->stop_after };
    if (phase == job->config->phase) PN_TRY_GOTO(s, pn_supernet_start(m, phase, job, NULL), done);
    PN_TRY_GOTO(s, pn_train_run(&train, &out->curve), done);
    PN_TRY_GOTO(s, report(&g, out), done);
done:
    free_gated(&g);
    return s;
}
