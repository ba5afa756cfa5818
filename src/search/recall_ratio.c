/* recall_ratio: the layer selection of HALO (Chen et al. 2026, "Hybrid Linear Attention Done Right", arXiv 2601.22156):
 * in the otherwise full-attention model one layer at a time is replaced by the linear block; with R_l and C_l the
 * accuracies of recall and of commonsense choices then,
 *
 *     score of layer l = (max_j R_j - R_l) / (max_j C_j - C_l + 1e-10),
 *
 * and the k layers of the largest scores keep full attention: those that recall needs and common sense does not. The
 * drops count from the best replacement, not from the model without one, as in the authors' program. That also cuts
 * scores off at 50, which only makes layers equal; here they stay apart.
 * Measures one path per layer, and the placement; needs a recall task and a multiple_choice task. */
#include "layer_rank.h"

#include <math.h>

static const double epsilon = 1e-10;

typedef struct options {
    const char *recall, *commonsense;
} options;

static const pn_option table[] = {
    PN_OPT_STRING(options, recall, NULL, "the recall task; none: the first of that kind", .example = "recall"),
    PN_OPT_STRING(options, commonsense, NULL,
                  "the multiple_choice task that recall is weighed against; none: the first of that kind",
                  .example = "facts"),
    PN_OPT_END,
};

typedef struct state {
    pn_layer_rank rank;
    int recall, commonsense;                   /* tasks */
    double r[PN_MAX_LAYERS], c[PN_MAX_LAYERS]; /* accuracies without the layer's attention */
} state;

static pn_status start(pn_search *s) {
    const options *o = s->in.options;
    state *d = s->data;
    PN_TRY(pn_layer_rank_start(s, PN_RANK_ALL_ATTENTION, &d->rank));
    PN_TRY(pn_search_needs_task(s, "recall", o->recall, PN_TASK_RECALL, &d->recall));
    PN_TRY(pn_search_needs_task(s, "commonsense", o->commonsense, PN_TASK_CHOICE, &d->commonsense));
    return PN_OK;
}

static double most(const double *v, int n) {
    double m = v[0];
    for (int i = 1; i < n; i++) m = fmax(m, v[i]);
    return m;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    state *d = s->data;
    int layers = s->in.space.start.n;
    double score[PN_MAX_LAYERS], r = most(d->r, layers), c = most(d->c, layers);
    for (int l = 0; l < layers; l++) score[l] = (r - d->r[l]) / (c - d->c[l] + epsilon);
    pn_layer_rank_ask(s, &d->rank, score, out, room, n);
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    (void)loss;
    state *d = s->data;
    int layer = pn_layer_rank_layer(&d->rank, path);
    if (layer < 0) return PN_OK;
    d->r[layer] = *pn_metrics_get(&metrics[d->recall], "accuracy");
    d->c[layer] = *pn_metrics_get(&metrics[d->commonsense], "accuracy");
    return PN_OK;
}

const pn_search_type pn_search_recall_ratio = {
    .name = "recall_ratio",
    .summary = "replaces one layer of the teacher at a time, keeps those that cost recall more than common sense",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .decides = true,
    .start = start,
    .ask = ask,
    .tell = tell,
};
