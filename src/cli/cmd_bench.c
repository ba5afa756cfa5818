#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "bench_ops.h"
#include "bench_train.h"
#include "find_op.h"
#include "model.h"
#include "options.h"

static const char *const default_shape = "smollm2-135m";

static pn_status shape_of(const pn_args *args, const pn_bench_shape **out) {
    const char *name = pn_args_value(args, "shape");
    PN_TRY(pn_bench_shape_find(name ? name : default_shape, out));
    return PN_OK;
}

static pn_status run_ops(const pn_args *args) {
    enum { MOST_OPS = 64 };
    const pn_op *ops[MOST_OPS];
    pn_bench_ops_options o = { .ops = ops, .repeat = 15, .json = pn_args_value(args, "json") };
    PN_CHECK(!pn_args_has(args, "config") && !pn_args_has(args, "steps") && !pn_args_has(args, "layers"), PN_USAGE,
             "postnas bench ops: --config, --steps and --layers are of bench train; leave them out");
    const char *text;
    for (; (text = pn_args_nth(args, "op", o.n_ops)); o.n_ops++) {
        PN_CHECK(o.n_ops < MOST_OPS, PN_USAGE, "postnas bench ops: --op more than %d times", (int)MOST_OPS);
        PN_TRY(pn_find_op(text, &ops[o.n_ops]));
    }
    PN_TRY(shape_of(args, &o.shape));
    PN_TRY(pn_args_i64(args, "repeat", 3, 1000, &o.repeat));
    for (; (text = pn_args_nth(args, "tokens", o.n_tokens)); o.n_tokens++) {
        const pn_option row = { .name = "--tokens", .kind = PN_OPTION_INT, .min = 0, .max = 1 << 20 };
        PN_CHECK(o.n_tokens < PN_BENCH_MAX_TOKENS, PN_USAGE, "postnas bench ops: --tokens more than %d times",
                 (int)PN_BENCH_MAX_TOKENS);
        PN_TRY(pn_option_parse(&row, "postnas bench", text, 0, &o.tokens[o.n_tokens]));
    }
    static const int64_t usual[] = { 512, 2048, 0 };
    if (!o.n_tokens) {
        o.n_tokens = (int)(sizeof usual / sizeof *usual);
        memcpy(o.tokens, usual, sizeof usual);
    }
    return pn_bench_ops(&o, stdout);
}

static pn_status run_train(const pn_args *args) {
    pn_bench_train_options o = { .steps = 8, .tokens = 512, .json = pn_args_value(args, "json") };
    PN_CHECK(!pn_args_has(args, "op") && !pn_args_has(args, "repeat"), PN_USAGE,
             "postnas bench train: --op and --repeat are of bench ops; leave them out");
    bool file = pn_args_has(args, "config");
    PN_CHECK(file || !pn_args_has(args, "set"), PN_USAGE, "postnas bench train: --set needs a --config to change");
    PN_CHECK(!file || (!pn_args_has(args, "shape") && !pn_args_has(args, "layers") && !pn_args_has(args, "tokens")),
             PN_USAGE, "postnas bench train: --config says what --shape, --layers and --tokens say; leave them out");
    PN_TRY(pn_args_i64(args, "steps", 1, 1 << 20, &o.steps));
    PN_TRY(pn_args_i64(args, "layers", 1, PN_MAX_LAYERS, &o.layers));
    PN_TRY(pn_args_i64(args, "tokens", 16, 1 << 20, &o.tokens));
    PN_TRY(shape_of(args, &o.shape));
    if (file) PN_TRY(pn_args_config(args, &o.config));
    pn_status s = pn_bench_train(&o, stdout);
    pn_config_destroy(&o.config);
    return s;
}

static pn_status run(const pn_args *args) {
    const char *word = args->operand[0], *device = pn_args_value(args, "device");
    PN_CHECK(!device || !strcmp(device, "cpu"), PN_USAGE,
             "postnas bench: device %s is not in this version; use --device cpu", device);
    if (!strcmp(word, "ops")) return run_ops(args);
    if (!strcmp(word, "train")) return run_train(args);
    static const char *const words[] = { "ops", "train" };
    const char *near = pn_nearest(word, words, 2);
    PN_FAIL(PN_USAGE, "postnas bench: %s cannot be measured; %s%s%ssee `postnas bench --help`", word,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

static const pn_flag flags[] = {
    { .name = "device", .value = "NAME", .help = "what to measure: cpu", .def = "cpu" },
    { .name = "shape", .value = "NAME", .help = "smollm2-135m (default), qwen2.5-0.5b, qwen2.5-1.5b or quickstart" },
    { .name = "op", .value = "NAME", .help = "ops: this one only; may be repeated" },
    { .name = "tokens", .value = "N", .help = "ops: rows, may be repeated; 0: decoding. train: of a step" },
    { .name = "repeat", .value = "N", .help = "ops: timed runs of each, 15; fewer where they take long" },
    { .name = "steps", .value = "N", .help = "train: how many; 8" },
    { .name = "layers", .value = "N", .help = "train: of the shape; all" },
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    { .name = "json", .value = "FILE", .help = "also write the result as JSON" },
    PN_FLAG_END,
};

const pn_command pn_cmd_bench = {
    .name = "bench",
    .summary = "speed of ops and of training, against what the machine can do",
    .usage = "ops|train [--device cpu] [options]",
    .help =
        "Everything is compared with OpenBLAS's sgemm (2048^3) and the triad a = b + s c, measured in the same run\n"
        "with the same threads. Flops are those that the mathematics needs, bytes what must be read and written\n"
        "once; the bound is whichever would take longer at the machine's speed, and \"of it\" how close it came:\n"
        "1 is as fast as the machine, above 1 the data was in cache. Rates are those of the fastest run. With\n"
        "--threads 1, time is the thread's own processor time.\n"
        "\n"
        "ops    every implementation of every op, forward (fwd) and backward (bwd), at the sizes of a model (--shape)\n"
        "train  steps of super-network training, and where their time goes; a shape gets random weights and made-up\n"
        "       text and needs no files, a configuration of `postnas search` is taken as it is\n"
        "\n"
        "    postnas bench ops --op attention --op gated_delta --tokens 2048 --threads 1\n"
        "    postnas bench train --shape smollm2-135m --layers 6\n",
    .reads = "nothing; with --config, what a search of that configuration reads\n",
    .writes = "the tables on standard output; with --json a file\n",
    .see = "postnas list ops    postnas check ops --help\n",
    .flags = flags,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};
