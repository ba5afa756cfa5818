/* The block contract: one residual branch of a layer (a token mixer, or the MLP).
 *
 * The type is a const table (src/blocks/<name>.c, one row in blocks.def); an instance is its options and its weights.
 * Registration gives config keys, `postnas list blocks`, super-network candidacy, decode state, export names and the
 * block test suite (shapes, causality, packed = alone, gradients, any split = one piece, save/load, state bytes).
 *
 *     x [tokens, hidden]  ->  y [tokens, hidden]      causal, documents never mix
 *
 * Training calls pn_block_forward; inference calls pn_block_extend with a state, for a prompt, a piece of one or a
 * single token alike. All three give the same result (blocks.md 1.8). */
#ifndef PN_BLOCKS_BLOCK_H
#define PN_BLOCKS_BLOCK_H

#include "options.h"
#include "param.h"
#include "tape.h"

enum { PN_BLOCK_OPTIONS_BYTES = 128, PN_STATE_TENSORS = 4 };

/* Where in a model a block stands. */
typedef struct pn_place {
    int layer, n_layers; /* 0 of 0: nowhere in particular */
    bool carried;        /* a layer before it may have put a value into pn_carry */
} pn_place;

/* What a block knows of its model. */
typedef struct pn_dims {
    int64_t hidden;                    /* D */
    int64_t heads, kv_heads, head_dim; /* softmax attention: Hq, Hkv, d */
    int64_t intermediate;              /* MLP width I */
    double rope_theta, rms_norm_eps;
    bool qkv_bias;
    pn_place place; /* the model fills it in for each layer's blocks */
} pn_dims;

typedef struct pn_block_type pn_block_type;
typedef struct pn_attention_map pn_attention_map; /* attention_map.h */

/* A type and its options: a value that can be copied, compared and hashed. */
typedef struct pn_block_spec {
    const pn_block_type *type;
    _Alignas(8) unsigned char options[PN_BLOCK_OPTIONS_BYTES];
} pn_block_spec;

typedef struct pn_block {
    pn_block_spec spec;
    pn_dims dims;
    char prefix[PN_NAME_MAX]; /* of its weights: "model.layers.3.self_attn." */
    void *data;               /* type->data_bytes, owned; its tensors are borrowed from the weights */
} pn_block;

/* Decode state of one block for several sequences at once; tensor 0.. as the type's state_create made them. */
typedef struct pn_state {
    int64_t n;     /* sequences */
    int64_t *past; /* n: tokens seen; owned */
    int n_tensors;
    const char *name[PN_STATE_TENSORS]; /* as in blocks.md: "S", "k", "conv", ... */
    pn_tensor *tensor[PN_STATE_TENSORS];
    int64_t capacity;             /* key/value cache: rows per sequence, token p in row p mod capacity; else 0 ... */
    int64_t window;               /* ... and the most that it may have, 0: any number */
    int64_t *key_start, *key_len; /* n each: of the attention that runs now (attention.h); owned ... */
    int64_t *row;                 /* ... and, where that is one token each, its row in the cache */
    pn_pool *pool;                /* borrowed */
    pn_dtype dtype;               /* the compute type (op.h): of every tensor but recurrent states, which are wide */
} pn_state;

/* Values that cross layers within one pass; whoever runs the layers starts with zeros and hands it from each to the
 * next. The first block of a path that wants v_first and finds none puts its own there, later ones read it. */
typedef struct pn_carry {
    pn_tensor *v_first; /* RWKV-7 (blocks.md 9.3): [tokens, hidden] or NULL; owned by the tape */
} pn_carry;

typedef enum pn_block_role { PN_MIXER, PN_MLP } pn_block_role;

