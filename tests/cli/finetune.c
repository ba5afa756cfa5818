/* postnas finetune: what is refused, before anything is trained or written. */
#include "cli_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#include <math.h>
#include <string.h>

#include "files.h"
#include "model_load.h"

START_TEST(finetune_checks_its_input_first) {
    static const struct {
        const char *set, *message;
    } cases[] = {
        { "trains=[attn]", "--set: trains: no weight is called \"attn\"" },
        { "stages.0.batch_tokens=100", "stages.0: batch_tokens 100 is not a multiple of "
                                       "sequence_length 256; use 256" },
        { "stages.0.micro_batch=256", "--set: unknown key stages.0.micro_batch; did you mean micro_batch_tokens?" },
        { "stages.0.micro_batch_tokens=768", "stages.0: micro_batch_tokens 768 must be a multiple of sequence_length "
                                             "256 that divides batch_tokens 2048" },
        { "stages.0.kl=1", "stages.0: kl and feature need a teacher" },
        { "stages.0.teacher=base", "stages.0: a teacher without kl or feature teaches nothing" },
        { "stages.0.ce=0",
          "stages.0: every loss has weight 0 at the stage's start: there set ce, kl or feature above" },
        { "stages.0.ce=[0,1]", "stages.0: every loss has weight 0 at the stage's start" },
        { "stages.0.ce=[1,0]", "stages.0: every loss has weight 0 at the stage's end" },
        { "stages.0.kl=[1,2,3]", "kl lists 3 numbers; give one, or the first and the last" },
        { "stages.0.evaluate_tokens=4096", "evaluate_tokens asks for evaluations; say with heldout_tokens" },
        { "hybrid.layers=gated_deltanet", "--set: hybrid.layers: names 1 layers, and the model has 8" },
        { "hybrid.layers=gated_delta", "--set: hybrid.layers: no token mixer is named \"gated_delta\"" },
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

/* ---- the two-stage recipe ---- */

static const char two_stages[] = "--config configs/quickstart-finetune.yaml -t 2 --set stages.0.tokens=20480 "
                                 "--set stages.1.tokens=20480 --set stages.0.heldout_tokens=512 "
                                 "--set stages.1.heldout_tokens=512 --set stages.0.evaluate_tokens=10240 "
                                 "--set stages.1.evaluate_tokens=10240 --set dtype=f32";

static int losses_of(const char *run, double *loss, int most) {
    char path[PN_PATH_MAX], *text;
    size_t n_bytes;
    int n = 0;
    ck_ok(pn_path_join(path, run, "log.jsonl"));
    ck_ok(pn_file_read(path, 1 << 22, &text, &n_bytes));
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        char *end = strchr(line, '\n'), *at;
        if (end) *end = '\0';
        if (strstr(line, "\"point\"") && !strstr(line, "held out") && (at = strstr(line, "\"loss\":")) && n < most)
            loss[n++] = strtod(at + 7 + strspn(at + 7, ": "), NULL);
        if (end) *end = '\n';
    }
    free(text);
    return n;
}

static pn_model *model_at(const char *dir) {
    pn_model *m;
    ck_ok(pn_model_load(dir, PN_F32, &m));
    return m;
}

/* What is frozen has its bits, what trains has others. */
static void ck_trained(const char *dir, bool mlps) {
    pn_model *base = model_at("data/quickstart-base"), *m = model_at(dir);
    int same = 0, changed = 0;
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i], *q = pn_params_find(base->params, p->name);
        if (!q || !pn_tensor_same_shape(p->value, q->value)) continue;
        const bool equal = !memcmp(pn_data(p->value), pn_data(q->value), pn_tensor_bytes(p->value));
        if (strstr(p->name, ".mlp.")) ck_assert_msg(equal == !mlps, "%s", p->name);
        same += equal;
        changed += !equal;
    }
    ck_assert_int_gt(changed, 8);
    ck_assert_int_ge(same, mlps ? 0 : 24);
    pn_model_destroy(&m);
    pn_model_destroy(&base);
}

static const char others_that_change_nothing[] =
    " --set stages.0.recompute=layers --set stages.1.recompute=cheap --set stages.0.memory_gb=3 --set "
    "stages.0.checkpoint_keep=4 --set stages.1.checkpoint_seconds=0.5 --set mfu_tflops=1 --set stages.0.skip_steps=9 "
    "--set ranks.limit_seconds=50";

/* Where a run goes on it keeps what its result depends on: the first key that differs is named. */
static void ck_settings_of_a_run(const char *arguments, const char *run) {
    static const struct {
        const char *set, *message;
    } cases[] = {
        { "--set stages.1.learning_rate=0.5", "--set: stages.1.learning_rate is 0.5, and 2e-3 in that run" },
        { "--set stages.0.name=x", "--set: stages.0.name is x, and distil in that run" },
        { "--set stages.0.micro_batch_tokens=1024", "--set: stages.0.micro_batch_tokens is 1024, and 0 in that run" },
    };
    char all[2048], message[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(all, sizeof all, "%s %s", arguments, cases[i].set);
        program_result r = program(all);
        snprintf(message, sizeof message, "postnas: error: %s holds a run with other settings: %s; set it as it was, ",
                 run, cases[i].message);
        ck_assert_int_eq(r.code, 2);
        holds(r.err, message);
    }
}

