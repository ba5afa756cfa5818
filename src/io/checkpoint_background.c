#include "checkpoint_background.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_internal.h"
#include "log.h"

enum { ALIGNMENT = 64 };

struct pn_checkpoint_writer {
    pn_checkpoint_place where;
    char *copy; /* of values and names; kept from save to save, as fresh pages cost more than the copy itself */
    size_t copy_bytes;
    pn_checkpoint_array *array; /* of the copy */
    int n;
    int64_t step;
    pthread_t thread;
    bool running;
    pn_status status; /* of the last save, with its message: an error's story belongs to the thread it happened in */
    char message[1024];
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
    return PN_OK;
}

/* ---- the thread ---- */

static void *write_copy(void *ctx) {
    pn_checkpoint_writer *w = ctx;
    w->status = pn_checkpoint_write(&w->where, w->step, w->array, w->n);
    if (w->status) snprintf(w->message, sizeof w->message, "%s", pn_error_message());
    return NULL;
}

/* Signals are for the thread that works. */
static int start(pn_checkpoint_writer *w) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&w->thread, NULL, write_copy, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->running = !failed;
    return failed;
}

static void join(pn_checkpoint_writer *w) {
    if (w->running) pthread_join(w->thread, NULL);
    w->running = false;
}

pn_status pn_checkpoint_writer_finish(pn_checkpoint_writer *w) {
    join(w);
    const pn_status s = w->status;
    w->status = PN_OK;
    return s ? pn_fail_at(__FILE__, __LINE__, s, "%s", w->message) : PN_OK;
}

pn_status pn_checkpoint_writer_save(pn_checkpoint_writer *w, int64_t step, const pn_checkpoint_array *arrays, int n) {
    PN_TRY(pn_checkpoint_writer_finish(w));
    if (!reserve(w, arrays, n)) return pn_checkpoint_write(&w->where, step, arrays, n);
    PN_TRY(copy(w, arrays, n));
    w->step = step;
    if (start(w)) return pn_checkpoint_write(&w->where, step, w->array, w->n);
    return PN_OK;
}

void pn_checkpoint_writer_close(pn_checkpoint_writer **out) {
    pn_checkpoint_writer *w = *out;
    *out = NULL;
    if (!w) return;
    join(w);
    if (w->status) pn_warn("step %lld is not saved: %s", (long long)w->step, w->message);
    free(w->copy);
    free(w->array);
    free(w);
}
