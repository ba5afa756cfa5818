/* uniform: attention at even distances, the placement to beat. */
#include "search.h"

typedef struct state {
    bool asked;
} state;

static pn_status start(pn_search *s) {
    (void)s;
    return PN_OK;
}

static pn_status ask(pn_search *s, pn_path *out, int room, int *n) {
    (void)room;
    state *d = s->data;
    *n = d->asked ? 0 : 1;
    if (!d->asked) out[0] = pn_space_uniform(&s->space);
    d->asked = true;
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double objective) {
    (void)s, (void)path, (void)objective;
    return PN_OK;
}

const pn_search_type pn_search_uniform = {
    .name = "uniform",
    .summary = "attention at even distances; evaluates one path",
    .data_bytes = sizeof(state),
    .start = start,
    .ask = ask,
    .tell = tell,
};
