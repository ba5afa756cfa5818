#include "meter.h"

#include <string.h>
#include <sys/resource.h>

#include "device.h"
#include "log.h"
#include "ranks.h"

double pn_gpu_peak(const char *name) {
    /* The first that the name holds: the longer names before what they begin with. */
    static const struct {
        const char *part;
        double tflops;
    } known[] = {
        { "GB200", 2500 },    { "B200", 2250 },    { "B100", 1750 }, { "GH200", 989 },    { "H200", 989 },
        { "H100 PCIe", 756 }, { "H100 NVL", 835 }, { "H100", 989 },  { "H800", 989 },     { "H20", 148 },
        { "A100", 312 },      { "A800", 312 },     { "A30", 165 },   { "L40S", 362 },     { "L40", 181 },
        { "L4", 121 },        { "A40", 150 },      { "A10", 125 },   { "RTX 4090", 165 }, { "RTX 3090", 71 }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(name, known[i].part)) return known[i].tflops * 1e12;
    return 0;
}

double pn_gpu_peak_told(const char *name, const char *job) {
    const double peak = pn_gpu_peak(name);
    if (peak == 0)
        pn_info("%s: no MFU is shown, as no peak of the %s is known: set mfu_tflops to its dense BF16 TFLOP/s", job,
                name);
    return peak;
}

static pn_status plan_flops(pn_tape *t, const pn_train_job *job, pn_batch *batch, double *per_token) {
    const int64_t tokens = pn_train_rank_pass(job), row = pn_mixture_row_tokens(job->mixture);
    const pn_loss_weights weights = pn_loss_most(&job->options->loss);
    pn_distill_losses losses;
    pn_distill pass = { .student = job->student,
                        .path = job->path,
                        .teacher = job->teacher,
                        .teacher_path = job->teacher_path,
                        .weights = &weights };
    PN_TRY(pn_train_batch(job, 0, tokens / row, batch));
    if (job->before) PN_TRY(job->before(job->ctx, t, 0, &pass));
    PN_TRY(pn_distill_forward(t, &pass, batch, &losses));
    PN_TRY(pn_tape_backward(t, losses.total));
    *per_token = pn_tape_cost(t).flops / (double)tokens;
    return PN_OK;
}

pn_status pn_meter_flops(const pn_train_job *job, double *per_token) {
    pn_tape *plan;
    pn_batch batch = { 0 };
    PN_TRY(pn_params_tape_plan(job->student->params, &plan));
    pn_status s = plan_flops(plan, job, &batch, per_token);
    pn_tape_destroy(&plan);
    pn_batch_free(&batch);
    return s;
}

pn_status pn_meter_open(const pn_train_job *job, pn_meter *out) {
    pn_device_info gpu;
    *out = (pn_meter){ .peak = job->mfu_tflops * 1e12 };
    if (out->peak == 0 && job->student->params->backend == PN_CUDA) {
        PN_TRY(pn_device_describe(&gpu));
        out->peak = pn_gpu_peak_told(gpu.name, job->name);
    }
    out->peak *= pn_ranks_of(job->world); /* as the speed is that of all */
    if (out->peak > 0) PN_TRY(pn_meter_flops(job, &out->flops_per_token));
    return PN_OK;
}

double pn_meter_mfu(const pn_meter *m, double tokens_per_second) {
    return m->peak > 0 ? m->flops_per_token * tokens_per_second / m->peak : 0;
}

double pn_memory_used(pn_backend backend) {
    pn_device_info gpu;
    struct rusage own;
    if (backend == PN_CUDA && !pn_device_describe(&gpu)) return (double)(gpu.memory_bytes - gpu.free_bytes);
    pn_error_clear();
    return getrusage(RUSAGE_SELF, &own) ? 0 : 1024.0 * (double)own.ru_maxrss;
}
