#include "signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "clock.h"

static volatile sig_atomic_t interrupted;
static atomic_llong first_ms;  /* when the first signal came; 0: none has */
static double deadline;        /* pn_seconds; 0: none */
static int64_t questions_left; /* until a test's interruption; 0: none is planned */

/* All that is called here may be called in a handler. */
static void on_signal(int sig) {
    enum { TOGETHER_MS = 250 };
    const long long now = (long long)(1000 * pn_seconds());
    long long first = 0;
    interrupted = 1;
    if (atomic_compare_exchange_strong(&first_ms, &first, now) || now - first < TOGETHER_MS) return;
    signal(sig, SIG_DFL);
    raise(sig); /* when this returns */
}

void pn_signals_install(void) {
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal;
    a.sa_flags = SA_RESTART; /* the state saved on the way out must not fail with EINTR */
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGUSR1, &a, NULL);
}

void pn_interrupt_in(double seconds) {
    deadline = seconds > 0 ? pn_seconds() + seconds : 0;
}

static bool out_of_time(void) {
    return deadline > 0 && pn_seconds() >= deadline;
}

const char *pn_interruption(void) {
    return !interrupted && out_of_time() ? "the time limit" : "a signal";
}

bool pn_interrupted(void) {
    if (questions_left > 1)
        questions_left--;
    else if (questions_left == 1)
        return true;
    return interrupted != 0 || out_of_time();
}

void pn_interrupt_after(int64_t n) {
    questions_left = n;
}
