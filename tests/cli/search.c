/* postnas search: what is refused, before anything is trained or written. */
#include "cli_fixture.h"

#include "files.h"

#define CONFIG     "configs/quickstart.yaml"
#define QUICKSTART "search -q --config " CONFIG " --set output=%s/run --set %s"

static char dir[] = "/tmp/pn_search_XXXXXX";

static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
}

/* The number of the line that is `section`. */
static int line_of(const char *section) {
    FILE *f = fopen(CONFIG, "re");
    ck_assert_ptr_nonnull(f);
    char line[512];
    int n = 0;
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) found = !strcmp(line, section), n++;
    fclose(f);
    ck_assert(found);
    return n;
}

/* Every setting contradicts the model, the data or the others. */
START_TEST(contradictions_are_found_before_anything_is_written) {
    static const struct {
        const char *set, *message;
        const char *section; /* of the configuration, whose line the message starts with; NULL: it does not */
    } cases[] = {
        { "search.limits.full_attention=9", "search.limits: 9 full_attention do not fit 8 layers; lower it", NULL },
        { "search.limits.none=7", "search.limits: 2 full_attention and 7 none do not fit 8 layers; lower one of them",
          NULL },
        { "search.objective=speech.nll", "--set: search.objective: no task is named speech", NULL },
        { "'search.objective=recall.nll + 0.5 text.accuracy'",
          "--set: search.objective: task text measures nll and perplexity, not accuracy", NULL },
        { "'search.objective=recall.nll + -1 text.nll'",
          "--set: search.objective: weight -1 must be a positive number; whether more is better is known from the "
          "metric",
          NULL },
        { "search.objectives.full_attention=recal.nll",
          "--set: search.objectives.full_attention: no task is named recal", NULL },
        { "search.strategy=bream", "--set: search.strategy: no strategy named bream; see `postnas list searches`",
          NULL },
        { "search.strategy=gates",
          "strategy gates needs the gates of a super-network; train one with supernet.mode: gated, or search "
          "without gates",
          NULL },
        { "search.beam.order=gates --set search.beam.expand=3",
          "search.beam.order gates needs the gates of a super-network; train one with supernet.mode: gated, or search "
          "without gates",
          NULL },
        { "search.strategy=random --set search.random.samples=29",
          "search.random.samples 29 is more than the 28 placements there are; lower it, or use exhaustive", NULL },
        { "search.strategy=greedy --set search.greedy.expand=1",
          "search.greedy.expand 1 leaves too few layers for limits.full_attention 2; raise it, or use 0 for all",
          NULL },
        { "search.beam.expand=1",
          "search.beam.expand 1 leaves too few layers for limits.full_attention 2; raise it, or use 0 for all", NULL },
        { "search.exhaustive.max_paths=5",
          "exhaustive search has 28 paths, more than max_paths 5; use beam (and compare.exhaustive: false), or raise "
          "search.exhaustive.max_paths",
          NULL },
        { "supernet.tokens=0",
          "supernet: tokens 0 is less than one step of batch_tokens 2048; raise tokens or lower batch_tokens",
          "supernet:\n" },
        { "distill.batch_tokens=1000", "distill: batch_tokens 1000 is not a multiple of sequence_length 256; use 1024",
          "distill:\n" },
        { "'supernet.blocks=[{type: jet}, {type: jet}]'",
          "--set: supernet.blocks: lists 2 blocks; name one, the linear block whose placement is searched", NULL },
        { "supernet.blocks.0.expand_v=0.33",
          "gated_deltanet: head_dim 16 times expand_v 0.33 is 5.28, which is no "
          "whole value dimension; choose an expand_v that makes it one",
          NULL },
        { "search.tasks.0.kind=multiple_choice",
          "task recall: documents of skill recall hold no answers with choices; "
          "use another skill or kind, or longer documents",
          NULL },
        { "heldout.sample=3", "--set: unknown key heldout.sample; did you mean samples? Known keys: samples", NULL },
    };
    setup();
    char arguments[512], run[64], message[512];
    snprintf(run, sizeof run, "%s/run", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(arguments, sizeof arguments, QUICKSTART, dir, cases[i].set);
        if (cases[i].section)
            snprintf(message, sizeof message, CONFIG ":%d: %s", line_of(cases[i].section), cases[i].message);
        refuses(arguments, 2, cases[i].section ? message : cases[i].message);
        ck_assert(!pn_file_exists(run));
    }
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("search", contradictions_are_found_before_anything_is_written)
