#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench_layer.h"
#include "bench_ops.h"
#include "bench_speed.h"
#include "bench_step.h"
#include "bench_train.h"
#include "block_arg.h"
#include "find_op.h"
#include "model_load.h"
#include "options.h"

enum { MOST_BLOCKS = PN_MAX_LAYERS };

static pn_status shape_of(const pn_args *args, const pn_bench_shape **out) {
    const char *name = pn_args_value(args, "shape");
    PN_TRY(pn_bench_shape_find(name ? name : "smollm2-135m", out));
    return PN_OK;
}

/* The whole numbers of an option that may be repeated, PN_LIST_MAX at most; *out stays where none is given. */
static pn_status numbers_of(const pn_args *args, const char *name, double min, double max, pn_int_list *out) {
    char flag[32];
    const char *text;
    snprintf(flag, sizeof flag, "--%s", name);
    const pn_option row = { .name = flag, .kind = PN_OPTION_INT, .min = min, .max = max };
    for (int i = 0; (text = pn_args_nth(args, name, i)); i++) {
        PN_CHECK(i < PN_LIST_MAX, PN_USAGE, "postnas bench: %s more than %d times", flag, (int)PN_LIST_MAX);
        PN_TRY(pn_option_parse(&row, "postnas bench", text, 0, &out->item[i]));
        out->n = i + 1;
    }
    return PN_OK;
}

static pn_status blocks_of(const pn_args *args, const pn_dims *dims, pn_block_spec block[MOST_BLOCKS], int *n) {
    const char *text;
    for (*n = 0; (text = pn_args_nth(args, "block", *n)); ++*n) {
        PN_CHECK(*n < MOST_BLOCKS, PN_USAGE, "postnas bench: --block more than %d times", (int)MOST_BLOCKS);
        PN_TRY(pn_block_arg("--block", text, dims, &block[*n]));
    }
    return PN_OK;
}

static pn_status device_of(const pn_args *args, pn_backend *backend, pn_dtype *type) {
    pn_compute on;
    PN_TRY(pn_args_backend(args, "device", &on));
    *backend = on.backend;
    *type = on.dtype;
    return PN_OK;
}

static pn_status run_ops(const pn_args *args) {
    enum { MOST_OPS = 64 };
    const pn_op *ops[MOST_OPS];
    pn_int_list tokens = { 3, { 512, 2048, 0 } };
    pn_bench_ops_options o = { .ops = ops,
                               .only = pn_args_value(args, "only"),
                               .chosen = pn_args_has(args, "chosen"),
                               .repeat = 15,
                               .json = pn_args_value(args, "json") };
    const char *text;
    for (; (text = pn_args_nth(args, "op", o.n_ops)); o.n_ops++) {
        PN_CHECK(o.n_ops < MOST_OPS, PN_USAGE, "postnas bench ops: --op more than %d times", (int)MOST_OPS);
        PN_TRY(pn_find_op(text, &ops[o.n_ops]));
    }
    PN_TRY(shape_of(args, &o.shape));
    PN_TRY(device_of(args, &o.backend, &o.type));
    PN_TRY(pn_args_i64(args, "sequences", 1, PN_BENCH_MOST_SEQUENCES, &o.sequences));
    PN_TRY(pn_args_i64(args, "repeat", PN_TIMING_LEAST_RUNS, PN_TIMING_MOST_RUNS, &o.repeat));
    PN_TRY(numbers_of(args, "tokens", 0, 1 << 20, &tokens));
    PN_CHECK(tokens.n <= PN_BENCH_MAX_TOKENS, PN_USAGE, "postnas bench ops: --tokens more than %d times",
             (int)PN_BENCH_MAX_TOKENS);
    o.n_tokens = (int)tokens.n;
    memcpy(o.tokens, tokens.item, (size_t)tokens.n * sizeof *tokens.item);
    return pn_bench_ops(&o, stdout);
}

