#include <string.h>

#include "args.h"
#include "import.h"
#include "log.h"

/* --dtype: what matrices are written as. */
static pn_status read_dtype(const pn_args *args, pn_dtype *out) {
    static const pn_dtype possible[] = { PN_F32, PN_BF16, PN_F16 };
    const char *name = pn_args_value(args, "dtype");
    *out = PN_DTYPES;
    if (!name) return PN_OK;
    for (int i = 0; i < 3; i++)
        if (!strcmp(pn_dtype_name(possible[i]), name)) *out = possible[i];
    PN_CHECK(*out != PN_DTYPES, PN_USAGE, "postnas import: --dtype is %s; it must be one of: f32, bf16, f16", name);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    double shard_gb;
    pn_import_options options = { 0 };
    pn_import_report report;
    PN_TRY(read_dtype(args, &options.dtype));
    PN_TRY(pn_args_f64(args, "shard-gb", 0.001, 1e6, &shard_gb));
    options.max_shard_bytes = (int64_t)(shard_gb * 1e9);
    bool asked = options.dtype != PN_DTYPES;
    PN_TRY(pn_import(args->operand[0], args->operand[1], &options, &report));
    if (report.quantised && !asked)
        pn_info("the source is quantised: its values are exact in f32 and in nothing narrower; --dtype bf16 halves the "
                "files and rounds");
    printf("%s\n  %s, %d layers, %lld parameters, %s\n", args->operand[1], report.kind, report.n_layers,
           (long long)report.parameters, pn_dtype_name(report.dtype));
    return PN_OK;
}

static const pn_flag flags[] = {
    { .name = "dtype", .value = "TYPE", .help = "write matrices as f32, bf16 or f16; without it, as in the source" },
    { .name = "shard-gb", .value = "N", .help = "split weights into files of at most N gigabytes", .def = "5" },
    PN_FLAG_END,
};

const pn_command pn_cmd_import = {
    .name = "import",
    .summary = "a GGUF file or Hugging Face directory to a model directory",
    .usage = "SOURCE DIRECTORY [--dtype TYPE] [--shard-gb N]",
    .help =
        "Reads a model (qwen2, llama or jet_nemotron layout, or flash-linear-attention's retnet, gla, delta_net or\n"
        "gated_deltanet) and writes config.json, safetensors and the tokenizer's files into a new directory, which\n"
        "appears when it is whole. Every tensor is checked against the config on the way. Quantised sources (GGUF\n"
        "Q4_0 to Q8_0, Q2_K to Q6_K) become f32, which holds their values exactly, unless --dtype asks for\n"
        "another type.\n"
        "\n"
        "    postnas import SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2\n"
        "    postnas import Qwen2.5-0.5B models/qwen --dtype bf16\n",
    .reads = "a GGUF file, or a directory with config.json, .safetensors files and tokenizer.json\n",
    .writes = "a new directory, which appears when it is whole; an existing one is left alone\n"
              "standard output: what it is\n",
    .see = "postnas data: text to train and measure on; postnas search: what comes next\n"
           "postnas check model: logits against those of another program\n",
    .flags = flags,
    .min_operands = 2,
    .max_operands = 2,
    .run = run,
};
