#include "block.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

static const pn_block_type *const types[] = {
#define PN_BLOCK(name) &pn_block_##name,
#include "blocks.def"
#undef PN_BLOCK
    NULL,
};

const pn_block_type *const *pn_block_types(int *n) {
    *n = (int)(sizeof types / sizeof *types) - 1;
    return types;
}

const pn_block_type *pn_block_find(const char *name) {
    for (const pn_block_type *const *t = types; *t; t++)
        if (!strcmp((*t)->name, name) || ((*t)->hf_name && !strcmp((*t)->hf_name, name))) return *t;
    return NULL;
}

pn_status pn_block_find_linear(const char *name, const char *where, const pn_block_type **out) {
    const pn_block_type *type = name ? pn_block_find(name) : NULL;
    PN_CHECK(type && type->role == PN_MIXER && type->state_create && !type->attention_weights, PN_USAGE,
             "%s: type is \"%s\"; it must be a linear block, see `postnas list blocks`", where, name ? name : "");
    *out = type;
    return PN_OK;
}

pn_status pn_block_spec_default(const pn_block_type *type, pn_block_spec *out) {
    memset(out, 0, sizeof *out);
    out->type = type;
    PN_ASSERT(type->options_bytes <= PN_BLOCK_OPTIONS_BYTES);
    if (type->options) PN_TRY(pn_options_defaults(type->options, out->options));
    return PN_OK;
}

const char *pn_block_spec_crosses_layers(const pn_block_spec *spec) {
    return spec->type->crosses_layers ? spec->type->crosses_layers(spec->options) : NULL;
}

bool pn_block_spec_equal(const pn_block_spec *a, const pn_block_spec *b) {
    return a->type == b->type && !memcmp(a->options, b->options, sizeof a->options);
}

uint64_t pn_block_spec_hash(const pn_block_spec *spec) {
    return XXH3_64bits_withSeed(spec->options, sizeof spec->options,
                                XXH3_64bits(spec->type->name, strlen(spec->type->name)));
}

bool pn_block_spec_extended(const pn_block_spec *spec) {
    bool extended = false;
    for (const pn_option *row = spec->type->options; row && row->name; row++)
        extended = extended || (row->extension && *(const bool *)(spec->options + row->offset));
    return extended;
}

pn_status pn_block_create(const pn_block_spec *spec, const pn_dims *dims, pn_params *params, const char *prefix,
                          pn_block **out) {
    pn_status s;
    pn_block *b = calloc(1, sizeof *b);
    PN_CHECK(b, PN_MEMORY, "out of memory");
    b->spec = *spec;
    b->dims = *dims;
    PN_ASSERT(strlen(prefix) < sizeof b->prefix);
    strcpy(b->prefix, prefix);
    if (spec->type->data_bytes) {
        b->data = calloc(1, spec->type->data_bytes);
        if (!b->data) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    }
    if (spec->type->resolve) PN_TRY_GOTO(s, spec->type->resolve(b->spec.options, dims), fail);
    if (spec->type->build) PN_TRY_GOTO(s, spec->type->build(b, params), fail);
    *out = b;
    return PN_OK;
fail:
    pn_block_destroy(&b);
    return s;
}

void pn_block_destroy(pn_block **b) {
    if (!b || !*b) return;
    free((*b)->data);
    free(*b);
    *b = NULL;
}

pn_status pn_block_weight(pn_block *b, pn_params *params, const pn_param_spec *spec, pn_tensor **out) {
    char name[2 * PN_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", b->prefix, spec->name);
    pn_param_spec full = *spec;
    full.name = name;
    pn_param *p;
    PN_TRY(pn_params_declare(params, &full, &p));
    *out = p->value;
    return PN_OK;
}

pn_status pn_block_forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_carry *carry, pn_tensor **y) {
    PN_ASSERT(x->rank == 2 && x->shape[0] == pn_docs_tokens(docs) && x->shape[1] == b->dims.hidden && !docs->past);
    PN_TRY(b->spec.type->forward(b, t, x, docs, NULL, carry, y));
    return PN_OK;
}

