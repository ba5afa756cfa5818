#include "search_config.h"

#include <string.h>

const char *const pn_export_dtypes[] = { "f32", "bf16", "f16", NULL };

const char *const pn_kind_names[] = {
    [PN_KIND_ATTENTION] = "full_attention", [PN_KIND_SWA] = "swa", [PN_KIND_NONE] = "none", NULL
};

pn_dtype pn_export_dtype(int64_t index) {
    static const pn_dtype types[] = { PN_F32, PN_BF16, PN_F16 };
    return types[index];
}

/* Rows whose key is not the path of the nested field it fills. */
#define ROW(kind_, name_, field_, def_, help_)                                                                         \
    { .name = name_, .kind = kind_, .offset = offsetof(pn_search_config, field_), .def = def_, .help = help_ }
#define ROW_TEXT(name_, field_, example_, help_, ...)                                                                  \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_STRING, .offset = offsetof(pn_search_config, field_), .help = help_,          \
        .example = example_, __VA_ARGS__                                                                               \
    }
#define ROW_INT(name_, field_, def_, min_, max_, help_)                                                                \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_INT, .offset = offsetof(pn_search_config, field_), .def = def_, .min = min_,  \
        .max = max_, .help = help_                                                                                     \
    }

static const pn_option top_table[] = {
    ROW_TEXT("model", top.model, "models/smollm2", "model directory of the base"),
    ROW_TEXT("output", top.output, "runs/mine", "directory of the run", .incidental = true),
    ROW_INT("seed", top.seed, "1", 0, 9e15, "of new weights and training data"),
    ROW_INT("sequence_length", top.sequence_length, "512", 2, 1e9, "tokens of a row of packed training documents"),
    { .name = "dtype",
      .kind = PN_OPTION_ENUM,
      .offset = offsetof(pn_search_config, top.dtype),
      .def = "bf16",
      .choices = pn_export_dtypes,
      .help = "of the matrices of the exported model" },
    PN_OPT_SECTION("mixture", "training data: a list of skills and token shards with weights"),
    PN_OPT_SECTION("supernet", "how candidates are made and trained"),
    PN_OPT_SECTION("search", "what is searched, how, and measured on what"),
    { .name = "stages",
      .kind = PN_OPTION_STRINGS,
      .offset = offsetof(pn_search_config, top.stages),
      .def = "[placement]",
      .help = "what is searched, in this order: placement, then block (its type), then shape" },
    PN_OPT_SECTION("block", "stage block: the types that are compared in the layers left to the linear block"),
    PN_OPT_SECTION("shape", "stage shape: the shapes of that block that are compared"),
    PN_OPT_SECTION("distill", "training of the winner; tokens: 0 leaves it out"),
    PN_OPT_SECTION("compare", "rivals at equal budget in the final table"),
    PN_OPT_SECTION("heldout", "samples of the final table"),
    PN_OPT_SECTION("latency", "how decoding and prefill are measured on this machine"),
    PN_OPT_END,
};

static const pn_option supernet_sections[] = {
    PN_OPT_SECTION("blocks", "the linear block offered to every layer: a list of one type with its options"),
    PN_OPT_SECTION("swa", "options of that block, which every layer is offered when limits.swa is not 0"),
    PN_OPT_END,
};

typedef struct search_options {
    const char *strategy, *objective;
    bool normalise;
    int64_t refine;
} search_options;
static const pn_option search_table[] = {
    PN_OPT_STRING(search_options, strategy, "beam", "see `postnas list searches`"),
    PN_OPT_STRING(search_options, objective, NULL,
                  "what decides: task.metric, or a weighted sum such as recall.nll + 0.5 facts.nll",
                  .example = "recall.nll"),
    PN_OPT_BOOL(search_options, normalise, false,
                "first put every metric on a scale from 0, all linear, to 1, the teacher"),
    PN_OPT_SECTION("objectives", "what decides about one kind of layer, where that is something else"),
    PN_OPT_SECTION("limits", "what may be spent"),
    PN_OPT_INT(search_options, refine, 0, 0, 1000,
               "after the strategy, at most so many rounds of letting two layers change places"),
    PN_OPT_SECTION("tasks", "what paths are measured on"),
    PN_OPT_SECTION("beam", "options of that strategy"),
    PN_OPT_SECTION("greedy", "options of that strategy"),
    PN_OPT_SECTION("kl_guided", "options of that strategy"),
    PN_OPT_SECTION("recall_ratio", "options of that strategy"),
    PN_OPT_SECTION("random", "options of that strategy"),
    PN_OPT_SECTION("exhaustive", "options of that strategy"),
    PN_OPT_END,
};

