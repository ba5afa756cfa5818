#include "state_ranks.h"

#include <stdlib.h>
#include <string.h>

/* In rounds of as much as all ranks may give at once; `bytes` has room for that, once for this rank and once for all.
 */
static pn_status gather_rounds(pn_control *c, const char *mine, size_t n_bytes, const uint64_t *sizes, size_t round,
                               char *bytes, pn_buf *all) {
    const size_t size = (size_t)pn_control_size(c);
    size_t most = 0;
    for (size_t r = 0; r < size; r++)
        if (sizes[r] > most) most = sizes[r];
    for (size_t at = 0; at < most; at += round) {
        if (at < n_bytes) memcpy(bytes, mine + at, n_bytes - at < round ? n_bytes - at : round);
        PN_TRY(pn_control_exchange(c, "checkpoint", bytes, round, bytes + round));
        for (size_t r = 0; all && r < size; r++)
            if (at < sizes[r])
                pn_buf_append(&all[r], bytes + (1 + r) * round, sizes[r] - at < round ? sizes[r] - at : round);
    }
    return PN_OK;
}

static size_t round_of(const pn_control *c) {
    enum { ROUND = 1 << 16 };
    const size_t fits = PN_EXCHANGE_MOST / (size_t)pn_control_size(c);
    return fits < ROUND ? fits : ROUND;
}

static pn_status gather(void *ctx, const void *mine, size_t n_bytes, pn_buf *all) {
    pn_control *c = ctx;
    const size_t size = (size_t)pn_control_size(c), round = round_of(c);
    const uint64_t length = n_bytes;
    uint64_t *sizes = malloc(size * sizeof *sizes);
    char *bytes = calloc(1 + size, round);
    pn_status s = sizes && bytes ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    if (!s) s = pn_control_exchange(c, "length of a checkpoint", &length, sizeof length, sizes);
    if (!s) s = gather_rounds(c, mine, n_bytes, sizes, round, bytes, all);
    free(sizes);
    free(bytes);
    return s;
}

static pn_status broadcast(void *ctx, void *bytes, size_t n_bytes) {
    const size_t round = round_of(ctx);
    for (size_t at = 0; at < n_bytes; at += round)
        PN_TRY(pn_control_broadcast(ctx, "word on a checkpoint", 0, (char *)bytes + at,
                                    n_bytes - at < round ? n_bytes - at : round));
    return PN_OK;
}

pn_checkpoint_ranks pn_state_ranks(pn_control *c) {
    return (pn_checkpoint_ranks){
        .rank = pn_control_rank(c), .n = pn_control_size(c), .gather = gather, .broadcast = broadcast, .ctx = c
    };
}
