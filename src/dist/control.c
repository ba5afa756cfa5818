#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "control_link.h"
#include "signals.h"

enum { AGREE_BYTES = 512, LOOK_SECONDS = 2 };

/* ---- small questions ---- */

int pn_control_rank(const pn_control *c) {
    return c->rank;
}
int pn_control_size(const pn_control *c) {
    return c->size;
}
double pn_control_limit(const pn_control *c) {
    return c->limit;
}
const unsigned char *pn_control_token(const pn_control *c) {
    return c->meeting.token;
}
bool pn_control_failed(const pn_control *c) {
    return atomic_load(&c->failed);
}

bool pn_control_failure(pn_control *c, int *rank, char *cause, size_t n_bytes) {
    if (!atomic_load(&c->failed)) return false;
    pthread_mutex_lock(&c->lock);
    *rank = c->failed_rank;
    snprintf(cause, n_bytes, "%s", c->cause);
    pthread_mutex_unlock(&c->lock);
    return true;
}

pn_status pn_control_status(pn_control *c) {
    int rank;
    char cause[PN_CAUSE_BYTES];
    if (!pn_control_failure(c, &rank, cause, sizeof cause)) return PN_OK;
    PN_CHECK(rank >= 0, PN_COMM, "%s", cause);
    PN_FAIL(PN_COMM, "rank %d failed: %s", rank, cause);
}

pn_status pn_control_address(const pn_control *c, int rank, pn_net_address *out) {
    *out = c->member[rank].address;
    if (!out->n_bytes) *out = c->member[0].address; /* on rank 0's machine */
    PN_CHECK(out->n_bytes, PN_COMM, "the address of rank %d is not known", rank);
    return PN_OK;
}

void pn_control_tick(pn_control *c) {
    atomic_fetch_add(&c->progress, 1);
}
void pn_control_waiting(pn_control *c, bool waits) {
    atomic_fetch_add(&c->waiting, waits ? 1 : -1);
    if (!waits) pn_control_tick(c);
}
const char *pn_control_busy(pn_control *c, const char *what) {
    const char *before = atomic_exchange(&c->busy, what);
    pn_control_tick(c);
    return before;
}

void pn_control_doing(pn_control *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    pthread_mutex_lock(&c->lock);
    vsnprintf(c->doing, sizeof c->doing, fmt, args);
    pthread_mutex_unlock(&c->lock);
    va_end(args);
}

/* ---- failures ---- */

void pn_control_lost(pn_control *c, int rank, const char *cause) {
    pthread_mutex_lock(&c->lock);
    pn_control_fail(c, rank, "%s", cause);
    pthread_mutex_unlock(&c->lock);
}

void pn_control_abort(pn_control *c, const char *cause) {
    pn_control_lost(c, c->rank, cause);
}

void pn_control_on_failure(pn_control *c, void (*fn)(void *ctx), void *ctx) {
    pthread_mutex_lock(&c->lock);
    while (c->told && c->on_failure) pthread_cond_wait(&c->changed, &c->lock); /* it is running */
    if (!c->told) {
        c->on_failure = fn;
        c->on_failure_ctx = ctx;
    }
    pthread_mutex_unlock(&c->lock);
}

/* Waits for a change; lock held. */
static void wait_changed(pn_control *c, double seconds) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const long long ns = t.tv_nsec + (long long)(seconds * 1e9);
    t.tv_sec += (time_t)(ns / 1000000000);
    t.tv_nsec = (long)(ns % 1000000000);
    pthread_cond_timedwait(&c->changed, &c->lock, &t);
}

/* ---- exchanges ---- */

pn_status pn_control_exchange(pn_control *c, const char *what, const void *mine, size_t n_bytes, void *all) {
    char label[PN_WIRE_LABEL] = "", head[8 + PN_WIRE_LABEL];
    PN_CHECK(n_bytes <= PN_EXCHANGE_MOST / (size_t)c->size, PN_COMM, "%zu bytes of each of %d ranks are too many",
             n_bytes, c->size);
    if (c->size == 1) {
        if (n_bytes) memmove(all, mine, n_bytes);
        return PN_OK;
    }
    snprintf(label, sizeof label, "%s", what);
    pn_control_waiting(c, true);
    pthread_mutex_lock(&c->lock);
    const uint64_t number = ++c->asked;
    if (!atomic_load(&c->failed)) {
        if (c->rank == 0) {
            pn_control_take(c, 0, label, mine, n_bytes);
            pn_control_wake(c);
        } else {
            pn_link *root = pn_control_link_of(c, 0);
            pn_put64(head, number);
            memcpy(head + 8, label, PN_WIRE_LABEL);
            if (root) pn_control_say(c, root, PN_WIRE_GIVE, head, sizeof head, mine, n_bytes);
        }
    }
    while (c->answered < number && !atomic_load(&c->failed)) pthread_cond_wait(&c->changed, &c->lock);
    const bool there = c->answered >= number && c->all.n_bytes == n_bytes * (size_t)c->size;
    if (there && n_bytes) memcpy(all, c->all.data, c->all.n_bytes);
    if (!there && !atomic_load(&c->failed))
        pn_control_fail(c, 0, "it answered '%s' with the wrong number of bytes", label);
    pthread_mutex_unlock(&c->lock);
    pn_control_waiting(c, false);
    if (!there) PN_TRY(pn_control_status(c));
    return PN_OK;
}

