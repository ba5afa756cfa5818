#include "checkpoint_background.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_internal.h"
#include "clock.h"
#include "log.h"

enum { ALIGNMENT = 64 };

struct pn_checkpoint_writer {
    pn_checkpoint_place where;
    char *copy; /* of values and names; kept from save to save, as fresh pages cost more than the copy itself */
    size_t copy_bytes;
    pn_checkpoint_array *array; /* of the copy */
    int n;
    int64_t step;
    bool open; /* a save was begun, and nobody knows how it ended */
    bool running;
    pthread_t thread;
    atomic_bool written;
    pn_status status; /* of the thread's work, with its message: a story belongs to the thread it happened in */
    char message[1024];
    char *text; /* what the manifest says of this rank's file */
};

pn_status pn_checkpoint_writer_open(const pn_checkpoint_place *where, pn_checkpoint_writer **out) {
    *out = NULL;
    if (pn_ranks_me(where->ranks) == 0) PN_TRY(pn_checkpoint_clean(where->dir));
    pn_checkpoint_writer *w = calloc(1, sizeof *w);
    PN_CHECK(w, PN_MEMORY, "out of memory");
    w->where = *where;
    *out = w;
    return PN_OK;
}

/* ---- the copy ---- */

/* Only what this rank writes. */
static bool is_mine(const pn_checkpoint_writer *w, const pn_checkpoint_array *a) {
    return a->total || pn_ranks_me(w->where.ranks) == 0;
}

static size_t rounded(size_t n_bytes) {
    return (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bool reserve(pn_checkpoint_writer *w, const pn_checkpoint_array *arrays, int n) {
    size_t need = 0;
    for (int i = 0; i < n; i++)
        if (is_mine(w, &arrays[i])) need += rounded(pn_state_bytes(&arrays[i])) + rounded(strlen(arrays[i].name) + 1);
    free(w->array);
    w->array = calloc((size_t)n + 1, sizeof *w->array);
    if (need > w->copy_bytes) {
        free(w->copy);
        w->copy = aligned_alloc(ALIGNMENT, need);
        w->copy_bytes = w->copy ? need : 0;
    }
    return w->array && need <= w->copy_bytes;
}

static pn_status copy(pn_checkpoint_writer *w, const pn_checkpoint_array *arrays, int n) {
    const double begun = pn_seconds();
    char *at = w->copy;
    w->n = 0;
    for (int i = 0; i < n; i++) {
        const pn_checkpoint_array *a = &arrays[i];
        if (!is_mine(w, a)) continue;
        char *values = at, *name = at + rounded(pn_state_bytes(a));
        at = name + rounded(strlen(a->name) + 1);
        strcpy(name, a->name);
        if (a->n) PN_TRY(pn_state_fetch(a, values));
        pn_checkpoint_array *c = &w->array[w->n++];
        *c = pn_checkpoint_part(pn_checkpoint_data(name, a->dtype, a->n, values), a->offset, a->total);
    }
    pn_debug("checkpoint", "%.3f GB copied in %.3f s", (double)(at - w->copy) / 1e9, pn_seconds() - begun);
    return PN_OK;
}

/* ---- the thread ---- */

static bool alone(const pn_checkpoint_writer *w) {
    return pn_ranks_n(w->where.ranks) == 1;
}

static void write_arrays(pn_checkpoint_writer *w, const pn_checkpoint_array *arrays, int n) {
    const double begun = pn_seconds();
    w->status = pn_state_write(&w->where, w->step, arrays, n, &w->text);
    if (alone(w)) w->status = pn_state_commit(&w->where, w->step, w->status, w->text);
    if (w->status) snprintf(w->message, sizeof w->message, "%s", pn_error_message());
    pn_debug("checkpoint", "step %lld written in %.3f s", (long long)w->step, pn_seconds() - begun);
    atomic_store(&w->written, true);
}

static void *write_copy(void *ctx) {
    pn_checkpoint_writer *w = ctx;
    write_arrays(w, w->array, w->n);
    return NULL;
}

/* Signals are for the thread that works. Where there is no other, it writes as well. */
static void start(pn_checkpoint_writer *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->running = !pthread_create(&w->thread, NULL, write_copy, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!w->running) write_copy(w);
}

/* The thread's work is done; how it went, for its story to be told here. */
static pn_status join(pn_checkpoint_writer *w) {
    if (w->running) pthread_join(w->thread, NULL);
    w->running = w->open = false;
    return w->status ? pn_fail_at(__FILE__, __LINE__, w->status, "%s", w->message) : PN_OK;
}

pn_status pn_checkpoint_writer_finish(pn_checkpoint_writer *w) {
    if (!w->open) return PN_OK;
    pn_status s = join(w);
    if (!alone(w)) s = pn_state_commit(&w->where, w->step, s, w->text);
    free(w->text);
    w->text = NULL;
    return s;
}

pn_status pn_checkpoint_writer_advance(pn_checkpoint_writer *w) {
    bool all = false;
    if (w->open) PN_TRY(pn_ranks_all(w->where.ranks, atomic_load(&w->written), &all));
    return all ? pn_checkpoint_writer_finish(w) : PN_OK;
}

pn_status pn_checkpoint_writer_save(pn_checkpoint_writer *w, int64_t step, const pn_checkpoint_array *arrays, int n) {
    bool there;
    PN_TRY(pn_checkpoint_writer_finish(w));
    const bool fits = reserve(w, arrays, n);
    PN_TRY(pn_ranks_agree(w->where.ranks, fits ? copy(w, arrays, n) : PN_OK));
    PN_TRY(pn_state_begin(&w->where, step, &there));
    if (there) return PN_OK;
    w->step = step;
    w->open = true;
    atomic_store(&w->written, false);
    if (fits)
        start(w);
    else
        write_arrays(w, arrays, n);
    return PN_OK;
}

void pn_checkpoint_writer_close(pn_checkpoint_writer **out) {
    pn_checkpoint_writer *w = *out;
    *out = NULL;
    if (!w) return;
    const bool unknown = w->open && !alone(w);
    if (w->open && join(w))
        pn_warn("step %lld is not saved: %s", (long long)w->step, w->message);
    else if (unknown && w->where.ranks->rank == 0)
        pn_warn("step %lld is not saved: the run ended before all ranks knew that they had written it",
                (long long)w->step);
    free(w->text);
    free(w->copy);
    free(w->array);
    free(w);
}