/* Stopped by a time limit as often as it takes, it ends like the undisturbed run; its first 20 losses are known. */
START_TEST(two_stages_from_the_base) {
    static const double known[20] = { 4.07206, 3.91383, 3.0367,  2.8993,  2.43295, 2.21661, 2.07216,
                                      2.08689, 1.92428, 1.62053, 3.23875, 3.09396, 2.559,   2.19607,
                                      2.16577, 2.03963, 1.95437, 1.74806, 1.73212, 1.77007 };
    char dir[] = "/tmp/pn_finetune_XXXXXX", arguments[1024], run[64], model[PN_PATH_MAX], again[PN_PATH_MAX];
    double loss[64];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    snprintf(run, sizeof run, "%s/whole", dir);
    snprintf(arguments, sizeof arguments, "finetune -q %s --set output=%s", two_stages, run);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_assert_int_eq(losses_of(run, loss, 64), 20);
    for (int i = 0; i < 20; i++) /* other orders of summation on other processors: 1e-5 was seen */
        ck_assert_msg(fabs(loss[i] - known[i]) < 2e-3 * known[i], "loss %d is %.9g, not %.9g", i, loss[i], known[i]);
    ck_ok(pn_path_join(model, run, "model"));
    ck_trained(model, true);
    ck_ok(pn_path_join(again, run, "report.html"));
    ck_assert(pn_file_exists(again));
    snprintf(arguments, sizeof arguments, "report %s", run);
    ck_assert_int_eq(program(arguments).code, 0);

    /* A run is a model to start from, and says what its base was. */
    snprintf(arguments, sizeof arguments,
             "finetune -q -c experiments/01-quickstart-base/base.yaml --set output=%s/more --set model=%s --set "
             "tokenizer=~ --set random=~ --set 'stages=[{tokens: 4096, batch_tokens: 2048, teacher: base, kl: 1, "
             "mixture: [{skill: text}]}]'",
             dir, run);
    r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);

    snprintf(run, sizeof run, "%s/parts", dir);
    snprintf(arguments, sizeof arguments, "finetune -q %s --set output=%s --time-limit 0.002", two_stages, run);
    int stops = 0;
    for (r = program(arguments); r.code == 75 && stops < 100; r = program(arguments)) {
        holds(r.err, "stopped by the time limit");
        if (++stops == 1) ck_settings_of_a_run(arguments, run);
        if (stops == 4) strcpy(strstr(arguments, " --time-limit 0.002"), others_that_change_nothing);
    }
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_assert_int_gt(stops, 0);
    ck_ok(pn_path_join(again, run, "model"));
    pn_model *a = model_at(model), *b = model_at(again);
    uint64_t hash[2];
    ck_ok(pn_params_hash(a->params, &hash[0]));
    ck_ok(pn_params_hash(b->params, &hash[1]));
    ck_assert(hash[0] == hash[1]);
    pn_model_destroy(&a);
    pn_model_destroy(&b);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(a_stage_trains_what_it_says) {
    char dir[] = "/tmp/pn_finetune_XXXXXX", arguments[1024], run[64], model[PN_PATH_MAX];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    snprintf(run, sizeof run, "%s/run", dir);
    snprintf(arguments, sizeof arguments,
             "finetune -q %s --set output=%s --set 'stages.1.frozen=[\"*.mlp.*\"]' --set stages.0.tokens=4096 --set "
             "stages.1.tokens=4096 --set stages.1.micro_batch_tokens=512 --set stages.0.evaluate_tokens=0 --set "
             "stages.1.evaluate_tokens=0",
             two_stages, run);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    ck_ok(pn_path_join(model, run, "model"));
    ck_trained(model, false);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

/* ---- --plan ---- */

START_TEST(a_plan_needs_no_weights_and_writes_nothing) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    program_result r = program("finetune --plan --config configs/jet-nemotron-2b.yaml --tokens-per-second 38000 "
                               "--devices 256 --set output=/tmp/pn_no_such_run");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "stage 1/2 distil\n  47683 steps of 1048576 tokens, 50.0G in all; 1 pass of 4096 on each of 256 "
                 "devices, rows of 4096\n");
    holds(r.out, "1.96G weights, 809M of them train; teacher 1.54G, 388M of them its own");
    holds(r.out, "stage 2/2 whole\n  166893 steps of 2097152 tokens, 350G in all");
    holds(r.out, "1.96G weights, 1.96G of them train\n");
    holds(r.out, "weights 3.93, moments and masters 0.08 (of 19.65 that the devices share), gradients 0.00, act");
    holds(r.out, "2924.0 GPU-hours; 11 h 25 min on 256 devices");
    holds(r.out, "begun now it ends 20");
    ck_assert(!pn_file_exists("/tmp/pn_no_such_run"));
    r = program("finetune --plan --config configs/jet-nemotron-2b.yaml");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "50.0G in all; 64 passes of 16384, rows of 4096\n");
    holds(r.out, "weights 3.93, moments and masters 19.65, gradients 7.86, activations ");
    r = program("finetune --plan --config configs/jet-nemotron-2b.yaml --devices 24");
    ck_assert_int_eq(r.code, 2);
    holds(r.err,
          "stages.0: batch_tokens 1048576 is not a multiple of 98304, a row of 4096 tokens for each of 24 ranks");
    r = program("finetune --plan --config configs/jet-nemotron-4b.yaml");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "3.96G weights, 3.96G of them train");
    holds(r.out, "No speed is known");
    r = program("finetune --plan --measure --config configs/quickstart-finetune.yaml -q");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "342k weights, 146k of them train; teacher 314k, 117k of them its own");
    holds(r.out, "tokens/s a device, measured here\n");
    ck_assert(!pn_file_exists("runs/quickstart-finetune"));
    r = program("finetune --plan --measure --devices 2 --config configs/quickstart-finetune.yaml -q");
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "tokens/s a device, measured here with the whole optimizer on one device\n");
    r = program("finetune --measure --config configs/quickstart-finetune.yaml");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "--measure belongs to --plan");
    r = program("finetune --config configs/jet-nemotron-2b.yaml");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "models/qwen2.5-1.5b");
}
END_TEST

