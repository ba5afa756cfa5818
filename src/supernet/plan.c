#include "plan.h"

#include "feature_loss/feature_loss.h"
#include "local.h"
#include "memory_advice.h"

/* ---- local ---- */

static bool trains(const pn_model *m, const pn_block *b) {
    for (int i = 0; i < m->params->n; i++)
        if (m->params->item[i]->value->wants_grad && pn_param_below(m->params->item[i]->name, b->prefix)) return true;
    return false;
}

static double optimizer_of_layer(const pn_model *m, int l) {
    double bytes = 0;
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (!p->value->wants_grad) continue;
        for (int c = 1; c < m->layer[l].n_candidates; c++)
            if (pn_param_below(p->name, m->layer[l].candidate[c]->prefix))
                bytes += pn_adamw_bytes((double)pn_tensor_elems(p->value), p->value->dtype);
    }
    return bytes;
}

/* What one candidate's update adds to what is live. */
static pn_status plan_candidate(pn_block *b, pn_tape *t, pn_tensor *x, pn_tensor *y, const pn_docs *docs,
                                double *bytes) {
    pn_tensor *f, *loss;
    pn_carry carry = { 0 };
    pn_pool *pool = pn_tape_pool(t);
    pn_scope scope = pn_scope_open(t);
    const double live = (double)pn_pool_live_bytes(pool);
    pn_pool_reset_peak(pool);
    pn_tape_record(t, true);
    PN_TRY(pn_block_forward(b, t, x, docs, &carry, &f));
    PN_TRY(pn_feature_loss(t, f, y, &loss));
    PN_TRY(pn_tape_backward(t, loss));
    pn_tape_record(t, false);
    const double took = (double)pn_pool_peak_bytes(pool) - live;
    if (took > *bytes) *bytes = took;
    pn_scope_close(t, scope, NULL, 0);
    return PN_OK;
}

static pn_status plan_layer(const pn_model *m, int l, pn_tape *t, const pn_batch *batch, double *bytes) {
    pn_tensor *ids, *targets, *weights, *h, *x, *y, *next;
    pn_carry carry = { 0 };
    pn_pool *pool = pn_tape_pool(t);
    double most = 0;
    pn_tape_reset(t);
    pn_pool_reset_peak(pool);
    PN_TRY(pn_batch_tensors(batch, t, &ids, &targets, &weights));
    PN_TRY(pn_model_embed(m, t, ids, &h));
    PN_TRY(pn_model_mixer_input(m, l, t, h, &x));
    PN_TRY(pn_block_forward(m->layer[l].candidate[0], t, x, &batch->docs, &carry, &y));
    PN_TRY(pn_model_mlp_half(m, l, t, h, y, &next));
    const double teacher = (double)pn_pool_peak_bytes(pool), live = (double)pn_pool_live_bytes(pool);
    for (int c = 1; c < m->layer[l].n_candidates; c++)
        if (trains(m, m->layer[l].candidate[c]))
            PN_TRY(plan_candidate(m->layer[l].candidate[c], t, x, y, &batch->docs, &most));
    *bytes = teacher > live + most ? teacher : live + most;
    return PN_OK;
}

/* Layers differ in nothing that counts but in which candidates still train. */
static pn_status plan_local(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                            pn_memory_need *out) {
    pn_batch batch = { 0 };
    pn_tape *t = NULL;
    int widest = 0;
    for (int l = 1; l < m->config.n_layers; l++)
        if (optimizer_of_layer(m, l) > optimizer_of_layer(m, widest)) widest = l;
    *out = (pn_memory_need){ .optimizer = phase->order == PN_ORDER_LAYER ? optimizer_of_layer(m, widest)
                                                                         : pn_optimizer_need(m->params) };
    pn_status s;
    PN_TRY_GOTO(s, pn_params_tape_plan(m->params, &t), done);
    pn_tape_record(t, false);
    PN_TRY_GOTO(s,
                pn_batch_load(job->mixture, 0, phase->train.batch_tokens / pn_mixture_row_tokens(job->mixture), &batch),
                done);
    PN_TRY_GOTO(s, plan_layer(m, widest, t, &batch, &out->step), done);
done:
    pn_tape_destroy(&t);
    pn_batch_free(&batch);
    return s;
}

double pn_supernet_store_bytes(const pn_model *m, const pn_supernet_phase *phase) {
    if (phase->mode != PN_SUPERNET_LOCAL || phase->order != PN_ORDER_LAYER) return 0;
    const int64_t steps = phase->train.tokens / phase->train.batch_tokens;
    return (double)steps * (double)phase->train.batch_tokens * (double)m->config.dims.hidden *
           (double)pn_dtype_bytes(pn_local_store_dtype(m, phase));
}

