#include "control_link.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

/* A rank is given up before the limit, so that the news arrives within it. */
static const double patience = 0.8;
enum { ALL_WAIT = 5 /* limits */, KNOCKING_MOST = 64, KNOCK_SECONDS = 5, STILL_OPEN_SECONDS = 1 };

/* ---- saying ---- */

void pn_control_wake(pn_control *c) {
    const ssize_t n = write(c->wake[1], "!", 1); /* a full pipe wakes as well */
    (void)n;
}

void pn_control_say(pn_control *c, pn_link *to, pn_wire_type type, const void *head, size_t n_head, const void *body,
                    size_t n_body) {
    unsigned char header[PN_WIRE_HEADER];
    pn_wire_write(header, type, c->rank, n_head + n_body);
    pn_buf_append(&to->out, header, sizeof header);
    if (n_head) pn_buf_append(&to->out, head, n_head);
    if (n_body) pn_buf_append(&to->out, body, n_body);
    pn_control_wake(c);
}

pn_link *pn_control_link_of(pn_control *c, int rank) {
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank == rank && c->link[i].fd >= 0) return &c->link[i];
    return NULL;
}

pn_status pn_control_add_link(pn_control *c, int fd, int rank) {
    if (c->n_links == c->room) {
        const int room = c->room ? 2 * c->room : 8;
        pn_link *more = realloc(c->link, (size_t)room * sizeof *more);
        PN_CHECK(more, PN_MEMORY, "out of memory");
        c->link = more;
        c->room = room;
    }
    c->link[c->n_links++] = (pn_link){ .fd = fd, .rank = rank, .since = pn_seconds() };
    return PN_OK;
}

/* The first failure is the one that counts: what follows comes of it. */
void pn_control_fail(pn_control *c, int rank, const char *fmt, ...) {
    if (atomic_load(&c->failed)) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(c->cause, sizeof c->cause, fmt, args);
    va_end(args);
    c->failed_rank = rank;
    c->failed_at = pn_seconds();
    atomic_store(&c->failed, true);
    unsigned char head[4];
    pn_put32(head, (uint32_t)rank);
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank >= 0)
            pn_control_say(c, &c->link[i], PN_WIRE_FAILED, head, sizeof head, c->cause, strlen(c->cause));
    pthread_cond_broadcast(&c->changed);
    pn_control_wake(c);
}

static void refuse(pn_control *c, pn_link *l, bool for_good, const char *why) {
    const char head[1] = { for_good ? '!' : '?' };
    pn_control_say(c, l, PN_WIRE_REFUSED, head, 1, why, strlen(why));
    l->ends = true;
}

/* ---- exchanges, in rank 0 ---- */

static void end_exchange(pn_control *c) {
    unsigned char head[8];
    pn_buf_clear(&c->all);
    for (int r = 0; r < c->size; r++) {
        const pn_member *m = &c->member[r];
        if (memcmp(m->label, c->member[0].label, PN_WIRE_LABEL) || m->n_given != c->member[0].n_given) {
            pn_control_fail(c, r,
                            "it wants '%.31s' of the others while rank 0 wants '%.31s': do all ranks run the "
                            "same program with the same configuration?",
                            m->label, c->member[0].label);
            return;
        }
        pn_buf_append(&c->all, m->given, m->n_given);
    }
    if (pn_buf_status(&c->all)) {
        pn_control_fail(c, 0, "out of memory");
        return;
    }
    for (int r = 0; r < c->size; r++) {
        free(c->member[r].given);
        c->member[r].given = NULL;
    }
    c->n_given = 0;
    c->answered++;
    pn_put64(head, c->answered);
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank >= 0)
            pn_control_say(c, &c->link[i], PN_WIRE_ALL, head, sizeof head, c->all.data, c->all.n_bytes);
    pthread_cond_broadcast(&c->changed);
}

void pn_control_take(pn_control *c, int rank, const char *label, const void *bytes, size_t n_bytes) {
    pn_member *m = &c->member[rank];
    m->given = malloc(n_bytes ? n_bytes : 1);
    if (!m->given) {
        pn_control_fail(c, 0, "out of memory");
        return;
    }
    if (n_bytes) memcpy(m->given, bytes, n_bytes);
    m->n_given = n_bytes;
    memcpy(m->label, label, PN_WIRE_LABEL);
    m->label[PN_WIRE_LABEL - 1] = '\0';
    if (++c->n_given == c->size) end_exchange(c);
}

