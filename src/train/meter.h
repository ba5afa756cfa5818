/* How well training uses the machine: model flops utilisation (MFU) and memory.
 *
 * The useful work of a step is what its ops declare (pn_op_cost) of the student's forward and backward and of the
 * teacher's forward: not what backward makes again. MFU is that work per second over the peak of the device: what the
 * configuration says, or the dense BF16 product of a GPU whose name is known. */
#ifndef PN_TRAIN_METER_H
#define PN_TRAIN_METER_H

#include "trainer.h"

typedef struct pn_meter {
    double peak;            /* flops per second; 0: unknown, no MFU */
    double flops_per_token; /* useful ones; 0: unknown */
} pn_meter;

/* Plans a step of the job where a peak is known: job->mfu_tflops, or the GPU's that the student is on. */
pn_status pn_meter_open(const pn_train_job *job, pn_meter *out);
/* Useful flops per token of a job's first pass, planned. */
pn_status pn_meter_flops(const pn_train_job *job, double *per_token);
/* A share of 1; 0 where it is unknown. */
double pn_meter_mfu(const pn_meter *m, double tokens_per_second);
/* Bytes in use: of the GPU, or the most that this process had of the host. */
double pn_memory_used(pn_backend backend);
/* Dense BF16 flops per second by what a vendor says of a GPU of that name; 0: not known. */
double pn_gpu_peak(const char *name);
/* The same, and where it is not known people are told what to set. */
double pn_gpu_peak_told(const char *name, const char *job);

#endif
