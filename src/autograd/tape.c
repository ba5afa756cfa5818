#include "tape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "add/add.h"
#include "device.h"
#include "profile.h"
#include "range.h"

/* One recorded call. Shells of every input and output are retained, values only where the op declared to save them; and
 * of these, what an `again` record makes is not held but awaited: `ensure` makes it when it is read. */
typedef struct node {
    const pn_op_impl *impl; /* backward uses the implementation that ran forward; NULL: a recompute node, or a mark */
    pn_tape_body body;
    pn_tape_passed passed; /* of a mark: with ctx and index */
    void *ctx;
    int index;
    pn_op_call call;
    uint32_t saved;   /* PN_SAVE_* of what it needs */
    uint32_t awaited; /* of these, what nobody holds for it */
    bool again;       /* its outputs are made again; so it needs all of its inputs */
    _Alignas(16) unsigned char attr[PN_OP_ATTR_BYTES];
} node;

enum { HELD = 32 };

struct pn_tape {
    pn_backend backend;
    pn_backend planned_for; /* whose scratch a plan counts */
    pn_dtype compute;
    pn_pool *pool;
    bool recording;
    bool
        rehearsing; /* inside a recompute's forward: nothing is recorded, but outputs say whether they want gradients */
    pn_again most;  /* that is made again rather than kept */
    node *nodes;
    int n_nodes, cap_nodes;
    pn_tensor **owned; /* the scope stack: one reference and hold each */
    int n_owned, cap_owned;
    pn_tensor **planned; /* shells whose gradients a plan made: they have no memory and must not outlive it */
    int n_planned, cap_planned;
    pn_op_cost cost;
    pn_tape_home home; /* of leaves' gradients */
    void *home_ctx;
    bool side_by_side, branching; /* whether branches are kept apart, and whether one is open */
    pn_storage *scratch[HELD];    /* of open branches: nothing else may have it */
    int n_scratch;
};

static pn_status create(pn_backend backend, pn_backend planned_for, pn_dtype compute, pn_tape **out) {
    pn_tape *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    t->backend = backend;
    t->planned_for = planned_for;
    t->compute = compute;
    t->recording = true;
    pn_status s = backend == PN_PLAN ? pn_pool_create_counting(pn_backend_pool(planned_for), &t->pool)
                                     : pn_pool_create(pn_backend_pool(backend), &t->pool);
    if (s) {
        free(t);
        return s;
    }
    *out = t;
    return PN_OK;
}

pn_status pn_tape_create(pn_backend backend, pn_tape **out) {
    return create(backend, PN_CPU, pn_backend_dtype(backend), out);
}

pn_status pn_tape_create_typed(pn_backend backend, pn_dtype compute, pn_tape **out) {
    return create(backend, PN_CPU, compute, out);
}

pn_status pn_tape_create_plan(pn_backend of, pn_dtype compute, pn_tape **out) {
    return create(PN_PLAN, of, compute, out);
}

/* Values that record n no longer needs. Awaited ones have a hold per record that waits, from when they are made on. */
static void drop(const node *n, uint32_t bit, pn_tensor *x) {
    if (!(n->saved & bit)) return;
    if (n->awaited & bit) {
        x->awaited--;
        if (!x->remade) return;
    }
    pn_tensor_unhold(x);
}

static void node_free(node *n) {
    for (int i = 0; i < n->call.n_in; i++) {
        if (!n->call.in[i]) continue;
        drop(n, PN_SAVE_IN(i), n->call.in[i]);
        pn_tensor_release_shell(&n->call.in[i]);
    }
    for (int i = 0; i < n->call.n_out; i++) {
        drop(n, PN_SAVE_OUT(i), n->call.out[i]);
        n->call.out[i]->maker = 0;
        pn_tensor_release_shell(&n->call.out[i]);
    }
}

static void release_scratch(pn_tape *t) {
    while (t->n_scratch > 0) pn_storage_release(&t->scratch[--t->n_scratch]);
    t->branching = false;
}

void pn_tape_reset(pn_tape *t) {
    release_scratch(t); /* of work that failed */
    while (t->n_nodes > 0) node_free(&t->nodes[--t->n_nodes]);
    while (t->n_owned > 0) pn_tensor_release(&t->owned[--t->n_owned]);
    while (t->n_planned > 0) {
        pn_tensor *x = t->planned[--t->n_planned];
        pn_tensor_release(&x->grad);
        pn_tensor_release_shell(&x);
    }
    t->cost = (pn_op_cost){ 0 };
    t->most = PN_AGAIN_NEVER;
}

