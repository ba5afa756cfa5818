#include "args.h"
#include "search_run.h"
#include "signals.h"

static pn_status run(const pn_args *args) {
    pn_config *c;
    PN_TRY(pn_args_config(args, &c));
    pn_signals_install();
    pn_status s = pn_search_run(c, stdout);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = { PN_FLAG_CONFIG, PN_FLAG_SET, PN_FLAG_END };

const pn_command pn_cmd_search = {
    .name = "search",
    .summary = "find which layers must keep full attention, distil and export the hybrid",
    .usage = "--config FILE [--set KEY=VALUE]...",
    .help = "Gives every layer of a pre-trained model linear-attention candidates, trains them, searches which few\n"
            "layers must keep full attention, distils the winner with the MLPs frozen and writes it as a Hugging Face\n"
            "directory. The run directory (output) receives model/, result.json, report.html, timing.json and a log.\n"
            "The table compares teacher, all-linear, uniform placement and the chosen one on held-out samples.\n"
            "Stop it with Ctrl-C: the same command goes on where it was.\n"
            "\n"
            "    postnas search --config configs/quickstart.yaml\n"
            "    postnas search --config configs/quickstart.yaml --set search.beam.width=4 --set output=runs/wide\n",
    .flags = flags,
    .run = run,
    .sections = pn_search_config_sections,
    .reads = "the model directory, tokenizer and token shards that the configuration names\n"
             "output/state, when it is there: the run goes on\n",
    .writes = "output/model: the hybrid, a Hugging Face directory\n"
              "output/result.json, report.html: everything that was measured; timing.json: how long it took\n"
              "output/config.yaml: every value and its origin; log.jsonl; state/: where a stopped run goes on\n"
              "standard output: the table\n",
    .see = "postnas config search --keys: every key\n"
           "postnas list searches: the strategies; postnas list blocks: what a layer can be\n"
           "postnas eval, postnas generate, postnas export: what to do with output/model\n"
           "configs/quickstart.yaml, configs/smollm2-135m-cpu.yaml: files to copy\n",
    .read_config = pn_search_config_check,
    .config_key = "search",
};