pn_status pn_control_barrier(pn_control *c, const char *what) {
    return pn_control_exchange(c, what, NULL, 0, NULL);
}

pn_status pn_control_broadcast(pn_control *c, const char *what, int from, void *bytes, size_t n_bytes) {
    char *all = malloc((size_t)c->size * n_bytes + 1);
    PN_CHECK(all, PN_MEMORY, "out of memory");
    pn_status s = pn_control_exchange(c, what, bytes, n_bytes, all);
    if (!s) memcpy(bytes, all + (size_t)from * n_bytes, n_bytes);
    free(all);
    return s;
}

pn_status pn_control_max(pn_control *c, const char *what, int64_t *value) {
    int64_t *all = malloc((size_t)c->size * sizeof *all);
    PN_CHECK(all, PN_MEMORY, "out of memory");
    pn_status s = pn_control_exchange(c, what, value, sizeof *value, all);
    for (int r = 0; !s && r < c->size; r++)
        if (all[r] > *value) *value = all[r];
    free(all);
    return s;
}

pn_status pn_control_agree(pn_control *c, const char *what, pn_status mine) {
    char record[AGREE_BYTES] = "";
    if (c->size == 1) return mine;
    record[0] = (char)mine;
    if (mine) snprintf(record + 1, sizeof record - 1, "%s", pn_error_message());
    char *all = malloc((size_t)c->size * AGREE_BYTES);
    PN_CHECK(all, PN_MEMORY, "out of memory");
    pn_status s = pn_control_exchange(c, what, record, sizeof record, all);
    for (int r = 0; !s && r < c->size; r++) {
        const char *of = all + (size_t)r * AGREE_BYTES;
        if (!of[0]) continue;
        s = (pn_status)of[0];
        if (r != c->rank) s = pn_fail_at(__FILE__, __LINE__, s, "rank %d: %.500s", r, of + 1);
        break; /* this rank's own story stands as it is */
    }
    free(all);
    return s;
}

/* ---- opening: rank 0 ---- */

static pn_status start_thread(pn_control *c) {
    const int e = pthread_create(&c->thread, NULL, pn_control_run, c);
    PN_CHECK(!e, PN_COMM, "cannot start a thread: %s", strerror(e));
    c->started = true;
    return PN_OK;
}

static pn_status listen_for_others(pn_control *c, const pn_control_settings *s) {
    char note[PN_NOTE_BYTES] = "";
    PN_TRY(pn_meeting_listen(&c->meeting, &c->listener, &c->port, note));
    c->member[0].there = true;
    c->n_there = 1;
    if (c->meeting.carried) PN_TRY(s->carry(s->ctx, note));
    return PN_OK;
}

/* "1, 2 and 5 others"; lock held. */
static void list_missing(const pn_control *c, char *out, size_t n_bytes) {
    int named = 0, missing = c->size - c->n_there;
    size_t at = 0;
    out[0] = '\0';
    for (int r = 0; r < c->size && named < 8; r++) {
        if (c->member[r].there) continue;
        at += (size_t)snprintf(out + at, n_bytes - at, "%s%d", named ? ", " : "", r);
        named++;
    }
    if (missing > named) snprintf(out + at, n_bytes - at, " and %d more", missing - named);
}

static void give_up_waiting(pn_control *c, double seconds) {
    char missing[128];
    list_missing(c, missing, sizeof missing);
    pn_control_fail(c, 0,
                    "after %.3g s rank%s %s of %d had not come to %s (port %d): were they started, and can they "
                    "reach this machine?",
                    seconds, c->size - c->n_there == 1 ? "" : "s", missing, c->size, c->meeting.text, c->port);
}

/* ---- opening: the others ---- */

