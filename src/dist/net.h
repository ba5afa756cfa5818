/* TCP connections that never wait for longer than they are told to. Every socket is non-blocking, sends at once
 * (TCP_NODELAY) and is closed in programs that this one starts. */
#ifndef PN_DIST_NET_H
#define PN_DIST_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "status.h"

typedef struct pn_net_address {
    struct sockaddr_storage at;
    socklen_t n_bytes; /* 0: none */
} pn_net_address;

/* Listens on every interface, or on the loopback one alone when `host` is it ("localhost", "127.0.0.1", "::1"). host
 * NULL: every interface. port 0: any; *got is the one it is. PN_COMM when the port is taken. */
pn_status pn_net_listen(const char *host, int port, int *fd, int *got);
/* -1: nobody is waiting. */
int pn_net_accept(int listener);

/* Tries every address of the host's, two seconds each and until `deadline` (pn_seconds) at most. PN_COMM, with the
 * system's words. */
pn_status pn_net_connect(const char *host, int port, double deadline, int *fd);
pn_status pn_net_connect_to(const pn_net_address *to, double deadline, int *fd);
bool pn_net_peer(int fd, pn_net_address *out);
bool pn_net_is_loopback(const pn_net_address *a);
bool pn_net_is_loopback_name(const char *host);
void pn_net_set_port(pn_net_address *a, int port);

/* What the system takes or has at once: the number of bytes, 0 when it is none now, -1 when the connection is gone. */
long pn_net_send(int fd, const void *data, size_t n_bytes);
long pn_net_receive(int fd, void *data, size_t n_bytes);
/* All of it until `deadline`. PN_COMM when it is not to be had. */
pn_status pn_net_send_all(int fd, const void *data, size_t n_bytes, double deadline);
pn_status pn_net_receive_all(int fd, void *data, size_t n_bytes, double deadline);
void pn_net_close(int *fd); /* -1: nothing to do; leaves -1 */

/* A name for this machine that no other has, and that all processes on it see. */
unsigned long long pn_net_machine(void);

#endif
