/* The super-network: a model whose layers hold several candidate mixers, trained so that any path through it is a
 * usable estimate of the hybrid that path stands for.
 *
 * The base's own mixer is candidate 0 of every layer and frozen, so path 0 everywhere is the teacher, at no extra cost.
 *
 *     local     every layer's candidates learn the teacher's own map x -> y of that layer: no backward pass through
 *               depth, one layer's optimizer at a time
 *     sampled   a random path per step, feature distillation along it and optionally KL (trainer.h)
 *     gated     all candidates of a layer at once, mixed by gates that are learnt with them (gates.h)
 *
 * After local training, candidates may go on in one of the other modes: the key `then` has what the second phase
 * needs. */
#ifndef PN_SUPERNET_SUPERNET_H
#define PN_SUPERNET_SUPERNET_H

#include "config.h"
#include "gates.h"
#include "latency.h"
#include "model.h"
#include "trainer.h"

typedef enum pn_supernet_mode { PN_SUPERNET_LOCAL, PN_SUPERNET_SAMPLED, PN_SUPERNET_GATED } pn_supernet_mode;
typedef enum pn_local_order { PN_ORDER_LAYER, PN_ORDER_STEP } pn_local_order;

typedef struct pn_supernet_phase {
    int64_t mode;  /* pn_supernet_mode */
    int64_t order; /* pn_local_order: memory against passes over the data; the same result */
    int64_t store; /* index into store dtypes: F32 or BF16 activations between layers (order: layer) */
    pn_gate_options gates;
    pn_train_options train;
} pn_supernet_phase;

enum { PN_SUPERNET_PHASES = 2 };

typedef struct pn_supernet_config {
    pn_supernet_phase phase[PN_SUPERNET_PHASES]; /* the second, if any, after a local one */
    int n_phases;
} pn_supernet_config;

/* For the list of all keys: those of a phase besides pn_train_option_table, and of its `gates` pn_gate_option_table. */
extern const pn_option pn_supernet_keys[], pn_supernet_then_keys[];

/* Reads `section` of the file: how candidates are trained, without which candidates there are. */
pn_status pn_supernet_config_read(pn_config *file, const char *section, pn_supernet_config *out);
/* The same of a section that trains locally and has no `mode` and no second phase. */
extern const pn_option pn_supernet_local_keys[];
pn_status pn_supernet_local_read(pn_config *file, const char *section, pn_supernet_config *out);
/* PN_USAGE when the mixture cannot serve a phase's budget (pn_train_options_check). */
pn_status pn_supernet_config_check(pn_config *file, const char *section, const pn_supernet_config *c,
                                   const pn_mixture *mixture);
/* PN_USAGE, starting with `where`, when a block depends on other layers (pn_carry) and a phase hands nothing from layer
 * to layer: only sampled paths do. */
pn_status pn_supernet_blocks_check(const pn_supernet_config *c, const pn_block_spec *blocks, int n_blocks,
                                   const char *where);

/* Adds `blocks` to every layer, after what it has, and `none` when asked; draws the new weights from the seed and makes
 * them (only) train: a later stage adds its candidates to a super-network that is trained. A swa starts from the
 * weights of the layer's attention; its window, where auto, follows the linear block (swa.h).
 * Linear blocks may do so when training begins: pn_supernet_job.start. */
pn_status pn_supernet_build(pn_model *m, const pn_block_spec *blocks, int n_blocks, bool none, uint64_t seed);

/* What a candidate's weights are before it trains. */
typedef enum pn_start {
    PN_START_RANDOM,   /* as drawn */
    PN_START_ATTENTION /* as near to the layer's attention as its shape allows (from_attention.h) */
} pn_start;
extern const char *const pn_start_names[];
/* PN_USAGE, starting with `where`, when a type cannot start so. */
pn_status pn_start_check(int64_t start, const pn_block_type *type, const char *where);

typedef struct pn_supernet_job { /* everything is borrowed */
    const char *name;            /* "block": in front of the monitor's series; NULL: none */
    const pn_supernet_config *config;
    pn_mixture *mixture;
    uint64_t seed;        /* of the sampled paths */
    const int64_t *start; /* pn_start of candidates 1 .. n_starts; of those after them: random */
    int n_starts;
    int64_t full_attention; /* what gates of candidate 0 sum to under budget `limit` */
    /* Needed by gates with cost `seconds`: these are measured into the table where it has none. */
    pn_latency *latency;
    const pn_latency_options *latency_options;
    const char *state_dir; /* finished layers (local) and checkpoints are kept here, and looked for; NULL: none */
    bool finished;         /* PN_USAGE instead of training, unless state_dir holds all of it */
    int64_t stop_after;    /* of sampled and gated training, as in pn_train_job */
} pn_supernet_job;

typedef struct pn_local_error { /* of one candidate of one layer: error over the target's variance */
    int layer, choice;
    double start;       /* on the first batch, before any update */
    double first, last; /* mean of the first and of the last tenth of the steps */
} pn_local_error;

typedef struct pn_supernet_result {
    pn_local_error *error; /* local: every candidate that trained, in (layer, choice) order; owned */
    int n_errors;
    pn_curve curve;           /* sampled, gated */
    pn_gate_curve gate_curve; /* gated: at the points of `curve` */
    pn_gates gates;           /* gated: at the end */
} pn_supernet_result;

/* Trains all candidates that want gradients. *out starts as {0}; free it whatever the status. */
pn_status pn_supernet_train(pn_model *m, const pn_supernet_job *job, pn_supernet_result *out);
void pn_supernet_result_free(pn_supernet_result *r);

/* Uniform over all paths that hold at least one trained candidate (there must be one); the same for every (seed, step).
 */
pn_path pn_supernet_sample(const pn_model *m, uint64_t seed, int64_t step);

/* The hybrid of a path as a model of its own: mixers copied under their export names ("self_attn."), everything else
 * shared with the super-network. Mixers train, nothing else does. */
pn_status pn_supernet_extract(const pn_model *m, const pn_path *path, pn_model **out);

#endif
