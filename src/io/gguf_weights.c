/* pn_weights over a GGUF file. */
#include <stdlib.h>
#include <string.h>

#include "gguf_model.h"
#include "weights_internal.h"

/* {l} stands for the layer. */
static const struct {
    const char *gguf, *hf;
    bool rotary; /* rows permuted by the llama architecture */
} names[] = {
    { "token_embd.weight", "model.embed_tokens.weight", false },
    { "output_norm.weight", "model.norm.weight", false },
    { "output.weight", "lm_head.weight", false },
    { "blk.{l}.attn_norm.weight", "model.layers.{l}.input_layernorm.weight", false },
    { "blk.{l}.ffn_norm.weight", "model.layers.{l}.post_attention_layernorm.weight", false },
    { "blk.{l}.attn_q.weight", "model.layers.{l}.self_attn.q_proj.weight", true },
    { "blk.{l}.attn_k.weight", "model.layers.{l}.self_attn.k_proj.weight", true },
    { "blk.{l}.attn_v.weight", "model.layers.{l}.self_attn.v_proj.weight", false },
    { "blk.{l}.attn_q.bias", "model.layers.{l}.self_attn.q_proj.bias", true },
    { "blk.{l}.attn_k.bias", "model.layers.{l}.self_attn.k_proj.bias", true },
    { "blk.{l}.attn_v.bias", "model.layers.{l}.self_attn.v_proj.bias", false },
    { "blk.{l}.attn_output.weight", "model.layers.{l}.self_attn.o_proj.weight", false },
    { "blk.{l}.attn_output.bias", "model.layers.{l}.self_attn.o_proj.bias", false },
    { "blk.{l}.ffn_gate.weight", "model.layers.{l}.mlp.gate_proj.weight", false },
    { "blk.{l}.ffn_up.weight", "model.layers.{l}.mlp.up_proj.weight", false },
    { "blk.{l}.ffn_down.weight", "model.layers.{l}.mlp.down_proj.weight", false },
};
enum { NAMES = sizeof names / sizeof *names };

/* Whether `name` is `pattern` with a layer number in place of {l}; *layer is -1 where there is none. */
static bool matches(const char *pattern, const char *name, int n_layers, int *layer) {
    const char *slot = strstr(pattern, "{l}");
    *layer = -1;
    if (!slot) return !strcmp(pattern, name);
    size_t prefix = (size_t)(slot - pattern);
    if (strncmp(pattern, name, prefix) != 0) return false;
    const char *p = name + prefix;
    int l = 0, digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 4; p++, digits++) l = 10 * l + (*p - '0');
    if (!digits || (digits > 1 && name[prefix] == '0') || l >= n_layers) return false;
    *layer = l;
    return !strcmp(p, slot + 3);
}

static void fill(char *out, size_t n, const char *pattern, int layer) {
    const char *slot = strstr(pattern, "{l}");
    if (slot)
        snprintf(out, n, "%.*s%d%s", (int)(slot - pattern), pattern, layer, slot + 3);
    else
        snprintf(out, n, "%s", pattern);
}

typedef struct gguf_source {
    char (*name)[96]; /* [count] Hugging Face names */
} gguf_source;

static void close_source(void *source) {
    free(((gguf_source *)source)->name);
    free(source);
}

static pn_status read_plain(const pn_weights_entry *e, pn_tensor *dst) {
    return pn_gguf_read_info(e->file, e->stored, dst);
}

/* Stored row 2 i + a of a head goes to row a d/2 + i. */
static pn_status read_rotary(const pn_weights_entry *e, pn_tensor *dst) {
    PN_TRY(pn_gguf_read_info(e->file, e->stored, dst));
    size_t d = (size_t)e->group, row = pn_tensor_bytes(dst) / (size_t)dst->shape[0];
    char *head = malloc(d * row);
    PN_CHECK(head, PN_MEMORY, "out of memory");
    for (size_t first = 0; first < (size_t)dst->shape[0]; first += d) {
        char *rows = (char *)pn_data(dst) + first * row;
        memcpy(head, rows, d * row);
        for (size_t i = 0; i < d / 2; i++) {
            memcpy(rows + i * row, head + 2 * i * row, row);
            memcpy(rows + (d / 2 + i) * row, head + (2 * i + 1) * row, row);
        }
    }
    free(head);
    return PN_OK;
}

static pn_status add(pn_weights *w, gguf_source *source, const pn_gguf *f, const pn_tensor_info *stored,
                     const pn_model_config *c, bool llama) {
    int layer = -1, k = 0;
    while (k < NAMES && !matches(names[k].gguf, stored->name, c->n_layers, &layer)) k++;
    PN_CHECK(k < NAMES, PN_UNSUPPORTED, "%s: tensor %.200s has no counterpart in a model of %d layers", pn_gguf_path(f),
             stored->name, c->n_layers);
    char *name = source->name[w->count];
    fill(name, sizeof source->name[0], names[k].hf, layer);
    bool rotary = llama && names[k].rotary;
    PN_CHECK(!rotary || (stored->rank && stored->shape[0] > 0 && stored->shape[0] % c->dims.head_dim == 0), PN_FORMAT,
             "%s: tensor %.200s of shape %s is not made of heads of %lld", pn_gguf_path(f), stored->name,
             pn_tensor_info_shape_text(stored), (long long)c->dims.head_dim);
    pn_weights_entry *e = &w->entry[w->count++];
    *e = (pn_weights_entry){ .info = *stored,
                             .file = f,
                             .stored = stored,
                             .group = rotary ? c->dims.head_dim : 0,
                             .read = rotary ? read_rotary : read_plain };
    e->info.name = name;
    return PN_OK;
}

pn_status pn_gguf_weights(const pn_gguf *f, const pn_model_config *c, pn_weights **out) {
    *out = NULL;
    const char *architecture;
    PN_TRY(pn_gguf_string(f, "general.architecture", &architecture));
    pn_status s;
    pn_weights *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "out of memory");
    size_t n = (size_t)pn_gguf_count(f);
    gguf_source *source = w->source = calloc(1, sizeof *source);
    w->close_source = close_source;
    w->path = strdup(pn_gguf_path(f));
    w->entry = calloc(n + 1, sizeof *w->entry);
    if (source) source->name = calloc(n + 1, sizeof *source->name);
    if (!source || !source->name || !w->path || !w->entry) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    for (size_t i = 0; i < n; i++)
        PN_TRY_GOTO(s, add(w, source, f, pn_gguf_info(f, (int64_t)i), c, !strcmp(architecture, "llama")), fail);
    pn_weights_sort(w);
    *out = w;
    return PN_OK;
fail:
    pn_weights_close(&w);
    return s;
}