static pn_status run_train(const pn_args *args) {
    pn_bench_train_options o = { .steps = 8, .tokens = 512, .repeat = 3, .json = pn_args_value(args, "json") };
    bool file = pn_args_has(args, "config");
    PN_CHECK(file || !pn_args_has(args, "set"), PN_USAGE, "postnas bench train: --set needs a --config to change");
    PN_CHECK(!file || (!pn_args_has(args, "shape") && !pn_args_has(args, "layers") && !pn_args_has(args, "tokens")),
             PN_USAGE, "postnas bench train: --config says what --shape, --layers and --tokens say; leave them out");
    PN_TRY(pn_args_i64(args, "steps", 1, 1 << 20, &o.steps));
    PN_TRY(pn_args_i64(args, "repeat", 1, PN_TIMING_MOST_RUNS, &o.repeat));
    PN_TRY(pn_args_i64(args, "layers", 1, PN_MAX_LAYERS, &o.layers));
    PN_TRY(pn_args_i64(args, "tokens", 16, 1 << 20, &o.tokens));
    PN_TRY(shape_of(args, &o.shape));
    PN_TRY(device_of(args, &o.backend, &o.type));
    if (file) PN_TRY(pn_args_config(args, &o.config));
    pn_status s = pn_bench_train(&o, stdout);
    pn_config_destroy(&o.config);
    return s;
}

/* Every mixer there is with its default options, but none. */
static pn_status all_blocks(const pn_dims *dims, pn_block_spec block[MOST_BLOCKS], int *n) {
    int types;
    const pn_block_type *const *type = pn_block_types(&types);
    for (int i = 0; i < types && *n < MOST_BLOCKS; i++)
        if (type[i]->role == PN_MIXER && type[i] != &pn_block_none)
            PN_TRY(pn_block_arg_default(type[i], dims, &block[(*n)++]));
    return PN_OK;
}

static pn_status run_layer(const pn_args *args) {
    pn_block_spec block[MOST_BLOCKS];
    pn_bench_layer_options o = {
        .block = block, .tokens = 2048, .sequences = 1, .repeat = 15, .json = pn_args_value(args, "json")
    };
    PN_TRY(shape_of(args, &o.shape));
    PN_TRY(device_of(args, &o.backend, &o.type));
    PN_TRY(pn_args_i64(args, "tokens", 1, 1 << 20, &o.tokens));
    PN_TRY(pn_args_i64(args, "sequences", 1, PN_BENCH_MOST_SEQUENCES, &o.sequences));
    PN_CHECK(o.sequences <= o.tokens, PN_USAGE, "postnas bench layer: %lld tokens in %lld sequences; give each one",
             (long long)o.tokens, (long long)o.sequences);
    PN_TRY(pn_args_i64(args, "repeat", 1, PN_TIMING_MOST_RUNS, &o.repeat));
    PN_TRY(blocks_of(args, &o.shape->dims, block, &o.n_blocks));
    if (!o.n_blocks) PN_TRY(all_blocks(&o.shape->dims, block, &o.n_blocks));
    return pn_bench_layer(&o, stdout);
}

static pn_status recompute_of(const pn_args *args, int *out) {
    const char *name = pn_args_value(args, "recompute");
    if (!name) return PN_OK;
    for (int i = 0; pn_recompute_names[i]; i++) {
        if (strcmp(name, pn_recompute_names[i]) != 0) continue;
        *out = i;
        return PN_OK;
    }
    PN_FAIL(PN_USAGE, "postnas bench: --recompute %s: use none, cheap, cores, layers or auto", name);
}

