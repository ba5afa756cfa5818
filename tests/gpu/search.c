/* postnas search on the GPU, from end to end on the quickstart's base with small budgets: the placement of the CPU, the
 * same bits every time, and after being killed. */
#include "gpu.h"

#include "cli/cli_fixture.h"
#include "files.h"
#include "io/io_fixture.h"
#include "json.h"
#include "program.h"

#define ARGUMENTS                                                                                                      \
    "search --quiet --config %s/configs/quickstart.yaml --set model=%s/data/quickstart-base "                          \
    "--set supernet.tokens=65536 --set distill.tokens=16384 --set compare.exhaustive=false --set heldout.samples=1 "

/* The search into directory `name`; before: what a shell puts in front of the program. Its exit code. */
static int search(const char *before, const char *name, const char *device) {
    static char command[4096];
    char dir[256];
    strcpy(dir, scratch(name));
    int n = snprintf(command, sizeof command, "%s %s " ARGUMENTS "%s --set output=%s >%s.out 2>&1", before,
                     program_path(), source(), source(), device, dir, dir);
    ck_assert(n > 0 && (size_t)n < sizeof command);
    int status = system(command);
    ck_assert_int_ne(status, -1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run(const char *name, const char *device) {
    char path[512], *said;
    size_t n;
    int code = search("", name, device);
    snprintf(path, sizeof path, "%s.out", scratch(name));
    ck_ok(pn_file_read(path, 1 << 20, &said, &n));
    ck_assert_msg(code == 0, "%s: exit code %d: %s", name, code, said);
    free(said);
}

static void read_result(const char *name, char **text) {
    char path[512];
    size_t n;
    snprintf(path, sizeof path, "%s/result.json", scratch(name));
    ck_ok(pn_file_read(path, 1 << 24, text, &n));
}

static void ck_same_result(const char *a, const char *b) {
    char *x, *y;
    read_result(a, &x);
    read_result(b, &y);
    ck_assert_str_eq(x, y);
    free(x);
    free(y);
}

static double number(const json_t *row, const char *metric) {
    char path[128];
    double value;
    snprintf(path, sizeof path, "tasks.%s.mean", metric);
    ck_ok(pn_json_get_f64(row, "result.json", path, -1e9, 1e9, &value));
    return value;
}

/* The teacher trains nothing: its row is the CPU's but for rounding. Of the others the placement counts. */
static void ck_like_the_cpu(const char *name, double tolerance) {
    char path[512];
    json_t *cpu, *gpu;
    snprintf(path, sizeof path, "%s/result.json", scratch("cpu"));
    ck_ok(pn_json_load(path, 1 << 24, &cpu));
    snprintf(path, sizeof path, "%s/result.json", scratch(name));
    ck_ok(pn_json_load(path, 1 << 24, &gpu));
    ck_assert_str_eq(json_string_value(json_object_get(gpu, "backend")), "cuda");
    ck_assert_msg(json_equal(json_object_get(cpu, "layers"), json_object_get(gpu, "layers")), "%s chose %s, the CPU %s",
                  name, json_string_value(json_object_get(gpu, "path")),
                  json_string_value(json_object_get(cpu, "path")));
    const json_t *a = json_array_get(json_object_get(cpu, "table"), 0);
    const json_t *b = json_array_get(json_object_get(gpu, "table"), 0);
    static const char *const metrics[] = { "recall.nll", "facts.nll", "text.nll" };
    for (int i = 0; i < 3; i++)
        ck_assert_double_eq_tol(number(b, metrics[i]), number(a, metrics[i]), tolerance * (1 + number(a, metrics[i])));
    json_decref(cpu);
    json_decref(gpu);
}

START_TEST(places_as_on_the_cpu) {
    ck_need_gpu();
    run("cpu", "");
    run("f32", "--device cuda --precision f32");
    run("bf16", "--device cuda");
    ck_like_the_cpu("f32", 1e-4);
    ck_like_the_cpu("bf16", 2e-2);
}
END_TEST

START_TEST(has_the_same_bits_killed_or_not) {
    ck_need_gpu();
    static const char *const kill[] = { "timeout -s KILL 1.2", "timeout -s KILL 1.8", "timeout -s KILL 2.4" };
    run("whole", "--device cuda");
    for (int i = 0; i < 3; i++) (void)search(kill[i], "killed", "--device cuda");
    run("killed", "--device cuda");
    ck_same_result("whole", "killed");
}
END_TEST

/* What a later stage would need is asked for before the run begins. */
START_TEST(memory_of_every_stage_is_checked_first) {
    ck_need_gpu();
    static const char *const late[] = {
        "--set 'stages=[placement, block]' --set 'block={tokens: 2048, batch_tokens: 1024, memory_gb: 0.1, "
        "candidates: [{ type: gla }]}'",
        "--set 'stages=[placement, shape]' --set 'shape={tokens: 2048, batch_tokens: 1024, memory_gb: 0.1, "
        "candidates: [{ type: gated_deltanet, num_heads: 1 }]}'"
    };
    for (int i = 0; i < 2; i++) {
        char settings[512], path[512], *said;
        size_t n;
        snprintf(settings, sizeof settings, "--device cuda %s", late[i]);
        ck_assert_int_eq(search("", "late", settings), 2);
        snprintf(path, sizeof path, "%s.out", scratch("late"));
        ck_ok(pn_file_read(path, 1 << 20, &said, &n));
        holds(said, i ? "shape: training needs " : "block: training needs ");
        holds(said, "within memory_gb 0.1: ");
        ck_assert(!pn_file_exists(scratch("late")));
        free(said);
    }
}
END_TEST

START_TEST(a_plan_knows_this_gpu) {
    ck_need_gpu();
    char arguments[2048];
    snprintf(arguments, sizeof arguments,
             "finetune --plan --config %s/configs/jet-nemotron-2b.yaml --tokens-per-second 38000 --set "
             "stages.0.memory_gb=0 --set stages.0.recompute=none --set stages.0.micro_batch_tokens=131072",
             source());
    const program_result r = program(arguments);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, " GB of this GPU (");
    holds(r.out, "set recompute: layers");
    if (strstr(r.out, "(NVIDIA H")) holds(r.out, "; MFU ");
}
END_TEST

TEST_MAIN("search", places_as_on_the_cpu, has_the_same_bits_killed_or_not, memory_of_every_stage_is_checked_first,
          a_plan_knows_this_gpu)
