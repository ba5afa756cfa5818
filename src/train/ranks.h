/* What the ranks of a training tell each other between steps, over the control channel. With one rank (world NULL, or
 * of size 1) nothing is sent and everything is as this process has it. */
#ifndef PN_TRAIN_RANKS_H
#define PN_TRAIN_RANKS_H

#include "distill.h"
#include "world.h"

static inline int pn_ranks_of(const pn_world *w) {
    return w ? w->size : 1;
}
static inline bool pn_ranks_first(const pn_world *w) {
    return !w || w->rank == 0;
}

/* Every one of n values becomes its sum over the ranks, added in their order. what: as of pn_control_exchange. */
pn_status pn_ranks_sum(const pn_world *w, const char *what, double *x, int n);
/* PN_USAGE, naming a rank, where some have another value than rank 0. */
pn_status pn_ranks_same(const pn_world *w, const char *what, uint64_t value);

/* After every step, from every rank: then all have the same. */
typedef struct pn_rank_word {
    pn_loss_parts loss; /* what a rank's is of the whole; then the whole */
    int64_t stop;       /* this rank was asked to; then: some rank was */
    int64_t save;       /* a checkpoint is due; rank 0's is heeded */
} pn_rank_word;
pn_status pn_ranks_word(const pn_world *w, pn_rank_word *word);

/* What the lowest rank with something to say says: text, of as many bytes everywhere, on all of them. */
pn_status pn_ranks_say(const pn_world *w, char *text, size_t n_bytes);

#endif
