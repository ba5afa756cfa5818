#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "files.h"
#include "finetune.h"
#include "signals.h"
#include "spawn.h"

/* ---- many ranks ---- */

static pn_status read_request(const pn_args *args, pn_launch_request *out) {
    *out = (pn_launch_request){ .rank = -1, .ranks = -1, .rendezvous = pn_args_value(args, "rendezvous") };
    PN_TRY(pn_args_i64(args, "rank", 0, PN_RANKS_MOST - 1, &out->rank));
    PN_TRY(pn_args_i64(args, "ranks", 1, PN_RANKS_MOST, &out->ranks));
    return PN_OK;
}

/* This program's arguments, as it was started with them; the caller frees *text and *argv. */
static pn_status own_arguments(char **text, char ***argv) {
    size_t bytes;
    int n = 0;
    PN_TRY(pn_file_read("/proc/self/cmdline", 1 << 24, text, &bytes));
    for (size_t i = 0; i < bytes; i++) n += !(*text)[i];
    *argv = calloc((size_t)n + 1, sizeof **argv);
    if (!*argv) free(*text);
    PN_CHECK(*argv, PN_MEMORY, "out of memory");
    char *at = *text;
    for (int i = 0; i < n; i++, at += strlen(at) + 1) (*argv)[i] = at;
    return PN_OK;
}

static pn_status of_exit(int code) {
    return code == 1 ? PN_MISMATCH : code == 2 ? PN_USAGE : code == 75 ? PN_INTERRUPTED : PN_COMM;
}

/* The ranks of this machine, as processes of this program. */
static pn_status start_ranks(int64_t ranks) {
    enum { GRACE = 30 };
    char *text, **argv;
    int code;
    PN_TRY(own_arguments(&text, &argv));
    const pn_status s = pn_spawn((int)ranks, argv, GRACE, &code);
    free(argv);
    free(text);
    PN_TRY(s);
    PN_CHECK(code != 128 + SIGTERM || !pn_interrupted(), PN_INTERRUPTED, "stopped by a signal before the ranks began");
    PN_CHECK(code < 128, PN_COMM, "a rank ended with signal %d", code - 128);
    pn_error_clear(); /* ranks have said why */
    return code ? of_exit(code) : PN_OK;
}

/* Options of the other way to run. */
static pn_status refuse(const pn_args *args, const char *const *names, int n, const char *belongs) {
    for (int i = 0; i < n; i++)
        PN_CHECK(!pn_args_has(args, names[i]), PN_USAGE, "postnas finetune: --%s belongs to %s", names[i], belongs);
    return PN_OK;
}

static pn_status plan(const pn_args *args, pn_config *c) {
    static const char *const of_training[] = { "rank", "rendezvous", "time-limit" };
    pn_finetune_plan_options o = { .measure = pn_args_has(args, "measure"), .devices = 1 };
    PN_TRY(refuse(args, of_training, 3, "training, and --plan trains nothing; leave it out"));
    PN_CHECK(!pn_args_has(args, "ranks") || !pn_args_has(args, "devices"), PN_USAGE,
             "postnas finetune: with --plan --ranks is --devices by another name; leave one out");
    PN_TRY(pn_args_i64(args, "ranks", 1, PN_RANKS_MOST, &o.devices));
    PN_TRY(pn_args_f64(args, "tokens-per-second", 1e-3, 1e12, &o.tokens_per_second));
    PN_TRY(pn_args_i64(args, "devices", 1, 1000000, &o.devices));
    PN_CHECK(!o.measure || o.tokens_per_second == 0, PN_USAGE,
             "postnas finetune: --measure finds the speed that --tokens-per-second gives; leave one out");
    PN_TRY(pn_finetune_plan(c, &o, stdout));
    return PN_OK;
}