void pn_tape_destroy(pn_tape **tp) {
    if (!tp || !*tp) return;
    pn_tape *t = *tp;
    pn_tape_reset(t);
    pn_pool_destroy(&t->pool);
    free(t->nodes);
    free(t->owned);
    free(t->planned);
    free(t);
    *tp = NULL;
}

pn_backend pn_tape_backend(const pn_tape *t) {
    return t->backend;
}
pn_dtype pn_tape_dtype(const pn_tape *t) {
    return t->compute;
}
pn_pool *pn_tape_pool(pn_tape *t) {
    return t->pool;
}
pn_op_cost pn_tape_cost(const pn_tape *t) {
    return t->cost;
}
bool pn_tape_recording(const pn_tape *t) {
    return t->recording;
}

bool pn_tape_differentiates(const pn_tape *t) {
    return t->recording || t->rehearsing;
}

bool pn_tape_record(pn_tape *t, bool recording) {
    bool before = t->recording;
    t->recording = recording;
    return before;
}

pn_again pn_tape_again(pn_tape *t, pn_again most) {
    pn_again before = t->most;
    t->most = most;
    return before;
}

/* ---- branches ---- */

void pn_tape_side_by_side(pn_tape *t, bool on) {
    t->side_by_side = on;
}

pn_status pn_tape_branch(pn_tape *t) {
    if (!t->side_by_side) return PN_OK;
    t->branching = true;
    return pn_graph_branch();
}

pn_status pn_tape_join(pn_tape *t) {
    if (!t->branching) return PN_OK;
    PN_TRY(pn_graph_join());
    release_scratch(t);
    return PN_OK;
}

/* What a call had may be taken again: at once, for that comes later in the stream, or after the branches that are open,
 * all of them if there are too many. */
static pn_status give_back(pn_tape *t, pn_storage **scratch) {
    if (t->branching && *scratch && t->n_scratch < HELD) {
        t->scratch[t->n_scratch++] = *scratch;
        return PN_OK;
    }
    pn_status s = *scratch ? pn_tape_join(t) : PN_OK;
    pn_storage_release(scratch);
    return s;
}

/* ---- scopes ---- */

pn_scope pn_scope_open(pn_tape *t) {
    return (pn_scope){ t->n_owned };
}

void pn_scope_close(pn_tape *t, pn_scope s, pn_tensor *const *keep, int n_keep) {
    PN_ASSERT(s.mark <= t->n_owned && !t->branching);
    int kept = s.mark;
    for (int i = s.mark; i < t->n_owned; i++) {
        bool stays = false;
        for (int k = 0; k < n_keep; k++) stays = stays || t->owned[i] == keep[k];
        if (stays)
            t->owned[kept++] = t->owned[i];
        else
            pn_tensor_release(&t->owned[i]);
    }
    t->n_owned = kept;
}

pn_status pn_tape_own(pn_tape *t, pn_tensor *x) {
    if (t->n_owned == t->cap_owned) {
        int cap = t->cap_owned ? 2 * t->cap_owned : 256;
        pn_tensor **grown = realloc(t->owned, (size_t)cap * sizeof *grown);
        if (!grown) {
            pn_tensor_release(&x);
            PN_FAIL(PN_MEMORY, "out of memory");
        }
        t->owned = grown;
        t->cap_owned = cap;
    }
    t->owned[t->n_owned++] = x;
    return PN_OK;
}

pn_status pn_tape_new(pn_tape *t, pn_dtype type, int rank, const int64_t *shape, pn_tensor **out) {
    PN_TRY(pn_tensor_create(t->pool, type, rank, shape, out));
    PN_TRY(pn_tape_own(t, *out));
    return PN_OK;
}

/* ---- recording ---- */

static void need(pn_tape *t, node *n, uint32_t bit, pn_tensor *x) {
    if (!(n->saved & bit)) return;
    if (x->maker > 0 && t->nodes[x->maker - 1].again) {
        n->awaited |= bit;
        x->awaited++;
        if (!x->remade) return;
    }
    pn_tensor_hold(x);
}

