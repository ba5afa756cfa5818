/* The command contract: a command is src/cli/cmd_<name>.c, which defines `const pn_command pn_cmd_<name>`, and a row in
 * commands.def. The row gives its place in `postnas --help`, its own --help, option parsing with "did you mean", and
 * the frame's common options (--help, --verbose, --quiet, --threads).
 *
 * Results go to standard output, progress and messages to standard error. A command returns its failure; main() prints
 * it and sets the exit code. */
#ifndef PN_CLI_COMMAND_H
#define PN_CLI_COMMAND_H

#include <stdbool.h>

#include "config.h"
#include "status.h"

/* One option of a command. */
typedef struct pn_flag {
    const char *name;  /* "config" is --config; NULL ends a table */
    char letter;       /* 'c' is -c; 0: none */
    const char *value; /* "FILE": takes a value, called so in --help; NULL: a switch */
    const char *help;
    const char *def; /* the value when the option is not given; NULL: none, and help says what happens then */
} pn_flag;

/* Rows that several commands share. */
#define PN_FLAG_CONFIG                                                                                                 \
    { .name = "config", .letter = 'c', .value = "FILE", .help = "YAML configuration to start from" }
#define PN_FLAG_SET                                                                                                    \
    {                                                                                                                  \
        .name = "set", .letter = 's', .value = "KEY=VALUE",                                                            \
        .help = "set one configuration value, for example search.beam.width=4; may be repeated"                        \
    }
/* Where it computes: commands with a configuration take them as its keys of these names (pn_args_config). */
#define PN_FLAG_DEVICE                                                                                                 \
    { .name = "device", .value = "NAME", .help = "cpu, or cuda: one NVIDIA GPU; as the configuration's device" }
#define PN_FLAG_PRECISION                                                                                              \
    { .name = "precision", .value = "TYPE", .help = "on cuda: bf16, or f32; as the configuration's precision" }
#define PN_FLAG_JSON                                                                                                   \
    { .name = "json", .help = "write the result as JSON" }
#define PN_FLAG_END                                                                                                    \
    { .name = NULL }

typedef struct pn_args pn_args; /* args.h */

typedef struct pn_command {
    const char *name;
    const char *summary;  /* one line for `postnas --help`, lower case, no full stop */
    const char *usage;    /* what follows "postnas <name> " in the usage line: "--config FILE [--set KEY=VALUE]..." */
    const char *help;     /* teaches: what it does, an example to copy; ends with a newline */
    const char *reads;    /* "a model directory": what it takes, lines without indent; ends with a newline */
    const char *writes;   /* what comes out and where; likewise */
    const char *see;      /* where to look next: commands, files; likewise */
    const char *memory;   /* what makes it need less memory, told when there is too little; NULL: nothing */
    const pn_flag *flags; /* its own; NULL: none */
    int min_operands, max_operands; /* words that are no options; max -1: any number */
    pn_status (*run)(const pn_args *args);
    /* Reads every section of this command's configuration with its option tables, so that `postnas config` can print
     * and check it. NULL: the command has no configuration. */
    pn_status (*read_config)(pn_config *c);
    const char *config_key;            /* a section that only this command's configurations have */
    const pn_config_section *sections; /* every section of its configuration; NULL: none */
} pn_command;

#define PN_COMMAND(name) extern const pn_command pn_cmd_##name;
#include "commands.def"
#undef PN_COMMAND

const pn_command *const *pn_commands(int *n);        /* in commands.def order */
const pn_command *pn_command_find(const char *name); /* NULL if unknown */

#endif