/* ---- along paths ---- */

typedef struct planned {
    const pn_model *m;
    const pn_supernet_job *job;
    pn_path path;
} planned;

static pn_status planned_path(void *ctx, pn_tape *t, int64_t step, pn_distill *pass) {
    planned *p = ctx;
    (void)t;
    p->path = pn_supernet_sample(p->m, p->job->seed, step);
    pass->path = &p->path;
    return PN_OK;
}

static pn_status planned_gates(void *ctx, pn_tape *t, int64_t step, pn_distill *pass) {
    const planned *p = ctx;
    int64_t most = 0;
    (void)step;
    for (int l = 0; l < p->m->config.n_layers; l++)
        if (p->m->layer[l].n_candidates > most) most = p->m->layer[l].n_candidates;
    PN_TRY(
        pn_tape_new(t, pn_wide_dtype(pn_tape_dtype(t)), 2, (int64_t[]){ p->m->config.n_layers, most }, &pass->gates));
    pass->gates->wants_grad = true;
    return PN_OK;
}

pn_status pn_supernet_plan(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job, double free_bytes,
                           pn_memory_need *out) {
    pn_train_options_apply(&phase->train, m->params->backend);
    if (phase->mode == PN_SUPERNET_LOCAL) return plan_local(m, phase, job, out);
    pn_path teacher = pn_model_own_path(m);
    planned p = { .m = m, .job = job };
    const pn_train_job train = { .name = "super-network",
                                 .options = &phase->train,
                                 .mixture = job->mixture,
                                 .student = m,
                                 .teacher = m,
                                 .teacher_path = &teacher,
                                 .before = phase->mode == PN_SUPERNET_GATED ? planned_gates : planned_path,
                                 .ctx = &p };
    PN_TRY(pn_train_plan(&train, free_bytes, NULL, out));
    return PN_OK;
}

static void add_local_settings(const pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                               const pn_memory_need *need, pn_memory_settings *s) {
    const int64_t row = pn_mixture_row_tokens(job->mixture), pass = phase->train.batch_tokens;
    s->memory_gb = phase->train.memory_gb;
    if (pass > row)
        pn_memory_may(s, need->step * (1 - (double)row / (double)pass), "lower batch_tokens");
    else
        pn_memory_may(s, need->step, "lower sequence_length, and batch_tokens with it");
    if (m->params->dtype == PN_F32) pn_memory_may(s, need->step / 2, "set precision: bf16");
    if (phase->order != PN_ORDER_LAYER)
        pn_memory_may(s, need->optimizer * (1 - 1.0 / m->config.n_layers), "set order: layer");
    if (pn_local_store_dtype(m, phase) == PN_F32) pn_memory_may(s, need->data / 2, "set store: bf16");
    pn_memory_may(s, need->data, "lower tokens");
}

pn_status pn_supernet_check(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job, double weights,
                            double free_bytes) {
    const double store = pn_supernet_store_bytes(m, phase);
    pn_memory_settings settings = { 0 };
    pn_memory_need need;
    PN_TRY(pn_supernet_plan(m, phase, job, free_bytes - weights, &need));
    need.weights = weights;
    if (store < pn_local_store_share * free_bytes) need.data = store;
    if (phase->mode == PN_SUPERNET_LOCAL) {
        add_local_settings(m, phase, job, &need, &settings);
    } else {
        const pn_train_job train = { .options = &phase->train, .mixture = job->mixture, .student = m };
        pn_memory_job_settings(&train, &need, free_bytes, &settings);
    }
    const double step = phase->mode == PN_SUPERNET_GATED ? need.step : need.gradients; /* of all at once, or of one */
    pn_memory_may(&settings, (need.weights + need.optimizer + step) / 2,
                  "train half as many candidates, or smaller ones");
    PN_TRY(pn_memory_check(&need, free_bytes, &settings, job->name ? job->name : "super-network"));
    return PN_OK;
}

pn_status pn_supernet_fits(pn_model *m, const pn_supernet_job *job) {
    if (m->params->backend != PN_CUDA) return PN_OK;
    for (int i = 0; i < job->config->n_phases; i++) {
        const pn_supernet_phase *phase = &job->config->phase[i];
        double budget;
        PN_TRY(pn_memory_budget(phase->train.memory_gb, &budget));
        PN_TRY(pn_supernet_check(m, phase, job, 0, budget));
    }
    return PN_OK;
}