/* What the other side said no with; *for_good: asking again will not help. */
static pn_status greet(pn_control *c, int fd, double deadline, bool *for_good) {
    unsigned char hello[PN_WIRE_HEADER + PN_HELLO_BYTES], head[PN_WIRE_HEADER];
    char body[PN_CAUSE_BYTES] = "";
    pn_wire_header h;
    pn_wire_write(hello, PN_WIRE_HELLO, c->rank, PN_HELLO_BYTES);
    pn_wire_digest(c->meeting.token, true, hello + PN_WIRE_HEADER);
    pn_put32(hello + PN_WIRE_HEADER + PN_TOKEN_BYTES, (uint32_t)c->size);
    PN_TRY(pn_net_send_all(fd, hello, sizeof hello, deadline));
    PN_TRY(pn_net_receive_all(fd, head, sizeof head, deadline));
    PN_CHECK(pn_wire_read(head, &h) && h.n_bytes < sizeof body, PN_COMM, "what answers there is not postnas");
    PN_TRY(pn_net_receive_all(fd, body, h.n_bytes, deadline));
    if (h.type == PN_WIRE_REFUSED && h.n_bytes > 1) {
        *for_good = body[0] == '!' && h.version == PN_WIRE_VERSION;
        PN_FAIL(PN_COMM, "rank 0 says: %s", body + 1);
    }
    PN_CHECK(h.type == PN_WIRE_WELCOME && h.n_bytes == PN_TOKEN_BYTES && pn_wire_knows(c->meeting.token, false, body),
             PN_COMM, "what answers there is another run");
    return PN_OK;
}

static pn_status try_port(pn_control *c, const pn_place *p, int port, bool *for_good, int *out) {
    double deadline = pn_seconds() + LOOK_SECONDS;
    if (deadline > c->start_deadline) deadline = c->start_deadline;
    PN_TRY(pn_net_connect(p->host, port, deadline, out));
    pn_status s = greet(c, *out, deadline, for_good);
    if (!s) return PN_OK;
    pn_net_close(out);
    char why[512];
    snprintf(why, sizeof why, "%.400s", pn_error_message());
    PN_FAIL(PN_COMM, "%s:%d: %s", p->host, port, why);
}

/* The last failure was an answer of rank 0's. */
static bool answered(void) {
    return strstr(pn_error_message(), "rank 0 says") != NULL;
}

static pn_status try_everywhere(pn_control *c, bool *for_good, int *fd) {
    char best[600] = "";
    bool told = false;
    if (c->meeting.file[0]) PN_TRY(pn_meeting_read_file(&c->meeting));
    for (int i = 0; i < c->meeting.n_places; i++) {
        const pn_place *p = &c->meeting.place[i];
        for (int port = p->first; port <= p->last; port++) {
            if (!try_port(c, p, port, for_good, fd)) return PN_OK;
            if (!best[0] || (answered() && !told)) snprintf(best, sizeof best, "%.590s", pn_error_message());
            told = told || answered();
            if (*for_good) PN_FAIL(PN_USAGE, "%s", best);
        }
    }
    PN_FAIL(PN_COMM, "%s", best);
}

static pn_status find_rank_0(pn_control *c, const pn_control_settings *s) {
    char note[PN_NOTE_BYTES] = "", why[600] = "";
    bool for_good = false, told = false;
    int fd = -1;
    if (c->meeting.carried) {
        PN_TRY(s->carry(s->ctx, note));
        note[PN_NOTE_BYTES - 1] = '\0';
        PN_TRY(pn_meeting_read_note(&c->meeting, note));
    }
    for (double pause = 0.02;; pause = pause < 0.2 ? 2 * pause : pause) {
        const pn_status found = try_everywhere(c, &for_good, &fd);
        if (!found) break;
        if (for_good) return found;
        const bool tells = answered(); /* an answer tells more than the silence that may follow it */
        if (tells || !told) snprintf(why, sizeof why, "%.590s", pn_error_message());
        told = told || tells;
        PN_CHECK(!pn_interrupted(), PN_INTERRUPTED, "stopped while rank %d looked for rank 0", c->rank);
        if (pn_seconds() >= c->start_deadline)
            PN_FAIL(PN_COMM,
                    "rank %d did not find rank 0 of %d at %s within %.3g s (%s): was it started, and can "
                    "this machine reach it?",
                    c->rank, c->size, c->meeting.text, s->start_seconds, why);
        usleep((useconds_t)(pause * 1e6));
    }
    const pn_status s_ = pn_control_add_link(c, fd, 0);
    if (s_) pn_net_close(&fd);
    PN_TRY(s_);
    c->member[0].heard = pn_seconds();
    (void)pn_net_peer(fd, &c->member[0].address);
    return PN_OK;
}

/* Rank 0 alone knows when all are there, and tells at once: asked to stop meanwhile, the others leave it to stop all,
 * or to let them begin and stop together, for as long as word of it may take. */
