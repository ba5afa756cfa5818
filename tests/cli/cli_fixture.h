/* Runs the built program and keeps what it said. */
#ifndef PN_TESTS_CLI_FIXTURE_H
#define PN_TESTS_CLI_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

typedef struct program_result {
    int code; /* exit code, or 128 + signal */
    char out[1 << 16], err[1 << 14];
} program_result;

static inline void read_back(FILE *f, char *text, size_t size) {
    rewind(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
}

/* A bundle's script says where its copy of the program is. */
static inline const char *program_path(void) {
    const char *path = getenv("POSTNAS_PROGRAM");
    return path ? path : POSTNAS_BIN;
}

/* As system(), with nothing to read and what it says going to two files. A shell could not be told: the numbers of
 * open files have two digits where a GPU is open. */
static inline int shell(const char *command, FILE *out, FILE *err) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "r", stdin) && dup2(fileno(out), 1) >= 0 && dup2(fileno(err), 2) >= 0)
            execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

/* `arguments` as a shell would read them, run in `dir`. */
static inline program_result program_in(const char *dir, const char *arguments) {
    static char command[8192];
    static program_result r;
    FILE *out = tmpfile(), *err = tmpfile();
    ck_assert(out && err);
    int n = snprintf(command, sizeof command, "cd %s && %s %s", dir, program_path(), arguments);
    ck_assert(n > 0 && (size_t)n < sizeof command);
    int status = shell(command, out, err);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    read_back(out, r.out, sizeof r.out);
    read_back(err, r.err, sizeof r.err);
    return r;
}

static inline program_result program(const char *arguments) {
    return program_in(".", arguments);
}

static inline void holds(const char *text, const char *part) {
    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not hold \"%s\"", text, part);
}

/* The program fails with this code and exactly this message, and prints no result. */
static inline void refuses(const char *arguments, int code, const char *message) {
    program_result r = program(arguments);
    char want[8192];
    snprintf(want, sizeof want, "postnas: error: %s\n", message);
    ck_assert_str_eq(r.err, want);
    ck_assert_int_eq(r.code, code);
    ck_assert_str_eq(r.out, "");
}

#endif
