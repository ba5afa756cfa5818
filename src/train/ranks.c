#include "ranks.h"

#include <stdio.h>
#include <stdlib.h>

/* Room for what every rank says. */
static pn_status make_room(const pn_world *w, size_t n_bytes, void *out) {
    void *all = malloc((size_t)w->size * n_bytes);
    PN_CHECK(all, PN_MEMORY, "out of memory");
    *(void **)out = all;
    return PN_OK;
}

pn_status pn_ranks_sum(const pn_world *w, const char *what, double *x, int n) {
    double *all;
    if (pn_ranks_of(w) == 1) return PN_OK;
    PN_TRY(make_room(w, (size_t)n * sizeof *all, &all));
    pn_status s = pn_control_exchange(w->control, what, x, (size_t)n * sizeof *x, all);
    for (int i = 0; i < n && !s; i++) {
        x[i] = 0;
        for (int r = 0; r < w->size; r++) x[i] += all[r * n + i];
    }
    free(all);
    return s;
}

pn_status pn_ranks_same(const pn_world *w, const char *what, uint64_t value) {
    uint64_t *all;
    int other = -1;
    if (pn_ranks_of(w) == 1) return PN_OK;
    PN_TRY(make_room(w, sizeof *all, &all));
    pn_status s = pn_control_exchange(w->control, what, &value, sizeof value, all);
    for (int r = w->size - 1; r > 0 && !s; r--)
        if (all[r] != all[0]) other = r;
    free(all);
    PN_TRY(s);
    PN_CHECK(other < 0, PN_USAGE,
             "rank %d and rank 0 differ in %s: give all ranks the same configuration, model, teacher and data", other,
             what);
    return PN_OK;
}

pn_status pn_ranks_word(const pn_world *w, pn_rank_word *word) {
    pn_rank_word *all;
    if (pn_ranks_of(w) == 1) return PN_OK;
    PN_TRY(make_room(w, sizeof *all, &all));
    pn_status s = pn_control_exchange(w->control, "a step's losses", word, sizeof *word, all);
    *word = (pn_rank_word){ 0 };
    for (int r = 0; r < w->size && !s; r++) {
        word->loss.total += all[r].loss.total;
        word->loss.ce += all[r].loss.ce;
        word->loss.kl += all[r].loss.kl;
        word->loss.feature += all[r].loss.feature;
        word->stop = word->stop || all[r].stop;
        if (r == 0) word->save = all[r].save;
    }
    free(all);
    return s;
}

pn_status pn_ranks_say(const pn_world *w, char *text, size_t n_bytes) {
    char *all;
    if (pn_ranks_of(w) == 1) return PN_OK;
    PN_TRY(make_room(w, n_bytes, &all));
    pn_status s = pn_control_exchange(w->control, "what went wrong", text, n_bytes, all);
    for (int r = w->size - 1; r >= 0 && !s; r--)
        if (all[(size_t)r * n_bytes]) snprintf(text, n_bytes, "%s", all + (size_t)r * n_bytes);
    free(all);
    return s;
}
