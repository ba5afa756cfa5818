/* The program's frame: commands, options, help, exit codes; and the commands that need no machinery. */
#include "cli_fixture.h"
#include <jansson.h>

#include "args.h"
#include "files.h"

START_TEST(help_lists_every_command) {
    program_result r = program("--help");
    ck_assert_int_eq(r.code, 0);
    ck_assert_str_eq(r.err, "");
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++) {
        holds(r.out, commands[i]->name);
        holds(r.out, commands[i]->summary);
    }
    ck_assert_str_eq(program("-h").out, r.out);
    ck_assert_str_eq(program("help").out, r.out);
}
END_TEST

/* Every command teaches: summary, usage, an example, each option. */
START_TEST(every_command_explains_itself) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++) {
        const pn_command *c = commands[i];
        char arguments[128], usage[512], example[128];
        snprintf(arguments, sizeof arguments, "%s --help", c->name);
        snprintf(usage, sizeof usage, "usage: postnas %s %s\n", c->name, c->usage);
        snprintf(example, sizeof example, "    postnas %s", c->name);
        program_result r = program(arguments);
        ck_assert_int_eq(r.code, 0);
        holds(r.out, c->summary);
        holds(r.out, usage);
        holds(r.out, example);
        holds(r.out, "--threads N");
        for (const pn_flag *f = c->flags; f && f->name; f++) {
            holds(r.out, f->name);
            holds(r.out, f->help);
        }
    }
}
END_TEST

START_TEST(version) {
    program_result r = program("--version");
    int major, minor, patch;
    ck_assert_int_eq(r.code, 0);
    ck_assert_int_eq(sscanf(r.out, "postnas %d.%d.%d\n", &major, &minor, &patch), 3);
}
END_TEST

START_TEST(wrong_words) {
    refuses("", 2, "no command given; `postnas --help` lists them");
    refuses("confg", 2, "unknown command confg; did you mean config? see `postnas --help`");
    refuses("zzzzzzzz", 2, "unknown command zzzzzzzz; see `postnas --help`");
    refuses("--prnt", 2, "unknown option --prnt; see `postnas --help`");
    refuses("config --prnt", 2,
            "postnas config: unknown option --prnt; did you mean --print? see `postnas config --help`");
    refuses("config --prnt=3 --set a=1", 2,
            "postnas config: unknown option --prnt; did you mean --print? see `postnas config --help`");
    refuses("config -pz", 2, "postnas config: unknown option -z; see `postnas config --help`");
    refuses("config --print --config", 2, "postnas config: --config takes a value: FILE");
    refuses("config -p -c", 2, "postnas config: --config takes a value: FILE");
    refuses("config --print=yes", 2, "postnas config: --print takes no value");
    refuses("config finetune --verb --print x", 2,
            "postnas config: unexpected word \"x\"; usage: postnas config [COMMAND] --print|--keys [--config FILE] "
            "[--set KEY=VALUE]...");
    refuses("list --q=1", 2, "postnas list: --quiet takes no value");
    refuses("list --threads=0", 2, "postnas list: --threads is 0; it must lie in 1 .. 4096");
    refuses("list --threads=many", 2, "postnas list: --threads is \"many\"; it must be a whole number");
    refuses("list blks", 2, "postnas list: nothing is registered as blks; did you mean blocks? see `postnas list`");
    refuses("list blocks atention", 2,
            "postnas list blocks: there is no atention; did you mean attention? see `postnas list blocks`");
    refuses("config", 2, "postnas config: nothing to do; give --print or --keys");
    refuses("config --keys", 2, "postnas config: --keys needs the command whose keys to explain");
    refuses("list >/dev/full", 2, "standard output: cannot write: No space left on device");
}
END_TEST

