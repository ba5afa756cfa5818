#include "net.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "clock.h"

static const double connect_seconds = 2;

void pn_net_close(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void settle(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static int open_socket(int family) {
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* ---- addresses ---- */

bool pn_net_is_loopback(const pn_net_address *a) {
    if (a->at.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->at;
        return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
    }
    if (a->at.ss_family != AF_INET6) return false;
    const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&a->at)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

bool pn_net_is_loopback_name(const char *host) {
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

void pn_net_set_port(pn_net_address *a, int port) {
    if (a->at.ss_family == AF_INET)
        ((struct sockaddr_in *)&a->at)->sin_port = htons((uint16_t)port);
    else if (a->at.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&a->at)->sin6_port = htons((uint16_t)port);
}

static int port_of(const struct sockaddr_storage *a) {
    return ntohs(a->ss_family == AF_INET ? ((const struct sockaddr_in *)a)->sin_port
                                         : ((const struct sockaddr_in6 *)a)->sin6_port);
}

bool pn_net_peer(int fd, pn_net_address *out) {
    out->n_bytes = sizeof out->at;
    if (getpeername(fd, (struct sockaddr *)&out->at, &out->n_bytes) == 0) return true;
    out->n_bytes = 0;
    return false;
}

/* ---- listening ---- */

static int listen_on(const struct sockaddr *at, socklen_t n_bytes) {
    int fd = open_socket(at->sa_family);
    if (fd < 0) return -1;
    const int on = 1, off = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (at->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, at, n_bytes) == 0 && listen(fd, 1024) == 0) return fd;
    const int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* Every interface by IPv6 and IPv4, or by IPv4 alone where the system has no other. */
static int listen_everywhere(int port) {
    const struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    const struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = listen_on((const struct sockaddr *)&v6, sizeof v6);
    if (fd < 0 && errno != EADDRINUSE) fd = listen_on((const struct sockaddr *)&v4, sizeof v4);
    return fd;
}

static int listen_here(const char *host, int port) {
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    v6.sin6_addr = in6addr_loopback;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return !strcmp(host, "::1") ? listen_on((const struct sockaddr *)&v6, sizeof v6)
                                : listen_on((const struct sockaddr *)&v4, sizeof v4);
}

pn_status pn_net_listen(const char *host, int port, int *fd, int *got) {
    *fd = host && pn_net_is_loopback_name(host) ? listen_here(host, port) : listen_everywhere(port);
    PN_CHECK(*fd >= 0, PN_COMM, "cannot listen on port %d: %s", port, strerror(errno));
    struct sockaddr_storage at;
    socklen_t n_bytes = sizeof at;
    if (getsockname(*fd, (struct sockaddr *)&at, &n_bytes)) {
        const int why = errno;
        pn_net_close(fd);
        PN_FAIL(PN_COMM, "cannot ask a socket for its port: %s", strerror(why));
    }
    *got = port_of(&at);
    return PN_OK;
}

int pn_net_accept(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) settle(fd);
    return fd;
}

/* ---- connecting ---- */

/* Milliseconds until then, at least 0; a poll is told to look again after a second at the latest. */
static int until(double then) {
    const double left = (then - pn_seconds()) * 1e3;
    return left <= 0 ? 0 : left >= 1000 ? 1000 : (int)left + 1;
}

/* False when nothing comes until then. */
static bool ready(int fd, short what, double deadline) {
    for (;;) {
        struct pollfd p = { .fd = fd, .events = what };
        const int n = poll(&p, 1, until(deadline));
        if (n > 0) return true;
        if ((n < 0 && errno != EINTR) || pn_seconds() >= deadline) return false;
    }
}

static int connect_to(const struct sockaddr *to, socklen_t n_bytes, double deadline) {
    int fd = open_socket(to->sa_family), why = 0;
    if (fd < 0) return -1;
    socklen_t n = sizeof why;
    if (connect(fd, to, n_bytes) && errno != EINPROGRESS)
        why = errno;
    else if (!ready(fd, POLLOUT, deadline))
        why = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n))
        why = errno;
    if (!why) {
        settle(fd);
        return fd;
    }
    close(fd);
    errno = why;
    return -1;
}

static double soon(double deadline) {
    const double t = pn_seconds() + connect_seconds;
    return t < deadline ? t : deadline;
}

pn_status pn_net_connect_to(const pn_net_address *to, double deadline, int *fd) {
    *fd = connect_to((const struct sockaddr *)&to->at, to->n_bytes, soon(deadline));
    PN_CHECK(*fd >= 0, PN_COMM, "%s", strerror(errno));
    return PN_OK;
}

pn_status pn_net_connect(const char *host, int port, double deadline, int *fd) {
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
    struct addrinfo *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    const int e = getaddrinfo(host, service, &hints, &list);
    PN_CHECK(!e, PN_COMM, "%.200s: %s", host, gai_strerror(e));
    int why = 0;
    *fd = -1;
    for (const struct addrinfo *a = list; a && *fd < 0; a = a->ai_next) {
        *fd = connect_to(a->ai_addr, a->ai_addrlen, soon(deadline));
        if (*fd < 0) why = errno;
    }
    freeaddrinfo(list);
    PN_CHECK(*fd >= 0, PN_COMM, "%.200s:%d: %s", host, port, strerror(why));
    return PN_OK;
}

/* ---- bytes ---- */

static bool later(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

long pn_net_send(int fd, const void *data, size_t n_bytes) {
    const ssize_t n = send(fd, data, n_bytes, MSG_NOSIGNAL);
    return n >= 0 ? (long)n : later() ? 0 : -1;
}

long pn_net_receive(int fd, void *data, size_t n_bytes) {
    const ssize_t n = recv(fd, data, n_bytes, 0);
    return n > 0 ? (long)n : n < 0 && later() ? 0 : -1;
}

pn_status pn_net_send_all(int fd, const void *data, size_t n_bytes, double deadline) {
    for (size_t at = 0; at < n_bytes;) {
        PN_CHECK(ready(fd, POLLOUT, deadline), PN_COMM, "no answer");
        const long n = pn_net_send(fd, (const char *)data + at, n_bytes - at);
        PN_CHECK(n >= 0, PN_COMM, "the connection was closed");
        at += (size_t)n;
    }
    return PN_OK;
}

pn_status pn_net_receive_all(int fd, void *data, size_t n_bytes, double deadline) {
    for (size_t at = 0; at < n_bytes;) {
        PN_CHECK(ready(fd, POLLIN, deadline), PN_COMM, "no answer");
        const long n = pn_net_receive(fd, (char *)data + at, n_bytes - at);
        PN_CHECK(n >= 0, PN_COMM, "the connection was closed");
        at += (size_t)n;
    }
    return PN_OK;
}

unsigned long long pn_net_machine(void) {
    char text[512] = "";
    size_t n = 0;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f) {
        n = fread(text, 1, 64, f);
        fclose(f);
    }
    if (gethostname(text + n, sizeof text - n - 1))
        text[n] = '\0'; /* containers of one machine have names of their own */
    return XXH3_64bits(text, strlen(text));
}
