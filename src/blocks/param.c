#include "param.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "rng.h"

static pn_status create(pn_backend backend, pn_dtype dtype, pn_params **out) {
    pn_params *p = calloc(1, sizeof *p);
    PN_CHECK(p, PN_MEMORY, "out of memory");
    p->backend = p->planned_for = backend;
    p->dtype = dtype;
    pn_status s = pn_pool_create_exact(pn_backend_pool(backend), &p->pool);
    if (s) {
        free(p);
        return s;
    }
    *out = p;
    return PN_OK;
}

pn_status pn_params_create(pn_dtype dtype, pn_params **out) {
    PN_TRY(create(dtype == PN_F64 ? PN_REF : PN_CPU, dtype, out));
    return PN_OK;
}

pn_status pn_params_plan(pn_dtype dtype, pn_params **out) {
    PN_TRY(create(PN_PLAN, dtype, out));
    return PN_OK;
}

pn_status pn_params_create_like(const pn_params *like, pn_params **out) {
    PN_TRY(create(like->backend, like->dtype, out));
    (*out)->planned_for = like->planned_for;
    return PN_OK;
}

static void param_release(pn_param *p) {
    if (--p->refs > 0) return;
    pn_tensor_release(&p->value);
    free(p);
}

void pn_params_destroy(pn_params **pp) {
    if (!pp || !*pp) return;
    pn_params *p = *pp;
    for (int i = 0; i < p->n; i++) param_release(p->item[i]);
    free(p->item);
    pn_pool_destroy(&p->pool);
    free(p);
    *pp = NULL;
}

pn_param *pn_params_find(const pn_params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->item[i]->name, name)) return p->item[i];
    return NULL;
}

static pn_status append(pn_params *p, pn_param *x) {
    if (p->n == p->cap) {
        int cap = p->cap ? 2 * p->cap : 256;
        pn_param **grown = realloc(p->item, (size_t)cap * sizeof *grown);
        PN_CHECK(grown, PN_MEMORY, "out of memory");
        p->item = grown;
        p->cap = cap;
    }
    p->item[p->n++] = x;
    return PN_OK;
}

static bool has_shape(const pn_param *x, const pn_param_spec *spec) {
    return x->value->rank == spec->rank &&
           !memcmp(x->value->shape, spec->shape, (size_t)spec->rank * sizeof spec->shape[0]);
}

/* Of a value: norms, biases, rates and the like stay wide where matrices are narrow. */
static pn_dtype value_dtype(pn_dtype computed, int rank, bool keep_f32) {
    return keep_f32 || rank < 2 ? pn_wide_dtype(computed) : computed;
}

pn_status pn_params_declare(pn_params *p, const pn_param_spec *spec, pn_param **out) {
    const pn_dtype dtype = value_dtype(p->dtype, spec->rank, spec->keep_f32);
    pn_param *x = pn_params_find(p, spec->name);
    if (!x && p->lender) {
        x = pn_params_find(p->lender, spec->name);
        if (x && has_shape(x, spec) && x->value->dtype == dtype) {
            *out = x;
            return pn_params_share(p, x);
        }
        x = NULL;
    }
    if (x) {
        PN_CHECK(has_shape(x, spec), PN_FORMAT, "weight %s has shape %s; this model needs another", spec->name,
                 pn_tensor_shape_text(x->value));
        *out = x;
        return PN_OK;
    }
    PN_CHECK(strlen(spec->name) < PN_NAME_MAX, PN_USAGE, "weight name %s is too long", spec->name);
    if (p->guard) PN_TRY(p->guard->admit(p->guard->context, spec));
    x = calloc(1, sizeof *x);
    PN_CHECK(x, PN_MEMORY, "out of memory");
    strcpy(x->name, spec->name);
    x->init = spec->init;
    x->decay = spec->decay;
    x->keep_f32 = spec->keep_f32;
    x->refs = 1;
    pn_status s = pn_tensor_zeros(p->pool, dtype, spec->rank, spec->shape, &x->value);
    if (!s) x->value->grad_dtype = pn_wide_dtype(p->dtype);
    if (!s) s = append(p, x);
    if (s) {
        param_release(x);
        return s;
    }
    *out = x;
    return PN_OK;
}

/* ---- on a backend ---- */

pn_status pn_params_move(pn_params *p, pn_backend backend, pn_dtype dtype) {
    PN_ASSERT((backend == PN_CPU && dtype == PN_F32) || (backend == PN_CUDA && (dtype == PN_F32 || dtype == PN_BF16)));
    const pn_pool_kind kind = pn_backend_pool(backend);
    if (pn_pool_kind_of(p->pool) != kind) {
        pn_pool *pool;
        PN_TRY(pn_pool_create_exact(kind, &pool));
        pn_pool_destroy(&p->pool);
        p->pool = pool;
    }
    for (int i = 0; i < p->n; i++) {
        pn_param *x = p->item[i];
        const pn_dtype type = value_dtype(dtype, x->value->rank, x->keep_f32);
        if (pn_pool_kind_of(x->value->storage->pool) == kind && x->value->dtype == type) continue;
        PN_TRY(pn_tensor_move(x->value, p->pool, type));
        x->value->grad_dtype = pn_wide_dtype(dtype);
    }
    p->backend = backend;
    p->dtype = dtype;
    return PN_OK;
}