static const pn_option limits_table[] = {
    ROW_INT("full_attention", limit[PN_KIND_ATTENTION], "2", 0, PN_MAX_LAYERS,
            "layers that keep full attention: exactly this many"),
    ROW_INT("swa", limit[PN_KIND_SWA], "0", 0, PN_MAX_LAYERS, "layers of sliding-window attention: exactly this many"),
    ROW_INT("none", limit[PN_KIND_NONE], "0", 0, PN_MAX_LAYERS, "layers that may lose their mixer: at most this many"),
    PN_OPT_END,
};

typedef struct objectives_options {
    const char *full_attention, *swa, *none;
} objectives_options;
static const pn_option objectives_table[] = {
    PN_OPT_STRING(objectives_options, full_attention, NULL, "of layers with full attention; placed first",
                  .example = "recall.nll"),
    PN_OPT_STRING(objectives_options, swa, NULL, "of sliding windows; placed second", .example = "facts.accuracy"),
    PN_OPT_STRING(objectives_options, none, NULL, "of layers without mixer; placed last", .example = "text.nll"),
    PN_OPT_END,
};

static const pn_option compare_table[] = {
    ROW(PN_OPTION_BOOL, "uniform", compare.uniform, "true", "attention at even distances"),
    ROW(PN_OPTION_BOOL, "all_linear", compare.all_linear, "true", "no attention at all"),
    ROW(PN_OPTION_BOOL, "exhaustive", compare.exhaustive, "false", "the best of all placements, measured held-out"),
    ROW(PN_OPTION_BOOL, "distill", compare.distill, "true", "distil uniform and all_linear as the winner is"),
    { .name = "selectors",
      .kind = PN_OPTION_STRINGS,
      .offset = offsetof(pn_search_config, compare.selectors),
      .help = "strategies that place full attention on the same super-network, each compared held-out",
      .example = "[uniform, kl_guided, beam]" },
    { .name = "full_attention",
      .kind = PN_OPTION_INTS,
      .offset = offsetof(pn_search_config, compare.full_attention),
      .min = 1,
      .max = PN_MAX_LAYERS,
      .help = "how many layers every selector places, in rising order; none: limits.full_attention",
      .example = "[1, 2, 4]" },
    PN_OPT_END,
};

static const pn_option heldout_table[] = {
    ROW_INT("samples", heldout_samples, "3", 1, 100, "held-out samples of every task: seeds, or slices of shards"),
    PN_OPT_END,
};

typedef struct block_options {
    const char *type;
    int64_t init;
} block_options;
static const pn_option block_table[] = {
    PN_OPT_STRING(block_options, type, NULL, "block type; see `postnas list blocks`", .example = "gated_deltanet"),
    PN_OPT_ENUM(block_options, init, "random", pn_start_names,
                "its weights before training: as drawn, or as near to the layer's attention as its shape allows"),
    PN_OPT_END,
};

/* Which later stages are asked for. */
static pn_status read_stages(pn_config *file, const pn_search_config *c, bool *wanted) {
    static const char *const names[] = { "placement", "block", "shape" };
    const pn_string_list *list = &c->top.stages;
    const char *where = pn_config_where(file, "stages");
    int last = -1;
    PN_CHECK(list->n && !strcmp(list->item[0], names[0]), PN_USAGE,
             "%s: a search starts with placement, which the other stages need; write stages: [placement, ...]", where);
    for (int64_t i = 0; i < list->n; i++) {
        int k = 0;
        while (k < 3 && strcmp(list->item[i], names[k])) k++;
        PN_CHECK(k < 3, PN_USAGE, "%s: no stage %s; there are placement, block and shape", where, list->item[i]);
        PN_CHECK(k > last, PN_USAGE, "%s: %s cannot follow %s; the order is placement, block, shape", where, names[k],
                 list->item[i - 1]);
        last = k;
        if (k) wanted[k - 1] = true;
    }
    return PN_OK;
}

