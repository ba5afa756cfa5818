#include "decode.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "kv_cache.h"

struct pn_decoder {
    pn_decode_parts parts;
    pn_replay *replay;
    int64_t *past;    /* [n_states, n]: where the step starts; owned */
    uintptr_t *where; /* addresses, to be hashed; owned */
    pn_replay_work work;
    void *ctx;
};

/* What follows from where a sequence is, and changes from step to step. */
static pn_status name_arrays(const pn_decoder *d, const pn_state *s) {
    const int64_t *const at[] = { s->past, s->row, s->key_start, s->key_len };
    for (int i = 0; i < 4; i++) PN_TRY(pn_replay_name(d->replay, at[i], s->n, false));
    return PN_OK;
}

static size_t most_addresses(const pn_decode_parts *p) {
    return (size_t)p->params->n + (size_t)p->n_states * (PN_STATE_TENSORS + 1);
}

pn_status pn_decoder_create(pn_tape *t, const pn_decode_parts *parts, pn_decoder **out) {
    pn_status s;
    pn_decoder *d = calloc(1, sizeof *d);
    PN_CHECK(d, PN_MEMORY, "out of memory");
    d->parts = *parts;
    d->past = calloc((size_t)(parts->n_states * parts->n) + 1, sizeof *d->past);
    d->where = calloc(most_addresses(parts) + 1, sizeof *d->where);
    if (!d->past || !d->where) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, pn_replay_create(t, &d->replay), fail);
    PN_TRY_GOTO(s, pn_replay_name(d->replay, parts->offset, parts->n + 1, true), fail);
    for (int i = 0; i < parts->n_states; i++)
        if (parts->state[i]) PN_TRY_GOTO(s, name_arrays(d, parts->state[i]), fail);
    *out = d;
    return PN_OK;
fail:
    pn_decoder_destroy(&d);
    return s;
}

void pn_decoder_destroy(pn_decoder **d) {
    if (!d || !*d) return;
    pn_replay_destroy(&(*d)->replay);
    free((*d)->past);
    free((*d)->where);
    free(*d);
    *d = NULL;
}

const pn_replay *pn_decoder_replay(const pn_decoder *d) {
    return d->replay;
}

static uintptr_t address_of(const pn_tensor *t) {
    return t->storage ? (uintptr_t)t->storage->data + (uintptr_t)t->offset * pn_dtype_bytes(t->dtype) : 0;
}

/* Of weights and states, and how many rows caches have. */
static uint64_t addresses(const pn_decoder *d) {
    const pn_decode_parts *p = &d->parts;
    size_t n = 0;
    for (int i = 0; i < p->params->n; i++) d->where[n++] = address_of(p->params->item[i]->value);
    for (int i = 0; i < p->n_states; i++) {
        const pn_state *s = p->state[i];
        if (!s) continue;
        for (int k = 0; k < s->n_tensors; k++) d->where[n++] = address_of(s->tensor[k]);
        d->where[n++] = (uintptr_t)s->capacity;
    }
    return XXH3_64bits(d->where, n * sizeof *d->where);
}

static int64_t *past_at(const pn_decoder *d, int state) {
    return d->past + state * d->parts.n;
}

static pn_status from_the_start(void *ctx) {
    const pn_decoder *d = ctx;
    for (int i = 0; i < d->parts.n_states; i++) {
        pn_state *s = d->parts.state[i];
        if (s) memcpy(s->past, past_at(d, i), (size_t)s->n * sizeof *s->past);
    }
    return d->work(d->ctx);
}

pn_status pn_decoder_step(pn_decoder *d, pn_replay_work work, void *ctx) {
    const pn_decode_parts *p = &d->parts;
    d->work = work;
    d->ctx = ctx;
    for (int i = 0; i < p->n_states; i++) {
        pn_state *s = p->state[i];
        if (!s) continue;
        PN_ASSERT(s->n == p->n);
        memcpy(past_at(d, i), s->past, (size_t)s->n * sizeof *s->past);
        if (!s->capacity) continue;
        PN_TRY(pn_kv_cache_reserve(s));
        pn_kv_cache_place(s);
    }
    PN_TRY(pn_replay_run(d->replay, addresses(d), from_the_start, d));
    for (int i = 0; i < p->n_states; i++)
        for (int64_t k = 0; p->state[i] && k < p->n; k++) p->state[i]->past[k] = past_at(d, i)[k] + 1;
    return PN_OK;
}

/* ---- a whole model ---- */

struct pn_model_decoder {
    const pn_model *m;
    pn_cache *cache;
    pn_tape *tape;
    pn_decoder *decoder;
    pn_pool *pool; /* of ids */
    pn_tensor *ids, *logits;
    int64_t *offset; /* owned */
    pn_docs docs;
};

static pn_status one_step(void *ctx) {
    pn_model_decoder *d = ctx;
    pn_tensor *hidden;
    pn_tape_reset(d->tape);
    PN_TRY(pn_model_extend(d->m, d->cache, d->tape, d->ids, &d->docs, &hidden));
    PN_TRY(pn_model_logits(d->m, d->tape, hidden, &d->logits));
    return PN_OK;
}

static pn_status open(pn_model_decoder *d, int64_t n) {
    d->offset = malloc((size_t)(n + 1) * sizeof *d->offset);
    PN_CHECK(d->offset, PN_MEMORY, "out of memory");
    for (int64_t i = 0; i <= n; i++) d->offset[i] = i;
    d->docs = (pn_docs){ .n = n, .offset = d->offset };
    PN_TRY(pn_pool_create(pn_backend_pool(pn_tape_backend(d->tape)), &d->pool));
    PN_TRY(pn_tensor_create(d->pool, PN_I32, 1, &n, &d->ids));
    const pn_decode_parts parts = {
        .params = d->m->params, .state = d->cache->layer, .n_states = d->cache->n_layers, .n = n, .offset = d->offset
    };
    PN_TRY(pn_decoder_create(d->tape, &parts, &d->decoder));
    return PN_OK;
}

pn_status pn_model_decoder_create(const pn_model *m, pn_cache *cache, pn_tape *t, pn_model_decoder **out) {
    pn_model_decoder *d = calloc(1, sizeof *d);
    PN_CHECK(d, PN_MEMORY, "out of memory");
    *d = (pn_model_decoder){ .m = m, .cache = cache, .tape = t };
    pn_status s = open(d, cache->layer[0]->n);
    if (s)
        pn_model_decoder_destroy(&d);
    else
        *out = d;
    return s;
}

void pn_model_decoder_destroy(pn_model_decoder **dp) {
    pn_model_decoder *d = dp ? *dp : NULL;
    if (!d) return;
    pn_decoder_destroy(&d->decoder);
    pn_tensor_release(&d->ids);
    pn_pool_destroy(&d->pool);
    free(d->offset);
    free(d);
    *dp = NULL;
}

pn_status pn_model_decoder_step(pn_model_decoder *d, const int32_t *ids, pn_tensor **logits) {
    PN_TRY(pn_tensor_write(d->ids, ids, PN_I32));
    PN_TRY(pn_decoder_step(d->decoder, one_step, d));
    *logits = d->logits;
    return PN_OK;
}

const pn_replay *pn_model_decoder_replay(const pn_model_decoder *d) {
    return pn_decoder_replay(d->decoder);
}
