/* A block with weights and a tape, for the tests of this folder: what it makes of random activations. */
#ifndef PN_TESTS_BLOCKS_RIG_H
#define PN_TESTS_BLOCKS_RIG_H

#include <math.h>
#include <string.h>

#include "block_option.h"
#include "random_weights.h"
#include "tape.h"

static const pn_dims tiny = {
    .hidden = 20, .heads = 2, .kv_heads = 1, .head_dim = 6, .intermediate = 24, .rope_theta = 1e4, .rms_norm_eps = 1e-6
};

typedef struct subject {
    pn_block_spec spec;
    pn_dims dims;
    char label[96];
} subject;

typedef struct rig {
    const subject *s;
    pn_params *params;
    pn_block *block;
    pn_tape *tape;
} rig;

static inline rig rig_create(const subject *s, pn_backend backend) {
    rig r = { .s = s };
    ck_ok(pn_params_create(pn_backend_dtype(backend), &r.params));
    ck_ok(pn_block_create(&s->spec, &s->dims, r.params, "model.layers.0.self_attn.", &r.block));
    ck_ok(pn_tape_create(backend, &r.tape));
    randomise(r.params);
    pn_params_train(r.params, "*", true);
    return r;
}
static inline void rig_destroy(rig *r) {
    pn_tape_destroy(&r->tape);
    pn_block_destroy(&r->block);
    pn_params_destroy(&r->params);
}
static inline void drop_grads(rig *r) {
    for (int i = 0; i < r->params->n; i++) pn_tensor_release(&r->params->item[i]->value->grad);
}

/* Random [rows, hidden] of a stream, the same floats on every backend; the caller's. */
static inline pn_tensor *activations(rig *r, const char *stream, int64_t rows) {
    pn_tensor *t;
    pn_rng rng;
    pn_rng_stream(20, stream, 2, &rng);
    ck_ok(pn_tensor_create(pn_tape_pool(r->tape), pn_tape_dtype(r->tape), 2, (int64_t[]){ rows, tiny.hidden }, &t));
    for (int64_t i = 0; i < pn_tensor_elems(t); i++) set(t, i, (float)pn_rng_normal(&rng));
    t->wants_grad = !strcmp(stream, "x");
    return t;
}

static inline pn_tensor *forward(rig *r, pn_tensor *x, const pn_docs *docs) {
    pn_carry carry = { 0 };
    pn_tensor *y;
    ck_ok(pn_block_forward(r->block, r->tape, x, docs, &carry, &y));
    return y;
}

/* rms(a - b) / rms(b), absolute where b is zero or what rounding leaves of it, as the gradient of a query that has one
 * key to choose from (everything here is of order one). */
static inline double distance(const pn_tensor *a, const pn_tensor *b) {
    ck_assert(pn_tensor_same_shape(a, b));
    const double rounding = 1e-5;
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < pn_tensor_elems(a); i++) {
        double d = get(a, i) - get(b, i);
        diff += d * d;
        norm += get(b, i) * get(b, i);
    }
    return norm > rounding * rounding * (double)pn_tensor_elems(b) ? sqrt(diff / norm) : sqrt(diff);
}

#define FAR_FROM(r, what, error, limit)                                                                                \
    do {                                                                                                               \
        double error_ = (error), limit_ = (limit);                                                                     \
        ck_assert_msg(error_ <= limit_, "%s: %s is off by %.2e, allowed %.0e", (r)->s->label, what, error_, limit_);   \
    } while (0)

/* y (the caller's) and the gradients of x and all weights, for given documents. */
static inline pn_tensor *both_ways(rig *r, pn_tensor *x, pn_tensor *dy, const pn_docs *docs) {
    pn_tensor *y = pn_tensor_retain(forward(r, x, docs));
    if (y->wants_grad) ck_ok(pn_tape_backward_from(r->tape, &y, &dy, 1));
    pn_tape_reset(r->tape);
    return y;
}

#endif
