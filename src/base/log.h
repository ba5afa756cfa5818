/* Logging: text to standard error for people, JSON lines to the run's log.jsonl for programs.
 *
 * Levels: debug lines appear when PN_LOG names their room ("PN_LOG=tape,search") or is "debug". Thread-safe. */
#ifndef PN_BASE_LOG_H
#define PN_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

/* Appends to the file from now on (NULL: text only). */
pn_status pn_log_open(const char *jsonl_path);
void pn_log_close(void);
/* Quiet: no info lines on standard error (warnings stay). */
void pn_log_quiet(bool quiet);

void pn_info(const char *fmt, ...) PN_PRINTF(1, 2);
void pn_warn(const char *fmt, ...) PN_PRINTF(1, 2);
void pn_debug(const char *room, const char *fmt, ...) PN_PRINTF(2, 3);
bool pn_debugging(const char *room);

/* One structured record, to the JSON lines only: {"time": ..., "event": kind, <fields>}. */
typedef struct pn_event {
    char text[2048];
    size_t len;
} pn_event;
pn_event pn_event_begin(const char *kind);
void pn_event_f64(pn_event *e, const char *key, double value); /* a value that is not finite becomes null */
void pn_event_i64(pn_event *e, const char *key, int64_t value);
void pn_event_str(pn_event *e, const char *key, const char *value);
void pn_event_end(pn_event *e);

#endif