static pn_status run_step(const pn_args *args) {
    pn_block_spec block[MOST_BLOCKS];
    pn_bench_step_options o = { .block = block,
                                .tokens = 2048,
                                .sequences = 1,
                                .stage = 2,
                                .steps = 5,
                                .recompute = PN_RECOMPUTE_AUTO,
                                .json = pn_args_value(args, "json") };
    PN_TRY(device_of(args, &o.on.backend, &o.on.dtype));
    PN_TRY(shape_of(args, &o.shape));
    PN_TRY(pn_args_i64(args, "layers", 1, PN_MAX_LAYERS, &o.layers));
    PN_TRY(pn_args_i64(args, "tokens", 2, 1 << 24, &o.tokens));
    PN_TRY(pn_args_i64(args, "sequences", 1, 1 << 16, &o.sequences));
    PN_TRY(pn_args_i64(args, "stage", 1, 2, &o.stage));
    PN_TRY(recompute_of(args, &o.recompute));
    PN_TRY(pn_args_f64(args, "memory", 0, 1e6, &o.memory_gb));
    PN_TRY(pn_args_i64(args, "steps", 1, PN_TIMING_MOST_RUNS, &o.steps));
    PN_CHECK(o.sequences * 2 <= o.tokens, PN_USAGE, "postnas bench step: %lld tokens in %lld sequences; give each two",
             (long long)o.tokens, (long long)o.sequences);
    PN_TRY(blocks_of(args, &o.shape->dims, block, &o.n_blocks));
    if (!o.n_blocks) PN_TRY(pn_bench_shape_blocks(o.shape, block, &o.n_blocks));
    return pn_bench_step(&o, stdout);
}

static pn_status speed_model(const pn_args *args, pn_model **out, const char **name) {
    pn_block_spec block[MOST_BLOCKS];
    const pn_bench_shape *shape;
    int64_t layers = 0;
    int n = 0;
    bool directory = args->n_operands > 1;
    PN_CHECK(!directory || (!pn_args_has(args, "shape") && !pn_args_has(args, "layers") && !pn_args_has(args, "block")),
             PN_USAGE, "postnas bench: %s says what --shape, --layers and --block say; leave them out",
             args->operand[1]);
    *name = directory ? args->operand[1] : NULL;
    if (directory) return pn_model_load(args->operand[1], PN_F32, out);
    PN_TRY(shape_of(args, &shape));
    PN_TRY(pn_args_i64(args, "layers", 1, PN_MAX_LAYERS, &layers));
    PN_TRY(blocks_of(args, &shape->dims, block, &n));
    if (!n) PN_TRY(pn_bench_shape_blocks(shape, block, &n));
    *name = shape->name;
    PN_TRY(pn_bench_shape_model(shape, layers, block, n, out));
    return PN_OK;
}

static pn_status run_speed(const pn_args *args, pn_latency_pass pass) {
    pn_model *model = NULL;
    pn_backend backend;
    pn_dtype type;
    pn_bench_speed_options o = { .pass = pass, .prompts = 1, .json = pn_args_value(args, "json") };
    PN_TRY(pn_options_defaults(pn_latency_option_table, &o.latency));
    o.latency.context = (pn_int_list){ 1, { 4096 } };
    PN_TRY(numbers_of(args, "context", 1, 1 << 24, &o.latency.context));
    PN_TRY(pn_args_i64(args, "batch", 1, 4096, &o.latency.batch));
    PN_TRY(pn_args_i64(args, "chunk", 1, 1 << 20, &o.latency.chunk));
    PN_TRY(pn_args_i64(args, "prompts", 1, 4096, &o.prompts));
    PN_TRY(pn_args_i64(args, "repeat", 1, PN_TIMING_MOST_RUNS, &o.latency.repeat));
    PN_TRY(device_of(args, &backend, &type));
    PN_TRY(speed_model(args, &model, &o.name));
    o.model = model;
    pn_status s = pn_params_move(model->params, backend, type);
    if (!s) s = pn_bench_speed(&o, stdout);
    pn_model_destroy(&model);
    return s;
}

static pn_status run_decode(const pn_args *args) {
    return run_speed(args, PN_LATENCY_DECODE);
}
static pn_status run_prefill(const pn_args *args) {
    return run_speed(args, PN_LATENCY_PREFILL);
}

