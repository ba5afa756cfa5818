/* postnas finetune and what goes with it on the GPU, from end to end on the quickstart's base: the CPU's losses, the
 * same bits when it is stopped and goes on, and a model for all other commands. */
#include "gpu.h"

#include <math.h>

#include "cli/cli_fixture.h"
#include "files.h"
#include "io/io_fixture.h"
#include "program.h"

#define STAGE(i)                                                                                                       \
    "--set stages." i ".tokens=20480 --set stages." i ".heldout_tokens=512 --set stages." i ".evaluate_tokens=0 "      \
    "--set stages." i ".checkpoint_seconds=0.05 "
#define ARGUMENTS                                                                                                      \
    "finetune --quiet --config %s/configs/quickstart-finetune.yaml --set model=%s/data/quickstart-base " STAGE("0")    \
        STAGE("1") "--set output=%s "

enum { STEPS = 20 };

static program_result train(const char *name, const char *more) {
    static char arguments[4096];
    snprintf(arguments, sizeof arguments, ARGUMENTS "%s", source(), source(), scratch(name), more);
    return program(arguments);
}

static void run(const char *name, const char *more) {
    program_result r = train(name, more);
    ck_assert_msg(r.code == 0, "%s: exit code %d: %s", name, r.code, r.err);
}

/* Of both stages, in the order of steps. */
static void losses_of(const char *name, double loss[STEPS]) {
    char path[512], *text;
    size_t n_bytes;
    int n = 0;
    snprintf(path, sizeof path, "%s/log.jsonl", scratch(name));
    ck_ok(pn_file_read(path, 1 << 22, &text, &n_bytes));
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        const char *at = strstr(line, "\"gradient_norm\"") ? strstr(line, "\"loss\": ") : NULL;
        if (at && n < STEPS) loss[n++] = atof(at + strlen("\"loss\": "));
    }
    ck_assert_int_eq(n, STEPS);
    free(text);
}

static void ck_near(const char *name, double tolerance) {
    double cpu[STEPS], gpu[STEPS];
    losses_of("cpu", cpu);
    losses_of(name, gpu);
    for (int i = 0; i < STEPS; i++)
        ck_assert_msg(fabs(gpu[i] - cpu[i]) <= tolerance * cpu[i], "%s: loss %d is %.9g, on the CPU %.9g", name, i,
                      gpu[i], cpu[i]);
}

static void ck_same_model(const char *a, const char *b) {
    char command[1024];
    snprintf(command, sizeof command, "cmp %s/model/model.safetensors %s/model/model.safetensors", scratch(a),
             scratch(b));
    ck_assert_int_eq(system(command), 0);
}

START_TEST(trains_as_the_cpu_does) {
    ck_need_gpu();
    run("cpu", "");
    run("f32", "--device cuda --precision f32");
    run("bf16", "--device cuda");
    ck_near("f32", 1e-3);
    ck_near("bf16", 5e-2);
}
END_TEST

START_TEST(stopped_it_goes_on_with_the_same_bits) {
    ck_need_gpu();
    int stops = 0;
    run("whole", "--device cuda");
    program_result r = train("parts", "--device cuda --time-limit 0.002");
    while (r.code == 75 && stops < 100)
        r = ++stops < 4 ? train("parts", "--device cuda --time-limit 0.002") : train("parts", "--device cuda");
    ck_assert_msg(r.code == 0, "exit code %d: %s", r.code, r.err);
    ck_assert_int_gt(stops, 0);
    ck_same_model("whole", "parts");
}
END_TEST

START_TEST(too_little_memory_is_said_first) {
    ck_need_gpu();
    program_result r = train("none", "--device cuda --set stages.0.memory_gb=0.001");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "memory_gb");
    ck_assert(!pn_file_exists(scratch("none")));
}
END_TEST

/* Rows of all words teach as the teacher does; the model that comes of it is read, measured and written again. */
START_TEST(its_model_serves_the_other_commands) {
    static const char *const after[] = {
        "eval %s/rows/model --quiet --config %s/configs/quickstart.yaml --device cuda",
        "generate %s/rows/model --quiet --device cuda --tokens 8 --prompt a",
        "export %s/rows %s/exported --quiet --check",
    };
    static char arguments[4096];
    double loop[STEPS], rows[STEPS];
    char top[256];
    ck_need_gpu();
    strcpy(top, scratch("."));
    snprintf(
        arguments, sizeof arguments,
        "teach --quiet --config %s/configs/quickstart-finetune.yaml --set model=%s/data/quickstart-base " STAGE(
            "0") "--stage distil --top 259 --output %s/taught --device cuda --precision f32 --set stages.0.feature=0",
        source(), source(), top);
    program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "teach: exit code %d: %s", r.code, r.err);
    run("loop", "--device cuda --precision f32 --set stages.0.feature=0");
    snprintf(arguments, sizeof arguments,
             "--device cuda --precision f32 --set stages.0.feature=0 --set stages.0.teacher_logits=%s/taught", top);
    run("rows", arguments);
    losses_of("loop", loop);
    losses_of("rows", rows);
    for (int i = 0; i < STEPS / 2; i++)
        ck_assert_msg(fabs(loop[i] - rows[i]) <= 1e-3 * loop[i], "loss %d is %.9g with the teacher, %.9g with its rows",
                      i, loop[i], rows[i]);
    for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
        snprintf(arguments, sizeof arguments, after[i], top, i == 2 ? top : source());
        r = program(arguments);
        ck_assert_msg(r.code == 0, "%s: exit code %d: %s", arguments, r.code, r.err);
    }
}
END_TEST

TEST_MAIN("finetune", trains_as_the_cpu_does, stopped_it_goes_on_with_the_same_bits, too_little_memory_is_said_first,
          its_model_serves_the_other_commands)
