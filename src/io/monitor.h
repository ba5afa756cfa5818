/* What a run shows of itself while it works: each point goes to log.jsonl as one record and to TensorBoard.
 *
 * A series is something that has steps of its own ("distil PostNAS", "search"): a directory below the run's
 * tensorboard/, so that TensorBoard lays series over each other that share a scalar's name. A series begins anew with
 * the first point that this process gives it: later ones of an earlier process are then done again and no longer count.
 *
 * Showing never ends a run: when event files cannot be written, a warning says so once and they end. Thread-safe. */
#ifndef PN_IO_MONITOR_H
#define PN_IO_MONITOR_H

#include <stdbool.h>

#include "tensorboard.h"

enum { PN_MONITOR_POINTS = 400 };

/* Event files go below this directory from now on; made with the first point. Before: log only. */
pn_status pn_monitor_open(const char *directory);
void pn_monitor_close(void);

/* Record {"event": "point", "series": .., "step": .., <name>: <value> ..}, and an event. */
void pn_monitor_point(const char *series, int64_t step, const pn_scalar *scalars, int n);

/* Whether `step` (1 .. steps) is one of about PN_MONITOR_POINTS to show, the last one among them; the same steps in
 * every process. */
bool pn_monitor_due(int64_t step, int64_t steps);

#endif
