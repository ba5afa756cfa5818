#include "args.h"
#include "files.h"
#include "rerank.h"
#include "search_run.h"
#include "signals.h"

#include <string.h>

/* The run's configuration with the search section that is asked for. */
static pn_status asked_config(const pn_args *args, const char *file, pn_config **out) {
    const char *assignment;
    PN_TRY(pn_config_load(file, out));
    for (int i = 0; (assignment = pn_args_nth(args, "set", i)); i++) {
        pn_status s = PN_OK;
        if (strncmp(assignment, "search.", 7))
            s = pn_fail_at(__FILE__, __LINE__, PN_USAGE,
                           "--set %s: a super-network that is trained can be asked for other search.* only",
                           assignment);
        if (!s) s = pn_config_set(*out, assignment);
        if (s) {
            pn_config_destroy(out);
            return s;
        }
    }
    return PN_OK;
}

static pn_status rerank(const pn_args *args, const char *dir) {
    char file[PN_PATH_MAX];
    pn_config *c = NULL, *asked = NULL;
    pn_rerank_options o = { .top = 10, .measure = pn_args_has(args, "measure") };
    PN_CHECK(!pn_args_has(args, "config"), PN_USAGE,
             "postnas search: --rerank takes the configuration from the run; change its search section with --set");
    PN_CHECK(!pn_args_has(args, "device") && !pn_args_has(args, "precision"), PN_USAGE,
             "postnas search: --rerank computes as the run did; leave out --device and --precision");
    PN_TRY(pn_args_i64(args, "top", 1, 1000000, &o.top));
    PN_TRY(pn_path_join(file, dir, "config.yaml"));
    PN_CHECK(pn_file_exists(file), PN_USAGE, "%s: is no run of postnas search: it has no config.yaml", dir);
    PN_TRY(pn_config_load(file, &c));
    pn_status s = asked_config(args, file, &asked);
    if (!s) s = pn_rerank(dir, c, asked, &o, stdout);
    pn_config_destroy(&asked);
    pn_config_destroy(&c);
    return s;
}

static pn_status run(const pn_args *args) {
    pn_config *c;
    const char *dir = pn_args_value(args, "rerank");
    pn_signals_install();
    if (dir) return rerank(args, dir);
    PN_CHECK(!pn_args_has(args, "measure") && !pn_args_has(args, "top"), PN_USAGE,
             "postnas search: --measure and --top belong to --rerank");
    PN_TRY(pn_args_config(args, &c));
    pn_status s = pn_search_run(c, stdout);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    PN_FLAG_DEVICE,
    PN_FLAG_PRECISION,
    { .name = "rerank", .value = "RUN", .help = "rank the paths that a run has measured, without training" },
    { .name = "measure", .help = "with --rerank: measure the scores that are missing, and keep them" },
    { .name = "top", .value = "N", .help = "with --rerank: how many paths to print (10)" },
    PN_FLAG_END,
};

const pn_command pn_cmd_search = {
    .name = "search",
    .summary = "find which layers must keep full attention, distil and export the hybrid",
    .usage = "--config FILE | --rerank RUN [--measure] [--top N]  [--set KEY=VALUE]...",
    .help =
        "Gives every layer of a pre-trained model linear-attention candidates, trains them, searches which few\n"
        "layers must keep full attention, distils the winner with the MLPs frozen and writes it as a Hugging Face\n"
        "directory. The run directory (output) receives model/, result.json, report.html, timing.json and a log.\n"
        "The table compares teacher, all-linear, uniform placement and the chosen one on held-out samples.\n"
        "Stop it with Ctrl-C: the same command goes on where it was.\n"
        "\n"
        "    postnas search --config configs/quickstart.yaml\n"
        "    postnas search --config configs/quickstart.yaml --set search.beam.width=4 --set output=runs/wide\n"
        "\n"
        "search.limits says what may be spent: layers of full_attention and swa (sliding windows) exactly, of none\n"
        "at most. search.objective ranks: a metric of a task, or a sum of several; search.objectives gives a kind\n"
        "of layer one of its own, and then that kind is placed after the earlier ones:\n"
        "\n"
        "    postnas search --config mine.yaml --set search.limits.swa=2 --set search.objectives.swa=facts.accuracy\n"
        "\n"
        "compare.selectors lists strategies that place full attention on the same super-network, each for every "
        "number\n"
        "of layers in compare.full_attention; a table and a plot hold them against each other on held-out samples:\n"
        "\n"
        "    postnas search --config mine.yaml --set 'compare.selectors=[uniform, greedy, beam]' \\\n"
        "        --set 'compare.full_attention=[1, 2, 4]'\n"
        "\n"
        "With --rerank nothing is trained or written: the complete paths whose scores a run keeps are ranked by\n"
        "another objective or under other limits, on its search tasks. --measure evaluates what is missing, for\n"
        "example of a task that the run did not have, and keeps it with the run's scores.\n"
        "\n"
        "    postnas search --rerank runs/quickstart --set 'search.objective=recall.nll + 0.5 facts.nll'\n"
        "    postnas search --rerank runs/quickstart --set search.limits.full_attention=1 --top 3\n",
    .memory = "lower batch_tokens of the training that it was in, or sequence_length",
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
