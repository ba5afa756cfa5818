#include "replay.h"

#include <stdlib.h>

#include "cuda/recorded.h"
#include "device.h"
#include "log.h"
#include "profile.h"

/* Work whose addresses change more often than that is no work to be recorded. */
enum { MOST_RECORDINGS = 64 };

struct pn_replay {
    pn_tape *tape;
    pn_recorded *tables; /* NULL: graphs are not wanted */
    enum { NEW, LEARNT, RECORDED, GIVEN_UP } state;
    uint64_t addresses;
    size_t given_back; /* by the tape's pool */
    pn_graph *graph;
    int recordings;
    int64_t launches;
};

pn_status pn_replay_create(pn_tape *t, pn_replay **out) {
    pn_replay *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "out of memory");
    r->tape = t;
    if (pn_tape_backend(t) == PN_CUDA && pn_graphs_wanted()) {
        pn_status s = pn_recorded_create(&r->tables);
        if (s) {
            free(r);
            return s;
        }
    }
    *out = r;
    return PN_OK;
}

void pn_replay_destroy(pn_replay **r) {
    if (!r || !*r) return;
    pn_graph_destroy(&(*r)->graph);
    pn_recorded_destroy(&(*r)->tables);
    free(*r);
    *r = NULL;
}

pn_status pn_replay_name(pn_replay *r, const int64_t *at, int64_t n, bool fixed) {
    return r->tables ? pn_recorded_name(r->tables, at, n, fixed) : PN_OK;
}

int64_t pn_replay_launches(const pn_replay *r) {
    return r->launches;
}
int pn_replay_recordings(const pn_replay *r) {
    return r->recordings;
}

/* Why it is not recorded was said by whoever refused. */
static void give_up(pn_replay *r) {
    pn_debug("graph", "not recorded: %s", pn_error_message());
    pn_error_clear();
    r->state = GIVEN_UP;
}

/* As usual, so that libraries make their plans, the pool has all the memory, and tables are known. */
static pn_status learn(pn_replay *r, pn_replay_work work, void *ctx) {
    pn_recorded_learn(r->tables);
    pn_tape_side_by_side(r->tape, true); /* with as much memory as it will have */
    pn_status s = work(ctx);
    pn_tape_side_by_side(r->tape, false);
    pn_recorded_learn(NULL);
    PN_TRY(s);
    r->given_back = pn_pool_given_back(pn_tape_pool(r->tape));
    r->state = LEARNT;
    if (pn_recorded_settle(r->tables)) give_up(r);
    return PN_OK;
}

static pn_status record(pn_replay *r, pn_replay_work work, void *ctx) {
    pn_status s = pn_graph_begin();
    if (!s) {
        pn_recorded_use(r->tables);
        pn_tape_side_by_side(r->tape, true);
        s = work(ctx);
        pn_tape_side_by_side(r->tape, false);
        pn_recorded_use(NULL);
        pn_status ended = pn_graph_end(s ? NULL : &r->graph);
        if (!s) s = ended;
    }
    if (s) {
        give_up(r);
        return work(ctx);
    }
    r->recordings++;
    r->state = RECORDED;
    return PN_OK;
}

/* Whether what was learnt or recorded is still what the work would do. */
static bool holds(const pn_replay *r, uint64_t addresses) {
    return r->addresses == addresses && r->given_back == pn_pool_given_back(pn_tape_pool(r->tape)) &&
           !pn_recorded_stale(r->tables);
}

pn_status pn_replay_run(pn_replay *r, uint64_t addresses, pn_replay_work work, void *ctx) {
    PN_ASSERT(!pn_tape_recording(r->tape));
    if (!r->tables || r->state == GIVEN_UP || pn_profile_runs()) return work(ctx);
    if (r->state != NEW && !holds(r, addresses)) {
        pn_graph_destroy(&r->graph);
        r->state = r->recordings < MOST_RECORDINGS ? NEW : GIVEN_UP;
        return pn_replay_run(r, addresses, work, ctx);
    }
    r->addresses = addresses;
    if (r->state == NEW) return learn(r, work, ctx);
    PN_TRY(pn_recorded_refresh(r->tables)); /* before the work, which may change what they are made of */
    if (r->state == LEARNT) {
        PN_TRY(record(r, work, ctx));
        if (r->state != RECORDED) return PN_OK;
    }
    PN_TRY(pn_graph_launch(r->graph));
    r->launches++;
    return PN_OK;
}