struct pn_block_type {
    const char *name;    /* "gated_deltanet": config, messages, path notation */
    const char *hf_name; /* "gdn": layer_types of config.json */
    const char *summary; /* one line for `postnas list blocks` */
    pn_block_role role;
    /* Its weights are those of softmax attention, name by name: it can start from the base's as they are
     * (blocks.md 11.2). */
    bool attention_weights;
    /* Fills *map (zeroed) with what can start from softmax attention's weights. NULL: nothing can. */
    void (*attention_map)(const pn_block *b, pn_attention_map *map);
    const pn_option *options; /* config keys; offsets into the options struct; names are the Hugging Face field names */
    size_t options_bytes, data_bytes;
    /* The name of the option that makes the block use pn_carry, so that its output depends on other layers; NULL as the
     * answer or for the function: it does not. */
    const char *(*crosses_layers)(const void *options);
    /* Resolves "auto" options from dims and refuses contradictions (PN_USAGE). NULL: nothing to resolve. */
    pn_status (*resolve)(void *options, const pn_dims *dims);
    /* Declares the weights and points data at them. NULL: none. */
    pn_status (*build)(pn_block *b, pn_params *params);
    /* state NULL: from the start of every document, nothing kept. Else docs->past holds what each sequence has seen,
     * and the state is read and overwritten (tape not recording). */
    pn_status (*forward)(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                         pn_tensor **y);
    /* Adds its tensors to an empty state. NULL: no state. */
    pn_status (*state_create)(const pn_block *b, pn_state *state);
    /* Bytes of decode state of one sequence after `context` tokens, activations of the given width, recurrent state
     * F32: the search's memory term. NULL: 0. */
    double (*cache_bytes)(const pn_block *b, int64_t context, size_t activation_bytes);
};

#define PN_BLOCK(name) extern const pn_block_type pn_block_##name;
#include "blocks.def"
#undef PN_BLOCK

const pn_block_type *pn_block_find(const char *name_or_hf_name); /* NULL if unknown */
/* PN_USAGE, starting with `where`, unless the name (NULL: none given) is that of a linear block. */
pn_status pn_block_find_linear(const char *name, const char *where, const pn_block_type **out);
const pn_block_type *const *pn_block_types(int *n); /* the registry, in blocks.def order */

/* Options at their defaults (auto values unresolved). */
pn_status pn_block_spec_default(const pn_block_type *type, pn_block_spec *out);
/* crosses_layers of the type. */
const char *pn_block_spec_crosses_layers(const pn_block_spec *spec);
/* Same type and options. */
bool pn_block_spec_equal(const pn_block_spec *a, const pn_block_spec *b);
uint64_t pn_block_spec_hash(const pn_block_spec *spec);
/* Whether an option is on that only postnas has. Such a block must not pass for the published one: in files it is
 * <hf_name>_postnas. */
bool pn_block_spec_extended(const pn_block_spec *spec);
#define PN_EXTENDED_SUFFIX "_postnas"

/* Declares the block's weights in `params` under `prefix` (existing ones of the same name and shape are used as they
 * are). The weights belong to params, which must outlive the block. */
pn_status pn_block_create(const pn_block_spec *spec, const pn_dims *dims, pn_params *params, const char *prefix,
                          pn_block **out);
void pn_block_destroy(pn_block **b);

/* Helper for build(): declares prefix + name and returns its tensor. */
pn_status pn_block_weight(pn_block *b, pn_params *params, const pn_param_spec *spec, pn_tensor **out);

/* Training: every document from its start. */
pn_status pn_block_forward(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_carry *carry, pn_tensor **y);
/* Inference: document i of x continues sequence i of the state (zero tokens allowed). The tape must not record. */
pn_status pn_block_extend(pn_block *b, pn_tape *t, pn_tensor *x, const pn_docs *docs, pn_state *state, pn_carry *carry,
                          pn_tensor **y);

pn_status pn_state_create(const pn_block *b, int64_t n_sequences, pn_pool *pool, pn_dtype dtype, pn_state **out);
void pn_state_destroy(pn_state **s);
/* Says that every sequence has seen `past` tokens. Values stay, and rows of keys that are not there yet come as zeros
 * with the next piece: for measuring what tokens cost after a long context without computing that context. */
void pn_state_assume_past(pn_state *s, int64_t past);
/* Helpers for types: state_create() adds a zeroed tensor; forward() overwrites tensor i with a same-shaped value. */
pn_status pn_state_add(pn_state *s, const char *name, int rank, const int64_t *shape);
pn_status pn_state_add_wide(pn_state *s, const char *name, int rank, const int64_t *shape);
pn_status pn_state_replace(pn_state *s, int i, pn_tensor *value);
double pn_block_cache_bytes(const pn_block *b, int64_t context, size_t activation_bytes);
/* The same of a block that is not built. With activation_bytes 0 what stays is the recurrent state. PN_USAGE when the
 * options do not fit dims. */
pn_status pn_block_spec_cache_bytes(const pn_block_spec *spec, const pn_dims *dims, int64_t context,
                                    size_t activation_bytes, double *out);

#endif