static pn_status push_node(pn_tape *t, const node *n) {
    if (t->n_nodes == t->cap_nodes) {
        int cap = t->cap_nodes ? 2 * t->cap_nodes : 64;
        node *grown = realloc(t->nodes, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        t->nodes = grown;
        t->cap_nodes = cap;
    }
    node *slot = &t->nodes[t->n_nodes];
    *slot = *n;
    for (int i = 0; i < n->call.n_in; i++) {
        if (!n->call.in[i]) {
            slot->saved &= ~PN_SAVE_IN(i);
            continue;
        }
        pn_tensor_retain_shell(n->call.in[i]);
        need(t, slot, PN_SAVE_IN(i), n->call.in[i]);
    }
    t->n_nodes++;
    for (int i = 0; i < n->call.n_out; i++) {
        pn_tensor_retain_shell(n->call.out[i]);
        n->call.out[i]->maker = t->n_nodes;
        need(t, slot, PN_SAVE_OUT(i), n->call.out[i]);
    }
    return PN_OK;
}

/* Runs forward or backward with its scratch taken from the pool, and counts its cost. A plan runs nothing but counts
 * the scratch of the implementation that it stands for. */
static pn_status run_impl(pn_tape *t, const pn_op_impl *impl, pn_op_call *c, bool backward) {
    const pn_op_impl *real = impl;
    if (t->backend == PN_PLAN) PN_TRY(pn_op_pick(c, t->planned_for, &real));
    size_t need = real->scratch_bytes ? real->scratch_bytes(c, backward) : 0;
    pn_storage *scratch = NULL;
    if (need) PN_TRY(pn_storage_create(t->pool, need, &scratch));
    c->scratch = scratch ? scratch->data : NULL;
    pn_op_cost cost = { 0 };
    c->op->contract->cost(c, backward, &cost);
    t->cost.flops += cost.flops;
    t->cost.bytes += cost.bytes;
    pn_range_begin(impl->name, -1);
    double began = pn_profile_begin();
    pn_status s = backward ? impl->backward(c) : impl->forward(c);
    pn_profile_end(began, impl->name, backward, &cost);
    pn_range_end();
    c->scratch = NULL;
    pn_status given = give_back(t, &scratch);
    return s ? s : given;
}

/* Where it may be, the next state is made in the memory of the last: half the traffic of decoding. */
static void renew_in_place(const pn_op_impl *impl, const pn_op_call *c) {
    const pn_tensor *from = c->in[impl->renewed_in];
    pn_tensor *to = c->out[impl->renewed_out];
    if (!impl->renews || !from || !from->renewable) return;
    PN_ASSERT(pn_tensor_same_shape(from, to) && from->dtype == to->dtype);
    pn_storage_release(&to->storage);
    to->storage = from->storage;
    to->storage->refs++;
    to->offset = from->offset;
}

pn_status pn_tape_call(pn_tape *t, const pn_op *op, const void *attr, size_t attr_bytes, pn_tensor *const *in, int n_in,
                       pn_tensor **out, int n_out) {
    PN_ASSERT(n_in <= PN_OP_IN && n_out <= PN_OP_OUT && attr_bytes <= PN_OP_ATTR_BYTES);
    node n;
    memset(&n, 0, sizeof n);
    if (attr_bytes) memcpy(n.attr, attr, attr_bytes);
    pn_op_call *c = &n.call;
    c->op = op;
    c->attr = n.attr;
    c->dtype = t->compute;
    c->n_in = n_in;
    bool any = false;
    for (int i = 0; i < n_in; i++) {
        c->in[i] = in[i];
        c->wants[i] = t->recording && in[i] && in[i]->wants_grad;
        any = any || (in[i] && in[i]->wants_grad);
    }
    any = any && (t->recording || t->rehearsing);
    pn_out_spec spec[PN_OP_OUT] = { 0 };
    for (int i = 0; i < PN_OP_OUT; i++) spec[i].dtype = pn_tape_dtype(t);
    PN_TRY(op->contract->infer(c, &c->n_out, spec));
    PN_ASSERT(c->n_out >= n_out && c->n_out <= PN_OP_OUT);
    for (int i = 0; i < c->n_out; i++) {
        PN_TRY(pn_tape_new(t, spec[i].dtype, spec[i].rank, spec[i].shape, &c->out[i]));
        c->out[i]->wants_grad = any && spec[i].dtype != PN_I32 && !spec[i].no_grad;
    }
    PN_TRY(pn_op_pick(c, t->backend, &n.impl));
    if (!t->recording && !t->rehearsing) renew_in_place(n.impl, c);
    PN_TRY(run_impl(t, n.impl, c, false));
    if (any && t->recording) {
        PN_CHECK(n.impl->backward, PN_UNSUPPORTED, "%s has no backward: call it without gradients", op->name);
        n.saved = op->contract->saves(c);
        n.again = op->contract->again != PN_AGAIN_NEVER && op->contract->again <= t->most;
        for (int i = 0; i < n_in && n.again; i++) n.saved |= PN_SAVE_IN(i);
        PN_TRY(push_node(t, &n));
        t->nodes[t->n_nodes - 1].call.attr = NULL; /* set again to the node's own copy when it runs */
    }
    for (int i = 0; i < n_out; i++) out[i] = c->out[i];
    return PN_OK;
}

/* ---- backward ---- */

/* dst += src, wherever they are: what the backward of add does with the gradient of its sum. */
static pn_status accumulate(const pn_tape *t, pn_tensor *dst, pn_tensor *src) {
    const pn_op_call sum = {
        .op = &pn_op_add, .dtype = t->compute, .n_in = 2, .n_out = 1, .din = { dst }, .dout = { src }
    };
    const pn_op_impl *impl;
    PN_TRY(pn_op_pick(&sum, t->backend, &impl));
    PN_TRY(impl->backward(&sum));
    return PN_OK;
}

/* A gradient for x if it has none: zeros, or undefined; and one that is x's alone, for it will be added to. */
static pn_status make_gradient(pn_tape *t, pn_tensor *x, bool zeros) {
    if (x->grad && (x->grad->refs == 1 || !x->maker)) return PN_OK;
    if (x->grad) {
        pn_tensor *own;
        PN_TRY(pn_tensor_create(t->pool, x->grad_dtype, x->rank, x->shape, &own));
        pn_status s = pn_tensor_copy(own, x->grad);
        pn_tensor_release(&x->grad);
        x->grad = own;
        return s;
    }
    if (t->home && !x->maker) PN_TRY(t->home(t->home_ctx, t, x, &x->grad));
    if (!x->grad) PN_TRY(pn_tensor_create(t->pool, x->grad_dtype, x->rank, x->shape, &x->grad));
    if (zeros) PN_TRY(pn_tensor_fill_zero(x->grad));
    if (t->backend != PN_PLAN) return PN_OK;
    if (t->n_planned == t->cap_planned) {
        int cap = t->cap_planned ? 2 * t->cap_planned : 256;
        pn_tensor **grown = realloc(t->planned, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        t->planned = grown;
        t->cap_planned = cap;
    }
    t->planned[t->n_planned++] = pn_tensor_retain_shell(x);
    return PN_OK;
}

void pn_tape_gradient_home(pn_tape *t, pn_tape_home home, void *ctx) {
    t->home = home;
    t->home_ctx = ctx;
}

bool pn_tape_has_home(const pn_tape *t) {
    return t->home;
}

pn_status pn_tape_mark(pn_tape *t, pn_tape_passed passed, void *ctx, int index) {
    if (!t->recording) return PN_OK;
    node n;
    memset(&n, 0, sizeof n);
    n.passed = passed;
    n.ctx = ctx;
    n.index = index;
    return push_node(t, &n);
}

/* Adds g to the gradient of x. Where x has none yet it may take g itself, unless it outlives the pass: whoever adds to
 * it later makes it its own first. */
static pn_status give_gradient(pn_tape *t, pn_tensor *x, pn_tensor *g) {
    if (!x->grad && x->maker && x->grad_dtype == g->dtype) {
        x->grad = pn_tensor_retain(g);
        return PN_OK;
    }
    PN_TRY(make_gradient(t, x, true));
    return accumulate(t, x->grad, g);
}

/* Values of x, which a record made that makes them again: all outputs that somebody waits for are made, from inputs
 * that are made first where they have to be. */
static pn_status ensure(pn_tape *t, pn_tensor *x) {
    if (x->storage) return PN_OK;
    PN_ASSERT(x->maker > 0 && x->maker <= t->n_nodes + 1); /* the record that backward is at has been taken off */
    node *n = &t->nodes[x->maker - 1];
    pn_op_call *c = &n->call;
    PN_ASSERT(n->again);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i]) PN_TRY(ensure(t, c->in[i]));
    bool spare[PN_OP_OUT] = { false };
    for (int i = 0; i < c->n_out; i++) {
        pn_tensor *y = c->out[i];
        if (y->storage) continue;
        spare[i] = !y->awaited;
        PN_TRY(pn_tensor_refill(y, t->pool, spare[i] ? 1 : y->awaited));
        y->remade = !spare[i];
    }
    c->attr = n->attr;
    PN_TRY(run_impl(t, n->impl, c, false));
    for (int i = 0; i < c->n_out; i++)
        if (spare[i]) pn_tensor_unhold(c->out[i]);
    return PN_OK;
}