pn_status pn_block_extend(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                          pn_tensor **y) {
    PN_ASSERT(x->rank == 2 && x->shape[0] == pn_docs_tokens(docs) && docs->n == state->n);
    PN_ASSERT(!pn_tape_recording(t));
    pn_docs from_here = { .n = docs->n, .offset = docs->offset, .past = state->past };
    PN_TRY(b->spec.type->forward(b, t, x, &from_here, state, carry, y));
    for (int64_t i = 0; i < docs->n; i++) state->past[i] += docs->offset[i + 1] - docs->offset[i];
    return PN_OK;
}

pn_status pn_state_create(const pn_block *b, int64_t n_sequences, pn_pool *pool, pn_dtype dtype, pn_state **out) {
    pn_status status;
    pn_state *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    s->n = n_sequences;
    s->pool = pool;
    s->dtype = dtype;
    s->past = calloc((size_t)n_sequences + 1, sizeof *s->past);
    s->key_start = calloc((size_t)n_sequences + 1, sizeof *s->key_start);
    s->key_len = calloc((size_t)n_sequences + 1, sizeof *s->key_len);
    s->row = calloc((size_t)n_sequences + 1, sizeof *s->row);
    if (!s->past || !s->key_start || !s->key_len || !s->row) PN_FAIL_GOTO(status, PN_MEMORY, fail, "out of memory");
    if (b->spec.type->state_create) PN_TRY_GOTO(status, b->spec.type->state_create(b, s), fail);
    *out = s;
    return PN_OK;
fail:
    pn_state_destroy(&s);
    return status;
}

void pn_state_destroy(pn_state **s) {
    if (!s || !*s) return;
    for (int i = 0; i < (*s)->n_tensors; i++) pn_tensor_release(&(*s)->tensor[i]);
    free((*s)->past);
    free((*s)->key_start);
    free((*s)->key_len);
    free((*s)->row);
    free(*s);
    *s = NULL;
}

void pn_state_assume_past(pn_state *s, int64_t past) {
    for (int64_t i = 0; i < s->n; i++) s->past[i] = past;
}

static pn_status add(pn_state *s, const char *name, pn_dtype type, int rank, const int64_t *shape) {
    PN_ASSERT(s->n_tensors < PN_STATE_TENSORS);
    PN_TRY(pn_tensor_zeros(s->pool, type, rank, shape, &s->tensor[s->n_tensors]));
    s->tensor[s->n_tensors]->renewable = true;
    s->name[s->n_tensors++] = name;
    return PN_OK;
}

pn_status pn_state_add(pn_state *s, const char *name, int rank, const int64_t *shape) {
    return add(s, name, s->dtype, rank, shape);
}

pn_status pn_state_add_wide(pn_state *s, const char *name, int rank, const int64_t *shape) {
    return add(s, name, pn_wide_dtype(s->dtype), rank, shape);
}

pn_status pn_state_replace(pn_state *s, int i, pn_tensor *value) {
    PN_ASSERT(i < s->n_tensors && pn_tensor_same_shape(s->tensor[i], value));
    return pn_tensor_copy(s->tensor[i], value);
}

double pn_block_cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes) {
    return b->spec.type->cache_bytes ? b->spec.type->cache_bytes(b, context, activation_bytes) : 0;
}

pn_status pn_block_spec_cache_bytes(const pn_block_spec *spec, const pn_dims *dims, int64_t context,
                                    size_t activation_bytes, double *out) {
    pn_params *params;
    pn_block *b = NULL;
    PN_TRY(pn_params_plan(PN_F32, &params));
    pn_status s = pn_block_create(spec, dims, params, "", &b);
    if (!s) *out = pn_block_cache_bytes(b, context, activation_bytes);
    pn_block_destroy(&b);
    pn_params_destroy(&params);
    return s;
}