/* A rank that ended will never give its part. */
static void check_left(pn_control *c) {
    if (!c->n_given) return;
    for (int r = 0; r < c->size; r++)
        if (c->member[r].left && !c->member[r].given)
            pn_control_fail(c, r, "it ended while other ranks still wait for it");
}

/* ---- hearing ---- */

static void write_addresses(pn_control *c) {
    pn_buf text = { 0 };
    for (int r = 0; r < c->size; r++) {
        const pn_net_address *a = &c->member[r].address;
        const uint32_t n = a->n_bytes <= sizeof a->at ? (uint32_t)a->n_bytes : 0;
        unsigned char head[4];
        pn_put32(head, n);
        pn_buf_append(&text, head, sizeof head);
        pn_buf_append(&text, &a->at, n);
    }
    if (pn_buf_status(&text)) pn_control_fail(c, 0, "out of memory");
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank >= 0) pn_control_say(c, &c->link[i], PN_WIRE_READY, NULL, 0, text.data, text.n_bytes);
    pn_buf_free(&text);
}

/* Sockets' addresses go as the system has them: all ranks run the same program on the same kind of machine, which
 * HELLO's version stands for. */
static bool read_addresses(pn_control *c, const char *data, size_t n_bytes) {
    for (int r = 0; r < c->size; r++) {
        pn_net_address *a = &c->member[r].address;
        if (n_bytes < 4) return false;
        const uint32_t n = pn_get32(data);
        if (n > sizeof a->at || n > n_bytes - 4) return false;
        if (r > 0) { /* rank 0 is where this rank found it */
            memcpy(&a->at, data + 4, n);
            a->n_bytes = n;
        }
        data += 4 + n;
        n_bytes -= 4 + n;
    }
    return n_bytes == 0;
}

static void all_are_there(pn_control *c) {
    pn_meeting_over(&c->meeting);
    pn_net_close(&c->listener); /* from here on nobody can disturb */
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank < 0) c->link[i].ends = true;
    write_addresses(c);
    c->ready = true;
    pthread_cond_broadcast(&c->changed);
}

static void hear_hello(pn_control *c, pn_link *l, const pn_wire_header *h, const char *data, double now) {
    char why[256] = "";
    const uint32_t size = pn_get32(data + PN_TOKEN_BYTES);
    if (!pn_wire_knows(c->meeting.token, true, data)) {
        refuse(c, l, false, "another run is there, or one with another POSTNAS_TOKEN");
        return;
    }
    if (h->version != PN_WIRE_VERSION)
        snprintf(why, sizeof why, "rank %u runs another version of postnas than rank 0", h->rank);
    else if (size != (uint32_t)c->size)
        snprintf(why, sizeof why, "rank %u was started as one of %u ranks, rank 0 as one of %d", h->rank, size,
                 c->size);
    else if (h->rank < 1 || h->rank >= size)
        snprintf(why, sizeof why, "rank %u is not in 1 .. %d", h->rank, c->size - 1);
    else if (c->member[h->rank].there)
        snprintf(why, sizeof why, "rank %u is there already: two processes were given the same rank", h->rank);
    if (why[0]) {
        pn_warn("refused: %s", why);
        refuse(c, l, true, why);
        return;
    }
    unsigned char digest[PN_TOKEN_BYTES];
    pn_member *m = &c->member[h->rank];
    l->rank = (int)h->rank;
    m->there = true;
    m->state = PN_BEAT_WAITS;
    m->heard = m->progressed = now;
    if (pn_net_peer(l->fd, &m->address) && pn_net_is_loopback(&m->address)) m->address.n_bytes = 0;
    pn_wire_digest(c->meeting.token, false, digest);
    pn_control_say(c, l, PN_WIRE_WELCOME, NULL, 0, digest, sizeof digest);
    if (atomic_load(&c->failed)) {
        unsigned char head[4];
        pn_put32(head, (uint32_t)c->failed_rank);
        pn_control_say(c, l, PN_WIRE_FAILED, head, sizeof head, c->cause, strlen(c->cause));
    } else if (++c->n_there == c->size) {
        all_are_there(c);
    }
}

static void copy_text(char *out, size_t room, const char *data, size_t n_bytes) {
    if (n_bytes >= room) n_bytes = room - 1;
    memcpy(out, data, n_bytes);
    out[n_bytes] = '\0';
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?';
}

