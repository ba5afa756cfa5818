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
#define ROW_TEXT(name_, field_, example_, help_)                                                                       \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_STRING, .offset = offsetof(pn_search_config, field_), .help = help_,          \
        .example = example_                                                                                            \
    }
#define ROW_INT(name_, field_, def_, min_, max_, help_)                                                                \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_INT, .offset = offsetof(pn_search_config, field_), .def = def_, .min = min_,  \
        .max = max_, .help = help_                                                                                     \
    }

static const pn_option top_table[] = {
    ROW_TEXT("model", top.model, "models/smollm2", "model directory of the base"),
    ROW_TEXT("output", top.output, "runs/mine", "directory of the run"),
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
    PN_OPT_SECTION("distill", "training of the winner; tokens: 0 leaves it out"),
    PN_OPT_SECTION("compare", "rivals at equal budget in the final table"),
    PN_OPT_SECTION("heldout", "samples of the final table"),
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
    PN_OPT_END,
};

static const pn_option heldout_table[] = {
    ROW_INT("samples", heldout_samples, "3", 1, 100, "held-out samples of every task: seeds, or slices of shards"),
    PN_OPT_END,
};

typedef struct block_options {
    const char *type;
} block_options;
static const pn_option block_table[] = {
    PN_OPT_STRING(block_options, type, NULL, "block type; see `postnas list blocks`", .example = "gated_deltanet"),
    PN_OPT_END,
};

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
        const pn_block_type *type = o.type ? pn_block_find(o.type) : NULL;
        PN_CHECK(type && type->role == PN_MIXER && type->state_create && !type->attention_weights, PN_USAGE,
                 "%s: type is \"%s\"; it must be a linear block, see `postnas list blocks`",
                 pn_config_where(file, path), o.type ? o.type : "");
        pn_block_spec *spec = &c->blocks[c->n_blocks++];
        PN_TRY(pn_block_spec_default(type, spec));
        if (type->options) PN_TRY(pn_config_read(file, path, type->options, spec->options));
    }
    return PN_OK;
}

static pn_status read_swa(pn_config *file, pn_search_config *c) {
    const pn_block_type *swa = &pn_block_swa;
    bool offered = c->limit[PN_KIND_SWA] > 0;
    if (!offered && !pn_config_has(file, "supernet.swa")) return PN_OK;
    pn_block_spec spec; /* its keys are checked also where it is not offered */
    PN_TRY(pn_block_spec_default(swa, &spec));
    PN_TRY(pn_config_read(file, "supernet.swa", swa->options, spec.options));
    if (!offered) return PN_OK;
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
    return PN_OK;
}

static pn_status read_strategy(pn_config *file, pn_search_config *c, const search_options *o) {
    c->strategy = pn_search_find(o->strategy);
    PN_CHECK(c->strategy, PN_USAGE, "%s: no strategy named %s; see `postnas list searches`",
             pn_config_where(file, "search.strategy"), o->strategy);
    int n;
    const pn_search_type *const *types = pn_search_types(&n);
    PN_ASSERT(pn_search_exhaustive.options_bytes <= sizeof c->exhaustive_options);
    PN_TRY(pn_options_defaults(pn_search_exhaustive.options, c->exhaustive_options));
    for (int i = 0; i < n; i++) { /* sections of strategies that are not chosen are read too: their keys are checked */
        char path[64];
        _Alignas(8) unsigned char options[sizeof c->strategy_options] = { 0 };
        snprintf(path, sizeof path, "search.%s", types[i]->name);
        PN_ASSERT(types[i]->options_bytes <= sizeof options);
        if (!types[i]->options || (types[i] != c->strategy && !pn_config_has(file, path))) continue;
        PN_TRY(pn_config_read(file, path, types[i]->options, options));
        if (types[i] == c->strategy) memcpy(c->strategy_options, options, types[i]->options_bytes);
        if (types[i] == &pn_search_exhaustive) memcpy(c->exhaustive_options, options, types[i]->options_bytes);
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
    PN_CHECK(c->top.model, PN_USAGE, "%s: model: name the directory of the base model", pn_config_name(file));
    PN_TRY(pn_supernet_config_read(file, "supernet", &c->supernet));
    PN_TRY(pn_config_read(file, "supernet", supernet_sections, c));
    PN_TRY(pn_config_read(file, "search", search_table, &search));
    c->refine = search.refine;
    PN_TRY(pn_config_read(file, "search.limits", limits_table, c));
    PN_TRY(read_candidates(file, c));
    PN_TRY(pn_task_specs_read(file, "search.tasks", &c->tasks, &c->n_tasks));
    PN_TRY(read_strategy(file, c, &search));
    PN_TRY(read_objectives(file, c, &search));
    if (pn_config_has(file, "distill")) {
        PN_TRY(pn_config_read(file, "distill", pn_train_option_table, &c->distill_train));
        c->distill_tokens = c->distill_train.tokens;
    }
    PN_TRY(pn_config_read(file, "compare", compare_table, c));
    PN_TRY(pn_config_read(file, "heldout", heldout_table, c));
    PN_TRY(pn_config_read(file, "latency", pn_latency_option_table, &c->latency));
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
    memset(c, 0, sizeof *c);
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
            out[n++] = (pn_stage){ limit, 1, &c->objective[k] };
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
    { .path = "distill", .table = pn_train_option_table },
    { .path = "compare", .table = compare_table },
    { .path = "heldout", .table = heldout_table },
    { .path = "latency", .table = pn_latency_option_table },
    { .path = NULL },
};