uint64_t pn_params_fingerprint(const pn_params *p, uint64_t hash) {
    const uint64_t parts[] = { hash, (uint64_t)p->backend, (uint64_t)p->dtype };
    return p->backend == PN_CUDA ? XXH3_64bits(parts, sizeof parts) : hash;
}

pn_status pn_params_tape(const pn_params *p, pn_tape **out) {
    PN_TRY(pn_tape_create_typed(p->backend, p->dtype, out));
    return PN_OK;
}

pn_status pn_params_tape_plan(const pn_params *p, pn_tape **out) {
    PN_TRY(pn_tape_create_plan(p->backend == PN_PLAN ? p->planned_for : p->backend, p->dtype, out));
    return PN_OK;
}

/* ---- values ---- */

pn_status pn_params_share(pn_params *p, pn_param *from) {
    PN_ASSERT(!pn_params_find(p, from->name));
    PN_TRY(append(p, from));
    from->refs++;
    return PN_OK;
}

pn_status pn_param_init(pn_param *p, uint64_t seed) {
    pn_rng rng;
    pn_rng_stream(seed, p->name, 0, &rng);
    const pn_pool_kind kind = pn_pool_kind_of(p->value->storage->pool);
    if (kind == PN_POOL_HOST) return pn_init_fill(&p->init, &rng, p->value);
    if (kind == PN_POOL_COUNTING) return PN_OK;
    pn_pool *pool;
    pn_tensor *drawn;
    PN_TRY(pn_pool_create(PN_POOL_HOST, &pool));
    pn_status s = pn_tensor_create(pool, PN_F32, p->value->rank, p->value->shape, &drawn);
    if (!s) {
        s = pn_init_fill(&p->init, &rng, drawn);
        if (!s) s = pn_tensor_copy(p->value, drawn);
        pn_tensor_release(&drawn);
    }
    pn_pool_destroy(&pool);
    return s;
}

pn_status pn_params_copy(const pn_params *from, const char *from_prefix, pn_params *to, const char *to_prefix) {
    size_t n = strlen(to_prefix);
    for (int i = 0; i < to->n; i++) {
        pn_param *q = to->item[i];
        if (!pn_param_below(q->name, to_prefix)) continue;
        char name[2 * PN_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", from_prefix, q->name + n);
        const pn_param *p = pn_params_find(from, name);
        PN_ASSERT(p);
        PN_TRY(pn_tensor_copy(q->value, p->value));
    }
    return PN_OK;
}

pn_status pn_params_init_since(pn_params *p, int n, uint64_t seed) {
    for (int i = n; i < p->n; i++) PN_TRY(pn_param_init(p->item[i], seed));
    return PN_OK;
}

pn_status pn_params_init(pn_params *p, uint64_t seed) {
    return pn_params_init_since(p, 0, seed);
}

int pn_params_train(pn_params *p, const char *pattern, bool train) {
    int matched = 0;
    for (int i = 0; i < p->n; i++) {
        if (fnmatch(pattern, p->item[i]->name, 0)) continue;
        p->item[i]->value->wants_grad = train;
        matched++;
    }
    return matched;
}

pn_status pn_param_hash_as(const pn_param *p, const char *name, uint64_t *out) {
    const size_t n = pn_tensor_bytes(p->value);
    const bool here = pn_pool_kind_of(p->value->storage->pool) == PN_POOL_HOST;
    void *copy = NULL;
    if (!here) {
        copy = malloc(n + 1);
        PN_CHECK(copy, PN_MEMORY, "out of memory");
        pn_status s = pn_tensor_read(p->value, copy, p->value->dtype);
        if (s) {
            free(copy);
            return s;
        }
    }
    *out = XXH3_64bits_withSeed(here ? pn_data(p->value) : copy, n, XXH3_64bits(name, strlen(name)));
    free(copy);
    return PN_OK;
}

pn_status pn_param_hash(const pn_param *p, uint64_t *out) {
    return pn_param_hash_as(p, p->name, out);
}

pn_status pn_params_hash(const pn_params *p, uint64_t *out) {
    uint64_t one;
    *out = 0;
    for (int i = 0; i < p->n; i++) {
        PN_TRY(pn_param_hash(p->item[i], &one));
        *out += one;
    }
    return PN_OK;
}

bool pn_param_below(const char *name, const char *prefix) {
    return !strncmp(name, prefix, strlen(prefix));
}

int64_t pn_params_count(const pn_params *p, bool training) {
    int64_t n = 0;
    for (int i = 0; i < p->n; i++)
        if (!training || p->item[i]->value->wants_grad) n += pn_tensor_elems(p->item[i]->value);
    return n;
}
