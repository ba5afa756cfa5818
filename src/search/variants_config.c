#include <stdlib.h>
#include <string.h>

#include "block_cost.h"
#include "variants.h"

const char *const pn_variant_stage_names[] = { [PN_VARIANTS_BLOCK] = "block", [PN_VARIANTS_SHAPE] = "shape", NULL };

const char *const pn_variant_cost_names[] = {
    [PN_VARIANT_PARAMETERS] = "parameters", [PN_VARIANT_FLOPS] = "flops",     [PN_VARIANT_STATE] = "state",
    [PN_VARIANT_DECODE] = "decode",         [PN_VARIANT_PREFILL] = "prefill", NULL
};

static const char *const choices[] = { [PN_CHOOSE_WEIGHED] = "weighed", [PN_CHOOSE_FASTEST] = "fastest", NULL };

typedef struct stage_options {
    const char *objective;
    int64_t choose, recheck;
    double tolerance;
} stage_options;

#define STAGE_KEYS                                                                                                     \
    PN_OPT_STRING(stage_options, objective, NULL, "what decides; search.objective when left out",                      \
                  .example = "recall.nll + 0.5 text.nll"),                                                             \
        PN_OPT_SECTION("worth", "what half the cost is worth, in units of the objective"),                             \
        PN_OPT_ENUM(stage_options, choose, "weighed", choices,                                                         \
                    "the best of objective and worth together, or the fastest decoder of those within `tolerance`"),   \
        PN_OPT_FLOAT(stage_options, tolerance, 0, 0, 1e9,                                                              \
                     "choose: fastest: how much worse than the best the objective may be")

const pn_option pn_block_stage_keys[] = {
    PN_OPT_SECTION("candidates", "the blocks to compare: a list of types with their options"),
    STAGE_KEYS,
    PN_OPT_SECTION("mix", "search types layer by layer; absent: one type for all"),
    PN_OPT_END,
};

const pn_option pn_shape_stage_keys[] = {
    PN_OPT_SECTION("candidates", "the shapes to compare, beside the block's own: each option a value or a list"),
    STAGE_KEYS,
    PN_OPT_INT(stage_options, recheck, 1, 0, 1000,
               "rounds of letting two layers change places with the winner in them, to check the placement"),
    PN_OPT_END,
};

#define WORTH(key_, cost_, help_)                                                                                      \
    {                                                                                                                  \
        .name = key_, .kind = PN_OPTION_FLOAT, .offset = (cost_) * sizeof(double), .def = "0", .min = 0, .max = 1e9,   \
        .help = help_                                                                                                  \
    }
const pn_option pn_variant_worth_keys[] = {
    WORTH("parameters", PN_VARIANT_PARAMETERS, "half as many weights"),
    WORTH("flops", PN_VARIANT_FLOPS, "half as many flops per token"),
    WORTH("state", PN_VARIANT_STATE, "half as many bytes of decode state"),
    WORTH("decode", PN_VARIANT_DECODE, "half the measured time to decode, summed over latency.context"),
    WORTH("prefill", PN_VARIANT_PREFILL, "half the measured time to read a prompt, summed over latency.context"),
    PN_OPT_END,
};

typedef struct mix_options {
    int64_t width;
} mix_options;
const pn_option pn_variant_mix_keys[] = {
    PN_OPT_INT(mix_options, width, 2, 1, 64, "paths kept per layer"),
    PN_OPT_END,
};

static pn_status read_entries(pn_config *file, const char *section, pn_variants_config *c) {
    char path[64];
    int n;
    snprintf(path, sizeof path, "%s.candidates", section);
    PN_TRY(pn_config_list_size(file, path, &n));
    PN_CHECK(n <= PN_VARIANT_ENTRIES, PN_USAGE, "%s: lists %d entries, at most %d can be compared",
             pn_config_where(file, path), n, PN_VARIANT_ENTRIES);
    PN_CHECK(n || !c->wanted, PN_USAGE,
             "%s: the stage %s compares the blocks listed there; list some, or leave the stage out of `stages`",
             pn_config_where(file, path), section);
    c->entry = calloc(PN_VARIANT_ENTRIES, sizeof *c->entry);
    PN_CHECK(c->entry, PN_MEMORY, "out of memory");
    for (; c->n_entries < n; c->n_entries++) {
        snprintf(path, sizeof path, "%s.candidates.%d", section, c->n_entries);
        PN_TRY(pn_shape_entry_read(file, path, &c->entry[c->n_entries]));
    }
    return PN_OK;
}

