#include "replay.h"

#include <stdlib.h>

#include "cuda/recorded.h"
#include "device.h"
#include "log.h"
#include "profile.h"

/* Work whose addresses change more often than that is no work to be recorded. */
enum { MOST_RECORDINGS = 64, MOST_FAILURES = 3 };

enum { FIRST, SECOND, PARTS };

struct pn_replay {
    pn_tape *tape;
    pn_recorded *tables; /* NULL: graphs are not wanted */
    enum { NEW, LEARNING, LEARNT, RECORDED, GIVEN_UP } state;
    uint64_t addresses;
    size_t given_back; /* by the tape's pool */
    pn_graph *graph[PARTS];
    pn_replay_parts parts; /* of which the first was done ... */
    bool launched;         /* as a graph */
    int recordings, failures;
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

static void forget_graphs(pn_replay *r) {
    for (int i = 0; i < PARTS; i++) pn_graph_destroy(&r->graph[i]);
}

void pn_replay_destroy(pn_replay **r) {
    if (!r || !*r) return;
    forget_graphs(*r);
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
    pn_status s = work(ctx);
    pn_recorded_learn(NULL);
    return s;
}

static void learnt(pn_replay *r) {
    r->given_back = pn_pool_given_back(pn_tape_pool(r->tape));
    r->state = LEARNT;
    if (pn_recorded_settle(r->tables)) give_up(r);
}

static pn_status record(pn_replay *r, pn_replay_work work, void *ctx, pn_graph **out) {
    PN_TRY(pn_graph_begin());
    pn_recorded_use(r->tables);
    pn_status s = work(ctx);
    pn_recorded_use(NULL);
    const pn_status ended = pn_graph_end(s ? NULL : out);
    return s ? s : ended;
}

/* Whether what was learnt or recorded is still what the work would do. */
static bool holds(const pn_replay *r, uint64_t addresses) {
    return r->addresses == addresses && r->given_back == pn_pool_given_back(pn_tape_pool(r->tape)) &&
           !pn_recorded_stale(r->tables);
}

/* Ready for this run: what held before may not any more. */
static void look(pn_replay *r, uint64_t addresses) {
    if (r->state == LEARNING) r->state = NEW; /* its second part never came */
    if (r->state != NEW && r->state != GIVEN_UP && !holds(r, addresses)) {
        forget_graphs(r);
        r->state = r->recordings < MOST_RECORDINGS ? NEW : GIVEN_UP;
    }
    r->addresses = addresses;
    if (r->state == NEW) pn_recorded_forget(r->tables);
}

static pn_status launch(pn_replay *r, int part) {
    PN_TRY(pn_graph_launch(r->graph[part]));
    r->launches += part == FIRST;
    return PN_OK;
}

/* ---- work in one part ---- */

/* Branches have scratch of their own, from the first run on: with as much memory as they will have. */
static pn_status side_by_side(pn_replay *r, pn_replay_work work, void *ctx, bool recording) {
    pn_tape_side_by_side(r->tape, true);
    pn_status s = recording ? record(r, work, ctx, &r->graph[FIRST]) : learn(r, work, ctx);
    pn_tape_side_by_side(r->tape, false);
    return s;
}

pn_status pn_replay_run(pn_replay *r, uint64_t addresses, pn_replay_work work, void *ctx) {
    PN_ASSERT(!pn_tape_recording(r->tape));
    if (!r->tables || pn_profile_runs()) return work(ctx);
    look(r, addresses);
    if (r->state == GIVEN_UP) return work(ctx);
    if (r->state == NEW) {
        PN_TRY(side_by_side(r, work, ctx, false));
        learnt(r);
        return PN_OK;
    }
    PN_TRY(pn_recorded_refresh(r->tables)); /* before the work, which may change what they are made of */
    if (r->state == LEARNT) {
        if (side_by_side(r, work, ctx, true)) {
            give_up(r);
            return work(ctx);
        }
        r->recordings++;
        r->state = RECORDED;
    }
    return launch(r, FIRST);
}

/* ---- work in two parts ---- */

static pn_status record_both(pn_replay *r, const pn_replay_parts *p) {
    PN_TRY(record(r, p->first, p->ctx, &r->graph[FIRST]));
    PN_TRY(record(r, p->second, p->ctx, &r->graph[SECOND]));
    PN_TRY(p->recorded(p->ctx));
    return PN_OK;
}

pn_status pn_replay_first(pn_replay *r, uint64_t addresses, const pn_replay_parts *p, bool *launched) {
    r->parts = *p;
    r->launched = *launched = false;
    if (!r->tables || pn_profile_runs()) return p->first(p->ctx);
    look(r, addresses);
    if (r->state == GIVEN_UP) return p->first(p->ctx);
    if (r->state == NEW) {
        r->state = LEARNING;
        return learn(r, p->first, p->ctx);
    }
    PN_TRY(pn_recorded_refresh(r->tables));
    if (r->state == LEARNT) {
        if (record_both(r, p)) {
            give_up(r);
            forget_graphs(r);
            p->undo(p->ctx);
            if (++r->failures == MOST_FAILURES) return p->first(p->ctx);
            pn_recorded_forget(r->tables);
            r->state = LEARNING; /* where memory was missing, it is there after this */
            return learn(r, p->first, p->ctx);
        }
        r->recordings++;
        r->state = RECORDED;
    }
    r->launched = *launched = true;
    return launch(r, FIRST);
}

pn_status pn_replay_second(pn_replay *r) {
    const pn_replay_parts *p = &r->parts;
    if (r->launched) return launch(r, SECOND);
    if (r->state != LEARNING) return p->second(p->ctx);
    PN_TRY(learn(r, p->second, p->ctx));
    learnt(r);
    return PN_OK;
}