START_TEST(a_plan_says_what_would_make_it_fit) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    /* Weights, optimizer and gradients alone are more: no pass is small enough. */
    program_result r = program("finetune --plan --config configs/jet-nemotron-2b.yaml --set stages.1.memory_gb=20");
    ck_assert_msg(r.code == 0, "%s", r.err);
    const char *second = strstr(r.out, "stage 2/2");
    ck_assert_ptr_nonnull(second);
    holds(second, " GB more than memory_gb 20: train less of the model (trains, frozen), or train with more ranks");
    ck_assert_ptr_null(strstr(second, "micro_batch_tokens"));
    ck_assert_ptr_null(strstr(second, "recompute"));
    /* Without activations it fits. */
    for (int layers = 0; layers < 2; layers++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments,
                 "finetune --plan --config configs/jet-nemotron-2b.yaml --set stages.0.memory_gb=%d --set "
                 "stages.0.recompute=%s",
                 layers ? 20 : 40, layers ? "layers" : "none");
        r = program(arguments);
        ck_assert_msg(r.code == 0, "%s", r.err);
        holds(r.out, layers ? " GB more than memory_gb 20: " : " GB more than memory_gb 40: ");
        holds(r.out, "set micro_batch_tokens: 4096 or less");
        ck_assert_msg((strstr(r.out, "set recompute: layers") == NULL) == layers, "%s", r.out);
        ck_assert_msg(!strstr(r.out, "teacher_logits"), "feature needs the teacher: %s", r.out);
    }
}
END_TEST

START_TEST(a_plan_takes_ranks_and_refuses_what_is_for_training) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    static const char *const training[] = { "rank 0", "rendezvous file:/tmp/pn_none", "time-limit 5" };
    static program_result said[2];
    for (int i = 0; i < 2; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "finetune --plan --config configs/jet-nemotron-2b.yaml --%s 256",
                 i ? "ranks" : "devices");
        said[i] = program(arguments);
        ck_assert_msg(said[i].code == 0, "%s", said[i].err);
        holds(said[i].out, "on each of 256 devices");
    }
    ck_assert_str_eq(said[0].out, said[1].out);
    for (int i = 0; i < 3; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "finetune --plan --config configs/jet-nemotron-2b.yaml --%s",
                 training[i]);
        const program_result r = program(arguments);
        ck_assert_int_eq(r.code, 2);
        ck_assert_str_eq(r.out, "");
        holds(r.err, "belongs to training, and --plan trains nothing; leave it out");
    }
    const program_result r = program("finetune --plan --config configs/jet-nemotron-2b.yaml --ranks 8 --devices 8");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "--ranks is --devices by another name");
}
END_TEST

START_TEST(passes_that_do_not_divide_are_told_one_that_does) {
    ck_assert_int_eq(chdir(POSTNAS_SOURCE_DIR), 0);
    program_result r = program("finetune --plan --config configs/quickstart-finetune.yaml --set "
                               "stages.0.micro_batch_tokens=1536");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "that divides batch_tokens 2048; use 1024");
    r = program("finetune --plan --config configs/quickstart-finetune.yaml --set stages.0.batch_tokens=3072 --set "
                "stages.0.micro_batch_tokens=1024 --devices 2");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "does not divide the 1536 tokens that each of 2 ranks has of a batch; use 768");
}
END_TEST

TEST_MAIN("finetune", two_stages_from_the_base, a_stage_trains_what_it_says, a_plan_needs_no_weights_and_writes_nothing,
          a_plan_says_what_would_make_it_fit, a_plan_takes_ranks_and_refuses_what_is_for_training,
          passes_that_do_not_divide_are_told_one_that_does, finetune_checks_its_input_first,
          a_full_disk_is_an_error_and_leaves_no_partial_state)