static bool lists_type(const pn_variants_config *c, const pn_block_type *type) {
    for (int i = 0; i < c->n_entries; i++)
        if (c->entry[i].type == type) return true;
    return false;
}

/* Shapes are of the block that stage `block` may choose, or without it of the placement's. */
static pn_status check_shape_types(pn_config *file, const pn_search_config *c) {
    const pn_variants_config *block = &c->variants[PN_VARIANTS_BLOCK], *shape = &c->variants[PN_VARIANTS_SHAPE];
    PN_CHECK(!block->wanted || !block->mix || !shape->wanted, PN_USAGE,
             "%s: a mixture of types has no one shape; leave out mix, or shape from `stages`",
             pn_config_where(file, "block.mix"));
    for (int i = 0; shape->wanted && i < shape->n_entries; i++) {
        const pn_block_type *type = shape->entry[i].type;
        PN_CHECK(block->wanted ? lists_type(block, type) : type == c->blocks[0].type, PN_USAGE,
                 "%s: shapes of %s, which %s; remove the entry, or list the block there", shape->entry[i].where,
                 type->name, block->wanted ? "block.candidates does not list" : "is not the block of supernet.blocks");
    }
    for (int i = 0; shape->wanted && block->wanted && i < block->n_entries; i++)
        PN_CHECK(lists_type(shape, block->entry[i].type), PN_USAGE,
                 "%s: stage block may choose %s, of which there are no shapes; list some",
                 pn_config_where(file, "shape.candidates"), block->entry[i].type->name);
    return PN_OK;
}

static pn_status read_variants(pn_config *file, pn_search_config *c, const search_options *search) {
    bool wanted[PN_VARIANT_STAGES] = { false };
    PN_TRY(read_stages(file, c, wanted));
    for (int k = 0; k < PN_VARIANT_STAGES; k++)
        PN_TRY(pn_variants_config_read(file, (pn_variant_stage)k, wanted[k], search->objective, search->normalise,
                                       c->tasks, c->n_tasks, &c->variants[k]));
    PN_TRY(check_shape_types(file, c));
    return PN_OK;
}

static pn_status read_linear(pn_config *file, pn_search_config *c) {
    int n;
    PN_TRY(pn_config_list_size(file, "supernet.blocks", &n));
    PN_CHECK(n >= 1 && n <= PN_MAX_BLOCKS, PN_USAGE,
             "%s: lists %d blocks; name one, the linear block whose placement is searched",
             pn_config_where(file, "supernet.blocks"), n);
    for (int i = 0; i < n; i++) {
        char path[64];
        block_options o;
        snprintf(path, sizeof path, "supernet.blocks.%d", i);
        PN_TRY(pn_config_read(file, path, block_table, &o));
        const pn_block_type *type;
        PN_TRY(pn_block_find_linear(o.type, pn_config_where(file, path), &type));
        PN_TRY(pn_start_check(o.init, type, pn_config_where(file, path)));
        c->start[c->n_blocks] = o.init;
        pn_block_spec *spec = &c->blocks[c->n_blocks++];
        PN_TRY(pn_block_spec_default(type, spec));
        if (type->options) PN_TRY(pn_config_read(file, path, type->options, spec->options));
    }
    return PN_OK;
}

