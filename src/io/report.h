/* report.html: what a search found, or how finetune trained, for reading. One self-contained page (no script, no
 * network) made from result.json and, for what was timed, speed.json: every number on it stands there or follows from
 * numbers there. What they lack is left out. */
#ifndef PN_IO_REPORT_H
#define PN_IO_REPORT_H

#include <jansson.h>

#include "status.h"

/* Writes the page for a search's or finetune's result and its speeds (borrowed; speed NULL: without them) to html_path,
 * aside and renamed. PN_FORMAT when one of them is no JSON object; parts of another shape than a search writes are left
 * out. */
pn_status pn_report_write(const json_t *result, const json_t *speed, const char *html_path);

#endif
