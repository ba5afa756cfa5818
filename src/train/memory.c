#include "memory.h"

#include "device.h"
#include "log.h"
#include "memory_advice.h"
#include "ranks.h"

enum { PLANNED_STEPS = 4 }; /* sampled paths and packed documents differ from step to step */

double pn_memory_sum(const pn_memory_need *need) {
    return need->weights + need->optimizer + need->step + need->data;
}

double pn_optimizer_need(const pn_params *p) {
    double bytes = 0;
    for (int i = 0; i < p->n; i++)
        if (p->item[i]->value->wants_grad)
            bytes += pn_adamw_bytes((double)pn_tensor_elems(p->item[i]->value), p->item[i]->value->dtype);
    return bytes;
}

double pn_gradients_need(const pn_params *p) {
    double bytes = 0;
    for (int i = 0; i < p->n; i++)
        if (p->item[i]->value->wants_grad) bytes += (double)pn_tensor_elems(p->item[i]->value) * sizeof(float);
    return bytes;
}

pn_status pn_pass_plan(pn_tape *plan, const pn_distill *pass, const pn_batch *batch, double *bytes) {
    pn_distill_losses losses;
    PN_TRY(pn_distill_forward(plan, pass, batch, &losses));
    PN_TRY(pn_tape_backward(plan, losses.total));
    *bytes = (double)pn_pool_system_bytes(pn_tape_pool(plan));
    return PN_OK;
}

typedef struct planned_steps {
    const pn_train_job *job;
    pn_tape *plan;
    pn_batch batch;
} planned_steps;

/* The pass of a step's second part, beside the gradients of the first. A plan would drop these with a reset, so what
 * else the first pass left on the tape is taken off. */
static pn_status next_part(pn_tape *plan, const pn_distill *pass, const pn_batch *batch, double *bytes) {
    const pn_params *p = pass->student->params;
    double left = (double)pn_pool_live_bytes(pn_tape_pool(plan));
    for (int i = 0; i < p->n; i++)
        if (p->item[i]->value->grad) left -= (double)pn_tensor_bytes(p->item[i]->value->grad);
    PN_TRY(pn_pass_plan(plan, pass, batch, bytes));
    *bytes -= left;
    return PN_OK;
}

/* The most of some steps. */
static pn_status plan_steps(void *ctx, const pn_recompute *recompute, double *bytes) {
    planned_steps *c = ctx;
    const pn_train_job *job = c->job;
    const int64_t share = job->options->batch_tokens / pn_ranks_of(job->world), taken = pn_train_rank_pass(job);
    const int64_t rows = taken / pn_mixture_row_tokens(job->mixture);
    const int64_t steps = job->options->tokens / job->options->batch_tokens;
    const pn_loss_weights weights = pn_loss_most(&job->options->loss);
    const bool parted = taken < share;
    *bytes = 0;
    pn_tape_reset(c->plan);
    pn_pool_trim(pn_tape_pool(c->plan));
    for (int64_t step = 0; step < steps && step < PLANNED_STEPS; step++) {
        pn_distill pass = { .student = job->student,
                            .path = job->path,
                            .teacher = job->teacher,
                            .teacher_path = job->teacher_path,
                            .weights = &weights,
                            .recompute = *recompute };
        double one;
        PN_TRY(pn_train_batch(job, step * rows, rows, &c->batch));
        pn_tape_reset(c->plan);
        if (job->before) PN_TRY(job->before(job->ctx, c->plan, step, &pass));
        PN_TRY(pn_pass_plan(c->plan, &pass, &c->batch, &one));
        if (parted) PN_TRY(next_part(c->plan, &pass, &c->batch, &one));
        if (one > *bytes) *bytes = one;
    }
    return PN_OK;
}

pn_status pn_train_plan(const pn_train_job *job, double free_bytes, pn_recompute *how, pn_memory_need *out) {
    const pn_params *p = job->student->params;
    pn_recompute r = { .level = job->options->recompute };
    planned_steps c = { .job = job };
    pn_train_options_apply(job->options, p->backend);
    *out = (pn_memory_need){ .optimizer = pn_optimizer_need(p) / pn_ranks_of(job->world),
                             .gradients = pn_gradients_need(p) };
    PN_TRY(pn_params_tape_plan(p, &c.plan));
    pn_status s = PN_OK;
    if (job->options->recompute == PN_RECOMPUTE_AUTO)
        PN_TRY_GOTO(s, pn_recompute_fit(job->student->config.n_layers, free_bytes - out->optimizer, plan_steps, &c, &r),
                    done);
    PN_TRY_GOTO(s, plan_steps(&c, &r, &out->step), done);
    if (how) *how = r;
done:
    pn_tape_destroy(&c.plan);
    pn_batch_free(&c.batch);
    return s;
}

pn_status pn_memory_check(const pn_memory_need *need, double free_bytes, const pn_memory_settings *settings,
                          const char *where) {
    const double sum = pn_memory_sum(need);
    char advice[PN_MEMORY_ADVICE], limit[48] = "";
    if (settings->memory_gb > 0) snprintf(limit, sizeof limit, " within memory_gb %g", settings->memory_gb);
    PN_CHECK(sum <= free_bytes, PN_USAGE,
             "%s: training needs %.2f GB of the GPU's memory (weights to make %.2f, optimizer %.2f, a step %.2f, of "
             "which gradients %.2f, stored activations %.2f), and %.2f are free%s: %s",
             where, sum / 1e9, need->weights / 1e9, need->optimizer / 1e9, need->step / 1e9, need->gradients / 1e9,
             need->data / 1e9, free_bytes / 1e9, limit, pn_memory_advice(settings, sum - free_bytes, advice));
    return PN_OK;
}

pn_status pn_memory_budget(double memory_gb, double *bytes) {
    pn_device_info gpu;
    PN_TRY(pn_device_describe(&gpu));
    const double used = (double)(gpu.memory_bytes - gpu.free_bytes), libraries = 0.6e9;
    *bytes = (double)gpu.free_bytes - libraries;
    if (memory_gb > 0 && memory_gb * 1e9 - used - libraries < *bytes) *bytes = memory_gb * 1e9 - used - libraries;
    return PN_OK;
}

pn_status pn_train_fits(const pn_train_job *job, pn_recompute *how) {
    const int asked = job->options->recompute;
    pn_memory_need need;
    double budget;
    *how = (pn_recompute){ .level = asked == PN_RECOMPUTE_AUTO ? PN_RECOMPUTE_NONE : asked };
    if (job->student->params->backend != PN_CUDA) return PN_OK;
    PN_TRY(pn_memory_budget(job->options->memory_gb, &budget));
    PN_TRY(pn_train_plan(job, budget, how, &need));
    pn_memory_settings settings = { 0 };
    pn_memory_job_settings(job, &need, budget, &settings);
    PN_TRY(pn_memory_check(&need, budget, &settings, job->name));
    if (asked == PN_RECOMPUTE_AUTO && (how->level || how->more))
        pn_info("%s: backward makes again: %s; %.1f of %.1f GB are needed", job->name, pn_recompute_text(how),
                pn_memory_sum(&need) / 1e9, budget / 1e9);
    return PN_OK;
}
