#include "command.h"

#include <string.h>

static const pn_command *const commands[] = {
#define PN_COMMAND(name) &pn_cmd_##name,
#include "commands.def"
#undef PN_COMMAND
};

const pn_command *const *pn_commands(int *n) {
    *n = (int)(sizeof commands / sizeof *commands);
    return commands;
}

const pn_command *pn_command_find(const char *name) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}
