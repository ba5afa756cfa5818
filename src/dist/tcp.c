/* Bytes from rank to rank over TCP: a connection between every two of them. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "host.h"

enum { LOOK_MS = 50, SLICE = 1 << 20, KNOCKING_MOST = 64, KNOCK_SECONDS = 5 };

typedef struct tcp {
    pn_transport base;
    int *fd; /* of every rank; -1: none */
} tcp;

/* ---- exchanging ---- */

/* The connection to a rank is gone. What became of the rank the control channel knows better, a moment later. */
static pn_status lost(tcp *t, int rank) {
    pn_control *c = t->base.control;
    const double deadline = pn_seconds() + pn_control_limit(c) / 2;
    while (!pn_control_failed(c) && !atomic_load(&t->base.stop) && pn_seconds() < deadline) usleep(1000);
    PN_TRY(pn_transport_status(&t->base));
    pn_control_lost(c, rank, "its connection for data was closed");
    return pn_control_status(c);
}

static pn_status tcp_exchange(pn_transport *base, int to, const void *out, size_t n_out, int from, void *in,
                              size_t n_in) {
    tcp *t = (tcp *)base;
    size_t sent = to < 0 ? n_out : 0, got = from < 0 ? n_in : 0;
    while (sent < n_out || got < n_in) {
        struct pollfd p[2] = { { .fd = sent < n_out ? t->fd[to] : -1, .events = POLLOUT },
                               { .fd = got < n_in ? t->fd[from] : -1, .events = POLLIN } };
        poll(p, 2, LOOK_MS);
        PN_TRY(pn_transport_status(base));
        if (p[0].fd >= 0 && p[0].revents) {
            const size_t n = n_out - sent < SLICE ? n_out - sent : SLICE;
            const long m = pn_net_send(t->fd[to], (const char *)out + sent, n);
            if (m < 0) return lost(t, to);
            sent += (size_t)m;
        }
        if (p[1].fd >= 0 && p[1].revents) {
            const long m = pn_net_receive(t->fd[from], (char *)in + got, n_in - got);
            if (m < 0) return lost(t, from);
            got += (size_t)m;
        }
        if (p[0].revents || p[1].revents) pn_control_tick(base->control);
    }
    return PN_OK;
}

static void tcp_close(pn_transport *base) {
    tcp *t = (tcp *)base;
    for (int r = 0; t->fd && r < base->size; r++) pn_net_close(&t->fd[r]);
    free(t->fd);
    free(t);
}

static const pn_transport_type type = { .name = "tcp", .exchange = tcp_exchange, .close = tcp_close };

/* ---- connecting: every rank connects to those below it ---- */

static pn_status connect_to(tcp *t, int rank, int port, double deadline) {
    unsigned char hello[PN_WIRE_HEADER + PN_HELLO_BYTES];
    const unsigned char *token = pn_control_token(t->base.control);
    pn_net_address to;
    PN_TRY(pn_control_address(t->base.control, rank, &to));
    pn_net_set_port(&to, port);
    pn_status s;
    do {
        PN_TRY(pn_control_status(t->base.control));
        s = pn_net_connect_to(&to, deadline, &t->fd[rank]);
        if (s) usleep(20000);
    } while (s && pn_seconds() < deadline);
    if (s) {
        char why[256];
        snprintf(why, sizeof why, "%.200s", pn_error_message());
        PN_FAIL(PN_COMM, "cannot connect to rank %d on port %d: %s; ports between ranks must be open", rank, port, why);
    }
    pn_wire_write(hello, PN_WIRE_DATA, t->base.rank, PN_HELLO_BYTES);
    pn_wire_digest(token, true, hello + PN_WIRE_HEADER);
    pn_put32(hello + PN_WIRE_HEADER + PN_TOKEN_BYTES, (uint32_t)t->base.size);
    PN_TRY(pn_net_send_all(t->fd[rank], hello, sizeof hello, deadline));
    return PN_OK;
}

/* A connection that has not yet said who it is. */
typedef struct knock {
    int fd;
    double since;
    size_t n_bytes; /* of hello */
    unsigned char hello[PN_WIRE_HEADER + PN_HELLO_BYTES];
} knock;

/* Who knocks: -1 when it is none of the ranks that are still to come. */
static int who_is_it(const tcp *t, const unsigned char *hello) {
    pn_wire_header h;
    if (!pn_wire_read(hello, &h) || h.type != PN_WIRE_DATA || h.version != PN_WIRE_VERSION) return -1;
    if (h.n_bytes != PN_HELLO_BYTES) return -1;
    if (!pn_wire_knows(pn_control_token(t->base.control), true, hello + PN_WIRE_HEADER)) return -1;
    if (h.rank <= (uint32_t)t->base.rank || h.rank >= (uint32_t)t->base.size || t->fd[h.rank] >= 0) return -1;
    return (int)h.rank;
}

