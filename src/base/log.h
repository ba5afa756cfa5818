/* Logging: text to standard error for people, JSON lines to the run's log.jsonl for programs.
 *
 * Levels: debug lines appear when PN_LOG names their room ("PN_LOG=tape,search") or is "debug". Thread-safe. */
#ifndef PN_BASE_LOG_H
#define PN_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "status.h"

/* Appends to the file from now on (NULL: text only); a last line that a killed process left unfinished is removed
 * first. */
pn_status pn_log_open(const char *jsonl_path);
/* Also removes the status line: call before writing to standard error by other means. */
void pn_log_close(void);
/* Quiet: no info lines and no status line on standard error (warnings stay). */
void pn_log_quiet(bool quiet);

void pn_info(const char *fmt, ...) PN_PRINTF(1, 2);
void pn_warn(const char *fmt, ...) PN_PRINTF(1, 2);
void pn_debug(const char *room, const char *fmt, ...) PN_PRINTF(2, 3);
bool pn_debugging(const char *room);

/* Standard error is a terminal that can rewrite its last line (TERM is not "dumb"). */
bool pn_log_on_terminal(void);
/* The last line of a terminal, rewritten in place and cut to its width; NULL removes it, and so does every message.
 * Does nothing when standard error is no such terminal. */
void pn_log_status_line(const char *text);

/* One structured record, to the JSON lines only: {"time": ..., "event": kind, <fields>}. Every begin has its end, which
 * frees it. Messages are records too: {"time": ..., "event": "message", "level": ..., "text": ...}. */
typedef struct pn_event {
    pn_buf text;
} pn_event;
pn_event pn_event_begin(const char *kind);
void pn_event_f64(pn_event *e, const char *key, double value); /* nine digits; not finite becomes null */
void pn_event_i64(pn_event *e, const char *key, int64_t value);
void pn_event_str(pn_event *e, const char *key, const char *value);
void pn_event_end(pn_event *e);

#endif
