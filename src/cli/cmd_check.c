#include <math.h>
#include <string.h>

#include "args.h"
#include "check_model.h"
#include "check_ops.h"
#include "check_vectors.h"
#include "options.h"
#include "tokenizer.h"

static pn_status need_expected(const pn_args *args, const char *what, const char **dir, const char **expected) {
    *expected = pn_args_value(args, "expected");
    PN_CHECK(args->n_operands == 2, PN_USAGE, "postnas check %s: takes one model directory, then --expected FILE",
             what);
    PN_CHECK(*expected, PN_USAGE, "postnas check %s: --expected FILE says what must come out; it is missing", what);
    *dir = args->operand[1];
    return PN_OK;
}

static pn_status run_ops(const pn_args *args) {
    pn_check_ops_options o = { .names = args->operand + 1, .n = args->n_operands - 1 };
    o.slow = pn_args_has(args, "slow");
    o.small = pn_args_has(args, "small");
    o.each = pn_args_has(args, "each");
    PN_CHECK(o.slow + o.small + o.each < 2, PN_USAGE, "postnas check ops: one of --slow, --small and --each");
    PN_TRY(pn_args_backend(args, "backend", &o.on));
    return pn_check_ops(&o, stdout);
}

static pn_status run_vectors(const pn_args *args) {
    pn_compute on;
    PN_CHECK(args->n_operands > 1, PN_USAGE, "postnas check vectors: name golden files, or folders of them");
    PN_TRY(pn_args_backend(args, "backend", &on));
    return pn_check_vectors(args->operand + 1, args->n_operands - 1, &on, stdout);
}

static pn_status run_model(const pn_args *args) {
    const char *dir, *expected;
    PN_TRY(need_expected(args, "model", &dir, &expected));
    if (!pn_args_has(args, "kl") && !pn_args_has(args, "top1")) return pn_check_model(dir, expected, stdout);
    pn_check_agreement limit = { .kl = INFINITY, .top1 = 0 };
    PN_TRY(pn_args_f64(args, "kl", 0, 1e9, &limit.kl));
    PN_TRY(pn_args_f64(args, "top1", 0, 1, &limit.top1));
    return pn_check_model_agrees(dir, expected, &limit, stdout);
}

static pn_status run_tokenizer(const pn_args *args) {
    const char *dir, *expected;
    PN_TRY(need_expected(args, "tokenizer", &dir, &expected));
    return pn_tokenizer_check(dir, expected, stdout);
}

static const struct subject {
    const char *name;
    pn_status (*run)(const pn_args *args);
} subjects[] = {
    { "ops", run_ops },
    { "vectors", run_vectors },
    { "model", run_model },
    { "tokenizer", run_tokenizer },
};
enum { N_SUBJECTS = sizeof subjects / sizeof *subjects };

static pn_status run(const pn_args *args) {
    const char *names[N_SUBJECTS], *word = args->operand[0];
    for (int i = 0; i < N_SUBJECTS; i++) {
        names[i] = subjects[i].name;
        if (!strcmp(word, names[i])) return subjects[i].run(args);
    }
    const char *near = pn_nearest(word, names, N_SUBJECTS);
    PN_FAIL(PN_USAGE, "postnas check: %s cannot be checked; %s%s%ssee `postnas check --help`", word,
            near ? "did you mean " : "", near ? near : "", near ? "? " : "");
}

static const pn_flag flags[] = {
    { .name = "expected", .value = "FILE", .help = "what a model or a tokenizer must give; they need it" },
    { .name = "kl",
      .value = "NATS",
      .help = "model: at most this mean KL from the expected distributions; without it, any" },
    { .name = "top1",
      .value = "SHARE",
      .help = "model: at least this share of tokens with the expected first choice; without it, any" },
    { .name = "slow", .help = "ops: also the large cases" },
    { .name = "small", .help = "ops: only the smallest cases" },
    { .name = "each", .help = "ops: one small case for each of an implementation's kernels, run once; for sanitizers" },
    { .name = "backend", .value = "NAME", .def = "cpu", .help = "ops, vectors: whose implementations, cpu or cuda" },
    { .name = "dtype", .value = "TYPE", .def = "f32", .help = "ops, vectors: what cuda computes in, f32 or bf16" },
    PN_FLAG_END,
};

const pn_command pn_cmd_check = {
    .name = "check",
    .summary = "ops against their reference, golden vectors, model logits, tokenizers",
    .usage = "WHAT ... [options]",
    .help =
        "    postnas check ops [NAME...] [--slow] [--small] [--each] [--backend NAME] [--dtype TYPE]\n"
        "        every implementation of an op against its double-precision reference, and on the CPU the reference's\n"
        "        gradients against finite differences: a row per case, each quantity as worst error/limit\n"
        "    postnas check vectors PATH... [--backend NAME] [--dtype TYPE]\n"
        "        golden .safetensors files, or folders of them: a row per file and implementation\n"
        "    postnas check model DIR --expected FILE.safetensors [--kl NATS] [--top1 SHARE]\n"
        "        logits (and hidden states) of input_ids, in one pass and decoding; with --kl or --top1 the file's\n"
        "        logits are another program's, and the distributions are compared\n"
        "    postnas check tokenizer DIR --expected FILE.jsonl\n"
        "        lines of {\"text\", \"ids\", \"decoded\"}\n"
        "\n"
        "An error is rms(x - expected) / rms(expected). The last line is \"N passed, M failed\"; the exit code is 1\n"
        "when M is not 0.\n"
        "\n"
        "    postnas check ops gated_delta\n"
        "    postnas check vectors tests/data/golden\n"
        "    postnas check model tests/data/golden/qwen2_tiny \\\n"
        "        --expected tests/data/golden/qwen2_tiny/expected_outputs.safetensors\n",
    .reads = "the files and directories that are named; check ops reads nothing\n",
    .writes = "standard output: a row per case and the count\n",
    .see = "postnas list ops: what can be checked; tests/data/golden: vectors that come with the source\n",
    .flags = flags,
    .min_operands = 1,
    .max_operands = -1,
    .run = run,
};
