#include "qkv.h"

#include <math.h>

#include "causal_conv/causal_conv.h"
#include "linear/linear.h"
#include "rope/rope.h"

pn_status pn_head_width(const char *block, const char *name, int64_t hidden, double expand, int64_t heads,
                        int64_t *out) {
    double exact = (double)hidden * expand, nearest = nearbyint(exact);
    PN_CHECK(nearest >= 1 && fabs(exact - nearest) <= 1e-5 * exact && (int64_t)nearest % heads == 0, PN_USAGE,
             "%s: hidden size %lld times %s %.10g is %.10g, which %lld heads do not share evenly; choose another %s or "
             "num_heads",
             block, (long long)hidden, name, expand, exact, (long long)heads, name);
    *out = (int64_t)nearest / heads;
    return PN_OK;
}

pn_status pn_extension_rope_check(const char *block, bool rope, int64_t width) {
    PN_CHECK(!rope || width % 2 == 0, PN_USAGE,
             "%s: rope turns channels in pairs, but keys have %lld in a head; make it an even number or leave rope out",
             block, (long long)width);
    return PN_OK;
}

pn_status pn_extension_rope(const pn_block *b, bool rope, int64_t heads, int64_t width, pn_tape *t, const pn_docs *docs,
                            pn_tensor **x) {
    if (rope) PN_TRY(pn_rope(t, *x, &(pn_rope_attr){ *docs, (int)heads, (int)width, b->dims.rope_theta }, x));
    return PN_OK;
}

pn_status pn_qkv_projection(pn_block *b, pn_params *params, pn_qkv *a, int i) {
    static const char *const name[] = { "q_proj.weight", "k_proj.weight", "v_proj.weight" };
    static const char *const bias_name[] = { "q_proj.bias", "k_proj.bias", "v_proj.bias" };
    const pn_param_spec spec = { .name = name[i],
                                 .rank = 2,
                                 .shape = { a->channels[i], b->dims.hidden },
                                 .init = { PN_INIT_NORMAL, 0.02, 0 },
                                 .decay = true };
    PN_TRY(pn_block_weight(b, params, &spec, &a->w[i]));
    const pn_param_spec bias = {
        .name = bias_name[i], .rank = 1, .shape = { a->channels[i] }, .init = { PN_INIT_ZEROS, 0, 0 }
    };
    if (a->with_bias) PN_TRY(pn_block_weight(b, params, &bias, &a->bias[i]));
    return PN_OK;
}

pn_status pn_qkv_convolution(pn_block *b, pn_params *params, pn_qkv *a, int i) {
    static const char *const name[] = { "q_conv1d.weight", "k_conv1d.weight", "v_conv1d.weight" };
    if (!a->conv_size) return PN_OK;
    const double bound = 1 / sqrt((double)a->conv_size);
    const pn_param_spec spec = { .name = name[i],
                                 .rank = 3,
                                 .shape = { a->channels[i], 1, a->conv_size },
                                 .init = { PN_INIT_UNIFORM, -bound, bound },
                                 .decay = true };
    PN_TRY(pn_block_weight(b, params, &spec, &a->conv[i]));
    return PN_OK;
}

pn_status pn_qkv_apply(const pn_qkv *a, int i, bool silu, pn_tape *t, pn_tensor *x, const pn_docs *docs,
                       pn_state *state, pn_tensor **out) {
    PN_TRY(pn_linear(t, x, a->w[i], a->bias[i], out));
    if (!a->conv_size) return PN_OK;
    const pn_causal_conv_attr attr = { .docs = pn_docs_without_past(docs), .width = (int)a->conv_size, .silu = silu };
    pn_tensor *window;
    PN_TRY(pn_causal_conv(t, *out, a->conv[i], NULL, state ? state->tensor[i] : NULL, &attr, out, &window));
    if (state) PN_TRY(pn_state_replace(state, i, window));
    return PN_OK;
}

void pn_qkv_map(const pn_qkv *a, int64_t q_heads, int64_t k_heads, int64_t v_heads, pn_attention_map *map) {
    const int64_t heads[] = { q_heads, k_heads, v_heads };
    for (int i = 0; i < 3; i++) {
        map->part[i] =
            (pn_head_rows){ .w = a->w[i], .bias = a->bias[i], .heads = heads[i], .width = a->channels[i] / heads[i] };
        map->conv[i] = a->conv[i];
    }
}

pn_status pn_qkv_state(const pn_qkv *a, pn_state *s) {
    static const char *const name[] = { "q", "k", "v" };
    for (int i = 0; a->conv_size && i < 3; i++)
        PN_TRY(pn_state_add(s, name[i], 3, (int64_t[]){ s->n, a->channels[i], a->conv_size }));
    PN_TRY(pn_state_add_wide(s, "S", 4, (int64_t[]){ s->n, a->heads, a->dk, a->dv }));
    return PN_OK;
}

int pn_qkv_state_index(const pn_qkv *a) {
    return a->conv_size ? 3 : 0;
}

double pn_qkv_state_bytes(const pn_qkv *a, size_t activation_bytes) {
    const int64_t channels = a->channels[PN_Q] + a->channels[PN_K] + a->channels[PN_V];
    return 4.0 * (double)(a->heads * a->dk * a->dv) + (double)(channels * a->conv_size) * (double)activation_bytes;
}
