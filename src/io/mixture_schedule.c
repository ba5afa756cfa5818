/* Which part each row of a mixture comes from. */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "mixture_internal.h"
#include "permute.h"

enum { SEGMENT_ROWS_MIN = 8 };

static bool part_has(const pn_part *p, int split) {
    return (p->weight.from > 0 || p->weight.to > 0) && (p->skill || p->windows[split].n > 0);
}

/* Shares of the parts at x in 0 .. 1 of the rows, by which weights change. */
static void shares_at(const pn_mixture *m, int split, double x, double *share) {
    double total = 0;
    for (int64_t i = 0; i < m->n_parts; i++) {
        share[i] = part_has(&m->parts[i], split) ? pn_ramp_at(&m->parts[i].weight, x) : 0;
        total += share[i];
    }
    for (int64_t i = 0; i < m->n_parts; i++) share[i] = total > 0 ? share[i] / total : 0;
}

/* Rows of a period by largest remainder. want: how many each part should have, which add up to the period but for
 * rounding; `each`: every part that should have some has at least one. */
static void share_rows(const pn_mixture *m, int64_t period, const double *want, bool each, int16_t *rows) {
    double rest[PN_MIXTURE_PARTS_MAX];
    int64_t given = 0;
    for (int64_t i = 0; i < m->n_parts; i++) {
        rows[i] = want[i] > 0 ? (int16_t)want[i] : 0;
        if (each && want[i] > 0 && rows[i] == 0) rows[i] = 1;
        rest[i] = want[i] - rows[i];
        given += rows[i];
    }
    while (given != period) { /* give to the largest remainder, or take from the smallest */
        const int step = given < period ? 1 : -1;
        int64_t best = -1;
        for (int64_t i = 0; i < m->n_parts; i++) {
            const bool may = step > 0 ? want[i] > 0 : rows[i] > (each ? 1 : 0);
            if (may && (best < 0 || step * rest[i] > step * rest[best])) best = i;
        }
        rows[best] = (int16_t)(rows[best] + step);
        rest[best] -= step;
        given += step;
    }
}

static pn_status constant(pn_mixture *m, int split, double x) {
    pn_schedule *s = &m->schedule[split];
    double share[PN_MIXTURE_PARTS_MAX];
    s->segment = calloc(1, sizeof *s->segment);
    PN_CHECK(s->segment, PN_MEMORY, "mixture: out of memory");
    s->n_segments = 1;
    s->period = PN_MIXTURE_PERIOD;
    s->periods = INT64_MAX;
    shares_at(m, split, x, share);
    for (int64_t i = 0; i < m->n_parts; i++) share[i] *= PN_MIXTURE_PERIOD;
    share_rows(m, s->period, share, true, s->segment[0].rows);
    return PN_OK;
}

/* A part is owed what the shares so far would have given it. */
static pn_status changing(pn_mixture *m, int split) {
    pn_schedule *s = &m->schedule[split];
    const int64_t most = m->rows / SEGMENT_ROWS_MIN;
    const int n = most < 1 ? 1 : most < PN_MIXTURE_SEGMENTS ? (int)most : PN_MIXTURE_SEGMENTS;
    const int64_t each = m->rows / n;
    double owed[PN_MIXTURE_PARTS_MAX] = { 0 }, share[PN_MIXTURE_PARTS_MAX], want[PN_MIXTURE_PARTS_MAX];
    s->segment = calloc((size_t)n, sizeof *s->segment);
    PN_CHECK(s->segment, PN_MEMORY, "mixture: out of memory");
    s->n_segments = n;
    s->periods = (each + PN_MIXTURE_PERIOD - 1) / PN_MIXTURE_PERIOD;
    s->period = each / s->periods;
    for (int g = 0; g < n; g++) {
        struct pn_segment *at = &s->segment[g];
        shares_at(m, split, (g + 0.5) / n, share);
        for (int64_t i = 0; i < m->n_parts; i++) {
            owed[i] += share[i] * (double)(s->period * s->periods);
            want[i] = share[i] > 0 ? fmax((owed[i] - (double)at->before[i]) / (double)s->periods, DBL_MIN) : 0;
        }
        share_rows(m, s->period, want, false, at->rows);
        for (int64_t i = 0; i < m->n_parts && g + 1 < n; i++)
            at[1].before[i] = at->before[i] + at->rows[i] * s->periods;
    }
    return PN_OK;
}

pn_status pn_mixture_schedule(pn_mixture *m, pn_split split) {
    bool any = false, changes = false;
    m->schedule[split].laid_out = -1;
    for (int64_t i = 0; i < m->n_parts; i++) {
        const pn_part *p = &m->parts[i];
        if (!part_has(p, split)) continue;
        any = true;
        changes = changes || p->weight.from != p->weight.to;
    }
    if (!any) return PN_OK;
    if (changes && split == PN_SPLIT_TRAIN)
        PN_TRY(changing(m, split));
    else
        PN_TRY(constant(m, split, 0.5));
    return PN_OK;
}

/* Puts the rows of a period of that segment in their order. */
static void lay_out(const pn_mixture *m, int split, int segment, pn_schedule *s) {
    int16_t seen[PN_MIXTURE_PARTS_MAX] = { 0 };
    const int16_t *rows = s->segment[segment].rows;
    for (int64_t i = 0, at = 0; i < m->n_parts; i++)
        for (int k = 0; k < rows[i]; k++, at++)
            s->part[pn_permute(m->seed + (uint64_t)segment, (uint64_t)split, s->period, at)] = (int16_t)i;
    for (int64_t k = 0; k < s->period; k++) s->before[k] = seen[s->part[k]]++;
    s->laid_out = segment;
}

void pn_mixture_locate(pn_mixture *m, pn_split split, int64_t index, int64_t *part, int64_t *ordinal) {
    pn_schedule *s = &m->schedule[split];
    const int64_t period = index / s->period, place = index % s->period, last = s->n_segments - 1;
    const int64_t segment = period / s->periods < last ? period / s->periods : last;
    if (s->laid_out != (int)segment) lay_out(m, split, (int)segment, s);
    const struct pn_segment *at = &s->segment[segment];
    const int64_t passed = segment ? period - segment * s->periods : period;
    *part = s->part[place];
    *ordinal = at->before[*part] + passed * at->rows[*part] + s->before[place];
}
