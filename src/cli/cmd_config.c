#include "args.h"
#include "config_keys.h"

enum { MOST = 64 };

/* The command whose tables the configuration is read with. */
static pn_status find_reader(const char *name, const pn_command **out) {
    const char *names[MOST];
    int n, n_readers = 0;
    const pn_command *const *commands = pn_commands(&n);
    pn_buf known = { 0 };
    for (int i = 0; i < n && n_readers < MOST; i++) {
        if (!commands[i]->sections) continue;
        pn_buf_printf(&known, "%s%s", n_readers ? ", " : "", commands[i]->name);
        names[n_readers++] = commands[i]->name;
    }
    const char *near = pn_nearest(name, names, n_readers);
    *out = pn_command_find(name);
    pn_status s = PN_OK;
    if (!*out || !(*out)->sections)
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "postnas config: %s is no command with a configuration%s%s%s %s",
                       name, near ? "; did you mean " : "", near ? near : "",
                       near ? "? There are:" : "; there are:", pn_buf_string(&known));
    pn_buf_free(&known);
    return s;
}

/* The command whose section the configuration has; NULL when none has. */
static const pn_command *guess_reader(const pn_config *c) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++)
        if (commands[i]->config_key && pn_config_has(c, commands[i]->config_key)) return commands[i];
    return NULL;
}

/* All keys that a command knows, or those of the sections that a file of yours has. */
static pn_status explain(const pn_args *args, const pn_command *command, pn_config *c) {
    if (!command->read_config || !pn_args_has(args, "config")) {
        pn_config_keys_print(command, stdout);
        return PN_OK;
    }
    PN_TRY(command->read_config(c));
    pn_config_help(c, stdout);
    return PN_OK;
}

static pn_status show(const pn_args *args, const pn_command *command, pn_config *c) {
    if (pn_args_has(args, "keys")) return explain(args, command, c);
    if (command) {
        PN_CHECK(command->read_config, PN_USAGE,
                 "postnas config: %s checks its configuration when it runs; --keys explains it", command->name);
        PN_TRY(command->read_config(c));
        PN_TRY(pn_config_finish(c));
    }
    pn_config_print(c, stdout);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    const pn_command *command = NULL;
    pn_config *c;
    if (pn_args_has(args, "markdown")) {
        pn_config_keys_page(stdout);
        return PN_OK;
    }
    PN_CHECK(pn_args_has(args, "print") || pn_args_has(args, "keys"), PN_USAGE,
             "postnas config: nothing to do; give --print or --keys");
    if (args->n_operands) PN_TRY(find_reader(args->operand[0], &command));
    PN_TRY(pn_args_config(args, &c));
    if (!command) command = guess_reader(c);
    pn_status s = PN_OK;
    if (!command && pn_args_has(args, "keys"))
        s = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "postnas config: --keys needs the command whose keys to explain");
    if (!s) s = show(args, command, c);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    { .name = "print", .letter = 'p', .help = "print every value and where it came from" },
    { .name = "keys",
      .letter = 'k',
      .help = "explain every key: type, bounds, default, meaning; with --config, those of its sections" },
    { .name = "markdown", .help = "every key of every command as a Markdown page" },
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    PN_FLAG_END,
};

const pn_command pn_cmd_config = {
    .name = "config",
    .summary = "print a configuration with the origin of every value",
    .usage = "[COMMAND] --print|--keys [--config FILE] [--set KEY=VALUE]...",
    .help = "Loads a YAML configuration, applies each --set in order and prints the result as YAML. A comment after\n"
            "each value says where it came from: the default, the line of the file, or --set. What is printed can be\n"
            "used as a configuration again.\n"
            "\n"
            "With the command the configuration is for, every default is filled in and every mistake is named with\n"
            "file, line and the nearest valid key, as that command would, and nothing is run. Without one the file is\n"
            "shown as it stands.\n"
            "\n"
            "    postnas config finetune --print --config my.yaml --set output=runs/other\n"
            "    postnas config search --keys\n"
            "    postnas config search --keys --config my.yaml\n",
    .reads = "a YAML configuration; with a command also the model and data that it names\n",
    .writes = "standard output, nothing else\n",
    .see = "docs/config.md: the same as a page\n"
           "postnas list: skills, blocks and searches, whose options are keys too\n"
           "configs/: files to copy\n",
    .flags = flags,
    .max_operands = 1,
    .run = run,
};
