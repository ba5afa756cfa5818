/* What comes over a connection between ranks: nothing is believed, a stranger can make rank 0 keep no more than a
 * greeting, and a rank can only speak for itself. */
#include "control_link.h"
#include "fuzz.h"
#include "log.h"

#include <fcntl.h>
#include <unistd.h>

enum { SIZE = 3, ROOM = 128 << 10 };

static pn_control *new_control(int rank, int from) {
    static int wake[2] = { -1, -1 };
    pn_control *c = calloc(1, sizeof *c);
    FUZZ_ASSERT(c && (wake[0] >= 0 || pipe2(wake, O_NONBLOCK) == 0));
    c->rank = rank;
    c->size = SIZE;
    c->limit = 60;
    c->listener = -1;
    memcpy(c->wake, wake, sizeof wake);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    FUZZ_ASSERT((c->member = calloc(SIZE, sizeof *c->member)));
    c->member[0].there = true;
    c->n_there = 1;
    FUZZ_ASSERT(!pn_control_add_link(c, -1, from));
    if (from > 0) {
        c->member[from].there = true;
        c->n_there++;
    }
    c->asked = rank > 0; /* it waits for an answer */
    return c;
}

static void free_control(pn_control *c) {
    for (int i = 0; i < c->n_links; i++) {
        pn_buf_free(&c->link[i].in);
        pn_buf_free(&c->link[i].out);
    }
    for (int r = 0; r < SIZE; r++) free(c->member[r].given);
    pn_buf_free(&c->all);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->link);
    free(c->member);
    free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    static const int rank[] = { 0, 0, 1 }, from[] = { -1, 1, 0 };
    if (n_bytes < 1 || n_bytes > ROOM) return 0;
    const int who = data[0] % 3;
    pn_log_quiet(true);
    pn_control *c = new_control(rank[who], from[who]);
    bool good = true;
    uint8_t bytes[ROOM];
    memcpy(bytes, data, n_bytes);
    data = bytes;
    if (bytes[0] >= 128 && n_bytes >= 1 + PN_WIRE_HEADER + PN_TOKEN_BYTES) /* it knows the token */
        pn_wire_digest(c->meeting.token, true, bytes + 1 + PN_WIRE_HEADER);
    for (size_t at = 1, n; at < n_bytes && good; at += n) { /* in pieces, as they come */
        n = n_bytes - at < 100 ? n_bytes - at : 100;
        pn_buf_append(&c->link[0].in, data + at, n);
        good = pn_control_hear(c, &c->link[0], 1);
        if (good && c->link[0].rank < 0)
            FUZZ_ASSERT(c->link[0].in.n_bytes < PN_WIRE_HEADER + PN_HELLO_BYTES || c->link[0].ends);
    }
    FUZZ_ASSERT((!c->member[2].given && !c->member[2].left) || c->link[0].rank == 2);
    FUZZ_ASSERT(c->n_links == 1);
    FUZZ_ASSERT(!atomic_load(&c->failed) || (c->failed_rank >= -1 && c->failed_rank < SIZE));
    FUZZ_ASSERT(!strpbrk(c->cause, "\n\r\033"));
    for (int r = 0; r < SIZE; r++) FUZZ_ASSERT(c->member[r].address.n_bytes <= sizeof c->member[r].address.at);
    free_control(c);
    return 0;
}