static void hear_beat(pn_member *m, const unsigned char head[9], const char *doing, size_t n_bytes, double now) {
    const uint64_t progress = pn_get64(head);
    if (progress != m->progress) m->progressed = now;
    const unsigned state = head[8];
    if (m->state & ~state) m->progressed = now; /* it has just got what it waited for, or is through with its work */
    m->progress = progress;
    m->state = state;
    copy_text(m->doing, sizeof m->doing, doing, n_bytes);
}

/* False: no rank of this program says that here. */
static bool hear(pn_control *c, pn_link *l, const pn_wire_header *h, const char *data, double now) {
    const bool root = c->rank == 0;
    if (l->rank < 0) {
        if (h->type != PN_WIRE_HELLO || h->n_bytes != PN_HELLO_BYTES) return false;
        hear_hello(c, l, h, data, now);
        return true;
    }
    pn_member *m = &c->member[l->rank];
    if ((int)h->rank != l->rank || h->version != PN_WIRE_VERSION) return false;
    m->heard = now;
    switch (h->type) {
    case PN_WIRE_READY:
        if (root || c->ready || !read_addresses(c, data, h->n_bytes)) return false;
        c->ready = true;
        pthread_cond_broadcast(&c->changed);
        return true;
    case PN_WIRE_BEAT:
        if (h->n_bytes < 9) return false;
        hear_beat(m, (const unsigned char *)data, data + 9, h->n_bytes - 9, now);
        return true;
    case PN_WIRE_GIVE:
        if (!root || h->n_bytes < 8 + PN_WIRE_LABEL || m->given || pn_get64(data) != c->answered + 1) return false;
        pn_control_take(c, l->rank, data + 8, data + 8 + PN_WIRE_LABEL, h->n_bytes - 8 - PN_WIRE_LABEL);
        return true;
    case PN_WIRE_ALL:
        if (root || h->n_bytes < 8 || c->answered + 1 != c->asked || pn_get64(data) != c->asked) return false;
        pn_buf_clear(&c->all);
        pn_buf_append(&c->all, data + 8, h->n_bytes - 8);
        c->answered++;
        pthread_cond_broadcast(&c->changed);
        return true;
    case PN_WIRE_FAILED: {
        char cause[PN_CAUSE_BYTES];
        if (h->n_bytes < 4) return false;
        const int32_t rank = (int32_t)pn_get32(data);
        if (rank < -1 || rank >= c->size) return false;
        copy_text(cause, sizeof cause, data + 4, h->n_bytes - 4);
        pn_control_fail(c, rank, "%s", cause);
        return true;
    }
    case PN_WIRE_BYE:
        if (!root) return false;
        m->left = true;
        l->ends = true;
        pthread_cond_broadcast(&c->changed);
        return true;
    default: return false;
    }
}

bool pn_control_hear(pn_control *c, pn_link *l, double now) {
    size_t at = 0;
    while (l->in.n_bytes - at >= PN_WIRE_HEADER) {
        pn_wire_header h;
        if (!pn_wire_read(l->in.data + at, &h)) return false;
        if (l->rank < 0 && h.n_bytes > PN_HELLO_BYTES) return false; /* a stranger makes us keep nothing */
        if (l->in.n_bytes - at - PN_WIRE_HEADER < h.n_bytes) break;
        if (!l->ends && !hear(c, l, &h, l->in.data + at + PN_WIRE_HEADER, now)) return false;
        at += PN_WIRE_HEADER + h.n_bytes;
    }
    if (at) memmove(l->in.data, l->in.data + at, l->in.n_bytes - at);
    l->in.n_bytes -= at;
    return true;
}

static void lose(pn_control *c, pn_link *l, const char *why) {
    pn_net_close(&l->fd);
    if (l->rank < 0) pn_debug("dist", "a connection that was none of this run's: %s", why);
    if (l->rank >= 0 && !c->member[l->rank].left && !c->gone) pn_control_fail(c, l->rank, "%s", why);
}

static const char ended[] = "its process ended (its connection was closed)";

static void read_link(pn_control *c, pn_link *l, double now) {
    char bytes[16 << 10];
    for (int turns = 0; turns < 64 && l->fd >= 0; turns++) { /* then it is the others' turn */
        const long n = pn_net_receive(l->fd, bytes, sizeof bytes);
        if (n == 0) return;
        if (n > 0) {
            pn_buf_append(&l->in, bytes, (size_t)n);
            if (!pn_buf_status(&l->in) && pn_control_hear(c, l, now)) continue;
        }
        lose(c, l, n < 0 ? ended : "it sent what no rank of this run sends");
    }
}

