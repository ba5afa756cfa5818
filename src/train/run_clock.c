#include "run_clock.h"

#include <string.h>

#include "clock.h"
#include "json.h"

enum { FILE_LIMIT = 1 << 16 };

void pn_run_clock_add(pn_run_clock *c, const char *phase, double seconds) {
    double before = json_number_value(json_object_get(c->seconds, phase)); /* 0 when there is none */
    json_object_set_new(c->seconds, phase, json_real(before + (seconds > 0 ? seconds : 0)));
}

/* Moves what the file says into the clock; `working` is what a process that was killed was at. */
static pn_status take(pn_run_clock *c, const json_t *root, double last_sign) {
    const char *phase;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, phase, value) {
        double seconds;
        if (!strcmp(phase, "working")) continue;
        PN_TRY(pn_json_get_f64(root, c->file, phase, 0, 1e12, &seconds));
        pn_run_clock_add(c, phase, seconds);
    }
    if (!pn_json_at(root, "working")) return PN_OK;
    double since;
    PN_TRY(pn_json_get_str(root, c->file, "working.phase", &phase));
    PN_TRY(pn_json_get_f64(root, c->file, "working.since", 0, 1e12, &since));
    pn_run_clock_add(c, phase, last_sign - since);
    return PN_OK;
}

pn_status pn_run_clock_open(const pn_run_dir *run, pn_run_clock *out) {
    *out = (pn_run_clock){ 0 };
    char state[PN_PATH_MAX];
    PN_TRY(pn_run_dir_file(run, "state", state));
    PN_TRY(pn_make_directories(state));
    PN_TRY(pn_path_join(out->file, state, "seconds.json"));
    out->seconds = json_object();
    PN_CHECK(out->seconds, PN_MEMORY, "out of memory");
    if (!pn_file_exists(out->file)) return PN_OK;
    json_t *root;
    PN_TRY(pn_json_load(out->file, FILE_LIMIT, &root));
    pn_status s = take(out, root, run->last_sign);
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}

void pn_run_clock_close(pn_run_clock *c) {
    json_decref(c->seconds);
    *c = (pn_run_clock){ 0 };
}

pn_status pn_run_clock_begin(pn_run_clock *c, const char *phase) {
    double now = pn_utc_seconds();
    if (c->phase) pn_run_clock_add(c, c->phase, now - c->since);
    c->phase = phase;
    c->since = now;
    json_t *root = json_copy(c->seconds);
    if (root && phase) json_object_set_new(root, "working", json_pack("{s:s, s:f}", "phase", phase, "since", now));
    pn_status s = root ? pn_json_write(c->file, root) : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    json_decref(root);
    PN_TRY(s);
    return PN_OK;
}

json_t *pn_run_clock_json(const pn_run_clock *c, double *total) {
    json_t *root = json_copy(c->seconds), *value;
    const char *phase;
    *total = 0;
    json_object_foreach(c->seconds, phase, value) *total += json_number_value(value);
    json_object_set_new(root, "total_seconds", json_real(*total));
    return root;
}
