#include "args.h"
#include "finetune.h"
#include "signals.h"
#include "teach.h"

static pn_status run(const pn_args *args) {
    pn_config *c;
    pn_teach_options o = { .stage = pn_args_value(args, "stage"), .output = pn_args_value(args, "output") };
    PN_TRY(pn_args_i64(args, "top", 1, INT32_MAX, &o.words));
    PN_TRY(pn_args_i64(args, "batch-tokens", 1, 1 << 24, &o.batch_tokens));
    PN_CHECK(
        pn_args_has(args, "config"), PN_USAGE,
        "postnas teach: --config is missing; give the configuration of `postnas finetune` whose stage the rows are "
        "for");
    PN_TRY(pn_args_config(args, &c));
    pn_signals_install();
    pn_status s = pn_teach_stage(c, &o);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    { .name = "stage",
      .value = "NAME",
      .help = "name or number of the stage; without it, the only one with a teacher" },
    { .name = "output", .value = "DIR", .help = "where the rows go; without it, the stage's teacher_logits" },
    { .name = "top", .value = "K", .help = "words of each token; without it 64, or all where there are fewer" },
    { .name = "batch-tokens", .value = "N", .help = "tokens of a pass; without it 8192, or one row" },
    PN_FLAG_DEVICE,
    PN_FLAG_PRECISION,
    PN_FLAG_END,
};

const pn_command pn_cmd_teach = {
    .name = "teach",
    .summary = "write once what a teacher says of a stage's training rows",
    .usage = "--config FILE [--set KEY=VALUE]... [--stage NAME] [--output DIR] [--top K]",
    .help =
        "Runs the teacher of a stage over the rows that the stage trains on, and keeps of every token the K most\n"
        "likely next ones with their log-probabilities. A stage with teacher_logits reads them in place of running\n"
        "the teacher: its kl is then over K + 1 outcomes, these words and one for all others, and with as many\n"
        "words as there are it is that of the teacher itself. The temperature is the stage's; for another, as for\n"
        "another mixture or seed, rows are written again.\n"
        "\n"
        "    postnas teach --config mine.yaml --stage distil --output teach/distil --device cuda\n"
        "    postnas finetune --config mine.yaml --set stages.0.teacher_logits=teach/distil --device cuda\n"
        "\n"
        "8 K bytes a token: 1e9 tokens of 64 words are 512 GB. How much there will be is said first, and that the\n"
        "disk has it is checked. Stop it with Ctrl-C: the same command goes on where it was, and ends with the same\n"
        "bytes; with more tokens in the stage it adds the rows that are missing.\n",
    .reads = "the teacher, tokenizer and token shards that the configuration names\n"
             "rows that are in the output directory already\n",
    .writes = "DIR/manifest.json: whose rows they are, with sizes and checksums\n"
              "DIR/rows-00000.h5 ...: HDF5, ids and log-probabilities\n",
    .see = "postnas finetune --help\n"
           "postnas config finetune --keys: teacher, teacher_logits, temperature\n",
    .memory = "lower --batch-tokens or --top, or set precision: bf16 on a GPU",
    .flags = flags,
    .run = run,
};
