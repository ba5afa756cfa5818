#include "library_settings.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "cpu/blas_core.h"
#include "files.h"

/* Sets a variable unless it or one that overrules it is set. */
static bool set(const char *name, const char *overruled_by, const char *value) {
    if (!value || getenv(name) || (overruled_by && getenv(overruled_by))) return false;
    return setenv(name, value, 0) == 0;
}

void pn_library_settings(char **argv) {
    /* How often a waiting thread looks before it sleeps. libgomp's default keeps it busy for milliseconds: where
     * another program has taken a processor, the thread that is waited for cannot run and every parallel region costs a
     * time slice. A thousand looks outlast the pauses between our loops. */
    bool again = set("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "1000");
    again |= set("OPENBLAS_CORETYPE", NULL, pn_blas_better_core());
    char program[PN_PATH_MAX];
    ssize_t n = again ? readlink("/proc/self/exe", program, sizeof program - 1) : 0; /* its name, for top and pgrep */
    if (n <= 0) return;
    program[n] = '\0';
    execv(program, argv);
}
