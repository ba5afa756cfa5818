/* Every key of a command's configuration, as text and as the pages of docs/. */
#ifndef PN_CLI_CONFIG_KEYS_H
#define PN_CLI_CONFIG_KEYS_H

#include "command.h"

/* Lines per key, section by section. The command has sections. */
void pn_config_keys_print(const pn_command *command, FILE *out);
/* docs/config.md: the sections of every command, then what is registered and has options. */
void pn_config_keys_page(FILE *out);

#endif
