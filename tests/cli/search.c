/* postnas search: what is refused, before anything is trained or written. */
#include "cli_fixture.h"

#include "files.h"

#define QUICKSTART "search -q --config configs/quickstart.yaml --set output=%s/run --set %s"

static char dir[] = "/tmp/pn_search_XXXXXX";

static void setup(void) {
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
}

/* Every setting contradicts the model, the data or the others. */
START_TEST(contradictions_are_found_before_anything_is_written) {
    static const struct {
        const char *set, *message;
    } cases[] = {
        { "search.limits.full_attention=9",
          "search.limits: 9 full_attention and 0 none do not fit 8 layers; lower one of them" },
        { "search.beam.expand=1",
          "search.beam.expand 1 leaves too few layers for limits.full_attention 2; raise it, or use 0 for all" },
        { "search.exhaustive.max_paths=5",
          "exhaustive search has 28 paths, more than max_paths 5; use beam (and compare.exhaustive: false), or raise "
          "search.exhaustive.max_paths" },
        { "supernet.tokens=0", "configs/quickstart.yaml:15: supernet: tokens 0 is less than one step of batch_tokens "
                               "2048; raise tokens or lower batch_tokens" },
        { "distill.batch_tokens=1000", "configs/quickstart.yaml:32: distill: batch_tokens 1000 is not a multiple of "
                                       "sequence_length 256; use 1024" },
        { "'supernet.blocks=[{type: jet}, {type: jet}]'",
          "--set: supernet.blocks: lists 2 blocks; name one, the linear block whose placement is searched" },
        { "supernet.blocks.0.expand_v=0.33", "gated_deltanet: head_dim 16 times expand_v 0.33 is 5.28, which is no "
                                             "whole value dimension; choose an expand_v that makes it one" },
        { "search.tasks.0.kind=multiple_choice", "task recall: documents of skill recall hold no answers with choices; "
                                                 "use another skill or kind, or longer documents" },
        { "heldout.sample=3", "--set: unknown key heldout.sample; did you mean samples? Known keys: samples" },
    };
    setup();
    char arguments[512], run[64];
    snprintf(run, sizeof run, "%s/run", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(arguments, sizeof arguments, QUICKSTART, dir, cases[i].set);
        refuses(arguments, 2, cases[i].message);
        ck_assert(!pn_file_exists(run));
    }
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("search", contradictions_are_found_before_anything_is_written)
