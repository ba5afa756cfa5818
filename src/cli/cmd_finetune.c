#include "args.h"
#include "finetune.h"
#include "signals.h"

static pn_status run(const pn_args *args) {
    pn_config *c;
    PN_TRY(pn_args_config(args, &c));
    pn_signals_install();
    pn_status s = pn_finetune_run(c);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = { PN_FLAG_CONFIG, PN_FLAG_SET, PN_FLAG_DEVICE, PN_FLAG_PRECISION, PN_FLAG_END };

const pn_command pn_cmd_finetune = {
    .name = "finetune",
    .summary = "train a model on a mixture of data, in stages",
    .usage = "--config FILE [--set KEY=VALUE]...",
    .help = "Trains a model directory, or a new model of random weights, on skills and token shards. The result is\n"
            "<output>/model, a Hugging Face directory. Stop it with Ctrl-C: the same command goes on where it was.\n"
            "\n"
            "    postnas finetune --config experiments/01-quickstart-base/base.yaml --set output=runs/base\n",
    .flags = flags,
    .run = run,
    .sections = pn_finetune_sections,
    .reads = "the model directory or tokenizer, and the token shards, that the configuration names\n"
             "output/state, when it is there: the run goes on\n",
    .writes = "output/model: a Hugging Face directory\n"
              "output/config.yaml, log.jsonl, state/\n",
    .see = "postnas config finetune --keys: every key\n"
           "postnas data: token shards to train on; postnas list skills: generated documents\n"
           "experiments/01-quickstart-base/base.yaml: a file to copy\n",
    .read_config = pn_finetune_read_config,
    .config_key = "stages",
};
