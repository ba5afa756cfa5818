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
    for (int64_t x = 0; x < cols; x++) total[x] = 0;
    for (int64_t i = 0; i < n; i++)
#pragma omp simd
        for (int64_t x = 0; x < cols; x++) total[x] += (double)g[i * ld + x];
}

/* ref = L of a block's first token. before: of the first token of the block before; since: the decay from there to that
 * block's last token. g: of this token. */
static PN_CLONES void reference(int64_t cols, const float *g, const double *before, const double *since, double *ref) {
#pragma omp simd
    for (int64_t x = 0; x < cols; x++) ref[x] = (before ? before[x] + since[x] : 0) + (double)g[x];
}

/* e = e^(a - b); b NULL: 0. An exponent near 40 rounds to float with an error of 2e-6: what it loses is a factor. */
static PN_CLONES void exp_difference(int64_t cols, const double *a, const double *b, float *e) {
#pragma omp simd
    for (int64_t x = 0; x < cols; x++) {
        double exact = a[x] - (b ? b[x] : 0);
        float exponent = (float)exact;
        e[x] = pn_exp_nonposf(exponent) * (1 + (float)(exact - (double)exponent));
    }
}

/* since += g (NULL: nothing), the decay since the block's first token; exponents as above. */
static PN_CLONES void decay_factors(int64_t cols, const float *g, double *since, float *up, float *down) {
#pragma omp simd
    for (int64_t x = 0; x < cols; x++) since[x] += g ? (double)g[x] : 0;
#pragma omp simd
    for (int64_t x = 0; x < cols; x++) {
        float exponent = (float)since[x], lost = (float)(since[x] - (double)exponent);
        up[x] = pn_expf(exponent) * (1 + lost);
        down[x] = pn_expf(-exponent) * (1 - lost);
    }
}

/* moved = factor decay x, far = moved beyond. */
static PN_CLONES void decay_row(int64_t cols, float factor, const float *decay, const float *beyond, const float *x,
                                float *moved, float *far) {
#pragma omp simd
    for (int64_t i = 0; i < cols; i++) {
        float y = factor * decay[i] * x[i];
        moved[i] = y;
        far[i] = y * beyond[i];
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
        int64_t first = t->first[b], next = t->first[b + 1];
        float *start = t->start + b * row, *end = t->end + b * row;
        reference(dk, x->g + first * ld, b > 0 ? ref - row : NULL, since, ref);
        exp_difference(dk, ref, NULL, start);
        exp_difference(dk, last, ref, end);
        if (b > 0) exp_difference(dk, ref, ref - row, t->step + b * row);
        memset(since, 0, sizeof(double) * (size_t)dk);
        for (int64_t i = first; i < next; i++) {
            int64_t at = i * row, from = i * ld;
            float *up = t->up + at, *down = t->down + at;
            decay_factors(dk, i > first ? x->g + from : NULL, since, up, down);
            decay_row(dk, d->scale, up, start, x->q + from, t->Q + at, t->Qin + at);
            decay_row(dk, 1, down, end, x->k + from, t->K + at, t->Kout + at);
            decay_row(dk, 1, down, end, x->b + from, t->B + at, t->Bout + at);
            if (i + 1 < n) decay_row(dk, 1, up, start, x->a + from + ld, t->A + at + row, t->Ain + at + row);
        }
    }
}
