/* A run whose newest state is damaged, or whose disk is full for a while, ends as the undisturbed one. */
#include "supernet/supernet_fixture.h"

#include <unistd.h>

#include "files.h"
#include "full_disk.h"
#include "log.h"

enum { STEPS = 12 };

static char top[32], dir[64], messages[64];

static void directories(void) {
    strcpy(top, "/tmp/pn_saved_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/state", top);
    snprintf(messages, sizeof messages, "%s/log.jsonl", top);
    ck_ok(pn_log_open(messages));
}

static bool said(const char *text) {
    char *log;
    size_t n_bytes;
    ck_ok(pn_file_read(messages, 1 << 22, &log, &n_bytes));
    const bool found = strstr(log, text);
    free(log);
    return found;
}

/* Changes a byte in the middle of a file below the state. */
static void damage(const char *name) {
    char path[160], *bytes;
    size_t n_bytes;
    ck_ok(pn_path_join(path, dir, name));
    ck_ok(pn_file_read(path, 1 << 26, &bytes, &n_bytes));
    bytes[n_bytes / 2] ^= 1;
    ck_ok(pn_file_write(path, bytes, n_bytes));
    free(bytes);
}

/* Trains a fresh model; the hash of its weights. */
static pn_status run(pn_train_job job, double checkpoint_seconds, uint64_t *hash) {
    pn_train_options o = options(256 * STEPS);
    pn_model *m = tiny_base();
    o.loss = pn_loss_constant(&(pn_loss_weights){ .ce = 1, .temperature = 1 });
    o.checkpoint_seconds = checkpoint_seconds;
    pn_params_train(m->params, "*", true);
    job.name = "base";
    job.options = &o;
    job.mixture = mixture;
    job.student = m;
    const pn_status s = pn_train_run(&job, NULL);
    ck_ok(pn_params_hash(m->params, hash));
    pn_model_destroy(&m);
    return s;
}

/* For some steps no file grows beyond 20,000 bytes, which the log does not and a state does. */
static pn_status fill_disk(void *ctx, int64_t step, int64_t point) {
    (void)ctx, (void)point;
    let_files_grow(step >= 4 && step < 8 ? 20000 : RLIM_INFINITY);
    return PN_OK;
}

START_TEST(a_disk_that_is_full_for_a_while_stops_nothing) {
    setup();
    directories();
    uint64_t whole, disturbed, again;
    ck_ok(run((pn_train_job){ 0 }, 0, &whole));
    ck_ok(run((pn_train_job){ .state_dir = dir, .after = fill_disk }, 1e-9, &disturbed));
    ck_assert(whole == disturbed);
    ck_assert(said("base: a checkpoint was not written: "));
    ck_assert(said("step-6.partial/state-0-of-1.h5: "));
    ck_assert(!said("step-10.partial/state-0-of-1.h5: "));
    ck_ok(run((pn_train_job){ .state_dir = dir, .finished = true }, 0, &again)); /* all of it is there */
    ck_assert(whole == again);
    pn_log_close();
    ck_ok(pn_remove_tree(top));
    teardown();
}
END_TEST

START_TEST(a_run_goes_on_from_the_state_before_a_damaged_one) {
    setup();
    directories();
    uint64_t whole, hash;
    ck_ok(run((pn_train_job){ 0 }, 0, &whole));
    ck_assert_int_eq(run((pn_train_job){ .state_dir = dir, .stop_after = 3 }, 0, &hash), PN_INTERRUPTED);
    ck_assert_int_eq(run((pn_train_job){ .state_dir = dir, .stop_after = 4 }, 0, &hash), PN_INTERRUPTED);
    damage("step-7/state-0-of-1.h5");
    ck_ok(run((pn_train_job){ .state_dir = dir }, 0, &hash));
    ck_assert(whole == hash);
    ck_assert(said("step-7/state-0-of-1.h5: changed or cut short since it was written; going back to step 3"));
    ck_assert(said("base: resuming at step 3 of 12"));
    pn_log_close();
    ck_ok(pn_remove_tree(top));
    teardown();
}
END_TEST

/* A layer that was finished is not any more: it learns the rest again. */
START_TEST(a_finished_layer_may_be_damaged) {
    setup();
    directories();
    pn_supernet_config c = one_phase(PN_SUPERNET_LOCAL, 256 * STEPS);
    c.phase[0].train.checkpoint_seconds = 1e-9;
    pn_model *whole = tiny_supernet(), *again = tiny_supernet();
    pn_supernet_result first = { 0 }, second = { 0 };
    ck_ok(train(whole, &c, dir, 0, &first));
    damage("layer-1/step-12/state-0-of-1.h5");
    ck_ok(train(again, &c, dir, 0, &second));
    ck_assert(same_weights(whole, again));
    ck_assert_mem_eq(first.error, second.error, (size_t)first.n_errors * sizeof *first.error);
    ck_assert(said("layer-1/step-12/state-0-of-1.h5: changed or cut short since it was written; going back to step "));
    pn_supernet_result_free(&first);
    pn_supernet_result_free(&second);
    pn_model_destroy(&whole);
    pn_model_destroy(&again);
    pn_log_close();
    ck_ok(pn_remove_tree(top));
    teardown();
}
END_TEST

TEST_MAIN("checkpoints", a_disk_that_is_full_for_a_while_stops_nothing,
          a_run_goes_on_from_the_state_before_a_damaged_one, a_finished_layer_may_be_damaged)
