#include "attention_graph_cuda.h"

#ifdef PN_HAVE_CUDNN

#include <float.h>
#include <string.h>

#include "attention_cuda.h"
#include "attention_own.h"
#include "attention_vary.h"
#include "cuda/fill_cuda.h"
#include "cuda/staged_cuda.h"
#include "device.h"
#include "log.h"

static const char name[] = "attention/cudnn";

/* Lengths and numbers of packed documents differ from step to step: plans are made for the next power of two, no less
 * than these. What there is beyond the documents costs blocks that end at once. */
enum { LENGTH = 512, DOCS = 4 };
/* Backward's own memory: gradients that are always summed in one order need it in proportion to length squared. Of
 * documents of equal length so many are taken at a time that theirs is no more than enough_workspace. */
static const size_t most_workspace = (size_t)4 << 30, enough_workspace = (size_t)1 << 30;

/* ---- plans, kept ---- */

typedef struct entry {
    pn_attention_graph key;
    bool recorded;       /* in a CUDA graph, which needs the plan's kernels for as long as it is launched */
    pn_cudnn_plan *plan; /* NULL: cuDNN has none */
} entry;

/* When they are full all go that can: shapes that never come back. */
enum { ENTRIES = 128 };
static entry entries[ENTRIES];
static int n_entries;

static void make_room(void) {
    int kept = 0;
    for (int i = 0; i < n_entries; i++) {
        if (entries[i].recorded)
            entries[kept++] = entries[i];
        else
            pn_cudnn_plan_free(&entries[i].plan);
    }
    n_entries = kept;
}

/* own: why own kernels run it; NULL: cuDNN does. */
static void say(const pn_attention_graph *x, const char *own) {
    char window[32] = "";
    if (x->window) snprintf(window, sizeof window, ", window %lld", (long long)x->window);
    pn_info("attention: %s %s for %lld %s of %lld tokens, %lld/%lld heads of %lld%s%s%s%s",
            own ? "own kernels" : "cuDNN", x->backward ? "backward" : "forward", (long long)x->docs,
            x->packed ? "packed documents" : "documents", (long long)x->length, (long long)x->heads,
            (long long)x->kv_heads, (long long)x->d, window, x->backward && !x->repeatable ? ", bits vary" : "",
            own ? ": " : "", own ? own : "");
}

static pn_cudnn_plan *plan_of(const pn_attention_graph *x) {
    for (int i = 0; i < n_entries; i++) {
        entry *e = &entries[i];
        if (memcmp(&e->key, x, sizeof *x)) continue;
        e->recorded = e->recorded || pn_graph_recording();
        return e->plan;
    }
    if (n_entries == ENTRIES) make_room();
    if (n_entries == ENTRIES) return NULL;
    entry *e = &entries[n_entries++];
    e->recorded = pn_graph_recording();
    memcpy(&e->key, x, sizeof *x);
    /* Gradients that repeat keep ds of every pair of rows, seen or not: with a window the tiles are faster. */
    const bool asked = !(x->backward && x->repeatable && x->window);
    e->plan = NULL;
    if (!asked) {
        say(x, "faster with a window, where gradients repeat");
    } else if (pn_attention_cudnn_plan(x, most_workspace, &e->plan)) {
        say(x, pn_error_message());
        pn_error_clear();
    } else {
        say(x, e->plan ? NULL : "cuDNN has no plan");
    }
    return e->plan;
}

static int64_t up(int64_t n, int64_t least) {
    int64_t power = least;
    while (power < n) power *= 2;
    return power;
}

/* The graph of a call's forward; false for calls that cuDNN is not asked about. */
static bool graph_of(const pn_op_call *c, pn_attention_graph *x) {
    const pn_attention_attr *a = c->attr;
    memset(x, 0, sizeof *x);
    if (pn_attention_own_reason(c, true)) return false;
    x->docs = a->docs.n;
    x->length = pn_docs_longest(&a->docs);
    x->packed = a->docs.longest || x->docs * x->length != pn_docs_tokens(&a->docs);
    x->heads = a->heads;
    x->kv_heads = a->kv_heads;
    x->d = a->head_dim;
    x->window = a->window < x->length ? a->window : 0;
    if (!x->packed) return true;
    x->docs = up(x->docs, DOCS);
    x->length = up(x->length, LENGTH);
    return true;
}

