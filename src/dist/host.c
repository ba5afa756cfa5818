#include "host.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sum.h"

/* Elements of a part that are on the way at a time: what others sent waits for its turn in the sum. */
enum { PIECE = 128 << 10, SMALL = 1024 /* elements that every rank sums for itself */ };

typedef struct job {
    pn_collective what;
    struct job *next;
} job;

typedef struct host {
    pn_transport *transport;
    pn_control *control;
    int rank, size;
    char *scratch;     /* size x PIECE elements of 8 bytes */
    const void **from; /* size */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more, done;
    job *first, **end;
    pn_ticket n_done;
    bool stop;
    pn_status status; /* of the first that failed */
    char story[1024];
} host;

/* ---- algorithms ---- */

static int after(const host *h, int rank, int steps) {
    return (rank + steps) % h->size;
}
static int before(const host *h, int rank, int steps) {
    return (rank + h->size - steps) % h->size;
}

/* Everybody's n_bytes, in the order of ranks, into all; mine is at its place or elsewhere. */
static pn_status gather(host *h, const void *mine, char *all, size_t n_bytes) {
    char *at = all + (size_t)h->rank * n_bytes;
    if (at != mine) memmove(at, mine, n_bytes);
    for (int s = 1; s < h->size; s++) {
        const int to = after(h, h->rank, s), from = before(h, h->rank, s);
        PN_TRY(
            h->transport->type->exchange(h->transport, to, at, n_bytes, from, all + (size_t)from * n_bytes, n_bytes));
    }
    return PN_OK;
}

/* Part r of `count` elements is begin(r) .. begin(r + 1). */
static int64_t part_begin(const host *h, int64_t count, int r) {
    const int64_t part = (count + h->size - 1) / h->size, at = part * r;
    return at < count ? at : count;
}

typedef struct span {
    int64_t begin, end;
} span;
/* The piece of rank r's part that starts at its element `at`; empty past the part's end. */
static span piece_of(const host *h, int64_t count, int r, int64_t at) {
    const int64_t end = part_begin(h, count, r + 1);
    int64_t begin = part_begin(h, count, r) + at;
    if (begin > end) begin = end;
    return (span){ begin, end - begin < PIECE ? end : begin + PIECE };
}

/* This rank's part of x, of all ranks' x, reduced into dst. */
static pn_status reduce_part(host *h, const char *x, char *dst, int64_t count, pn_dtype t, pn_reduce op) {
    const size_t bytes = pn_dtype_bytes(t);
    const int64_t part = part_begin(h, count, 1); /* the largest */
    for (int64_t at = 0; at < part; at += PIECE) {
        const span mine = piece_of(h, count, h->rank, at);
        const size_t n_in = (size_t)(mine.end - mine.begin) * bytes;
        for (int s = 1; s < h->size; s++) {
            const int to = after(h, h->rank, s), from = before(h, h->rank, s);
            const span theirs = piece_of(h, count, to, at);
            char *in = h->scratch + (size_t)from * PIECE * 8;
            PN_TRY(h->transport->type->exchange(h->transport, to, x + (size_t)theirs.begin * bytes,
                                                (size_t)(theirs.end - theirs.begin) * bytes, from, in, n_in));
            h->from[from] = in;
        }
        h->from[h->rank] = x + (size_t)mine.begin * bytes;
        pn_reduce_values(dst + (size_t)at * bytes, h->from, h->size, mine.end - mine.begin, t, op);
    }
    return PN_OK;
}

static pn_status all_reduce_small(host *h, char *x, int64_t count, pn_dtype t, pn_reduce op) {
    const size_t n_bytes = (size_t)count * pn_dtype_bytes(t);
    PN_TRY(gather(h, x, h->scratch, n_bytes));
    for (int r = 0; r < h->size; r++) h->from[r] = h->scratch + (size_t)r * n_bytes;
    pn_reduce_values(x, h->from, h->size, count, t, op);
    return PN_OK;
}

static pn_status all_reduce(host *h, char *x, int64_t count, pn_dtype t, pn_reduce op) {
    const size_t bytes = pn_dtype_bytes(t);
    if (count <= SMALL) return all_reduce_small(h, x, count, t, op);
    const int64_t begin = part_begin(h, count, h->rank), end = part_begin(h, count, h->rank + 1);
    char *mine = x + (size_t)begin * bytes;
    PN_TRY(reduce_part(h, x, mine, count, t, op));
    for (int s = 1; s < h->size; s++) {
        const int to = after(h, h->rank, s), from = before(h, h->rank, s);
        const int64_t at = part_begin(h, count, from), n = part_begin(h, count, from + 1) - at;
        PN_TRY(h->transport->type->exchange(h->transport, to, mine, (size_t)(end - begin) * bytes, from,
                                            x + (size_t)at * bytes, (size_t)n * bytes));
    }
    return PN_OK;
}

/* A tree: ranks counted from the root, those that have it send it on, twice as many each round. */
static pn_status broadcast(host *h, char *x, size_t n_bytes, int root) {
    const int me = before(h, h->rank, root);
    for (int have = 1; have < h->size; have *= 2) {
        if (me < have && me + have < h->size)
            PN_TRY(h->transport->type->exchange(h->transport, after(h, h->rank, have), x, n_bytes, -1, NULL, 0));
        if (me >= have && me < 2 * have)
            PN_TRY(h->transport->type->exchange(h->transport, -1, NULL, 0, before(h, h->rank, have), x, n_bytes));
    }
    return PN_OK;
}