START_TEST(verbose_adds_the_traceback) {
    program_result r = program("config --print --config /nowhere/x.yaml");
    ck_assert_int_eq(r.code, 2);
    ck_assert_ptr_null(strstr(r.err, "  at "));
    r = program("config -v --print --config /nowhere/x.yaml");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "postnas: error: /nowhere/x.yaml: cannot open");
    holds(r.err, "  at args.c:");
}
END_TEST

START_TEST(list_shows_the_registries) {
    program_result r = program("list");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "\nblocks\n");
    holds(r.out, "linear/ref");
    r = program("list blocks attention");
    holds(r.out, "attention: ");
    json_t *root = json_loads(program("list --json").out, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(root);
    int n;
    pn_commands(&n);
    ck_assert_uint_eq(json_array_size(json_object_get(root, "commands")), (size_t)n);
    ck_assert_uint_gt(json_array_size(json_object_get(root, "blocks")), 0);
    json_decref(root);
}
END_TEST

/* Options may stand anywhere, be shortened, be joined to their value, and be repeated; -- ends them. */
START_TEST(argument_forms) {
    static const pn_flag flags[] = {
        PN_FLAG_CONFIG, PN_FLAG_SET, { .name = "rate", .value = "X", .help = "a number" }, PN_FLAG_JSON, PN_FLAG_END
    };
    static const pn_command command = { .name = "try", .usage = "A B", .flags = flags, .max_operands = -1 };
    char words[][16] = { "try", "one", "--set", "a=1", "-sb=2", "--rate=0.25", "-qv", "--js", "two", "--", "-c" };
    char *argv[12] = { NULL };
    for (int i = 0; i < 11; i++) argv[i] = words[i];
    pn_args a;
    ck_ok(pn_args_parse(&command, 11, argv, &a));
    ck_assert_int_eq(a.n_operands, 3);
    ck_assert_str_eq(a.operand[0], "one");
    ck_assert_str_eq(a.operand[1], "two");
    ck_assert_str_eq(a.operand[2], "-c");
    ck_assert_str_eq(pn_args_nth(&a, "set", 0), "a=1");
    ck_assert_str_eq(pn_args_nth(&a, "set", 1), "b=2");
    ck_assert_ptr_null(pn_args_nth(&a, "set", 2));
    ck_assert_str_eq(pn_args_value(&a, "set"), "b=2");
    ck_assert_ptr_null(pn_args_value(&a, "config"));
    ck_assert(pn_args_has(&a, "json") && pn_args_has(&a, "quiet") && pn_args_has(&a, "verbose"));
    ck_assert(!pn_args_has(&a, "help"));
    double rate = 0, other = 7;
    int64_t threads = 5;
    ck_ok(pn_args_f64(&a, "rate", 0, 1, &rate));
    ck_assert_double_eq(rate, 0.25);
    ck_ok(pn_args_i64(&a, "threads", 1, 9, &threads));
    ck_assert_int_eq(threads, 5);
    ck_assert_int_eq(pn_args_f64(&a, "rate", 0.5, 1, &other), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), "postnas try: --rate is 0.25; it must lie in 0.5 .. 1");
    ck_assert_double_eq(other, 7);
    pn_config *c;
    ck_ok(pn_args_config(&a, &c));
    ck_assert(pn_config_has(c, "a") && pn_config_has(c, "b"));
    pn_config_destroy(&c);
    pn_args_free(&a);

    static const pn_flag alike[] = { { .name = "rate", .value = "X" }, { .name = "range", .value = "X" }, PN_FLAG_END };
    static const pn_command unclear = { .name = "try", .usage = "A", .flags = alike, .min_operands = 1 };
    char shortened[] = "--ra=1", name[] = "try";
    ck_assert_int_eq(pn_args_parse(&unclear, 2, (char *[]){ name, shortened, NULL }, &a), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), "postnas try: --ra may mean --rate or --range; write more of it");
    ck_assert_int_eq(pn_args_parse(&unclear, 1, (char *[]){ name, NULL }, &a), PN_USAGE);
    ck_assert_str_eq(pn_error_message(), "postnas try: too few words; usage: postnas try A");
}
END_TEST

