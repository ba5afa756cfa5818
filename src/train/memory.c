#include "memory.h"

#include "device.h"

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

/* Gradients that the plan gave to weights: the optimizer has these. */
static double planned_gradients(const pn_params *p) {
    double bytes = 0;
    for (int i = 0; i < p->n; i++)
        if (p->item[i]->value->grad) bytes += (double)pn_tensor_bytes(p->item[i]->value->grad);
    return bytes;
}

static pn_status plan_step(const pn_train_job *job, pn_tape *t, int64_t step, const pn_batch *batch, double *bytes) {
    pn_distill pass = { .student = job->student,
                        .path = job->path,
                        .teacher = job->teacher,
                        .teacher_path = job->teacher_path,
                        .weights = &job->options->loss,
                        .recompute = job->options->recompute };
    pn_distill_losses losses;
    pn_tape_reset(t);
    pn_pool_reset_peak(pn_tape_pool(t));
    if (job->before) PN_TRY(job->before(job->ctx, t, step, &pass));
    PN_TRY(pn_distill_forward(t, &pass, batch, &losses));
    PN_TRY(pn_tape_backward(t, losses.total));
    const double peak = (double)pn_pool_peak_bytes(pn_tape_pool(t)) - planned_gradients(job->student->params);
    if (peak > *bytes) *bytes = peak;
    return PN_OK;
}

pn_status pn_train_plan(const pn_train_job *job, pn_memory_need *out) {
    const pn_params *p = job->student->params;
    const int64_t rows = job->options->batch_tokens / pn_mixture_row_tokens(job->mixture);
    const int64_t steps = job->options->tokens / job->options->batch_tokens;
    pn_batch batch = { 0 };
    pn_tape *t;
    *out = (pn_memory_need){ .optimizer = pn_optimizer_need(p) };
    PN_TRY(pn_tape_create_plan(p->backend, p->dtype, &t));
    pn_status s = PN_OK;
    for (int64_t step = 0; step < steps && step < PLANNED_STEPS && !s; step++) {
        s = pn_batch_load(job->mixture, step * rows, rows, &batch);
        if (!s) s = plan_step(job, t, step, &batch, &out->step);
    }
    pn_tape_destroy(&t);
    pn_batch_free(&batch);
    return s;
}

pn_status pn_memory_check(const pn_memory_need *need, double free_bytes, const char *where) {
    const double sum = pn_memory_sum(need);
    PN_CHECK(
        sum <= free_bytes, PN_USAGE,
        "%s: training needs %.2f GB of the GPU's memory (weights to make %.2f, optimizer %.2f, a step %.2f, stored "
        "activations %.2f), and %.2f are free: lower batch_tokens, set recompute: true, or train fewer candidates",
        where, sum / 1e9, need->weights / 1e9, need->optimizer / 1e9, need->step / 1e9, need->data / 1e9,
        free_bytes / 1e9);
    return PN_OK;
}

pn_status pn_train_fits(const pn_train_job *job) {
    pn_memory_need need;
    pn_device_info gpu;
    if (job->student->params->backend != PN_CUDA) return PN_OK;
    PN_TRY(pn_train_plan(job, &need));
    PN_TRY(pn_device_describe(&gpu));
    PN_TRY(pn_memory_check(&need, (double)gpu.free_bytes, job->name));
    return PN_OK;
}
