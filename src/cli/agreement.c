#include "agreement.h"

#include <math.h>
#include <stdlib.h>

#include "golden.h"

static int64_t first_choice(const float *z, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (z[i] > z[best]) best = i;
    return best;
}

static double log_sum_exp(const float *z, int64_t n, float max) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)z[i] - max);
    return max + log(sum);
}

static void add_token(const float *theirs, const float *ours, int64_t vocab, pn_agreement *a) {
    const int64_t p_first = first_choice(theirs, vocab), q_first = first_choice(ours, vocab);
    const double p_lse = log_sum_exp(theirs, vocab, theirs[p_first]), q_lse = log_sum_exp(ours, vocab, ours[q_first]);
    double kl = 0;
    for (int64_t i = 0; i < vocab; i++) {
        const double log_p = theirs[i] - p_lse;
        kl += exp(log_p) * (log_p - (ours[i] - q_lse));
    }
    a->tokens++;
    a->equal += p_first == q_first;
    a->kl += kl;
    a->worst = fmax(a->worst, kl);
    a->bad = a->bad || !isfinite(kl);
}

pn_status pn_agreement_add(const pn_safetensors *expected, int64_t first_row, const float *logits, int64_t rows,
                           int64_t vocab, pn_agreement *a) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(expected, "logits", &info));
    PN_CHECK(first_row >= 0 && rows <= info->n_elems / vocab - first_row, PN_FORMAT,
             "%s: tensor logits has shape %s; %lld more rows are expected", pn_safetensors_path(expected),
             pn_tensor_info_shape_text(info), (long long)(first_row + rows - info->n_elems / vocab));
    float *theirs = malloc((size_t)vocab * sizeof *theirs);
    PN_CHECK(theirs, PN_MEMORY, "out of memory");
    const size_t row_bytes = (size_t)vocab * pn_dtype_bytes(info->dtype);
    for (int64_t r = 0; r < rows; r++) {
        const char *from = (const char *)info->data + (size_t)(first_row + r) * row_bytes;
        pn_convert_unaligned(theirs, PN_F32, from, info->dtype, vocab);
        add_token(theirs, logits + r * vocab, vocab, a);
    }
    free(theirs);
    return PN_OK;
}

double pn_agreement_differ(const pn_agreement *a) {
    return a->bad || !a->tokens ? INFINITY : 1 - (double)a->equal / (double)a->tokens;
}

double pn_agreement_kl(const pn_agreement *a) {
    return a->bad || !a->tokens ? INFINITY : a->kl / (double)a->tokens;
}
