#include "harness.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals.h"

/* Sends `second` (0: none) that long after `first`; the wait status of a process that exits 0 when the flag was set. */
static int after(int first, int second, int milliseconds) {
    pid_t child = fork();
    if (child == 0) {
        pn_signals_install();
        if (pn_interrupted()) _exit(1);
        raise(first);
        if (!pn_interrupted()) _exit(2);
        usleep((unsigned)milliseconds * 1000);
        if (second) raise(second);
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

START_TEST(the_first_asks_the_second_ends) {
    const int signals[] = { SIGINT, SIGTERM };
    for (int i = 0; i < 2; i++) {
        int status = after(signals[i], 0, 0);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        for (int j = 0; j < 2; j++) {
            status = after(signals[i], signals[j], 400);
            ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == signals[j]);
        }
    }
}
END_TEST

/* timeout(1) signals the process, then its group: that asks once. */
START_TEST(two_that_come_together_ask_once) {
    int status = after(SIGTERM, SIGTERM, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

/* A read that a signal interrupts goes on: the state saved on the way out must not fail. */
START_TEST(blocked_reads_go_on) {
    int ends[2], ready[2];
    char c;
    ck_assert(pipe(ends) == 0 && pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        pn_signals_install();
        if (write(ready[1], "r", 1) != 1) _exit(2);
        ssize_t n = read(ends[0], &c, 1);
        _exit(n == 1 && pn_interrupted() ? 0 : 1);
    }
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    usleep(50000); /* for the child to block */
    kill(child, SIGTERM);
    usleep(50000);
    ck_assert_int_eq(write(ends[1], "x", 1), 1);
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

START_TEST(a_test_plans_an_interruption) {
    pn_interrupt_after(3);
    ck_assert(!pn_interrupted() && !pn_interrupted());
    ck_assert(pn_interrupted() && pn_interrupted());
    pn_interrupt_after(0);
    ck_assert(!pn_interrupted());
}
END_TEST

TEST_MAIN("signals", the_first_asks_the_second_ends, two_that_come_together_ask_once, blocked_reads_go_on,
          a_test_plans_an_interruption)
