/* kl_guided: KL-guided layer selection (Li et al. 2026, "Distilling to Hybrid Attention Models via KL-Guided Layer
 * Selection", arXiv 2512.20569): in the otherwise all-linear model one layer at a time is restored to full attention,
 *
 *     score of layer l = -KL(teacher || all linear, but full attention in l),
 *
 * and the k layers of the largest scores keep full attention. There every restored model is first trained by that loss
 * for a while; here it is measured as the super-network holds it, as every other strategy measures its paths.
 * Measures one path per layer, and the placement; needs a kl task. */
#include "layer_rank.h"

typedef struct options {
    const char *task;
} options;

static const pn_option table[] = {
    PN_OPT_STRING(options, task, NULL, "the kl task that ranks layers; none: the first of that kind",
                  .example = "teacher"),
    PN_OPT_END,
};

typedef struct state {
    pn_layer_rank rank;
    int task;
    double score[PN_MAX_LAYERS];
} state;

static pn_status start(pn_search *s) {
    const options *o = s->in.options;
    state *d = s->data;
    PN_TRY(pn_layer_rank_start(s, PN_RANK_ALL_LINEAR, &d->rank));
    PN_TRY(pn_search_needs_task(s, "task", o->task, PN_TASK_KL, &d->task));
    return PN_OK;
}

static pn_status ask(pn_search *s, pn_proposal *out, int room, int *n) {
    state *d = s->data;
    pn_layer_rank_ask(s, &d->rank, d->score, out, room, n);
    return PN_OK;
}

static pn_status tell(pn_search *s, const pn_path *path, double loss, const pn_metrics *metrics) {
    (void)loss;
    state *d = s->data;
    int layer = pn_layer_rank_layer(&d->rank, path);
    if (layer >= 0) d->score[layer] = -*pn_metrics_get(&metrics[d->task], "kl");
    return PN_OK;
}

const pn_search_type pn_search_kl_guided = {
    .name = "kl_guided",
    .summary = "restores one layer of the all-linear model at a time, keeps those nearest to the teacher",
    .options = table,
    .options_bytes = sizeof(options),
    .data_bytes = sizeof(state),
    .decides = true,
    .start = start,
    .ask = ask,
    .tell = tell,
};
