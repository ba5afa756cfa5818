/* The configuration of `postnas search` (and the tasks that `postnas eval` shares with it).
 *
 *     model: DIR        output: DIR        seed: 1        sequence_length: 256        dtype: bf16
 *     mixture: [ ... ]                       what candidates and the winner are trained on (mixture.h)
 *     supernet: { mode: local, tokens: ..., blocks: [ { type: gated_deltanet, ... } ] }
 *     search:   { strategy: beam, objective: recall.nll, limits: { full_attention: 2 }, tasks: [ ... ] }
 *     distill:  { tokens: ... }              0: the winner is exported as it was searched
 *     compare:  { uniform: true, all_linear: true, exhaustive: false }
 *     heldout:  { samples: 3 } */
#ifndef PN_SEARCH_SEARCH_CONFIG_H
#define PN_SEARCH_SEARCH_CONFIG_H

#include "search.h"
#include "supernet.h"
#include "task.h"

enum { PN_MAX_BLOCKS = 1 }; /* placement is searched with one linear block */

typedef struct pn_search_config {
    pn_config *file; /* borrowed */
    struct {
        const char *model, *output;
        int64_t seed, sequence_length, dtype; /* dtype: index into pn_export_dtypes */
    } top;
    pn_supernet_options supernet;
    pn_train_options supernet_train, distill_train;
    int64_t distill_tokens; /* 0: no distillation */
    pn_block_spec blocks[PN_MAX_BLOCKS];
    int n_blocks;
    const pn_search_type *strategy;
    _Alignas(8) unsigned char strategy_options[256];
    _Alignas(8) unsigned char exhaustive_options[64]; /* of the comparison with all placements */
    char objective_task[64], objective_metric[32];
    int64_t full_attention, none;
    pn_task_spec *tasks; /* owned */
    int n_tasks;
    struct {
        bool uniform, all_linear, exhaustive, distill;
    } compare;
    int64_t heldout_samples;
} pn_search_config;

extern const char *const pn_export_dtypes[]; /* "f32", "bf16", "f16" */
pn_dtype pn_export_dtype(int64_t index);

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
