/* The blocks of a chunk and everything that is multiplied by a decay once: see dplr_chunk.h. */
#include "dplr_chunk.h"

#include <string.h>

#include "cpu/clones.h"
#include "cpu/fast_math.h"

enum { C = PN_DPLR_C };

/* Exponents stay within it, so a pair above the diagonal, computed and then masked, stays below e^40 times its values.
 */
static const float most_decay = 40;

/* sum += g; the least sum. */
static PN_CLONES float add_decay(int64_t n, const float *g, float *sum) {
    float least = 0;
#pragma omp simd reduction(min : least)
    for (int64_t x = 0; x < n; x++) {
        sum[x] += g[x];
        least = sum[x] < least ? sum[x] : least;
    }
    return least;
}

/* sum: [dk] work. The decay of a block is that of its tokens after the first. */
static void cut_into_blocks(const pn_dplr_dims *d, const float *g, float *sum, pn_dplr_tiles *t) {
    t->blocks = 1;
    t->first[0] = 0;
    memset(sum, 0, sizeof(float) * (size_t)d->dk);
    for (int64_t i = 1; i < t->n; i++)
        if (add_decay(d->dk, g + i * d->ldk, sum) < -most_decay) {
            t->first[t->blocks++] = i;
            memset(sum, 0, sizeof(float) * (size_t)d->dk);
        }
    t->first[t->blocks] = t->n;
}

/* total = the sum of n rows of g. */
static PN_CLONES void sum_decays(int64_t n, int64_t cols, const float *g, int64_t ld, double *total) {
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) total[c] = 0;
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) total[c] += (double)g[i * ld + c];
}

/* ref = L of a block's first token. before: of the first token of the block before; since: the decay from there to that
 * block's last token; NULL: there is none. g: of this token. */
static PN_CLONES void reference(int64_t cols, const float *g, const double *before, const double *since, double *ref) {
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) ref[c] = (before ? before[c] + since[c] : 0) + (double)g[c];
}

/* e = e^(a - b); b NULL: 0. An exponent near 40 rounds to float with an error of 2e-6: what it loses is a factor. */
static PN_CLONES void exp_difference(int64_t cols, const double *a, const double *b, float *e) {
#pragma omp simd
    for (int64_t c = 0; c < cols; c++) {
        double exact = a[c] - (b ? b[c] : 0);
        exact = exact > -200 ? exact : -200; /* 0 either way, but nothing lost may be infinite */
        float exponent = (float)exact;
        e[c] = pn_exp_nonposf(exponent) * (1 + (float)(exact - (double)exponent));
    }
}

/* up, down of n tokens; g: their log decays; since: that of the last from the first on. Exponents as above. */
static PN_CLONES void decay_factors(int64_t n, int64_t cols, int64_t row, const float *g, int64_t ld, double *since,
                                    float *up, float *down) {
    for (int64_t c = 0; c < cols; c++) since[c] = 0;
    for (int64_t i = 0; i < n; i++) {
        if (i > 0)
            for (int64_t c = 0; c < cols; c++) since[c] += (double)g[i * ld + c];
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            float exponent = (float)since[c], lost = (float)(since[c] - (double)exponent);
            up[i * row + c] = pn_expf(exponent) * (1 + lost);
            down[i * row + c] = pn_expf(-exponent) * (1 - lost);
        }
    }
}

/* moved_i = factor decay_i x_i, far_i = moved_i beyond: n rows. */
static PN_CLONES void decay_rows(int64_t n, int64_t cols, int64_t row, float factor, const float *decay,
                                 const float *beyond, const float *x, int64_t ld, float *moved, float *far) {
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t c = 0; c < cols; c++) {
            float y = factor * decay[i * row + c] * x[i * ld + c];
            moved[i * row + c] = y;
            far[i * row + c] = y * beyond[c];
        }
}

void pn_dplr_decays(const pn_dplr_dims *d, int64_t n, const pn_dplr_rows *x, pn_dplr_tiles *t) {
    int64_t dk = d->dk, row = d->row, ld = d->ldk;
    double *last = t->sums, *since = last + row, *ref = since + row;
    t->n = n;
    cut_into_blocks(d, x->g, t->through, t);
    sum_decays(n, dk, x->g, ld, last);
    exp_difference(dk, last, NULL, t->through);
    pn_copy_rows(1, dk, x->a, ld, t->A, row);
    pn_copy_rows(1, dk, x->a, ld, t->Ain, row);
    for (int64_t b = 0; b < t->blocks; b++, ref += row) {
        int64_t first = t->first[b], rows = t->first[b + 1] - first, at = first * row, from = first * ld;
        int64_t next_rows = b + 1 < t->blocks ? rows : rows - 1, next = at + row;
        float *start = t->start + b * row, *end = t->end + b * row, *up = t->up + at, *down = t->down + at;
        reference(dk, x->g + from, b > 0 ? ref - row : NULL, since, ref);
        exp_difference(dk, ref, NULL, start);
        exp_difference(dk, last, ref, end);
        if (b > 0) exp_difference(dk, ref, ref - row, t->step + b * row);
        decay_factors(rows, dk, row, x->g + from, ld, since, up, down);
        decay_rows(rows, dk, row, d->scale, up, start, x->q + from, ld, t->Q + at, t->Qin + at);
        decay_rows(rows, dk, row, 1, down, end, x->k + from, ld, t->K + at, t->Kout + at);
        decay_rows(rows, dk, row, 1, down, end, x->b + from, ld, t->B + at, t->Bout + at);
        decay_rows(next_rows, dk, row, 1, up, start, x->a + from + ld, ld, t->A + next, t->Ain + next);
    }
}
