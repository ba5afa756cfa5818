#include "args.h"

/* The command whose tables a configuration is read with: the first that has any. */
static const pn_command *reader(void) {
    int n;
    const pn_command *const *commands = pn_commands(&n);
    for (int i = 0; i < n; i++)
        if (commands[i]->read_config) return commands[i];
    return NULL;
}

static pn_status show(const pn_args *args, pn_config *c) {
    const pn_command *command = reader();
    if (command) {
        PN_TRY(command->read_config(c));
        PN_TRY(pn_config_finish(c));
    }
    if (pn_args_has(args, "keys"))
        pn_config_help(c, stdout);
    else
        pn_config_print(c, stdout);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    pn_config *c;
    PN_CHECK(pn_args_has(args, "print") || pn_args_has(args, "keys"), PN_USAGE,
             "postnas config: nothing to do; give --print or --keys");
    PN_TRY(pn_args_config(args, &c));
    pn_status s = show(args, c);
    pn_config_destroy(&c);
    return s;
}

static const pn_flag flags[] = {
    { .name = "print", .letter = 'p', .help = "print every value and where it came from" },
    { .name = "keys", .letter = 'k', .help = "explain every key: type, bounds, default, meaning" },
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    PN_FLAG_END,
};

const pn_command pn_cmd_config = {
    .name = "config",
    .summary = "print a configuration with the origin of every value",
    .usage = "--print|--keys [--config FILE] [--set KEY=VALUE]...",
    .help = "Loads a YAML configuration, applies each --set in order and prints the result as YAML. A comment after\n"
            "each value says where it came from: the default, the line of the file, or --set. What is printed can be\n"
            "used as a configuration again. Mistakes are named with file, line and the nearest valid key.\n"
            "\n"
            "    postnas config --print --config my.yaml --set search.beam.width=4\n",
    .flags = flags,
    .run = run,
};
