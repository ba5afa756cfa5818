#include "attention_own.h"

#include <string.h>

#include "log.h"

/* Tokens times the longest document: less than this is not worth a second of planning. */
static const int64_t least_work = 512 * 512;

const char *pn_attention_own_reason(const pn_op_call *c, bool built) {
    const pn_attention_attr *a = c->attr;
    const int64_t tokens = pn_docs_tokens(&a->docs);
    if (c->dtype != PN_BF16) return "cuDNN computes in BF16 only";
    if (a->key_start) return "keys from a cache";
    if (a->head_dim % 8) return "cuDNN needs a width that is a multiple of 8";
    if (!built) return "a build without cuDNN; install its headers (cudnn_graph.h) and configure again";
    if (tokens * pn_docs_longest(&a->docs) < least_work) return "too few tokens for a plan of cuDNN to pay";
    if (tokens > INT32_MAX / ((int64_t)a->heads * a->head_dim)) return "cuDNN counts elements in 31 bits";
    return NULL;
}

typedef struct told {
    const char *reason;
    int64_t window;
    int heads, kv_heads, d;
} told;

/* More kinds of attention than any model has: checks and benches run many. */
enum { MOST = 16 };
static told kind[MOST];
static int n_kinds;

void pn_attention_own_say(const pn_op_call *c, const char *reason) {
    const pn_attention_attr *a = c->attr;
    const told x = { reason, a->window, a->heads, a->kv_heads, a->head_dim };
    for (int i = 0; i < n_kinds; i++) {
        const told *k = &kind[i];
        if (!strcmp(k->reason, x.reason) && k->window == x.window && k->heads == x.heads && k->kv_heads == x.kv_heads &&
            k->d == x.d)
            return;
    }
    if (n_kinds == MOST) return;
    kind[n_kinds++] = x;
    char window[32] = "";
    if (x.window) snprintf(window, sizeof window, ", window %lld", (long long)x.window);
    pn_info("attention: own kernels for %d/%d heads of %d%s: %s", x.heads, x.kv_heads, x.d, window, reason);
    if (n_kinds == MOST) pn_info("attention: what else own kernels run is not told");
}
