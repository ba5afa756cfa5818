#include "args.h"
#include "eval_run.h"
#include "signals.h"

static pn_status run(const pn_args *args) {
    pn_config *c;
    PN_CHECK(pn_args_has(args, "config"), PN_USAGE, "eval: give --config, whose search.tasks are measured");
    PN_TRY(pn_args_config(args, &c));
    pn_signals_install();
    pn_status s = pn_eval_run(args->operand[0], c, pn_args_value(args, "output"), stdout);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    PN_FLAG_DEVICE,
    PN_FLAG_PRECISION,
    { .name = "output",
      .letter = 'o',
      .value = "FILE",
      .help = "also write every metric of every sample as JSON; without it, only the table" },
    PN_FLAG_END,
};

const pn_command pn_cmd_eval = {
    .name = "eval",
    .summary = "measure a model directory on the tasks of a search configuration",
    .usage = "MODEL --config FILE [--set KEY=VALUE]... [--output FILE]",
    .help =
        "Measures a model directory on the held-out samples of the configuration's search.tasks: perplexity, recall\n"
        "by distance, multiple choice. The numbers are those of the search's final table for that model. Tasks of\n"
        "kind kl compare with a teacher and are left out.\n"
        "\n"
        "    postnas eval runs/quickstart/model --config configs/quickstart.yaml\n"
        "    postnas eval data/quickstart-base --config configs/quickstart.yaml --set heldout.samples=5\n",
    .reads = "a model directory, the configuration, and the token shards that its tasks name\n",
    .writes = "standard output: a row per model, mean (smallest..largest) over the samples\n"
              "--output FILE: every metric of every sample\n",
    .see = "postnas config search --keys: search.tasks and heldout are what counts here\n"
           "postnas list tasks: what can be measured\n"
           "postnas check model: logits against those of another program\n",
    .memory = "lower the document_bytes of search.tasks, or set precision: bf16 on a GPU",
    .flags = flags,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};