START_TEST(config_prints_origins) {
    char dir[] = "/tmp/postnas-cli-XXXXXX", path[PN_PATH_MAX], arguments[PN_PATH_MAX + 128], line[PN_PATH_MAX + 64];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_path_join(path, dir, "a.yaml"));
    const char *text = "# a comment\nseed: 3\n";
    ck_ok(pn_file_write(path, text, strlen(text)));
    snprintf(arguments, sizeof arguments, "config --print -c %s", path);
    snprintf(line, sizeof line, "seed: 3  # %s:2\n", path);
    program_result r = program(arguments);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, line);
    snprintf(arguments, sizeof arguments, "config --print -c %s --set seed=4", path);
    r = program(arguments);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "seed: 4  # --set\n");
    text = "a: 1\na: 2\n";
    ck_ok(pn_file_write(path, text, strlen(text)));
    snprintf(line, sizeof line, "%s:2: key a stands twice; remove one", path);
    refuses(arguments, 2, line);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

/* As the command would read it: defaults filled in, and what is printed reads the same. */
START_TEST(config_of_a_command) {
    const char *file = "-c " POSTNAS_SOURCE_DIR "/experiments/01-quickstart-base/base.yaml";
    char dir[] = "/tmp/postnas-cli-XXXXXX", path[PN_PATH_MAX], arguments[PN_PATH_MAX + 128];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_path_join(path, dir, "printed.yaml"));
    snprintf(arguments, sizeof arguments, "config finetune --print %s -s output=elsewhere", file);
    program_result r = program(arguments);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "base.yaml:");
    holds(r.out, "  # default\n");
    holds(r.out, "output: elsewhere  # --set\n");
    ck_ok(pn_file_write(path, r.out, strlen(r.out)));
    snprintf(arguments, sizeof arguments, "config finetune --print -c %s", path);
    program_result again = program(arguments);
    ck_assert_int_eq(again.code, 0);
    for (const char *d = again.out; (d = strstr(d, "  # default\n")); d++)
        ck_assert_int_eq(d[-1], '~');                  /* every value was written; what is unset stays so */
    for (char *a = r.out, *b = again.out; *a || *b;) { /* the same but for the origins */
        char *a_end = strstr(a, "  # "), *b_end = strstr(b, "  # ");
        size_t n = a_end ? (size_t)(a_end - a) : strlen(a);
        ck_assert_msg(!strncmp(a, b, n) && (b_end ? (size_t)(b_end - b) : strlen(b)) == n, "%.80s\n%.80s", a, b);
        a = a_end ? strchr(a_end, '\n') : a + n;
        b = b_end ? strchr(b_end, '\n') : b + n;
    }

    snprintf(arguments, sizeof arguments, "config finetune --keys %s", file);
    r = program(arguments);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "top level\n");
    holds(r.out, "  output ");
    snprintf(arguments, sizeof arguments, "config finetune --print %s --set outptu=x", file);
    r = program(arguments);
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "--set: unknown key outptu; did you mean output? Known keys: ");
    r = program("config finetun --print");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "postnas config: finetun is no command with a configuration; did you mean finetune? There are: ");
    r = program("config list --print");
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "postnas config: list is no command with a configuration; there are: ");
    r = program("config finetune --keys");
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "\nstages[].mixture[]\n");
    holds(r.out, "(text; default none; for example runs/base)\n");
    holds(r.out, "`postnas list skills NAME`");
    refuses("config data --print", 2, "postnas config: data checks its configuration when it runs; --keys explains it");
    ck_ok(pn_remove_tree(dir));
}
END_TEST

TEST_MAIN("frame", help_lists_every_command, every_command_explains_itself, version, wrong_words,
          verbose_adds_the_traceback, list_shows_the_registries, argument_forms, config_prints_origins,
          config_of_a_command)
