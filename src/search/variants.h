/* The stages after placement: which block serves the layers that no limit has taken (stage `block`), and in which shape
 * (stage `shape`).
 *
 *     stages: [placement, block, shape]
 *     block:
 *       candidates: [ { type: gla }, { type: jet, head_dim: 96 } ]
 *       tokens: ...        and the other keys of local training
 *       objective: recall.nll            search.objective, if it is left out
 *       worth: { decode: 0.05 }          what half the cost is worth, in units of the objective
 *       choose: weighed                  or `fastest`: of those within `tolerance` of the best
 *       mix: { width: 2 }                beam search over types per layer
 *     shape:
 *       candidates: [ { type: jet, num_heads: [6, 12], head_dim: [96, 128], state: 294912 } ]
 *       recheck: 1                       rounds of letting two layers change places, with the winner
 *
 * Both are one work: candidates (variants) are added to every layer, trained locally from the same base, alike, and
 * measured on the search tasks in all layers that the placement has left to the linear block. */
#ifndef PN_SEARCH_VARIANTS_H
#define PN_SEARCH_VARIANTS_H

#include "objective.h"
#include "shapes.h"
#include "supernet.h"

typedef enum pn_variant_stage { PN_VARIANTS_BLOCK, PN_VARIANTS_SHAPE, PN_VARIANT_STAGES } pn_variant_stage;
extern const char *const pn_variant_stage_names[]; /* "block", "shape": their sections and names under `stages` */

/* What a variant costs, layer by layer. */
typedef enum pn_variant_cost {
    PN_VARIANT_PARAMETERS,
    PN_VARIANT_FLOPS,   /* of a token */
    PN_VARIANT_STATE,   /* bytes of decode state */
    PN_VARIANT_DECODE,  /* seconds, measured */
    PN_VARIANT_PREFILL, /* seconds, measured */
    PN_VARIANT_COSTS
} pn_variant_cost;
extern const char *const pn_variant_cost_names[]; /* their keys under `worth` */

typedef enum pn_variant_choice { PN_CHOOSE_WEIGHED, PN_CHOOSE_FASTEST } pn_variant_choice;

enum { PN_VARIANT_ENTRIES = 32, PN_MAX_VARIANTS = 40 };

typedef struct pn_variants_config {
    bool wanted;           /* the stage is listed under `stages` */
    pn_shape_entry *entry; /* PN_VARIANT_ENTRIES; owned */
    int n_entries;
    pn_supernet_config training; /* one local phase */
    pn_objective objective;
    double worth[PN_VARIANT_COSTS]; /* of half the cost, in units of the objective; all 0: the objective alone */
    int64_t choose;                 /* pn_variant_choice */
    double tolerance;
    int64_t mix;     /* block: paths kept per layer by the search over types; 0: one type for all layers */
    int64_t recheck; /* shape: rounds of the placement's refinement around the winner; 0: none */
} pn_variants_config;

/* For the list of all keys. */
extern const pn_option pn_block_stage_keys[], pn_shape_stage_keys[], pn_variant_worth_keys[], pn_variant_mix_keys[];

/* Reads the stage's section, whose keys are checked also where the stage is not wanted. `objective` serves where the
 * section names none. */
pn_status pn_variants_config_read(pn_config *file, pn_variant_stage stage, bool wanted, const char *objective,
                                  bool normalise, const pn_task_spec *tasks, int n_tasks, pn_variants_config *out);
void pn_variants_config_free(pn_variants_config *c);
pn_status pn_variants_config_check(pn_config *file, pn_variant_stage stage, const pn_variants_config *c,
                                   const pn_mixture *mixture);

/* The variants of a stage on a model: all its entries' (only_type NULL) or those of one type, appended to `list` of
 * PN_MAX_VARIANTS. PN_USAGE when one does not fit the model or exceeds what the kernels take, or when there are too
 * many. */
pn_status pn_variants_list(const pn_variants_config *c, const pn_dims *dims, const pn_block_type *only_type,
                           pn_shape *list, int *n);

#endif
