/* What goes over a connection between ranks: frames of a header and some bytes.
 *
 * Whoever connects says HELLO with a digest of the run's token, and is answered WELCOME with another one: that keeps
 * strangers, other runs and other programs out. It is no encryption: whoever reads the network reads everything.
 * Numbers are little-endian. Nothing in a frame is believed before it is checked. */
#ifndef PN_DIST_WIRE_H
#define PN_DIST_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    PN_WIRE_HEADER = 16, /* magic 4, type 1, version 1, nothing 2, rank 4, bytes that follow 4 */
    PN_WIRE_VERSION = 2,
    PN_WIRE_MOST = 1 << 20, /* bytes that follow */
    PN_TOKEN_BYTES = 16,
    PN_HELLO_BYTES = PN_TOKEN_BYTES + 4 /* digest, number of ranks */
};

typedef enum pn_wire_type {
    PN_WIRE_HELLO = 1, /* digest, number of ranks: of a rank that connects */
    PN_WIRE_WELCOME,   /* digest: the answer */
    PN_WIRE_REFUSED,   /* text: why */
    PN_WIRE_READY,     /* all are there; an address for each rank (control.c) */
    PN_WIRE_BEAT,      /* how far, 8 bytes; pn_beat_state, 1; what it does, text */
    PN_WIRE_GIVE,      /* number, 8 bytes; what for, PN_WIRE_LABEL; bytes: a rank's part of an exchange */
    PN_WIRE_ALL,       /* number, 8 bytes; everybody's bytes */
    PN_WIRE_FAILED,    /* rank, 4 bytes; text: the cause */
    PN_WIRE_BYE,       /* nothing: the rank ends as it should */
    PN_WIRE_DATA       /* digest, number of ranks: HELLO on a connection for collectives (tcp.c) */
} pn_wire_type;

enum { PN_WIRE_LABEL = 32 };

typedef struct pn_wire_header {
    int type, version;
    uint32_t rank, n_bytes;
} pn_wire_header;

static inline void pn_put32(void *at, uint32_t x) {
    unsigned char *p = at;
    for (int i = 0; i < 4; i++) p[i] = (unsigned char)(x >> 8 * i);
}
static inline void pn_put64(void *at, uint64_t x) {
    unsigned char *p = at;
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(x >> 8 * i);
}
static inline uint32_t pn_get32(const void *at) {
    const unsigned char *p = at;
    uint32_t x = 0;
    for (int i = 0; i < 4; i++) x |= (uint32_t)p[i] << 8 * i;
    return x;
}
static inline uint64_t pn_get64(const void *at) {
    const unsigned char *p = at;
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) x |= (uint64_t)p[i] << 8 * i;
    return x;
}

static inline void pn_wire_write(void *at, pn_wire_type type, int rank, size_t n_bytes) {
    unsigned char *p = at;
    memcpy(p, "PNr\n", 4);
    p[4] = (unsigned char)type;
    p[5] = PN_WIRE_VERSION;
    p[6] = p[7] = 0;
    pn_put32(p + 8, (uint32_t)rank);
    pn_put32(p + 12, (uint32_t)n_bytes);
}
/* False when that is no header of ours. */
static inline bool pn_wire_read(const void *at, pn_wire_header *out) {
    const unsigned char *p = at;
    if (memcmp(p, "PNr\n", 4)) return false;
    *out = (pn_wire_header){ .type = p[4], .version = p[5], .rank = pn_get32(p + 8), .n_bytes = pn_get32(p + 12) };
    return out->n_bytes <= PN_WIRE_MOST;
}

/* The digest that shows, in this direction, that one knows the token. hello: of who connects. */
void pn_wire_digest(const unsigned char token[PN_TOKEN_BYTES], bool hello, unsigned char out[PN_TOKEN_BYTES]);
bool pn_wire_knows(const unsigned char token[PN_TOKEN_BYTES], bool hello, const void *digest);

#endif