static pn_status read_swa(pn_config *file, pn_search_config *c) {
    const pn_block_type *swa = &pn_block_swa;
    pn_block_spec spec;
    PN_CHECK(c->limit[PN_KIND_SWA] || !pn_config_has(file, "supernet.swa"), PN_USAGE,
             "%s: no layer may be a sliding window; set search.limits.swa, or remove the section",
             pn_config_where(file, "supernet.swa"));
    if (!c->limit[PN_KIND_SWA]) return PN_OK;
    PN_TRY(pn_block_spec_default(swa, &spec));
    PN_TRY(pn_config_read(file, "supernet.swa", swa->options, spec.options));
    c->blocks[c->n_blocks++] = spec;
    c->choice[PN_KIND_SWA] = c->n_blocks;
    return PN_OK;
}

/* What every layer is offered beside the base's own mixer, in the order of choice numbers: the linear block, sliding
 * windows when limits.swa asks for some, no mixer when limits.none does. */
static pn_status read_candidates(pn_config *file, pn_search_config *c) {
    PN_TRY(read_linear(file, c));
    for (int k = 0; k < PN_KINDS; k++) c->choice[k] = -1;
    c->choice[PN_KIND_ATTENTION] = 0;
    PN_TRY(read_swa(file, c));
    if (c->limit[PN_KIND_NONE]) c->choice[PN_KIND_NONE] = c->n_blocks + 1;
    PN_TRY(pn_supernet_blocks_check(&c->supernet, c->blocks, c->n_blocks, pn_config_where(file, "supernet.blocks")));
    return PN_OK;
}

/* The selectors of the comparison, which are found as search.strategy is, and their numbers of layers. */
static pn_status read_selectors(pn_config *file, pn_search_config *c) {
    const pn_string_list *names = &c->compare.selectors;
    pn_int_list *counts = &c->compare.full_attention;
    for (int64_t i = 0; i < names->n; i++) {
        const pn_search_type *type = pn_search_find(names->item[i]);
        PN_CHECK(type, PN_USAGE, "%s: no strategy named %s; see `postnas list searches`",
                 pn_config_where(file, "compare.selectors"), names->item[i]);
        for (int k = 0; k < c->compare.n_selectors; k++)
            PN_CHECK(c->compare.selector[k] != type, PN_USAGE, "%s: names %s twice",
                     pn_config_where(file, "compare.selectors"), type->name);
        c->compare.selector[c->compare.n_selectors++] = type;
    }
    PN_CHECK(names->n || !counts->n, PN_USAGE, "%s: no selector places these layers; name some in compare.selectors",
             pn_config_where(file, "compare.full_attention"));
    for (int64_t i = 1; i < counts->n; i++)
        PN_CHECK(counts->item[i] > counts->item[i - 1], PN_USAGE,
                 "%s: %lld does not rise above %lld; give each number of layers once, in rising order",
                 pn_config_where(file, "compare.full_attention"), (long long)counts->item[i],
                 (long long)counts->item[i - 1]);
    if (names->n && !counts->n) *counts = (pn_int_list){ 1, { c->limit[PN_KIND_ATTENTION] } };
    return PN_OK;
}

static bool is_selector(const pn_search_config *c, const pn_search_type *type) {
    for (int i = 0; i < c->compare.n_selectors; i++)
        if (c->compare.selector[i] == type) return true;
    return false;
}

static pn_status read_strategy(pn_config *file, pn_search_config *c, const search_options *o) {
    c->strategy = pn_search_find(o->strategy);
    PN_CHECK(c->strategy, PN_USAGE, "%s: no strategy named %s; see `postnas list searches`",
             pn_config_where(file, "search.strategy"), o->strategy);
    int n;
    const pn_search_type *const *types = pn_search_types(&n);
    for (int i = 0; i < n; i++) { /* sections of strategies that are not chosen are read too: their keys are checked */
        char path[64];
        snprintf(path, sizeof path, "search.%s", types[i]->name);
        PN_ASSERT(types[i]->options_bytes <= sizeof c->strategy_options[i]);
        if (!types[i]->options) continue;
        if (types[i] == c->strategy || is_selector(c, types[i]) || pn_config_has(file, path))
            PN_TRY(pn_config_read(file, path, types[i]->options, c->strategy_options[i]));
        else
            PN_TRY(pn_options_defaults(types[i]->options, c->strategy_options[i]));
    }
    return PN_OK;
}

