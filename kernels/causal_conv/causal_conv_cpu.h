/* What the CPU forward and backward share. Rows of channels are contiguous: taps are kept as W rows too. */
#ifndef PN_KERNELS_CAUSAL_CONV_CPU_H
#define PN_KERNELS_CAUSAL_CONV_CPU_H

#include "causal_conv.h"
#include "cpu/clones.h"
#include "cpu/fast_math.h"
#include "cpu/window.h"

/* A task has a run of tokens, short enough for float sums over it, and a block of channels, in which no sum depends on
 * where it ends. Blocks are whole rows where the runs keep all threads busy: every piece of a row is a start from
 * nothing for the hardware's prefetcher. */
enum { PN_CCONV_TOKENS = 128, PN_CCONV_MOST = 2048, PN_CCONV_LEAST = 128 };

static inline int64_t pn_cconv_smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* Channels of a block: whole cache lines, at most MOST. */
int64_t pn_cconv_block(int64_t tokens, int64_t channels);

typedef struct pn_cconv {
    const pn_causal_conv_attr *attr;
    pn_window x;
    const float *taps, *bias; /* rows of C; bias 0 where there is none */
} pn_cconv;

/* Floats of scratch: taps, bias, histories. */
int64_t pn_cconv_floats(const pn_op_call *c);
/* x and taps that were not saved for backward are not read. */
pn_cconv pn_cconv_make(const pn_op_call *c, float *scratch);

/* u = b + sum_w taps_w x_{s-(W-1)+w} for n channels from ch. */
PN_INLINE void pn_cconv_row(const pn_cconv *v, int64_t doc, int64_t s, int64_t ch, int64_t n, float *restrict u) {
    int64_t width = v->x.width, channels = v->x.channels;
    const pn_docs *docs = &v->attr->docs;
    const float *bias = v->bias + ch, *taps = v->taps + ch;
    if (width == 4) {
        const float *x0 = pn_window_row(&v->x, docs, doc, s - 3) + ch,
                    *x1 = pn_window_row(&v->x, docs, doc, s - 2) + ch;
        const float *x2 = pn_window_row(&v->x, docs, doc, s - 1) + ch, *x3 = pn_window_row(&v->x, docs, doc, s) + ch;
        const float *t1 = taps + channels, *t2 = t1 + channels, *t3 = t2 + channels;
        for (int64_t i = 0; i < n; i++) {
            float sum = pn_fmaf(taps[i], x0[i], bias[i]);
            sum = pn_fmaf(t1[i], x1[i], sum);
            sum = pn_fmaf(t2[i], x2[i], sum);
            u[i] = pn_fmaf(t3[i], x3[i], sum);
        }
        return;
    }
    for (int64_t i = 0; i < n; i++) u[i] = bias[i];
    for (int64_t w = 0; w < width; w++, taps += channels) {
        const float *x = pn_window_row(&v->x, docs, doc, s - (width - 1) + w) + ch;
        for (int64_t i = 0; i < n; i++) u[i] = pn_fmaf(taps[i], x[i], u[i]);
    }
}

pn_status pn_cconv_backward(const pn_op_call *c);
size_t pn_cconv_backward_bytes(const pn_op_call *c);

#endif
