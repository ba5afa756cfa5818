#include "rendezvous.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "buffer.h"
#include "net.h"

static const char note_title[] = "postnas rendezvous 1";

/* ---- the text ---- */

static bool read_port(const char *text, const char **end, int *out) {
    int n = 0, digits = 0;
    for (; *text >= '0' && *text <= '9' && digits < 6; text++, digits++) n = n * 10 + (*text - '0');
    *end = text;
    *out = n;
    return digits > 0 && n >= 1 && n <= 65535;
}

static bool read_place(const char *text, pn_place *out) {
    const char *colon = strrchr(text, ':'), *host = text, *end;
    if (!colon || colon == text) return false;
    size_t n = (size_t)(colon - text);
    if (text[0] == '[') { /* an address of IPv6 has colons of its own */
        if (colon[-1] != ']') return false;
        host++;
        n -= 2;
    } else if (memchr(text, ':', n)) {
        return false;
    }
    if (n == 0 || n >= sizeof out->host) return false;
    memcpy(out->host, host, n);
    out->host[n] = '\0';
    if (!read_port(colon + 1, &end, &out->first)) return false;
    out->last = out->first;
    if (*end == '-' && !read_port(end + 1, &end, &out->last)) return false;
    return !*end && out->last >= out->first && out->last - out->first < 64;
}

/* Everybody who knows the id has the same token. */
static void token_of(const char *run_id, const char *secret, unsigned char out[PN_TOKEN_BYTES]) {
    pn_buf text = { 0 };
    pn_buf_printf(&text, "%s\n%s", run_id, secret ? secret : "");
    const XXH128_hash_t h = XXH3_128bits(pn_buf_string(&text), text.n_bytes);
    pn_put64(out, h.low64);
    pn_put64(out + 8, h.high64);
    pn_buf_free(&text);
}

pn_status pn_meeting_parse(const char *rendezvous, const char *run_id, pn_meeting *out) {
    memset(out, 0, sizeof *out);
    snprintf(out->text, sizeof out->text, "%.500s", rendezvous);
    token_of(run_id, getenv("POSTNAS_TOKEN"), out->token);
    out->local = !strncmp(rendezvous, "local:", 6);
    if (out->local || !strncmp(rendezvous, "file:", 5)) {
        const char *path = strchr(rendezvous, ':') + 1;
        PN_CHECK(*path && strlen(path) < sizeof out->file - 16, PN_USAGE,
                 "rendezvous '%.200s': a path belongs after the colon", rendezvous);
        strcpy(out->file, path);
        return PN_OK;
    }
    out->carried = !strcmp(rendezvous, "mpi:");
    if (out->carried) return PN_OK;
    PN_CHECK(read_place(rendezvous, &out->place[0]), PN_USAGE,
             "rendezvous '%.200s' is neither HOST:PORT (with ports in 1 .. 65535; HOST:FIRST-LAST for a few of them) "
             "nor file:PATH",
             rendezvous);
    out->n_places = 1;
    return PN_OK;
}

/* ---- rank 0 ---- */

static pn_status listen_in(const pn_place *p, int *fd, int *port) {
    pn_status s = PN_COMM;
    for (int at = p->first; at <= p->last; at++) {
        s = pn_net_listen(p->host, at, fd, port);
        if (!s) return PN_OK;
    }
    char why[512];
    snprintf(why, sizeof why, "%.500s", pn_error_message());
    PN_FAIL(PN_COMM, "%s%s; another run may be there: choose another port with --rendezvous HOST:PORT", why,
            p->last > p->first ? ", nor on those before it" : "");
}

/* Addresses of interfaces. */
static void write_addresses(pn_buf *note, int port) {
    struct ifaddrs *list = NULL;
    char text[INET6_ADDRSTRLEN];
    int n = 0;
    if (getifaddrs(&list)) list = NULL;
    for (const struct ifaddrs *i = list; i && n < PN_PLACES_MOST - 4; i = i->ifa_next) {
        if (!i->ifa_addr || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK)) continue;
        const void *address = NULL;
        if (i->ifa_addr->sa_family == AF_INET) address = &((const struct sockaddr_in *)i->ifa_addr)->sin_addr;
        if (i->ifa_addr->sa_family == AF_INET6) {
            address = &((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;
            if (IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)address)) continue;
        }
        if (!address || !inet_ntop(i->ifa_addr->sa_family, address, text, sizeof text)) continue;
        pn_buf_printf(note, "at %s %d\n", text, port);
        n++;
    }
    if (list) freeifaddrs(list);
}

static pn_status write_note(pn_meeting *m, int port, char *out) {
    unsigned char random[PN_TOKEN_BYTES];
    PN_CHECK(getrandom(random, sizeof random, 0) == sizeof random, PN_IO, "no random bytes: %s", strerror(errno));
    for (int i = 0; i < PN_TOKEN_BYTES; i++) m->token[i] = random[i];
    pn_buf note = { 0 };
    pn_buf_printf(&note, "%s\ntoken ", note_title);
    for (int i = 0; i < PN_TOKEN_BYTES; i++) pn_buf_printf(&note, "%02x", m->token[i]);
    pn_buf_char(&note, '\n');
    if (!m->local) write_addresses(&note, port);
    pn_buf_printf(&note, "here %016llx %d\n", pn_net_machine(), port);
    pn_buf_text(&note, "end\n");
    pn_status s = pn_buf_status(&note);
    if (!s && note.n_bytes >= PN_NOTE_BYTES)
        s = pn_fail_at(__FILE__, __LINE__, PN_COMM, "this machine has too many addresses; give --rendezvous HOST:PORT");
    if (!s) memcpy(out, note.data, note.n_bytes + 1);
    pn_buf_free(&note);
    return s;
}

