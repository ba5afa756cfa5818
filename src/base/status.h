/* Status and traceback: how every fallible function of postnas reports failure.
 *
 * A fallible function returns pn_status. The first failure writes the story (file, line, what, remedy) with PN_FAIL or
 * PN_CHECK; each caller on the way up adds one line with PN_TRY. Only main() prints the story and exits. The story is
 * kept per thread and a new first failure replaces it.
 *
 * PN_ASSERT is for our own bugs only: it aborts, in release builds too. */
#ifndef PN_BASE_STATUS_H
#define PN_BASE_STATUS_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PN_STATUS_MAP(X)                                                                                               \
    X(OK, "success")                                                                                                   \
    X(USAGE, "bad argument, option or configuration")                                                                  \
    X(IO, "a file could not be read or written")                                                                       \
    X(FORMAT, "a file is not what its header claims")                                                                  \
    X(MEMORY, "host or device memory exhausted")                                                                       \
    X(DEVICE, "a CUDA, cuBLASLt or cuDNN call failed")                                                                 \
    X(COMM, "an MPI or NCCL call failed")                                                                              \
    X(NUMERIC, "a loss or gradient is not finite")                                                                     \
    X(UNSUPPORTED, "no implementation takes this call")                                                                \
    X(MISMATCH, "a check did not pass")                                                                                \
    X(INTERRUPTED, "stopped by a signal; state saved")

typedef enum pn_status {
#define X(name, text) PN_##name,
    PN_STATUS_MAP(X)
#undef X
        PN_STATUS_COUNT
} pn_status;

#if defined(__GNUC__)
#define PN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PN_NORETURN          __attribute__((noreturn))
#else
#define PN_PRINTF(fmt, args)
#define PN_NORETURN
#endif

/* Starts the story, one line: control characters in it become "?". Returns s: `return pn_fail_at(...)`. Use PN_FAIL. */
pn_status pn_fail_at(const char *file, int line, pn_status s, const char *fmt, ...) PN_PRINTF(4, 5);
/* Adds one line to it; returns s. Use PN_TRY. */
pn_status pn_trace_at(const char *file, int line, pn_status s, const char *expr);
PN_NORETURN void pn_bug_at(const char *file, int line, const char *expr);

/* Adds to the story's line what a caller alone knows, as the remedy. */
void pn_error_more(const char *text);

const char *pn_status_text(pn_status s);
/* The first sentence of the story ("" when there is none): borrowed, valid until the next failure of this thread. */
const char *pn_error_message(void);
/* Message alone, or with the traceback when `trace`; nothing where it was cleared, as another process says it. Called
 * by main() only (and by tests). */
void pn_error_print(FILE *out, int trace);
void pn_error_clear(void);
/* The process exit code for a status: 0 OK; 1 a failed check; 2 the user's input (USAGE, IO, FORMAT, UNSUPPORTED);
 * 3 everything else; 75 INTERRUPTED ("resume me"). */
int pn_exit_code(pn_status s);
/* The same for --help: a line per code. */
extern const char pn_exit_codes_help[];

#define PN_FAIL(s, ...) return pn_fail_at(__FILE__, __LINE__, (s), __VA_ARGS__)
#define PN_CHECK(ok, s, ...)                                                                                           \
    do {                                                                                                               \
        if (!(ok)) PN_FAIL((s), __VA_ARGS__);                                                                          \
    } while (0)
#define PN_TRY(expr)                                                                                                   \
    do {                                                                                                               \
        pn_status pn_s_ = (expr);                                                                                      \
        if (pn_s_) return pn_trace_at(__FILE__, __LINE__, pn_s_, #expr);                                               \
    } while (0)
/* For functions with something to unwind: assigns to `s` and jumps. */
#define PN_TRY_GOTO(s, expr, at)                                                                                       \
    do {                                                                                                               \
        if (((s) = (expr))) {                                                                                          \
            pn_trace_at(__FILE__, __LINE__, (s), #expr);                                                               \
            goto at;                                                                                                   \
        }                                                                                                              \
    } while (0)
#define PN_FAIL_GOTO(s, code, at, ...)                                                                                 \
    do {                                                                                                               \
        (s) = pn_fail_at(__FILE__, __LINE__, (code), __VA_ARGS__);                                                     \
        goto at;                                                                                                       \
    } while (0)
#define PN_ASSERT(ok)                                                                                                  \
    do {                                                                                                               \
        if (!(ok)) pn_bug_at(__FILE__, __LINE__, #ok);                                                                 \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
