/* postnas: post-training neural architecture search. See README.md for a tour of the source in reading order. */
#include <stdlib.h>

#include "cli.h"
#include "library_settings.h"
#include "log.h"
#include "monitor.h"
#include "status.h"

int main(int argc, char **argv) {
    pn_library_settings(argv);
    pn_status s = pn_cli_run(argc, argv);
    pn_monitor_close();
    pn_log_close(); /* leaves standard error at the start of a line */
    if (s) pn_error_print(stderr, pn_cli_verbose() || getenv("PN_LOG") != NULL);
    return pn_exit_code(s);
}
