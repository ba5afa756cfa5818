#include "causal_conv_cpu.h"

#include <omp.h>
#include <string.h>

enum { X, TAPS, BIAS, STATE };
enum { TOKENS = PN_CCONV_TOKENS };

int64_t pn_cconv_floats(const pn_op_call *c) {
    const pn_causal_conv_attr *a = c->attr;
    int64_t channels = c->in[X]->shape[1];
    return channels * (a->width + 1 + pn_window_histories(&a->docs, c->in[STATE]) * a->width);
}

int64_t pn_cconv_block(int64_t tokens, int64_t channels) {
    int64_t runs = (tokens + TOKENS - 1) / TOKENS, threads = omp_get_max_threads();
    int64_t pieces = runs && runs < threads ? (threads + runs - 1) / runs : 1;
    int64_t block = ((channels + pieces - 1) / pieces + 15) / 16 * 16;
    return block < PN_CCONV_LEAST ? PN_CCONV_LEAST : pn_cconv_smaller(block, PN_CCONV_MOST);
}

/* [C, W] -> W rows of C */
static void taps_to_rows(const float *taps, int64_t channels, int64_t width, float *rows) {
    for (int64_t ch = 0; ch < channels; ch++)
        for (int64_t w = 0; w < width; w++) rows[w * channels + ch] = taps[ch * width + w];
}

pn_cconv pn_cconv_make(const pn_op_call *c, float *scratch) {
    pn_cconv v = { .attr = c->attr };
    const pn_tensor *x = c->in[X], *b = c->in[BIAS], *state = c->in[STATE];
    int64_t width = v.attr->width, channels = x->shape[1];
    float *taps = scratch, *bias = taps + width * channels, *history = bias + channels;
    if (c->in[TAPS]->storage) taps_to_rows(pn_f32(c->in[TAPS]), channels, width, taps);
    v.taps = taps;
    if (b && b->storage)
        memcpy(bias, pn_f32(b), (size_t)channels * sizeof *bias);
    else
        memset(bias, 0, (size_t)channels * sizeof *bias);
    v.bias = bias;
    v.x = pn_window_make(&v.attr->docs, x->storage ? pn_f32(x) : NULL, x->storage && state ? pn_f32(state) : NULL,
                         channels, width, history);
    return v;
}

PN_CLONES static void forward_block(const pn_cconv *v, int64_t token0, int64_t token1, int64_t ch, int64_t n,
                                    float *y) {
    const pn_docs *docs = &v->attr->docs;
    int64_t doc = pn_window_doc(docs, 0, token0);
    for (int64_t t = token0; t < token1; t++) {
        doc = pn_window_doc(docs, doc, t);
        float *u = y + t * v->x.channels + ch;
        pn_cconv_row(v, doc, t - docs->offset[doc], ch, n, u);
        if (v->attr->silu)
            for (int64_t i = 0; i < n; i++) u[i] = pn_siluf(u[i]);
    }
}

static pn_status forward(const pn_op_call *c) {
    float *y = pn_f32(c->out[0]);
    pn_cconv v = pn_cconv_make(c, c->scratch);
    int64_t tokens = c->in[0]->shape[0], channels = v.x.channels, block = pn_cconv_block(tokens, channels);
#pragma omp parallel for collapse(2) schedule(static) if (tokens * channels > 16384)
    for (int64_t t = 0; t < tokens; t += TOKENS)
        for (int64_t ch = 0; ch < channels; ch += block)
            forward_block(&v, t, pn_cconv_smaller(t + TOKENS, tokens), ch, pn_cconv_smaller(block, channels - ch), y);
    pn_window_new_state(&v.x, &v.attr->docs, pn_f32(c->out[1]));
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    return backward ? pn_cconv_backward_bytes(c) : (size_t)pn_cconv_floats(c) * sizeof(float);
}

static const pn_op_impl impl = {
    .name = "causal_conv/cpu", .scratch_bytes = scratch_bytes, .forward = forward, .backward = pn_cconv_backward
};
extern const pn_op_impl *const causal_conv_cpu[];
const pn_op_impl *const causal_conv_cpu[] = { &impl, NULL };
