/* The learning rate as a function of the step. */
#ifndef PN_TRAIN_SCHEDULE_H
#define PN_TRAIN_SCHEDULE_H

#include <stdint.h>

typedef enum pn_schedule_kind {
    PN_SCHEDULE_COSINE,
    PN_SCHEDULE_CONSTANT,
    PN_SCHEDULE_WSD,
    PN_SCHEDULE_LINEAR
} pn_schedule_kind;

typedef struct pn_schedule {
    int64_t kind;         /* pn_schedule_kind */
    double learning_rate; /* peak */
    double warmup;        /* fraction of the steps spent rising linearly from 0 */
    double final;         /* fraction of the peak at the last step (cosine, wsd, linear) */
    double decay;         /* wsd: fraction of the steps spent falling linearly at the end */
} pn_schedule;

extern const char *const pn_schedule_names[]; /* in pn_schedule_kind order, NULL-ended */

/* step counts from 0 to steps - 1. */
double pn_schedule_rate(const pn_schedule *s, int64_t step, int64_t steps);

#endif
