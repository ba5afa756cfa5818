/* The program: picks the command, applies the common options, runs it. */
#ifndef PN_CLI_CLI_H
#define PN_CLI_CLI_H

#include <stdbool.h>

#include "status.h"

/* Everything but printing the failure. */
pn_status pn_cli_run(int argc, char **argv);
/* --verbose was given: errors come with their traceback. */
bool pn_cli_verbose(void);

#endif