/* A divisor of x->docs. */
static int64_t docs_at_a_time(const pn_attention_graph *x) {
    const size_t of_one = 2 * (size_t)(x->heads * x->length * x->length);
    int64_t n = x->docs;
    if (x->packed || !x->repeatable) return n;
    while (n > 1 && (x->docs % n || (size_t)n * of_one > enough_workspace)) n--;
    return n;
}

/* Of a call that has a forward plan, for a part of its documents; *parts of them. NULL: the tiles do it. */
static pn_cudnn_plan *backward_plan(const pn_op_call *c, pn_attention_graph *x, int64_t *parts) {
    graph_of(c, x);
    x->backward = true;
    x->repeatable = !pn_attention_varies();
    const int64_t docs = x->docs;
    x->docs = docs_at_a_time(x);
    *parts = docs / x->docs;
    return plan_of(x);
}

static bool takes(const pn_op_call *c) {
    pn_attention_graph x;
    const char *own = pn_attention_own_reason(c, true);
    if (!own && !pn_attention_tiles_take(c)) own = "the tiles, which stand in for cuDNN, do not take it";
    if (own) pn_attention_own_say(c, own);
    return !own && graph_of(c, &x) && plan_of(&x);
}

/* ---- runs ---- */

enum { MOST_VALUES = 24 };
typedef struct values {
    int n;
    int64_t id[MOST_VALUES];
    void *address[MOST_VALUES];
    float scale, lowest, one; /* what numbers of the host point to */
    int32_t window;
} values;

static void give(values *v, int64_t id, const void *address) {
    PN_ASSERT(v->n < MOST_VALUES);
    v->id[v->n] = id;
    v->address[v->n++] = (void *)address;
}

/* Offsets of documents times `each`; documents up to n are empty. */
static pn_status give_offsets(values *v, int64_t id, const pn_docs *docs, int64_t n, int64_t each) {
    const int32_t *there;
    PN_TRY(pn_cuda_staged_offsets(docs, n, each, &there));
    give(v, id, there);
    return PN_OK;
}

static pn_status give_lengths(values *v, const pn_docs *docs, int64_t n) {
    const int32_t *there;
    PN_TRY(pn_cuda_staged_lengths(docs, n, &there));
    give(v, PN_CUDNN_LENGTHS, there);
    return PN_OK;
}

/* Where the rows of part `part` of the documents begin: of x->docs documents each, all of one length. */
static void *at_part(const pn_tensor *t, const pn_attention_graph *x, int64_t part) {
    const int64_t rows = t->shape[0], row = rows ? pn_tensor_elems(t) / rows : 0;
    return (char *)pn_data(t) + (size_t)(part * x->docs * x->length * row) * pn_dtype_bytes(t->dtype);
}

/* What both directions read, for a part of the documents. v stays where it is until the run. */
static pn_status give_inputs(values *v, const pn_op_call *c, const pn_attention_graph *x, int64_t part) {
    const pn_attention_attr *a = c->attr;
    *v = (values){ .scale = (float)a->scale, .lowest = -FLT_MAX, .one = 1, .window = (int32_t)x->window };
    give(v, PN_CUDNN_Q, at_part(c->in[0], x, part));
    give(v, PN_CUDNN_K, at_part(c->in[1], x, part));
    give(v, PN_CUDNN_V, at_part(c->in[2], x, part));
    give(v, PN_CUDNN_O, at_part(c->out[0], x, part));
    give(v, PN_CUDNN_LSE, at_part(c->out[1], x, part));
    give(v, PN_CUDNN_SCALE, &v->scale);
    give(v, PN_CUDNN_LOWEST, &v->lowest);
    if (x->window) give(v, PN_CUDNN_WINDOW, &v->window);
    if (!x->packed) return PN_OK;
    PN_TRY(give_lengths(v, &a->docs, x->docs));
    PN_TRY(give_offsets(v, PN_CUDNN_Q_AT, &a->docs, x->docs, x->heads * x->d));
    PN_TRY(give_offsets(v, PN_CUDNN_KV_AT, &a->docs, x->docs, x->kv_heads * x->d));
    PN_TRY(give_offsets(v, PN_CUDNN_LSE_AT, &a->docs, x->docs, x->heads));
    return PN_OK;
}

