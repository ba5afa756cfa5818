#include "schedule.h"

#include <math.h>
#include <stddef.h>

const char *const pn_schedule_names[] = {
    [PN_SCHEDULE_COSINE] = "cosine", [PN_SCHEDULE_CONSTANT] = "constant", [PN_SCHEDULE_WSD] = "wsd", NULL
};

double pn_schedule_rate(const pn_schedule *s, int64_t step, int64_t steps) {
    double x = ((double)step + 1) / (double)(steps > 0 ? steps : 1); /* in (0, 1] */
    if (x < s->warmup) return s->learning_rate * x / s->warmup;
    double level = 1;
    if (s->kind == PN_SCHEDULE_COSINE) {
        double y = s->warmup < 1 ? (x - s->warmup) / (1 - s->warmup) : 1;
        level = s->final + (1 - s->final) * 0.5 * (1 + cos(3.14159265358979323846 * y));
    } else if (s->kind == PN_SCHEDULE_WSD && s->decay > 0 && x > 1 - s->decay) {
        level = s->final + (1 - s->final) * (1 - x) / s->decay;
    }
    return s->learning_rate * level;
}