/* What it has said so far; true: it is done with, as a rank, which is counted, or as a stranger. */
static bool hear(tcp *t, knock *k, int *left) {
    const long n = pn_net_receive(k->fd, k->hello + k->n_bytes, sizeof k->hello - k->n_bytes);
    if (n > 0) k->n_bytes += (size_t)n;
    const bool whole = k->n_bytes == sizeof k->hello;
    if (!whole && n >= 0 && pn_seconds() - k->since < KNOCK_SECONDS) return false;
    const int rank = whole ? who_is_it(t, k->hello) : -1;
    if (rank < 0) {
        pn_net_close(&k->fd);
    } else {
        t->fd[rank] = k->fd;
        --*left;
    }
    return true;
}

/* Nobody's silence keeps others waiting. */
static pn_status accept_some(tcp *t, int listener, double deadline, knock *knocks, int *n) {
    for (int left = t->base.size - 1 - t->base.rank; left > 0;) {
        struct pollfd p[1 + KNOCKING_MOST] = { { .fd = *n < KNOCKING_MOST ? listener : -1, .events = POLLIN } };
        for (int i = 0; i < *n; i++) p[1 + i] = (struct pollfd){ .fd = knocks[i].fd, .events = POLLIN };
        poll(p, (nfds_t)(1 + *n), LOOK_MS);
        PN_TRY(pn_control_status(t->base.control));
        PN_CHECK(pn_seconds() < deadline, PN_COMM,
                 "%d ranks above %d did not connect for collectives; ports between ranks must be open", left,
                 t->base.rank);
        const int fd = *n < KNOCKING_MOST ? pn_net_accept(listener) : -1;
        if (fd >= 0) knocks[(*n)++] = (knock){ .fd = fd, .since = pn_seconds() };
        for (int i = *n - 1; i >= 0; i--)
            if (hear(t, &knocks[i], &left)) knocks[i] = knocks[--*n];
    }
    return PN_OK;
}

static pn_status accept_others(tcp *t, int listener, double deadline) {
    knock knocks[KNOCKING_MOST];
    int n = 0;
    const pn_status s = accept_some(t, listener, deadline, knocks, &n);
    while (n > 0) pn_net_close(&knocks[--n].fd);
    return s;
}

static pn_status connect_all(tcp *t, int listener, int32_t port) {
    const double deadline = pn_seconds() + pn_control_limit(t->base.control);
    int32_t *ports = malloc((size_t)t->base.size * sizeof *ports);
    PN_CHECK(ports, PN_MEMORY, "out of memory");
    pn_status s = pn_control_exchange(t->base.control, "ports of ranks", &port, sizeof port, ports);
    for (int r = 0; !s && r < t->base.rank; r++) s = connect_to(t, r, ports[r], deadline);
    free(ports);
    if (!s) s = accept_others(t, listener, deadline);
    return s;
}

static pn_status open_all(tcp *t) {
    /* what cannot leave the machine need not be reachable from elsewhere */
    int listener, port, far = 0;
    for (int r = 0; r < t->base.size; r++) {
        pn_net_address a;
        const pn_status s = pn_control_address(t->base.control, r, &a);
        far += !s && !pn_net_is_loopback(&a);
    }
    int64_t any = far;
    PN_TRY(pn_control_max(t->base.control, "ranks elsewhere", &any));
    PN_TRY(pn_net_listen(any ? NULL : "127.0.0.1", 0, &listener, &port));
    pn_control_waiting(t->base.control, true);
    pn_status s = connect_all(t, listener, port);
    pn_control_waiting(t->base.control, false);
    pn_net_close(&listener);
    return pn_control_agree(t->base.control, "connections", s);
}

pn_status pn_comm_tcp(pn_control *control, pn_comm **out) {
    tcp *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    t->base = (pn_transport){
        .type = &type, .rank = pn_control_rank(control), .size = pn_control_size(control), .control = control
    };
    t->fd = malloc((size_t)t->base.size * sizeof *t->fd);
    pn_status s = t->fd ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    for (int r = 0; !s && r < t->base.size; r++) t->fd[r] = -1;
    if (!s) s = open_all(t);
    if (s) {
        tcp_close(&t->base);
        return s;
    }
    PN_TRY(pn_comm_host(&t->base, out));
    return PN_OK;
}