static pn_status read_objectives(pn_config *file, pn_search_config *c, const search_options *search) {
    objectives_options o;
    PN_TRY(pn_config_read(file, "search.objectives", objectives_table, &o));
    const char *const own[PN_KINDS] = { o.full_attention, o.swa, o.none };
    PN_TRY(pn_objective_parse(search->objective, pn_config_where(file, "search.objective"), c->tasks, c->n_tasks,
                              search->normalise, &c->objective_all));
    for (int k = 0; k < PN_KINDS; k++) {
        char key[64];
        c->objective[k] = c->objective_all;
        if (!own[k]) continue;
        snprintf(key, sizeof key, "search.objectives.%s", pn_kind_names[k]);
        PN_TRY(pn_objective_parse(own[k], pn_config_where(file, key), c->tasks, c->n_tasks, search->normalise,
                                  &c->objective[k]));
    }
    return PN_OK;
}

static pn_status read_all(pn_config *file, pn_search_config *c) {
    search_options search;
    PN_TRY(pn_config_read(file, "", top_table, c));
    PN_TRY(pn_config_read(file, "", pn_compute_option_table, &c->compute));
    PN_CHECK(c->top.model, PN_USAGE, "%s: model: name the directory of the base model", pn_config_name(file));
    PN_TRY(pn_supernet_config_read(file, "supernet", &c->supernet));
    PN_TRY(pn_config_read(file, "supernet", supernet_sections, c));
    PN_TRY(pn_config_read(file, "search", search_table, &search));
    c->refine = search.refine;
    PN_TRY(pn_config_read(file, "search.limits", limits_table, c));
    PN_TRY(read_candidates(file, c));
    PN_TRY(pn_task_specs_read(file, "search.tasks", &c->tasks, &c->n_tasks));
    PN_TRY(pn_config_read(file, "compare", compare_table, c));
    PN_TRY(read_selectors(file, c));
    PN_TRY(read_strategy(file, c, &search));
    PN_TRY(read_objectives(file, c, &search));
    PN_TRY(read_variants(file, c, &search));
    if (pn_config_has(file, "distill")) {
        PN_TRY(pn_config_read(file, "distill", pn_train_option_table, &c->distill_train));
        c->distill_tokens = c->distill_train.tokens;
    }
    PN_TRY(pn_config_read(file, "heldout", heldout_table, c));
    PN_TRY(pn_config_read(file, "latency", pn_latency_option_table, &c->latency));
    PN_CHECK(c->latency.context.n, PN_USAGE, "%s: name at least one context", pn_config_where(file, "latency.context"));
    return PN_OK;
}

pn_status pn_search_config_read(pn_config *file, pn_search_config *c) {
    memset(c, 0, sizeof *c);
    c->file = file;
    pn_status s = read_all(file, c);
    if (s) pn_search_config_free(c);
    return s;
}

void pn_search_config_free(pn_search_config *c) {
    if (c->tasks) pn_task_specs_free(&c->tasks, c->n_tasks);
    for (int k = 0; k < PN_VARIANT_STAGES; k++) pn_variants_config_free(&c->variants[k]);
    memset(c, 0, sizeof *c);
}

const void *pn_search_config_options(const pn_search_config *c, const pn_search_type *type) {
    return c->strategy_options[pn_search_index(type)];
}

pn_space pn_search_config_space(const pn_search_config *c, int n_layers) {
    pn_space s = pn_space_all_free(n_layers, 1);
    for (int k = 0; k < PN_KINDS; k++)
        if (c->choice[k] >= 0)
            s.limit[s.n_limits++] = (pn_limit){ pn_kind_names[k], c->choice[k], (int)c->limit[k], k != PN_KIND_NONE };
    return s;
}

int pn_search_config_stages(const pn_search_config *c, const pn_space *space, pn_stage *out) {
    int n = 0, limit = 0;
    for (int k = 0; k < PN_KINDS; k++) {
        if (limit == space->n_limits || space->limit[limit].name != pn_kind_names[k]) continue;
        if (n && !strcmp(out[n - 1].objective->text, c->objective[k].text))
            out[n - 1].n++;
        else
            out[n++] = (pn_stage){ "placement", limit, 1, &c->objective[k] };
        limit++;
    }
    return n;
}