/* What can be measured, and the options that each takes. */
enum { MOST_FLAGS = 13 };
static const struct {
    const char *word;
    pn_status (*run)(const pn_args *args);
    int operands; /* besides the word */
    const char *flag[MOST_FLAGS];
} benches[] = {
    { "ops",
      run_ops,
      0,
      { "device", "dtype", "shape", "op", "only", "chosen", "tokens", "sequences", "repeat", "json" } },
    { "layer", run_layer, 0, { "device", "dtype", "shape", "block", "tokens", "sequences", "repeat", "json" } },
    { "train",
      run_train,
      0,
      { "device", "dtype", "shape", "layers", "tokens", "steps", "repeat", "config", "set", "json" } },
    { "step",
      run_step,
      0,
      { "device", "dtype", "shape", "layers", "block", "tokens", "sequences", "stage", "recompute", "memory", "steps",
        "json" } },
    { "prefill",
      run_prefill,
      1,
      { "device", "dtype", "shape", "layers", "block", "context", "chunk", "prompts", "repeat", "json" } },
    { "decode",
      run_decode,
      1,
      { "device", "dtype", "shape", "layers", "block", "batch", "context", "repeat", "json" } },
};
enum { BENCHES = sizeof benches / sizeof *benches };

static const pn_flag flags[] = {
    { .name = "device", .value = "NAME", .help = "what to measure: cpu or cuda", .def = "cpu" },
    { .name = "dtype", .value = "TYPE", .help = "what cuda computes in, bf16 or f32; bf16" },
    { .name = "shape",
      .value = "NAME",
      .help = "smollm2-135m (default), qwen2.5-0.5b, qwen2.5-1.5b, jet-nemotron-2b or quickstart" },
    { .name = "op", .value = "NAME", .help = "ops: this one only; may be repeated" },
    { .name = "only", .value = "TEXT", .help = "ops: the shapes with this in their name, as 96x256" },
    { .name = "chosen", .help = "ops: of the implementations the one that a run takes; else all that can" },
    { .name = "block",
      .value = "BLOCK",
      .help =
          "a name, or \"{ type: NAME, key: value }\"; may be repeated. layer: measured; all. step, prefill, decode: "
          "of the layers in turn; attention, or those of the published hybrid" },
    { .name = "tokens",
      .value = "N",
      .help = "ops: rows, may be repeated; 0: decoding. layer: of all documents, 2048. train, step: of a "
              "step, 512, 2048" },
    { .name = "sequences",
      .value = "N",
      .help =
          "ops, layer, step: documents that the tokens are, of equal length, 1; ops of tokens 0: sequences to decode, "
          "8" },
    { .name = "batch", .value = "N", .help = "decode: sequences at once; 1" },
    { .name = "context", .value = "N", .help = "prefill, decode: tokens, may be repeated; 4096" },
    { .name = "chunk", .value = "N", .help = "prefill: tokens of a piece; 512" },
    { .name = "prompts", .value = "N", .help = "prefill: of that many tokens, at once; 1" },
    { .name = "repeat",
      .value = "N",
      .help = "timed runs of each, 15, train: of all steps, 3; fewer where they take long" },
    { .name = "steps", .value = "N", .help = "train, step: how many; 8, 5" },
    { .name = "stage",
      .value = "N",
      .help = "step: 1 trains the mixers on the losses of distillation, 2 everything on cross-entropy; 2" },
    { .name = "recompute",
      .value = "WHAT",
      .help = "step: what backward makes again to save memory: none, cheap, cores, layers or auto, which takes the "
              "least that fits; auto" },
    { .name = "memory", .value = "GB", .help = "step: of the GPU, that auto may use in all; what is free" },
    { .name = "layers", .value = "N", .help = "train, step, prefill, decode: of the shape; all" },
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    { .name = "json", .value = "FILE", .help = "also write the result as JSON" },
    PN_FLAG_END,
};

static bool takes(int bench, const char *flag) {
    for (int i = 0; i < MOST_FLAGS && benches[bench].flag[i]; i++)
        if (!strcmp(benches[bench].flag[i], flag)) return true;
    return false;
}

