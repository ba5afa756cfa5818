#include "schedule.h"

#include <math.h>
#include <stddef.h>

const char *const pn_schedule_names[] = { [PN_SCHEDULE_COSINE] = "cosine",
                                          [PN_SCHEDULE_CONSTANT] = "constant",
                                          [PN_SCHEDULE_WSD] = "wsd",
                                          [PN_SCHEDULE_LINEAR] = "linear",
                                          NULL };

double pn_schedule_rate(const pn_schedule *s, int64_t step, int64_t steps) {
    double x = ((double)step + 1) / (double)(steps > 0 ? steps : 1); /* in (0, 1] */
    if (x < s->warmup) return s->learning_rate * x / s->warmup;
    const double after = s->warmup < 1 ? (x - s->warmup) / (1 - s->warmup) : 1; /* 0 .. 1 behind the warm-up */
    double level = 1;
    switch ((pn_schedule_kind)s->kind) {
    case PN_SCHEDULE_CONSTANT: break;
    case PN_SCHEDULE_COSINE: level = s->final + (1 - s->final) * 0.5 * (1 + cos(3.14159265358979323846 * after)); break;
    case PN_SCHEDULE_LINEAR: level = s->final + (1 - s->final) * (1 - after); break;
    case PN_SCHEDULE_WSD:
        if (s->decay > 0 && x > 1 - s->decay) level = s->final + (1 - s->final) * (1 - x) / s->decay;
        break;
    }
    return s->learning_rate * level;
}