pn_status pn_search_config_mixture(const pn_search_config *c, const pn_tokenizer *tokenizer, pn_mixture **out) {
    const pn_mixture_config base = { .tokenizer = tokenizer,
                                     .frame = pn_doc_frame_default(tokenizer),
                                     .sequence_length = c->top.sequence_length,
                                     .seed = (uint64_t)c->top.seed };
    PN_TRY(pn_mixture_read(c->file, "mixture", &base, out));
    pn_status s = pn_config_finish(c->file);
    if (!s) s = pn_supernet_config_check(c->file, "supernet", &c->supernet, *out);
    for (int k = 0; k < PN_VARIANT_STAGES && !s; k++)
        s = pn_variants_config_check(c->file, (pn_variant_stage)k, &c->variants[k], *out);
    if (!s && c->distill_tokens)
        s = pn_train_options_check(&c->distill_train, *out, pn_config_where(c->file, "distill"));
    if (s) pn_mixture_destroy(out);
    return s;
}

pn_status pn_search_config_check(pn_config *file) {
    pn_search_config c;
    pn_tokenizer *tokenizer = NULL;
    pn_mixture *mixture = NULL;
    PN_TRY(pn_search_config_read(file, &c));
    pn_status s = pn_tokenizer_open(c.top.model, &tokenizer);
    if (!s) s = pn_search_config_mixture(&c, tokenizer, &mixture);
    pn_mixture_destroy(&mixture);
    pn_tokenizer_destroy(&tokenizer);
    pn_search_config_free(&c);
    return s;
}

const pn_config_section pn_search_config_sections[] = {
    { .path = "", .table = top_table },
    { .path = "", .table = pn_compute_option_table },
    { .path = "mixture[]", .table = pn_mixture_keys },
    { .path = "mixture[]", .kind = "skills" },
    { .path = "supernet", .table = pn_supernet_keys },
    { .path = "supernet", .table = pn_train_option_table },
    { .path = "supernet", .table = supernet_sections },
    { .path = "supernet.blocks[]", .table = block_table },
    { .path = "supernet.blocks[]", .kind = "blocks" },
    { .path = "supernet.gates", .table = pn_gate_option_table },
    { .path = "supernet.then", .table = pn_supernet_then_keys },
    { .path = "supernet.then", .table = pn_train_option_table },
    { .path = "supernet.then.gates", .table = pn_gate_option_table },
    { .path = "search", .table = search_table },
    { .path = "search.limits", .table = limits_table },
    { .path = "search.objectives", .table = objectives_table },
    { .path = "search.tasks[]", .table = pn_task_option_table },
    { .path = "search.tasks[]", .kind = "skills" },
    { .path = "search.STRATEGY", .kind = "searches" },
    { .path = "block", .table = pn_block_stage_keys },
    { .path = "block", .table = pn_supernet_local_keys },
    { .path = "block", .table = pn_train_option_table },
    { .path = "block.candidates[]", .table = pn_shape_entry_keys },
    { .path = "block.candidates[]", .kind = "blocks" },
    { .path = "block.worth", .table = pn_variant_worth_keys },
    { .path = "block.mix", .table = pn_variant_mix_keys },
    { .path = "shape", .table = pn_shape_stage_keys },
    { .path = "shape", .table = pn_supernet_local_keys },
    { .path = "shape", .table = pn_train_option_table },
    { .path = "shape.candidates[]", .table = pn_shape_entry_keys },
    { .path = "shape.candidates[]", .kind = "blocks" },
    { .path = "shape.worth", .table = pn_variant_worth_keys },
    { .path = "distill", .table = pn_train_option_table },
    { .path = "compare", .table = compare_table },
    { .path = "heldout", .table = heldout_table },
    { .path = "latency", .table = pn_latency_option_table },
    { .path = NULL },
};