static pn_status backward_to(pn_tape *t, int base);

static pn_status recompute_backward(pn_tape *t, node *n) {
    bool before = pn_tape_record(t, true);
    pn_again most = pn_tape_again(t, PN_AGAIN_NEVER); /* backward follows at once */
    int base = t->n_nodes;
    pn_scope scope = pn_scope_open(t);
    pn_tensor *leaf[PN_OP_IN] = { 0 }, *out[PN_OP_OUT] = { 0 };
    for (int i = 0; i < n->call.n_in; i++) {
        if (!n->call.in[i]) continue;
        PN_TRY(ensure(t, n->call.in[i]));
        PN_TRY(pn_tensor_detach(n->call.in[i], &leaf[i]));
        PN_TRY(pn_tape_own(t, leaf[i]));
        leaf[i]->wants_grad = n->call.wants[i];
        leaf[i]->maker = -1;
    }
    PN_TRY(n->body(t, n->attr, leaf, n->call.n_in, out, n->call.n_out));
    for (int i = 0; i < n->call.n_out; i++) {
        if (!n->call.out[i]->grad || !out[i]->wants_grad) continue;
        PN_TRY(give_gradient(t, out[i], n->call.out[i]->grad));
    }
    PN_TRY(backward_to(t, base));
    for (int i = 0; i < n->call.n_in; i++) {
        if (!leaf[i] || !leaf[i]->grad) continue;
        PN_TRY(give_gradient(t, n->call.in[i], leaf[i]->grad));
        pn_tensor_release(&leaf[i]->grad); /* a plan keeps shells until its reset: not what hangs on these */
    }
    pn_scope_close(t, scope, NULL, 0);
    pn_tape_again(t, most);
    pn_tape_record(t, before);
    return PN_OK;
}