static pn_status barrier(host *h) {
    char out = 0, in;
    for (int s = 1; s < h->size; s *= 2)
        PN_TRY(
            h->transport->type->exchange(h->transport, after(h, h->rank, s), &out, 1, before(h, h->rank, s), &in, 1));
    return PN_OK;
}

static pn_status run(host *h, const pn_collective *w) {
    const size_t bytes = w->kind == PN_BARRIER ? 0 : pn_dtype_bytes(w->dtype);
    switch (w->kind) {
    case PN_ALL_REDUCE: return all_reduce(h, w->dst, w->count, w->dtype, w->reduce);
    case PN_REDUCE_SCATTER: return reduce_part(h, w->src, w->dst, w->count * h->size, w->dtype, w->reduce);
    case PN_ALL_GATHER: return gather(h, w->src, w->dst, (size_t)w->count * bytes);
    case PN_BROADCAST: return broadcast(h, w->dst, (size_t)w->count * bytes, w->root);
    case PN_BARRIER: return barrier(h);
    }
    PN_ASSERT(!"a collective");
}

/* ---- the thread ---- */

static void *work(void *ctx) {
    host *h = ctx;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->first && !h->stop) pthread_cond_wait(&h->more, &h->lock);
        job *j = h->first;
        if (!j) break;
        if (!(h->first = j->next)) h->end = &h->first;
        const bool skip = h->status != PN_OK || h->stop;
        pthread_mutex_unlock(&h->lock);
        const pn_status s = skip ? PN_OK : run(h, &j->what);
        free(j);
        pn_control_tick(h->control);
        pthread_mutex_lock(&h->lock);
        if (s && !h->status) { /* the story is this thread's own */
            h->status = s;
            snprintf(h->story, sizeof h->story, "%s", pn_error_message());
        }
        h->n_done++;
        pthread_cond_broadcast(&h->done);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- the communicator ---- */

static pn_status host_start(pn_comm *c, const pn_collective *what) {
    host *h = c->data;
    job *j = malloc(sizeof *j);
    PN_CHECK(j, PN_MEMORY, "out of memory");
    *j = (job){ .what = *what };
    pthread_mutex_lock(&h->lock);
    *h->end = j;
    h->end = &j->next;
    pthread_cond_signal(&h->more);
    pthread_mutex_unlock(&h->lock);
    return PN_OK;
}

static pn_status host_wait(pn_comm *c, pn_ticket t) {
    host *h = c->data;
    pn_control_waiting(c->control, true);
    pthread_mutex_lock(&h->lock);
    while (h->n_done < t) pthread_cond_wait(&h->done, &h->lock);
    const pn_status s = h->status;
    pthread_mutex_unlock(&h->lock);
    pn_control_waiting(c->control, false);
    if (s) PN_FAIL(s, "%s", h->story);
    return PN_OK;
}

static pn_status host_finish(pn_comm *c) {
    return host_wait(c, c->last);
}

pn_status pn_transport_status(pn_transport *t) {
    PN_TRY(pn_control_status(t->control));
    PN_CHECK(!atomic_load(&t->stop), PN_COMM, "collectives ended when this rank failed");
    return PN_OK;
}

/* What is under way ends, what is queued is left undone. */
static void host_abandon(pn_comm *c) {
    host *h = c->data;
    atomic_store(&h->transport->stop, true);
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->more);
    while (h->n_done < c->last) pthread_cond_wait(&h->done, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

/* What is still queued is left undone: its buffers may be gone. */
static void host_destroy(pn_comm *c) {
    host *h = c->data;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->more);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    h->transport->type->close(h->transport);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->more);
    pthread_cond_destroy(&h->done);
    free(h->scratch);
    free(h->from);
    free(h);
}

static const pn_comm_type tcp = {
    .name = "tcp",
    .start = host_start,
    .wait = host_wait,
    .finish = host_finish,
    .abandon = host_abandon,
    .destroy = host_destroy,
};
static const pn_comm_type mpi = {
    .name = "mpi",
    .start = host_start,
    .wait = host_wait,
    .finish = host_finish,
    .abandon = host_abandon,
    .destroy = host_destroy,
};

pn_status pn_comm_host(pn_transport *t, pn_comm **out) {
    pn_status s = PN_OK;
    int e;
    host *h = calloc(1, sizeof *h);
    if (!h) {
        t->type->close(t);
        PN_FAIL(PN_MEMORY, "out of memory");
    }
    *h = (host){ .transport = t, .control = t->control, .rank = t->rank, .size = t->size, .end = &h->first };
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more, NULL);
    pthread_cond_init(&h->done, NULL);
    h->scratch = malloc((size_t)t->size * PIECE * 8);
    h->from = calloc((size_t)t->size, sizeof *h->from);
    if (!h->scratch || !h->from) PN_FAIL_GOTO(s, PN_MEMORY, fail, "out of memory");
    PN_TRY_GOTO(s, pn_comm_create(!strcmp(t->type->name, "mpi") ? &mpi : &tcp, PN_POOL_HOST, t->control, h, out), fail);
    e = pthread_create(&h->thread, NULL, work, h);
    if (!e) return PN_OK;
    free(*out);
    *out = NULL;
    s = pn_fail_at(__FILE__, __LINE__, PN_COMM, "cannot start a thread: %s", strerror(e));
fail:
    t->type->close(t);
    free(h->scratch);
    free(h->from);
    free(h);
    return s;
}