static pn_status wait_for_all(pn_control *c, const pn_control_settings *s) {
    enum { PATIENCE_SECONDS = 5 };
    static const char stopped[] = "it was asked to stop while it waited for the others";
    double asked = 0;
    pthread_mutex_lock(&c->lock);
    while (!c->ready && !atomic_load(&c->failed)) {
        wait_changed(c, 0.1);
        if (c->ready || atomic_load(&c->failed)) break;
        const double now = pn_seconds();
        if (!asked && pn_interrupted()) asked = now;
        if (asked && (c->rank == 0 || now - asked > PATIENCE_SECONDS)) pn_control_fail(c, c->rank, "%s", stopped);
        if (c->rank == 0 && now > c->start_deadline) give_up_waiting(c, s->start_seconds);
    }
    const bool stop = atomic_load(&c->failed) && !strcmp(c->cause, stopped);
    pthread_mutex_unlock(&c->lock);
    PN_CHECK(!stop, PN_INTERRUPTED, "stopped while rank %d waited for the others", c->rank);
    return pn_control_status(c);
}

/* ---- opening ---- */

static pn_status make(const pn_control_settings *s, pn_control **out) {
    pn_control *c = calloc(1, sizeof *c);
    PN_CHECK(c, PN_MEMORY, "out of memory");
    *out = c;
    c->rank = s->rank;
    c->size = s->size;
    c->limit = s->limit_seconds;
    c->start_deadline = pn_seconds() + s->start_seconds;
    c->listener = c->wake[0] = c->wake[1] = -1;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &clock);
    pthread_condattr_destroy(&clock);
    c->member = calloc((size_t)c->size, sizeof *c->member);
    PN_CHECK(c->member, PN_MEMORY, "out of memory");
    for (int r = 0; r < c->size; r++) c->member[r].heard = c->member[r].progressed = pn_seconds();
    PN_CHECK(c->size == 1 || pipe2(c->wake, O_NONBLOCK | O_CLOEXEC) == 0, PN_COMM, "cannot make a pipe: %s",
             strerror(errno));
    return PN_OK;
}

static pn_status meet(pn_control *c, const pn_control_settings *s) {
    if (c->size == 1) return PN_OK;
    PN_TRY(pn_meeting_parse(s->rendezvous, s->run_id, &c->meeting));
    PN_CHECK(!c->meeting.carried || s->carry, PN_USAGE,
             "the ranks are on several machines and MPI is not there to tell where they meet: give --rendezvous "
             "HOST:PORT, or file:PATH on a file system that all of them see");
    if (c->rank == 0)
        PN_TRY(listen_for_others(c, s));
    else
        PN_TRY(find_rank_0(c, s));
    atomic_store(&c->waiting, 1);
    PN_TRY(start_thread(c));
    PN_TRY(wait_for_all(c, s));
    pn_control_waiting(c, false);
    return PN_OK;
}

pn_status pn_control_open(const pn_control_settings *s, pn_control **out) {
    PN_ASSERT(s->size >= 1 && s->rank >= 0 && s->rank < s->size && s->limit_seconds > 0);
    pn_control *c = NULL;
    *out = NULL;
    pn_status status = make(s, &c);
    if (!status) status = meet(c, s);
    if (status)
        pn_control_close(&c);
    else
        *out = c;
    return status;
}

/* ---- the end ---- */

/* Lock held. */
static bool others_are_gone(pn_control *c) {
    if (c->rank > 0) return pn_control_link_of(c, 0) == NULL;
    for (int r = 1; r < c->size; r++)
        if (!c->member[r].left) return false;
    return true;
}

static void say_goodbye(pn_control *c) {
    const double deadline = pn_seconds() + c->limit;
    if (!c->ready || atomic_load(&c->failed)) return;
    c->gone = true;
    c->member[c->rank].left = true;
    pn_link *root = c->rank > 0 ? pn_control_link_of(c, 0) : NULL;
    if (root) pn_control_say(c, root, PN_WIRE_BYE, NULL, 0, NULL, 0);
    /* rank 0 stays for as long as others work: they would take its end for a failure. They are watched meanwhile. */
    while (!others_are_gone(c) && !atomic_load(&c->failed) && (c->rank == 0 || pn_seconds() < deadline))
        wait_changed(c, 0.1);
}

void pn_control_close(pn_control **at) {
    pn_control *c = *at;
    if (!c) return;
    *at = NULL;
    if (c->started) {
        pthread_mutex_lock(&c->lock);
        say_goodbye(c);
        c->stop = true;
        pn_control_wake(c);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    if (c->rank == 0) pn_meeting_over(&c->meeting);
    for (int i = 0; i < c->n_links; i++) {
        pn_net_close(&c->link[i].fd);
        pn_buf_free(&c->link[i].in);
        pn_buf_free(&c->link[i].out);
    }
    for (int r = 0; c->member && r < c->size; r++) free(c->member[r].given);
    pn_net_close(&c->listener);
    pn_net_close(&c->wake[0]);
    pn_net_close(&c->wake[1]);
    pn_buf_free(&c->all);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->link);
    free(c->member);
    free(c);
}
