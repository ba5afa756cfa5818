/* The command line of one command, parsed against its table of flags and the common ones. */
#ifndef PN_CLI_ARGS_H
#define PN_CLI_ARGS_H

#include <stdint.h>

#include "command.h"
#include "compute.h"

struct pn_args {
    const pn_command *command;
    int n_operands;
    char **operand; /* borrowed from argv, as every value is */
    int n_given;
    struct {
        const pn_flag *flag;
        const char *value; /* NULL for a switch */
    } * given;             /* in the order of the command line; owned */
};

/* argv[0] is the command's name. PN_USAGE with the nearest option for an unknown one; operands are counted unless
 * --help is given. May reorder argv. */
pn_status pn_args_parse(const pn_command *command, int argc, char **argv, pn_args *out);
void pn_args_free(pn_args *a);

/* `name` must be in the command's table or common; anything else is a bug. */
bool pn_args_has(const pn_args *a, const char *name);
/* The last value given, else the option's default, else NULL. */
const char *pn_args_value(const pn_args *a, const char *name);
/* The i-th value of an option that may be repeated, NULL past the last. */
const char *pn_args_nth(const pn_args *a, const char *name, int i);
/* Leaves *out as it was when the option was not given and has no default. PN_USAGE naming the option. */
pn_status pn_args_i64(const pn_args *a, const char *name, int64_t min, int64_t max, int64_t *out);
pn_status pn_args_f64(const pn_args *a, const char *name, double min, double max, double *out);
/* The configuration of PN_FLAG_CONFIG and PN_FLAG_SET: the file (none: an empty one), then each --set in order, then
 * what else the command takes of PN_FLAG_DEVICE and PN_FLAG_PRECISION. */
pn_status pn_args_config(const pn_args *a, pn_config **out);
/* PN_FLAG_DEVICE and PN_FLAG_PRECISION of a command without configuration. */
pn_status pn_args_compute(const pn_args *a, pn_compute *out);
/* The same of a command that has an option of its own for the backend (`flag`: cpu, cuda) and --dtype beside it;
 * without a type, BF16 on the GPU and F32 on the CPU. PN_USAGE naming the option. Opens nothing. */
pn_status pn_args_backend(const pn_args *a, const char *flag, pn_compute *out);

/* All that --help says of a command: usage, text, what it reads and writes, options with their defaults, exit codes,
 * where to look next. */
void pn_args_help(const pn_command *command, FILE *out);

#endif