static pn_status check_options(int bench, const pn_args *args) {
    for (const pn_flag *f = flags; f->name; f++) {
        if (takes(bench, f->name) || !pn_args_has(args, f->name)) continue;
        pn_buf known = { 0 };
        for (int i = 0; i < MOST_FLAGS && benches[bench].flag[i]; i++)
            pn_buf_printf(&known, "%s--%s", i ? ", " : "", benches[bench].flag[i]);
        pn_status s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "postnas bench %s: takes no --%s; it takes %s",
                                 benches[bench].word, f->name, pn_buf_string(&known));
        pn_buf_free(&known);
        return s;
    }
    PN_CHECK(args->n_operands - 1 <= benches[bench].operands, PN_USAGE,
             "postnas bench %s: takes no model directory; leave %s out", benches[bench].word, args->operand[1]);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    const char *word = args->operand[0], *words[BENCHES];
    for (int i = 0; i < BENCHES; i++) {
        words[i] = benches[i].word;
        if (strcmp(word, words[i])) continue;
        PN_TRY(check_options(i, args));
        return benches[i].run(args);
    }
    const char *near = pn_nearest(word, words, BENCHES);
    PN_FAIL(PN_USAGE, "postnas bench: %s cannot be measured; %s%s%ssee `postnas bench --help`", word,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

const pn_command pn_cmd_bench = {
    .name = "bench",
    .summary = "speed of ops, blocks, training and decoding, against what the machine can do",
    .usage = "ops|layer|train|step|prefill|decode [MODEL] [--device cpu|cuda] [options]",
    .help =
        "Everything is compared with OpenBLAS's sgemm (2048^3) and the triad a = b + s c, measured in the same run\n"
        "with the same threads; on the GPU with a product of cuBLASLt (8192^3) and a copy of 1 GB, beside its clock\n"
        "while that runs (as NVML says; else its maximum). Flops are those that the mathematics needs, bytes what "
        "must\n"
        "be read and written once; the bound is whichever would take longer at the machine's speed, and \"of it\" how\n"
        "close it came: 1 is as fast as the machine, above 1 the data was in cache. Times are the median and the\n"
        "fastest and slowest run, rates and \"of it\" those of the median. With --threads 1, time is the thread's own\n"
        "processor time. PN_CUDA_VARY=1 in the environment allows attention's faster backward, whose bits vary.\n"
        "\n"
        "ops      every implementation of every op, forward (fwd) and backward (bwd), at the sizes of a model "
        "(--shape)\n"
        "layer    single blocks: forward, and forward with backward to weights and input (both)\n"
        "train    steps of super-network training, and where their time goes; a shape gets random weights and made-up\n"
        "         text and needs no files, a configuration of `postnas search` is taken as it is\n"
        "step     training steps of a whole model with random weights, and where the time of one goes\n"
        "prefill  one prompt of --context tokens through a model directory, or through a shape with random weights:\n"
        "         every part, measured alone, their sum, and the whole model; pieces of --chunk tokens, of which a "
        "few\n"
        "         are measured and the others interpolated\n"
        "decode   likewise, --batch sequences by one token each, after a context that is not computed (zeros); the\n"
        "         bytes are those of weights and states, each once a step\n"
        "\n"
        "    postnas bench ops --op attention --op gated_delta --tokens 2048 --threads 1\n"
        "    postnas bench layer --block attention --block \"{ type: gated_deltanet, expand_v: 1 }\"\n"
        "    postnas bench train --shape smollm2-135m --layers 6\n"
        "    postnas bench step --device cuda --shape jet-nemotron-2b --tokens 16384 --sequences 4 --memory 60\n"
        "    postnas bench decode runs/quickstart/model --batch 8 --context 4096 --context 65536\n",
    .reads = "nothing; with --config, what a search of that configuration reads; a model directory\n",
    .writes = "the tables on standard output; with --json a file\n",
    .see = "postnas list ops    postnas list blocks    postnas check ops --help\n",
    .memory = "lower --tokens, --batch, --context or --layers, or name a smaller --shape",
    .flags = flags,
    .min_operands = 1,
    .max_operands = 2,
    .run = run,
};