static pn_status forward(const pn_op_call *c) {
    pn_attention_graph x;
    values v;
    graph_of(c, &x);
    PN_TRY(give_inputs(&v, c, &x, 0));
    for (int i = 0; i < 2; i++) PN_TRY(pn_cuda_fill_tensor(c->out[i]));
    PN_TRY(pn_cuda_fill(c->scratch, pn_cudnn_workspace(plan_of(&x))));
    PN_TRY(pn_cudnn_run(plan_of(&x), name, v.n, v.id, v.address, c->scratch));
    return PN_OK;
}

/* Backward's scratch: gradients of a part that are added to others, since cuDNN only writes, or that nobody wants; what
 * it keeps of its own; its workspace. */
typedef struct scratch {
    size_t gradient[3], delta, dq_sum, workspace, end; /* where they begin, in bytes */
} scratch;

static bool written(const pn_op_call *c, int i) {
    return c->din[i] && !pn_op_adds(c, i);
}
static size_t place(scratch *s, size_t n_bytes) {
    size_t at = s->end / 256 * 256;
    s->end += (n_bytes + 255) / 256 * 256;
    return at;
}
static scratch scratch_of(const pn_op_call *c, const pn_attention_graph *x, int64_t parts, const pn_cudnn_plan *plan) {
    scratch s = { .end = 255 }; /* the base is a multiple of 64 bytes, and becomes one of 256 */
    size_t rows = (size_t)(x->docs * x->heads * x->length);
    for (int i = 0; i < 3; i++)
        if (!written(c, i)) s.gradient[i] = place(&s, pn_tensor_bytes(c->in[i]) / (size_t)parts);
    s.delta = place(&s, rows * sizeof(float));
    s.dq_sum = place(&s, x->repeatable ? 0 : rows * (size_t)x->d * sizeof(float));
    s.workspace = place(&s, pn_cudnn_workspace(plan));
    return s;
}

static pn_status backward_part(const pn_op_call *c, const pn_attention_graph *x, const pn_cudnn_plan *plan,
                               const scratch *s, int64_t part, int64_t parts) {
    values v;
    char *base = (char *)(((uintptr_t)c->scratch + 255) / 256 * 256);
    PN_TRY(give_inputs(&v, c, x, part));
    give(&v, PN_CUDNN_ONE, &v.one);
    give(&v, PN_CUDNN_DO, at_part(c->dout[0], x, part));
    for (int i = 0; i < 3; i++)
        give(&v, PN_CUDNN_DQ + i, written(c, i) ? at_part(c->din[i], x, part) : base + s->gradient[i]);
    give(&v, PN_CUDNN_DELTA, base + s->delta);
    if (!x->repeatable) give(&v, PN_CUDNN_DQ_SUM, base + s->dq_sum);
    PN_TRY(pn_cudnn_run(plan, name, v.n, v.id, v.address, base + s->workspace));
    for (int i = 0; i < 3; i++)
        if (c->din[i] && pn_op_adds(c, i))
            PN_TRY(pn_attention_add(name, at_part(c->din[i], x, part), base + s->gradient[i],
                                    pn_tensor_elems(c->din[i]) / parts));
    return PN_OK;
}

static pn_status backward(const pn_op_call *c) {
    pn_attention_graph x;
    int64_t parts;
    if (!pn_attention_has_gradient(c)) return pn_attention_no_gradient(c);
    const pn_cudnn_plan *plan = backward_plan(c, &x, &parts);
    if (!plan) return pn_attention_tiles_backward(c);
    const scratch s = scratch_of(c, &x, parts, plan);
    for (int i = 0; i < 3; i++)
        if (written(c, i)) PN_TRY(pn_cuda_fill_tensor(c->din[i]));
    PN_TRY(pn_cuda_fill(c->scratch, s.end));
    for (int64_t part = 0; part < parts; part++) PN_TRY(backward_part(c, &x, plan, &s, part, parts));
    return PN_OK;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward_pass) {
    pn_attention_graph x;
    int64_t parts;
    if (!backward_pass) return graph_of(c, &x) ? pn_cudnn_workspace(plan_of(&x)) : 0;
    const pn_cudnn_plan *plan = backward_plan(c, &x, &parts);
    return plan ? scratch_of(c, &x, parts, plan).end : pn_attention_tiles_scratch(c, true);
}

const pn_op_impl pn_attention_cudnn = { .name = name,
                                        .bf16 = true,
                                        .fresh = true,
                                        .takes = takes,
                                        .scratch_bytes = scratch_bytes,
                                        .forward = forward,
                                        .backward = backward };
#endif
