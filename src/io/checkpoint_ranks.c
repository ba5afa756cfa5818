#include <stdlib.h>
#include <string.h>

#include "checkpoint_internal.h"

/* How it went somewhere; before the text that a rank sends, or alone. */
typedef struct outcome {
    int64_t value;
    int32_t status;
    char message[1012];
} outcome;

static outcome outcome_of(pn_status s, int64_t value) {
    outcome o = { .value = value, .status = (int32_t)s };
    if (s) snprintf(o.message, sizeof o.message, "%s", pn_error_message());
    return o;
}

/* Another rank's word, which may be anything. */
static pn_status failure(outcome *o) {
    o->message[sizeof o->message - 1] = '\0';
    return o->status >= 0 && o->status < PN_STATUS_COUNT ? (pn_status)o->status : PN_COMM;
}

/* What rank 0 makes of what it got: the first failure, and the texts alone. */
static pn_status first_failure(const pn_checkpoint_ranks *r, pn_buf *parts) {
    outcome o, first = { 0 };
    int at = -1;
    for (int k = 0; k < r->n; k++) {
        PN_CHECK(!parts[k].failed && parts[k].n_bytes >= sizeof o, PN_COMM,
                 "rank %d sent %zu bytes where run state was agreed on", k, parts[k].n_bytes);
        memcpy(&o, parts[k].data, sizeof o);
        parts[k].n_bytes -= sizeof o;
        memmove(parts[k].data, parts[k].data + sizeof o, parts[k].n_bytes + 1);
        if (o.status && at < 0) {
            first = o;
            at = k;
        }
    }
    if (at < 0) return PN_OK;
    const pn_status s = failure(&first);
    if (at == 0) return pn_fail_at(__FILE__, __LINE__, s, "%s", first.message);
    return pn_fail_at(__FILE__, __LINE__, s, "rank %d: %s", at, first.message);
}

pn_status pn_ranks_collect(const pn_checkpoint_ranks *r, pn_status mine, const char *text, pn_buf *parts) {
    if (pn_ranks_n(r) == 1) {
        if (mine) return mine;
        if (text) pn_buf_text(&parts[0], text);
        return pn_buf_status(&parts[0]);
    }
    pn_buf message = { 0 };
    const outcome o = outcome_of(mine, 0);
    pn_buf_append(&message, &o, sizeof o);
    if (!mine && text) pn_buf_text(&message, text);
    pn_status s = pn_buf_status(&message);
    if (!s) s = r->gather(r->ctx, message.data, message.n_bytes, r->rank ? NULL : parts);
    pn_buf_free(&message);
    PN_TRY(s);
    return r->rank ? mine : first_failure(r, parts);
}

pn_status pn_ranks_tell(const pn_checkpoint_ranks *r, pn_status s, int64_t *value) {
    if (pn_ranks_n(r) == 1) return s;
    outcome o = outcome_of(s, value ? *value : 0);
    PN_TRY(r->broadcast(r->ctx, &o, sizeof o));
    if (r->rank == 0) return s;
    if (value) *value = o.value;
    return o.status ? pn_fail_at(__FILE__, __LINE__, failure(&o), "%s", o.message) : PN_OK;
}

/* all NULL: it does not matter. */
static pn_status ask(const pn_checkpoint_ranks *r, pn_status mine, bool so, bool *all) {
    pn_buf *parts = r->rank ? NULL : calloc((size_t)r->n, sizeof *parts);
    PN_CHECK(r->rank || parts, PN_MEMORY, "out of memory");
    pn_status s = pn_ranks_collect(r, mine, so ? NULL : "no", parts);
    int64_t yes = 1;
    for (int k = 0; parts && k < r->n; k++) {
        if (parts[k].n_bytes) yes = 0;
        pn_buf_free(&parts[k]);
    }
    free(parts);
    PN_TRY(pn_ranks_tell(r, s, &yes));
    if (all) *all = yes;
    return PN_OK;
}

pn_status pn_ranks_all(const pn_checkpoint_ranks *r, bool mine, bool *all) {
    *all = mine;
    return pn_ranks_n(r) == 1 ? PN_OK : ask(r, PN_OK, mine, all);
}

pn_status pn_ranks_agree(const pn_checkpoint_ranks *r, pn_status mine) {
    return pn_ranks_n(r) == 1 ? mine : ask(r, mine, true, NULL);
}
