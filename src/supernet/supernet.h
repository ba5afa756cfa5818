/* The super-network: a model whose layers hold several candidate mixers, trained so that any path through it is a
 * usable estimate of the hybrid that path stands for.
 *
 * The base's own mixer is candidate 0 of every layer and frozen, so path 0 everywhere is the teacher, at no extra cost.
 *
 *     local     every layer's candidates learn the teacher's own map x -> y of that layer: no backward pass through
 *               depth, one layer's optimizer at a time
 *     sampled   a random path per step, feature distillation along it and optionally KL (trainer.h) */
#ifndef PN_SUPERNET_SUPERNET_H
#define PN_SUPERNET_SUPERNET_H

#include "model.h"
#include "trainer.h"

typedef enum pn_supernet_mode { PN_SUPERNET_LOCAL, PN_SUPERNET_SAMPLED } pn_supernet_mode;
typedef enum pn_local_order { PN_ORDER_LAYER, PN_ORDER_STEP } pn_local_order;

typedef struct pn_supernet_options {
    int64_t mode;  /* pn_supernet_mode */
    int64_t order; /* pn_local_order: memory against passes over the data; the same result */
    int64_t store; /* index into store dtypes: F32 or BF16 activations between layers (order: layer) */
} pn_supernet_options;

extern const pn_option pn_supernet_option_table[];

/* Adds `blocks` to every layer, and `none` when asked; draws the new weights from the seed and makes them (only) train.
 * A swa starts from the weights of the layer's attention; its window, where auto, follows the linear block (swa.h). */
pn_status pn_supernet_build(pn_model *m, const pn_block_spec *blocks, int n_blocks, bool none, uint64_t seed);

typedef struct pn_local_error { /* of one candidate of one layer: error over the target's variance */
    int layer, choice;
    double first, last; /* mean of the first and of the last tenth of the steps */
} pn_local_error;

/* Trains all candidates. errors: layers x candidates rows in local mode, filled in (layer, choice) order; *n_errors.
 * sampled mode fills `curve` instead. state_dir: where finished layers (local) or checkpoints (sampled) are kept, and
 * looked for; NULL: none. seed: of the sampled paths. */
pn_status pn_supernet_train(pn_model *m, const pn_supernet_options *options, const pn_train_options *train,
                            pn_mixture *mixture, uint64_t seed, const char *state_dir, pn_local_error *errors,
                            int *n_errors, pn_curve *curve);
/* Room for errors. */
int pn_supernet_error_count(const pn_model *m);

/* Uniform over all paths that hold at least one trained candidate (there must be one); the same for every (seed, step).
 */
pn_path pn_supernet_sample(const pn_model *m, uint64_t seed, int64_t step);

/* The hybrid of a path as a model of its own: mixers copied under their export names ("self_attn."), everything else
 * shared with the super-network. Mixers train, nothing else does. */
pn_status pn_supernet_extract(const pn_model *m, const pn_path *path, pn_model **out);

#endif
