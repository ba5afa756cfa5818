#include "signals.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t interrupted;
static int64_t questions_left; /* until a test's interruption; 0: none is planned */

static void on_signal(int sig) {
    (void)sig;
    interrupted = 1;
    /* a second one of either kind ends the process; signal() may be called in a handler */
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

void pn_signals_install(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESTART; /* the state saved on the way out must not fail with EINTR */
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

bool pn_interrupted(void) {
    if (questions_left > 1)
        questions_left--;
    else if (questions_left == 1)
        return true;
    return interrupted != 0;
}

void pn_interrupt_after(int64_t n) {
    questions_left = n;
}