static void write_link(pn_control *c, pn_link *l) {
    while (l->fd >= 0 && l->sent < l->out.n_bytes) {
        const long n = pn_net_send(l->fd, l->out.data + l->sent, l->out.n_bytes - l->sent);
        if (n == 0) return;
        if (n < 0) { /* what it said last may still be there to be read */
            l->sent = l->out.n_bytes;
            return;
        }
        l->sent += (size_t)n;
    }
    if (pn_buf_status(&l->out)) pn_control_fail(c, c->rank, "out of memory");
    pn_buf_clear(&l->out);
    l->sent = 0;
    if (l->ends && l->fd >= 0) pn_net_close(&l->fd);
}

static void remove_closed(pn_control *c) {
    int n = 0;
    for (int i = 0; i < c->n_links; i++) {
        if (c->link[i].fd >= 0) {
            c->link[n++] = c->link[i];
        } else {
            pn_buf_free(&c->link[i].in);
            pn_buf_free(&c->link[i].out);
        }
    }
    if (n < c->n_links) pthread_cond_broadcast(&c->changed);
    c->n_links = n;
}

static void accept_all(pn_control *c) {
    int knocking = 0;
    for (int i = 0; i < c->n_links; i++) knocking += c->link[i].rank < 0;
    for (int fd; c->listener >= 0 && knocking < KNOCKING_MOST && (fd = pn_net_accept(c->listener)) >= 0; knocking++)
        if (pn_control_add_link(c, fd, -1)) pn_net_close(&fd);
}

/* ---- the watch ---- */

/* What this rank says of itself, in the 9 bytes before the text, which it returns. */
static const char *describe(pn_control *c, unsigned char head[9]) {
    const char *busy = atomic_load(&c->busy);
    pn_put64(head, atomic_load(&c->progress));
    head[8] = (unsigned char)((atomic_load(&c->waiting) > 0 ? PN_BEAT_WAITS : 0) | (busy ? PN_BEAT_BUSY : 0));
    return busy ? busy : c->doing;
}

static void beat(pn_control *c) {
    unsigned char head[9];
    const char *doing = describe(c, head);
    if (c->gone && c->rank > 0) return; /* BYE was the last word */
    for (int i = 0; i < c->n_links; i++) {
        pn_link *l = &c->link[i];
        if (l->rank >= 0 && l->out.n_bytes == 0 && !l->ends)
            pn_control_say(c, l, PN_WIRE_BEAT, head, sizeof head, doing, strlen(doing));
    }
}

/* Rank 0's main thread is watched like the others'. */
static void watch_self(pn_control *c, double now) {
    unsigned char head[9];
    const char *doing = describe(c, head);
    c->member[0].heard = now;
    hear_beat(&c->member[0], head, doing, strlen(doing), now);
}

static void judge_all(pn_control *c, double now) {
    bool all_wait = true;
    double last = 0;
    for (int r = 0; r < c->size; r++) {
        const pn_member *m = &c->member[r];
        if (!m->there || m->left) continue;
        const char *while_ = m->doing[0] ? ", in: " : "";
        if (now - m->heard > patience * c->limit)
            pn_control_fail(c, r, "no sign of life for %.3g s (stopped, or its machine or network is gone)%s%s",
                            now - m->heard, while_, m->doing);
        const double idle = m->heard - m->progressed; /* and there were signs of life */
        if (!m->state && idle > patience * c->limit)
            pn_control_fail(c, r,
                            "its main thread hangs: no progress for %.3g s%s%s; if it only needs longer, raise "
                            "ranks.limit_seconds",
                            idle, while_, m->doing);
        all_wait = all_wait && (m->state & PN_BEAT_WAITS); /* who is busy and does not wait will come */
        if (m->progressed > last) last = m->progressed;
    }
    if (c->ready && all_wait && !c->gone && now - last > ALL_WAIT * c->limit)
        pn_control_fail(c, -1, "for %.3g s all ranks have waited for one another%s%s", now - last,
                        c->member[0].doing[0] ? ", in: " : "", c->member[0].doing);
}

static void judge(pn_control *c, double now) {
    if (atomic_load(&c->failed)) return;
    if (c->rank == 0) {
        watch_self(c, now);
        judge_all(c, now);
        check_left(c);
    } else if (!c->gone && now - c->member[0].heard > patience * c->limit) {
        pn_control_fail(c, 0, "no sign of life for %.3g s (stopped, or its machine or network is gone)",
                        now - c->member[0].heard);
    }
}