static pn_status read_mix(pn_config *file, pn_variants_config *c) {
    mix_options mix;
    if (!pn_config_has(file, "block.mix")) return PN_OK;
    PN_TRY(pn_config_read(file, "block.mix", pn_variant_mix_keys, &mix));
    c->mix = mix.width;
    PN_CHECK(c->choose == PN_CHOOSE_WEIGHED, PN_USAGE,
             "%s: a mixture of types is chosen by its weighed objective; use choose: weighed, or leave mix out",
             pn_config_where(file, "block.mix"));
    return PN_OK;
}

static pn_status read_section(pn_config *file, pn_variant_stage stage, const char *objective, bool normalise,
                              const pn_task_spec *tasks, int n_tasks, pn_variants_config *c) {
    const char *section = pn_variant_stage_names[stage];
    stage_options o = { 0 };
    char path[64];
    PN_TRY(pn_config_read(file, section, stage == PN_VARIANTS_BLOCK ? pn_block_stage_keys : pn_shape_stage_keys, &o));
    c->choose = o.choose;
    c->tolerance = o.tolerance;
    c->recheck = o.recheck;
    PN_TRY(read_entries(file, section, c));
    PN_TRY(pn_supernet_local_read(file, section, &c->training));
    snprintf(path, sizeof path, "%s.worth", section);
    PN_TRY(pn_config_read(file, path, pn_variant_worth_keys, c->worth));
    snprintf(path, sizeof path, "%s", o.objective ? section : "search");
    strcat(path, ".objective");
    PN_TRY(pn_objective_parse(o.objective ? o.objective : objective, pn_config_where(file, path), tasks, n_tasks,
                              normalise, &c->objective));
    if (stage == PN_VARIANTS_BLOCK) PN_TRY(read_mix(file, c));
    return PN_OK;
}

pn_status pn_variants_config_read(pn_config *file, pn_variant_stage stage, bool wanted, const char *objective,
                                  bool normalise, const pn_task_spec *tasks, int n_tasks, pn_variants_config *c) {
    memset(c, 0, sizeof *c);
    c->wanted = wanted;
    if (!wanted && !pn_config_has(file, pn_variant_stage_names[stage])) return PN_OK;
    PN_TRY(read_section(file, stage, objective, normalise, tasks, n_tasks, c));
    return PN_OK;
}

void pn_variants_config_free(pn_variants_config *c) {
    free(c->entry);
    memset(c, 0, sizeof *c);
}

pn_status pn_variants_config_check(pn_config *file, pn_variant_stage stage, const pn_variants_config *c,
                                   const pn_mixture *mixture) {
    if (c->wanted) PN_TRY(pn_supernet_config_check(file, pn_variant_stage_names[stage], &c->training, mixture));
    return PN_OK;
}

pn_status pn_variants_list(const pn_variants_config *c, const pn_dims *dims, const pn_block_type *only_type,
                           pn_shape *list, int *n) {
    for (int i = 0; i < c->n_entries; i++) {
        const pn_shape_entry *e = &c->entry[i];
        int first = *n;
        if (only_type && e->type != only_type) continue;
        PN_TRY(pn_shapes_expand(e, dims, list, PN_MAX_VARIANTS, n));
        for (int k = first; k < *n; k++) { /* what the kernels refuse is refused here, before anything is trained */
            pn_block_cost cost;
            PN_TRY(pn_block_spec_cost(&list[k].spec, dims, 1, 2, &cost));
            PN_TRY(pn_supernet_blocks_check(&c->training, &list[k].spec, 1, e->where));
        }
    }
    return PN_OK;
}