/* Only the gradient of the output is needed, and only handed on. */
static pn_status pass_backward(pn_tape *t, const pn_op_call *c) {
    for (int i = 0; i < c->n_in; i++)
        if (c->wants[i]) PN_TRY(give_gradient(t, c->in[i], c->out[0]->grad));
    return PN_OK;
}

static pn_status op_backward(pn_tape *t, node *n) {
    pn_op_call *c = &n->call;
    if (c->op->contract->passes) return pass_backward(t, c);
    c->attr = n->attr;
    const uint32_t read = c->op->contract->saves(c);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && read & PN_SAVE_IN(i)) PN_TRY(ensure(t, c->in[i]));
    for (int i = 0; i < c->n_out; i++)
        if (read & PN_SAVE_OUT(i)) PN_TRY(ensure(t, c->out[i]));
    for (int i = 0; i < c->n_in; i++) {
        c->din[i] = NULL;
        if (!c->wants[i]) continue;
        /* A tensor that is two inputs of one call has its gradient from the first of them on. */
        bool fresh = n->impl->fresh && !c->in[i]->grad;
        for (int k = i + 1; k < c->n_in; k++) fresh = fresh && c->in[k] != c->in[i];
        PN_TRY(make_gradient(t, c->in[i], !fresh));
        c->din[i] = c->in[i]->grad;
        if (fresh) c->fresh |= 1u << i;
    }
    for (int i = 0; i < c->n_out; i++) c->dout[i] = c->out[i]->grad;
    PN_TRY(run_impl(t, n->impl, c, true));
    return PN_OK;
}

/* Replays records down to index `base`, freeing each. */
static pn_status backward_to(pn_tape *t, int base) {
    while (t->n_nodes > base) {
        node n = t->nodes[--t->n_nodes]; /* by value: a recompute grows the array */
        bool reached = false;
        for (int i = 0; i < n.call.n_out; i++) reached = reached || n.call.out[i]->grad;
        pn_status s = PN_OK;
        if (n.passed) s = n.passed(n.ctx, t, n.index);
        if (reached) s = n.impl ? op_backward(t, &n) : recompute_backward(t, &n);
        for (int i = 0; i < n.call.n_out; i++) pn_tensor_release(&n.call.out[i]->grad);
        node_free(&n);
        if (s) return pn_trace_at(__FILE__, __LINE__, s, n.impl ? n.call.op->name : n.body ? "recompute" : "mark");
    }
    return PN_OK;
}