/* A process that was itself stopped for a while knows nothing about the others. */
static void forgive(pn_control *c, double now) {
    for (int r = 0; r < c->size; r++) c->member[r].heard = c->member[r].progressed = now;
}

static void drop_knocking(pn_control *c, double now) {
    for (int i = 0; i < c->n_links; i++)
        if (c->link[i].rank < 0 && now - c->link[i].since > KNOCK_SECONDS) lose(c, &c->link[i], "it said nothing");
}

static void tell_failure(pn_control *c, double now) {
    if (!atomic_load(&c->failed)) return;
    if (!c->told) {
        c->told = true;
        void (*fn)(void *) = c->on_failure;
        void *ctx = c->on_failure_ctx;
        if (!fn) return;
        pthread_mutex_unlock(&c->lock);
        fn(ctx);
        pthread_mutex_lock(&c->lock);
        c->on_failure = NULL;
        pthread_cond_broadcast(&c->changed);
    }
    if (now - c->failed_at > c->limit && !c->stop) {
        if (c->failed_rank >= 0)
            fprintf(stderr, "postnas: error: rank %d failed: %s\n", c->failed_rank, c->cause);
        else
            fprintf(stderr, "postnas: error: %s\n", c->cause);
        _exit(3);
    }
}

/* ---- the thread ---- */

/* The listener and the pipe come first. */
static void wait_for_something(pn_control *c, struct pollfd *p, double seconds) {
    const int n = c->n_links + 2;
    p[0] = (struct pollfd){ .fd = c->wake[0], .events = POLLIN };
    p[1] = (struct pollfd){ .fd = c->listener, .events = POLLIN }; /* -1 is passed over */
    for (int i = 0; i < c->n_links; i++)
        p[i + 2] =
            (struct pollfd){ .fd = c->link[i].fd, .events = (short)(POLLIN | (c->link[i].out.n_bytes ? POLLOUT : 0)) };
    pthread_mutex_unlock(&c->lock);
    poll(p, (nfds_t)n, (int)(seconds * 1e3) + 1);
    pthread_mutex_lock(&c->lock);
    char bytes[64];
    while (read(c->wake[0], bytes, sizeof bytes) == sizeof bytes) {
    }
}

/* Says what is still to be said and waits until the others have read it: a connection that is closed with something
 * unread is reset, and what was sent may be lost. */
static void finish(pn_control *c) {
    const double deadline = pn_seconds() + STILL_OPEN_SECONDS;
    char bytes[4096];
    pn_net_close(&c->listener);
    while (c->n_links && pn_seconds() < deadline) {
        struct pollfd p[64];
        int n = 0;
        for (int i = 0; i < c->n_links; i++) {
            pn_link *l = &c->link[i];
            l->ends = false;
            write_link(c, l);
            if (!l->out.n_bytes) shutdown(l->fd, SHUT_WR);
            long got;
            while ((got = pn_net_receive(l->fd, bytes, sizeof bytes)) > 0) {
            }
            if (got < 0 || l->rank < 0) pn_net_close(&l->fd);
            if (l->fd >= 0 && n < 64)
                p[n++] = (struct pollfd){ .fd = l->fd, .events = (short)(POLLIN | (l->out.n_bytes ? POLLOUT : 0)) };
        }
        remove_closed(c);
        if (n) poll(p, (nfds_t)n, 20);
    }
    for (int i = 0; i < c->n_links; i++) pn_net_close(&c->link[i].fd);
    remove_closed(c);
}

void *pn_control_run(void *ctx) {
    pn_control *c = ctx;
    double interval = c->limit / 10, next = 0;
    if (interval > 1) interval = 1;
    pthread_mutex_lock(&c->lock);
    double last = pn_seconds();
    while (!c->stop) {
        struct pollfd *p = calloc((size_t)c->n_links + 2, sizeof *p);
        if (p)
            wait_for_something(c, p, interval / 2);
        else
            pn_control_fail(c, c->rank, "out of memory");
        free(p);
        const double now = pn_seconds();
        if (now - last > c->limit / 3 + interval) forgive(c, now);
        last = now;
        accept_all(c);
        for (int i = 0; i < c->n_links; i++) read_link(c, &c->link[i], now);
        drop_knocking(c, now);
        if (now >= next) {
            beat(c);
            next = now + interval;
        }
        judge(c, now);
        for (int i = 0; i < c->n_links; i++) write_link(c, &c->link[i]);
        remove_closed(c);
        tell_failure(c, now);
    }
    finish(c);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}
