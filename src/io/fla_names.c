/* One table of the weights that fla calls otherwise. A block's own weights have fla's names already. */
#include <string.h>

#include "fla.h"

typedef struct pair {
    const char *ours, *theirs;
} pair;

static const pair whole[] = { { "model.embed_tokens.weight", "model.embeddings.weight" } };
/* What stands behind "model.layers.<n>." */
static const pair in_layer[] = {
    { "input_layernorm.", "attn_norm." },
    { "post_attention_layernorm.", "mlp_norm." },
    { "self_attn.", "attn." },
};

static const char *behind_layer(const char *name) {
    static const char layers[] = "model.layers.";
    if (strncmp(name, layers, sizeof layers - 1)) return NULL;
    name += sizeof layers - 1;
    size_t digits = strspn(name, "0123456789");
    return digits && name[digits] == '.' ? name + digits + 1 : NULL;
}

static void translate(const char *name, bool to_theirs, pn_buf *out) {
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        if (strcmp(name, to_theirs ? whole[i].ours : whole[i].theirs) != 0) continue;
        pn_buf_text(out, to_theirs ? whole[i].theirs : whole[i].ours);
        return;
    }
    const char *rest = behind_layer(name);
    for (size_t i = 0; rest && i < sizeof in_layer / sizeof *in_layer; i++) {
        const char *from = to_theirs ? in_layer[i].ours : in_layer[i].theirs;
        const size_t n = strlen(from);
        if (strncmp(rest, from, n) != 0) continue;
        pn_buf_append(out, name, (size_t)(rest - name));
        pn_buf_text(out, to_theirs ? in_layer[i].theirs : in_layer[i].ours);
        rest += n;
        name = rest;
        break;
    }
    pn_buf_text(out, name);
}

void pn_fla_name(const char *ours, pn_buf *out) {
    translate(ours, true, out);
}

void pn_fla_our_name(const char *theirs, pn_buf *out) {
    translate(theirs, false, out);
}