static pn_status write_file(const char *path, const char *note) {
    char aside[PN_PATH_MAX + 16];
    snprintf(aside, sizeof aside, "%s.tmp", path);
    unlink(aside); /* what somebody else put there keeps its owner */
    const int fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    PN_CHECK(fd >= 0, PN_IO, "%s: cannot write the rendezvous: %s", aside, strerror(errno));
    const size_t n = strlen(note);
    const bool whole = write(fd, note, n) == (ssize_t)n && fsync(fd) == 0;
    const int why = errno;
    close(fd);
    PN_CHECK(whole, PN_IO, "%s: cannot write the rendezvous: %s", aside, strerror(why));
    PN_CHECK(rename(aside, path) == 0, PN_IO, "%s: cannot write the rendezvous: %s", path, strerror(errno));
    return PN_OK;
}

pn_status pn_meeting_listen(pn_meeting *m, int *fd, int *port, char *note) {
    note[0] = '\0';
    if (m->n_places > 0) return listen_in(&m->place[0], fd, port);
    if (m->file[0]) unlink(m->file); /* of a run before this one */
    PN_TRY(pn_net_listen(m->local ? "127.0.0.1" : NULL, 0, fd, port));
    pn_status s = write_note(m, *port, note);
    if (!s && m->file[0]) s = write_file(m->file, note);
    if (s) pn_net_close(fd);
    return s;
}

void pn_meeting_over(const pn_meeting *m) {
    if (m->file[0]) unlink(m->file);
}

/* ---- the others ---- */

static bool read_token(const char *hex, unsigned char out[PN_TOKEN_BYTES]) {
    for (int i = 0; i < PN_TOKEN_BYTES; i++) {
        unsigned value = 0;
        for (int k = 0; k < 2; k++) {
            const char c = hex[2 * i + k];
            if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
            value = value * 16 + (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        out[i] = (unsigned char)value;
    }
    return !hex[2 * PN_TOKEN_BYTES];
}

/* One line; *here: a place for ranks of rank 0's own machine, which comes before all others. */
static bool read_line(pn_meeting *m, char *line, pn_place *here, bool *token) {
    char host[256];
    unsigned long long machine;
    int port;
    if (!strncmp(line, "token ", 6)) return *token = read_token(line + 6, m->token);
    if (sscanf(line, "here %16llx %d", &machine, &port) == 2 && port >= 1 && port <= 65535) {
        if (machine == pn_net_machine()) {
            *here = (pn_place){ .first = port, .last = port };
            strcpy(here->host, "127.0.0.1");
        }
        return true;
    }
    if (sscanf(line, "at %255s %d", host, &port) != 2 || port < 1 || port > 65535) return false;
    if (m->n_places == PN_PLACES_MOST - 1) return false;
    pn_place *p = &m->place[m->n_places++];
    *p = (pn_place){ .first = port, .last = port };
    strcpy(p->host, host);
    return true;
}

pn_status pn_meeting_read_note(pn_meeting *m, const char *note) {
    char text[PN_NOTE_BYTES];
    bool token = false, whole = false;
    pn_place here = { .first = 0 };
    PN_CHECK(strlen(note) < sizeof text, PN_FORMAT, "%s: no rendezvous of postnas", m->text);
    strcpy(text, note);
    m->n_places = 0;
    char *rest, *line = strtok_r(text, "\n", &rest);
    PN_CHECK(line && !strcmp(line, note_title), PN_FORMAT, "%s: no rendezvous of postnas", m->text);
    while (!whole && (line = strtok_r(NULL, "\n", &rest))) {
        whole = !strcmp(line, "end");
        PN_CHECK(whole || read_line(m, line, &here, &token), PN_FORMAT, "%s: no rendezvous of postnas: '%.60s'",
                 m->text, line);
    }
    PN_CHECK(whole && token, PN_FORMAT, "%s: the rendezvous is cut short", m->text);
    if (here.first) {
        memmove(m->place + 1, m->place, (size_t)m->n_places * sizeof *m->place);
        m->place[0] = here;
        m->n_places++;
    }
    return PN_OK;
}

pn_status pn_meeting_read_file(pn_meeting *m) {
    char *text;
    size_t n_bytes;
    PN_TRY(pn_file_read(m->file, PN_NOTE_BYTES - 1, &text, &n_bytes));
    pn_status s = strlen(text) == n_bytes
                      ? pn_meeting_read_note(m, text)
                      : pn_fail_at(__FILE__, __LINE__, PN_FORMAT, "%s: no rendezvous of postnas", m->text);
    free(text);
    return s;
}
