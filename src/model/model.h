/* A model is layers of slots (blocks.md 2). A slot holds one or more candidate mixers; a plain model has one each. A
 * path chooses one per layer, so teacher, super-network, extracted hybrid and exported model are the same struct.
 *
 *     h = E[ids];  per layer: h += mixer(rms(h)); h += mlp(rms(h));  hidden = rms(h);  logits = head hidden */
#ifndef PN_MODEL_MODEL_H
#define PN_MODEL_MODEL_H

#include "block.h"

enum { PN_MAX_LAYERS = 128, PN_MAX_CANDIDATES = 64 };

typedef struct pn_model_config {
    pn_dims dims;
    int64_t vocab;
    int n_layers;
    bool tied;            /* the output matrix is the embedding */
    int32_t bos, eos;     /* -1: none */
    int64_t max_position; /* no effect on the mathematics */
    double initializer_range;
    pn_dtype file_dtype;                /* dtype of matrices in the files it came from or goes to */
    pn_block_spec layer[PN_MAX_LAYERS]; /* the mixer of each layer, options resolved */
} pn_model_config;

typedef struct pn_path { /* a value: copy it freely */
    int n;
    uint8_t choice[PN_MAX_LAYERS]; /* candidate index per layer */
} pn_path;

typedef struct pn_layer {
    pn_tensor *input_norm, *post_norm; /* [D]; borrowed from the weights */
    int n_candidates;
    pn_block *candidate[PN_MAX_CANDIDATES]; /* owned; [0] is the model's own mixer */
    pn_block *mlp;                          /* owned */
} pn_layer;

typedef struct pn_model {
    pn_model_config config;
    pn_params *params;              /* owned; shared weights are counted */
    pn_layer *layer;                /* config.n_layers, owned */
    pn_tensor *embed, *head, *norm; /* [V, D], [V, D] (== embed when tied), [D]; borrowed from params */
} pn_model;

/* Checks the config (PN_USAGE: absurd or contradictory sizes, before any allocation) and declares all weights, zeroed.
 * `share` (NULL ok): weights of the same name and shape are taken from it instead of being made, and the others are
 * made where it is; dtype is its own. */
pn_status pn_model_create(const pn_model_config *config, pn_dtype dtype, const pn_params *share, pn_model **out);
/* The same for a config that is not trusted: the guard is asked about every weight first. */
pn_status pn_model_create_guarded(const pn_model_config *config, pn_dtype dtype, const pn_param_guard *guard,
                                  pn_model **out);
void pn_model_destroy(pn_model **m);
pn_status pn_model_config_check(const pn_model_config *config);

/* One more candidate for a layer; weights under "model.layers.<l>.candidates.<block name>." *index: its choice number.
 */
pn_status pn_model_add_candidate(pn_model *m, int layer, const pn_block_spec *spec, int *index);
/* Path of candidate 0 everywhere: the model itself, and the teacher of a super-network. */
pn_path pn_model_own_path(const pn_model *m);
/* The config of the model that a path (NULL: candidate 0) stands for. */
void pn_model_path_config(const pn_model *m, const pn_path *path, pn_model_config *out);

/* ids: [tokens] I32. h: the residual stream [tokens, D], owned by the tape like every output below. */
pn_status pn_model_embed(const pn_model *m, pn_tape *t, pn_tensor *ids, pn_tensor **h);
/* The mixer's input rms(h), and the MLP half of h + y, y what the mixer made of it (NULL: there is none):
 * pn_model_layer is both and the mixer. */
pn_status pn_model_mixer_input(const pn_model *m, int layer, pn_tape *t, pn_tensor *h, pn_tensor **x);
pn_status pn_model_mlp_half(const pn_model *m, int layer, pn_tape *t, pn_tensor *h, pn_tensor *y, pn_tensor **out);
pn_status pn_model_layer(const pn_model *m, int layer, int choice, pn_tape *t, pn_tensor *h, const pn_docs *docs,
                         pn_carry *carry, pn_tensor **out);
/* After the final norm. */
pn_status pn_model_final(const pn_model *m, pn_tape *t, pn_tensor *h, pn_tensor **hidden);
/* All of it: ids to hidden. Scratch activations of each layer are released as it goes. path NULL: candidate 0. */
pn_status pn_model_hidden(const pn_model *m, const pn_path *path, pn_tape *t, pn_tensor *ids, const pn_docs *docs,
                          pn_tensor **hidden);
/* [tokens, V]; only for few tokens: losses and scoring use the fused ops on hidden. */
pn_status pn_model_logits(const pn_model *m, pn_tape *t, pn_tensor *hidden, pn_tensor **logits);

/* ---- decoding ---- */

typedef struct pn_cache { /* decode state of every layer for n sequences */
    int n_layers;
    pn_path path;
    pn_state **layer; /* owned */
    pn_pool *pool;
} pn_cache;

pn_status pn_cache_create(const pn_model *m, const pn_path *path, int64_t n_sequences, pn_cache **out);
void pn_cache_destroy(pn_cache **c);
/* Document i of ids continues sequence i; any lengths >= 0. The tape must not record. */
pn_status pn_model_extend(const pn_model *m, pn_cache *c, pn_tape *t, pn_tensor *ids, const pn_docs *docs,
                          pn_tensor **hidden);
/* Bytes per sequence after `context` tokens along a path. */
double pn_model_cache_bytes(const pn_model *m, const pn_path *path, int64_t context, size_t activation_bytes);

/* ---- paths as text: names joined by commas with repeats, "gated_deltanet*3,attention,none" ---- */

enum { PN_PATH_TEXT_MAX = 8192 }; /* holds any path: PN_MAX_LAYERS names of at most 63 bytes and their commas */
/* Writes at most n bytes; returns buffer. */
const char *pn_path_text(const pn_model *m, const pn_path *path, char *buffer, size_t n);
/* One name of those: "gated_deltanet", or "gated_deltanet_2" for the second of that type. */
const char *pn_candidate_text(const pn_model *m, int layer, int choice, char *buffer, size_t n);
pn_status pn_path_parse(const pn_model *m, const char *text, pn_path *out);
bool pn_path_equal(const pn_path *a, const pn_path *b);

#endif
