/* uniform: attention at even distances, the placement to beat. */
#include "search.h"

typedef struct state {
    bool asked;
} state;

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    (void)room;
    state *d = s->data;
    *n = d->asked ? 0 : 1;
    if (!d->asked) out[0] = (pn_proposal){ pn_space_uniform(&s->in.space), 0, -1 };
    d->asked = true;
    return PN_OK;
}

const pn_search_type pn_search_uniform = {
    .name = "uniform",
    .summary = "attention at even distances; evaluates one path",
    .data_bytes = sizeof(state),
    .ask = ask,
};
