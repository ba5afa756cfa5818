/* The configuration of `postnas search` (and the tasks that `postnas eval` shares with it).
 *
 *     model: DIR        output: DIR        seed: 1        sequence_length: 256        dtype: bf16
 *     mixture: [ ... ]                       what candidates and the winner are trained on (mixture.h)
 *     supernet: { mode: local, tokens: ..., blocks: [ { type: gated_deltanet, ... } ], swa: { ... } }
 *     search:   { strategy: beam, objective: recall.nll, limits: { full_attention: 2, swa: 2 }, tasks: [ ... ],
 *                 objectives: { swa: facts.accuracy } }
 *     stages: [placement, block, shape]      what is searched, one after the other
 *     block:    { candidates: [ ... ] }      variants.h
 *     shape:    { candidates: [ ... ] }
 *     distill:  { tokens: ... }              0: the winner is exported as it was searched
 *     compare:  { uniform: true, all_linear: true, exhaustive: false,
 *                 selectors: [greedy, beam], full_attention: [1, 2] }
 *     heldout:  { samples: 3 }
 *     latency:  { batch: 1, context: [ 4096, 65536 ] }   how speed is measured on this machine (latency.h) */
#ifndef PN_SEARCH_SEARCH_CONFIG_H
#define PN_SEARCH_SEARCH_CONFIG_H

#include "compute.h"
#include "latency.h"
#include "objective.h"
#include "search.h"
#include "variants.h"

enum { PN_MAX_BLOCKS = 1 }; /* placement is searched with one linear block */

/* The limited kinds, in order of placement. */
typedef enum pn_kind { PN_KIND_ATTENTION, PN_KIND_SWA, PN_KIND_NONE, PN_KINDS } pn_kind;
extern const char *const pn_kind_names[]; /* their keys under search.limits and search.objectives */

typedef struct pn_search_config {
    pn_config *file; /* borrowed */
    struct {
        const char *model, *output;
        int64_t seed, sequence_length, dtype; /* dtype: index into pn_export_dtypes */
        pn_string_list stages;
    } top;
    pn_compute_options compute;
    pn_supernet_config supernet;
    pn_latency_options latency;
    pn_train_options distill_train;
    int64_t distill_tokens; /* 0: no distillation */
    /* What every layer is offered beside the base's own mixer: choice number 1 is the linear block. */
    pn_block_spec blocks[PN_MAX_BLOCKS + 1];
    int64_t start[PN_MAX_BLOCKS + 1]; /* pn_start of each */
    int n_blocks;                     /* without none, which follows them */
    int choice[PN_KINDS];             /* choice numbers; -1: not offered */
    int64_t limit[PN_KINDS];
    pn_objective objective[PN_KINDS]; /* that each kind is placed by */
    pn_objective objective_all;       /* search.objective, by which whole paths are ranked */
    const pn_search_type *strategy;
    _Alignas(8) unsigned char strategy_options[PN_SEARCHES][PN_SEARCH_OPTIONS]; /* of all, by pn_search_index */
    pn_variants_config variants[PN_VARIANT_STAGES];
    int64_t refine;      /* rounds of the refinement after the strategy */
    pn_task_spec *tasks; /* owned */
    int n_tasks;
    struct {
        bool uniform, all_linear, exhaustive, distill;
        pn_string_list selectors;   /* as configured */
        pn_int_list full_attention; /* rising; not empty when there are selectors */
        const pn_search_type *selector[PN_SEARCHES];
        int n_selectors;
    } compare;
    int64_t heldout_samples;
} pn_search_config;

extern const char *const pn_export_dtypes[]; /* "f32", "bf16", "f16" */
pn_dtype pn_export_dtype(int64_t index);

/* Options of a strategy, chosen or not: the configured ones or its defaults. */
const void *pn_search_config_options(const pn_search_config *c, const pn_search_type *type);

/* The space of a model of n layers, with the limits of the kinds that are offered. */
pn_space pn_search_config_space(const pn_search_config *c, int n_layers);

/* What is searched in one go. The placement: kinds that follow each other and share an objective are placed together,
 * as a stage; what earlier stages have placed stays. Then one stage each for the block and its shape. */
typedef struct pn_stage {
    const char *name; /* "placement", "block", "shape" */
    int first, n;     /* placement: limits of the space */
    const pn_objective *objective;
} pn_stage;
enum { PN_MAX_STAGES = PN_MAX_LIMITS + PN_VARIANT_STAGES };
/* The stages of the placement. out: room for PN_MAX_LIMITS. Returns how many. */
int pn_search_config_stages(const pn_search_config *c, const pn_space *space, pn_stage *out);

/* Reads everything but the mixture, which needs the model's tokenizer. The config file must outlive *out. */
pn_status pn_search_config_read(pn_config *file, pn_search_config *out);
/* The mixture; with it everything is read, unknown keys are refused and the budgets are checked against its rows. The
 * tokenizer must outlive *out. */
pn_status pn_search_config_mixture(const pn_search_config *c, const pn_tokenizer *tokenizer, pn_mixture **out);
void pn_search_config_free(pn_search_config *c);
/* For `postnas config`: every section, and a check. */
extern const pn_config_section pn_search_config_sections[];
pn_status pn_search_config_check(pn_config *file);

#endif