static pn_status train(const pn_args *args, pn_config *c) {
    static const char *const of_plan[] = { "measure", "tokens-per-second", "devices" };
    double minutes = 0;
    PN_TRY(refuse(args, of_plan, 3, "--plan"));
    PN_TRY(pn_args_f64(args, "time-limit", 1e-3, 1e7, &minutes));
    pn_launch_request request;
    pn_launch who;
    PN_TRY(read_request(args, &request));
    if (pn_launch_needs_spawn(&request)) {
        PN_TRY(pn_finetune_read_config(c)); /* what is wrong with it is said once */
        return start_ranks(request.ranks);
    }
    PN_TRY(pn_launch_detect(&request, &who));
    pn_interrupt_in(60 * minutes);
    PN_TRY(pn_finetune_run(c, &who));
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    pn_config *c;
    PN_TRY(pn_args_config(args, &c));
    pn_signals_install();
    pn_status s = pn_args_has(args, "plan") ? plan(args, c) : train(args, c);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    PN_FLAG_DEVICE,
    PN_FLAG_PRECISION,
    { .name = "time-limit",
      .value = "MINUTES",
      .help = "save and stop after that time, with the code for a run that can "
              "go on; without it, no limit" },
    { .name = "ranks", .value = "N", .help = "train with N ranks: without --rank, on this machine, started here" },
    { .name = "rank", .value = "I", .help = "which of them this process is, from 0" },
    { .name = "rendezvous",
      .value = "WHERE",
      .help = "where ranks meet: HOST:PORT of rank 0, or file:PATH that all see" },
    { .name = "plan", .help = "say what training would take: steps, memory, time; train and write nothing" },
    { .name = "tokens-per-second",
      .value = "N",
      .help = "with --plan: speed of a device; without it or --measure no time is told" },
    { .name = "measure", .help = "with --plan: time a few steps of every stage here" },
    { .name = "devices",
      .value = "N",
      .help = "with --plan: how many share the work and the optimizer (1); --ranks says the same" },
    PN_FLAG_END,
};

const pn_command pn_cmd_finetune = {
    .name = "finetune",
    .summary = "train a model on a mixture of data, in stages",
    .usage = "--config FILE [--set KEY=VALUE]... [--time-limit MINUTES | --plan]",
    .help =
        "Trains a model directory, the hybrid that a search found, or a new model of random weights, on skills and\n"
        "token shards. A configuration lists stages: each has its tokens, mixture, batches, losses, teacher, learning\n"
        "rate and what trains. The result is <output>/model, a Hugging Face directory.\n"
        "\n"
        "    postnas finetune --config experiments/01-quickstart-base/base.yaml --set output=runs/base\n"
        "    postnas finetune --config configs/quickstart-finetune.yaml --set output=runs/two-stages\n"
        "\n"
        "Ctrl-C, SIGTERM or --time-limit save the state and end with code 75: the same command goes on from there,\n"
        "and ends with the same bits. A step whose loss or gradient is not finite is passed over, a few times\n"
        "(skip_steps); then the run ends with the cause.\n"
        "\n"
        "Many ranks share every batch, the gradients and the optimizer (ZeRO-1): started here with --ranks, by mpirun\n"
        "or srun, or one by one with --rank and --rendezvous. Any number of them goes on where another one stopped:\n"
        "\n"
        "    postnas finetune --ranks 2 --config configs/quickstart-finetune.yaml --set output=runs/two-ranks\n"
        "\n"
        "With --plan nothing is trained: steps, memory of a device by part, and, with a speed, hours and the date\n"
        "it would end. No weights are needed where the configuration gives the shape:\n"
        "\n"
        "    postnas finetune --plan --config configs/jet-nemotron-2b.yaml --tokens-per-second 38000 --devices 256\n",
    .memory = "lower micro_batch_tokens, or set recompute: layers; postnas finetune --plan says what takes how much",
    .flags = flags,
    .run = run,
    .sections = pn_finetune_sections,
    .reads =
        "the model directory or run of a search, tokenizer, teachers and token shards that the configuration names\n"
        "output/state, when it is there: the run goes on\n",
    .writes = "output/model: a Hugging Face directory; output/stages/1 ..: those after the stages before the last\n"
              "output/result.json, report.html: losses, again at every evaluation\n"
              "output/config.yaml, log.jsonl, tensorboard/, state/\n",
    .see = "postnas config finetune --keys: every key\n"
           "postnas data: token shards to train on; postnas list skills: generated documents\n"
           "docs/many-ranks.md: how ranks are started, and what happens when one fails\n"
           "configs/quickstart-finetune.yaml, configs/jet-nemotron-2b.yaml: files to copy\n",
    .read_config = pn_finetune_read_config,
    .config_key = "stages",
};
