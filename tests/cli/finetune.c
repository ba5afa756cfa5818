/* postnas finetune: what is refused, before anything is trained or written. */
#include "cli_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#include "files.h"

START_TEST(finetune_checks_its_input_first) {
    static const struct {
        const char *set, *message;
    } cases[] = {
        { "trains=[attn]", "--set: trains: no weight is called \"attn\"" },
        { "stages.0.batch_tokens=100", "stages.0: batch_tokens 100 is not a multiple of "
                                       "sequence_length 256; use 256" },
        { "random.num_attention_heads=3", "random: hidden_size 64 is not a "
                                          "multiple of num_attention_heads 3; give head_dim" },
    };
    char dir[] = "/tmp/pn_finetune_XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    char arguments[512], run[64];
    snprintf(run, sizeof run, "%s/run", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(arguments, sizeof arguments,
                 "finetune -q --config experiments/01-quickstart-base/base.yaml --set output=%s --set %s", run,
                 cases[i].set);
        program_result r = program(arguments);
        ck_assert_int_eq(r.code, 2);
        holds(r.err, cases[i].message);
        ck_assert_str_eq(r.out, "");
        ck_assert(!pn_file_exists(run));
    }
    ck_ok(pn_remove_tree(dir));
}
END_TEST

/* No file may grow beyond 32 KiB: the checkpoint does not fit, and the exit is an error, not a crash. */
START_TEST(a_full_disk_is_an_error_and_leaves_no_partial_state) {
    char dir[] = "/tmp/pn_finetune_XXXXXX", arguments[768], partial[128];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    struct rlimit most = { 1 << 15, 1 << 15 };
    signal(SIGXFSZ, SIG_IGN); /* writes fail instead of killing */
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &most), 0);
    snprintf(arguments, sizeof arguments,
             "finetune -q --config experiments/01-quickstart-base/base.yaml --set output=%s/run --set "
             "stages.0.tokens=256 --set stages.0.batch_tokens=256",
             dir);
    program_result r = program(arguments);
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "step-1.partial/state-0-of-1.h5: ");
    holds(r.err, "is the disk full?");
    snprintf(partial, sizeof partial, "%s/run/state/stage-1/step-1.partial", dir);
    ck_assert(!pn_file_exists(partial));
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("finetune", finetune_checks_its_input_first, a_full_disk_is_an_error_and_leaves_no_partial_state)