pn_status pn_tape_backward_from(pn_tape *t, pn_tensor *const *outputs, pn_tensor *const *grads, int n) {
    for (int i = 0; i < n; i++) {
        PN_CHECK(outputs[i]->wants_grad, PN_USAGE, "backward: output %d does not depend on anything that trains", i);
        PN_CHECK(pn_tensor_same_shape(outputs[i], grads[i]), PN_USAGE,
                 "backward: gradient %s for an output of shape %s", pn_tensor_shape_text(grads[i]),
                 pn_tensor_shape_text(outputs[i]));
        PN_TRY(give_gradient(t, outputs[i], grads[i]));
    }
    bool before = pn_tape_record(t, true);
    pn_range_begin("backward", -1);
    pn_status s = backward_to(t, 0);
    pn_range_end();
    pn_tape_record(t, before);
    return s;
}

pn_status pn_tape_backward_unchecked(pn_tape *t, pn_tensor *loss) {
    PN_CHECK(pn_tensor_elems(loss) == 1, PN_USAGE, "backward: a loss has one element, this has shape %s",
             pn_tensor_shape_text(loss));
    pn_tensor *one;
    PN_TRY(pn_tape_new(t, loss->dtype, loss->rank, loss->shape, &one));
    const double gradient = 1;
    PN_TRY(pn_tensor_write(one, &gradient, PN_F64));
    return pn_tape_backward_from(t, &loss, &one, 1);
}

pn_status pn_tape_backward(pn_tape *t, pn_tensor *loss) {
    if (t->backend != PN_PLAN && pn_tensor_elems(loss) == 1) {
        double value;
        PN_TRY(pn_tensor_read(loss, &value, PN_F64));
        PN_CHECK(isfinite(value), PN_NUMERIC, "the loss is %g: lower the learning rate or check the data", value);
    }
    return pn_tape_backward_unchecked(t, loss);
}

/* ---- recompute ---- */

/* An output that is an input, or an earlier output, becomes a tensor of its own over the same values: its gradient then
 * belongs to this record alone. */
static pn_status own_output(pn_tape *t, pn_op_call *c, int i, pn_tensor **out) {
    pn_tensor *x = *out;
    bool shared = false;
    for (int k = 0; k < c->n_in; k++) shared = shared || x == c->in[k];
    for (int k = 0; k < i; k++) shared = shared || x == c->out[k];
    if (shared) {
        bool wants = x->wants_grad;
        PN_TRY(pn_tensor_detach(x, &x));
        PN_TRY(pn_tape_own(t, x));
        x->wants_grad = wants;
    }
    *out = c->out[i] = x;
    return PN_OK;
}

pn_status pn_tape_recompute(pn_tape *t, pn_tape_body body, const void *ctx, size_t ctx_bytes, pn_tensor *const *in,
                            int n_in, pn_tensor **out, int n_out) {
    PN_ASSERT(n_in <= PN_OP_IN && n_out <= PN_OP_OUT && ctx_bytes <= PN_OP_ATTR_BYTES);
    if (!t->recording) return body(t, ctx, in, n_in, out, n_out);
    node n;
    memset(&n, 0, sizeof n);
    memcpy(n.attr, ctx, ctx_bytes);
    n.body = body;
    n.call.n_in = n_in;
    n.call.n_out = n_out;
    pn_scope scope = pn_scope_open(t);
    t->recording = false;
    t->rehearsing = true;
    pn_status s = body(t, ctx, in, n_in, out, n_out);
    t->recording = true;
    t->rehearsing = false;
    PN_TRY(s);
    pn_scope_close(t, scope, out, n_out);
    bool any = false;
    for (int i = 0; i < n_in; i++) {
        n.call.in[i] = in[i];
        n.call.wants[i] = in[i] && in[i]->wants_grad;
        n.saved |= PN_SAVE_IN(i);
    }
    for (int i = 0; i < n_out; i++) {
        PN_TRY(own_output(t, &n.call, i, &out[i]));
        any = any || out[i]->wants_grad;
    }
    return any ? push_node(t, &n) : PN_OK;
}
