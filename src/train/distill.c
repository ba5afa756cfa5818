#include "distill.h"

#include <math.h>
#include <stdlib.h>

#include "add/add.h"
#include "feature_loss/feature_loss.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "linear_kl/linear_kl.h"
#include "linear_kl_topk/linear_kl_topk.h"
#include "linear_topk/linear_topk.h"
#include "mix/mix.h"
#include "weighted_sum/weighted_sum.h"

/* A layer as a function of its inputs alone, so that it can run again in backward. */
typedef struct layer_call {
    const pn_model *model;
    pn_docs docs;
    int layer, choice;
} layer_call;

/* Gates are NULL along a path. v_first is pn_carry's, NULL before it is made; y the mixer's output, h itself for
 * `none`, which has none. */
enum { IN_H, IN_GATES, IN_V_FIRST, LAYER_IN };
enum { OUT_H, OUT_Y, OUT_V_FIRST, LAYER_OUT };

/* Whether running the layer makes v_first: then it is the layer's third output. */
static bool makes_v_first(const layer_call *c, pn_tensor *const *in) {
    const pn_block *mixer = c->model->layer[c->layer].candidate[c->choice];
    return !in[IN_GATES] && !in[IN_V_FIRST] && pn_block_spec_crosses_layers(&mixer->spec);
}

/* sum_c p_c y_c of all candidates of the layer; p: [layers, candidates]. None of them crosses layers (supernet.h). */
static pn_status mixture(pn_tape *t, const layer_call *c, pn_tensor *x, pn_tensor *p, pn_tensor **y) {
    const pn_layer *layer = &c->model->layer[c->layer];
    pn_tensor *branch[PN_MAX_CANDIDATES] = { 0 };
    for (int i = 0; i < layer->n_candidates; i++) {
        pn_carry carry = { 0 };
        pn_scope scope = pn_scope_open(t);
        if (layer->candidate[i]->spec.type == &pn_block_none) continue; /* its y is 0 */
        PN_TRY(pn_block_forward(layer->candidate[i], t, x, &c->docs, &carry, &branch[i]));
        pn_scope_close(t, scope, &branch[i], 1);
    }
    PN_TRY(pn_mix(t, p, c->layer, branch, (int)p->shape[1], y));
    return PN_OK;
}

static pn_status run_layer(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    PN_ASSERT(n_in == LAYER_IN);
    const layer_call *c = ctx;
    pn_tensor *h = in[IN_H], *y = NULL, *gates = in[IN_GATES];
    pn_block *mixer = c->model->layer[c->layer].candidate[c->choice];
    pn_carry carry = { .v_first = in[IN_V_FIRST] };
    pn_scope scope = pn_scope_open(t);
    if (gates || mixer->spec.type != &pn_block_none) {
        pn_tensor *x;
        PN_TRY(pn_model_mixer_input(c->model, c->layer, t, h, &x));
        if (gates)
            PN_TRY(mixture(t, c, x, gates, &y));
        else
            PN_TRY(pn_block_forward(mixer, t, x, &c->docs, &carry, &y));
    }
    PN_TRY(pn_model_mlp_half(c->model, c->layer, t, h, y, &out[OUT_H]));
    out[OUT_Y] = y ? y : h; /* of which no loss is made */
    if (n_out > OUT_V_FIRST) out[OUT_V_FIRST] = carry.v_first;
    pn_scope_close(t, scope, out, n_out);
    return PN_OK;
}

/* ids to hidden along a path or with gates (NULL: the path), collecting the mixers' outputs into features[layer] (NULL:
 * not wanted). pass: says how it is recorded. */
static pn_status run_model(pn_tape *t, const pn_model *m, const pn_path *path, pn_tensor *gates, pn_tensor *ids,
                           const pn_docs *docs, const pn_distill *pass, pn_tensor **features, pn_tensor **hidden) {
    pn_tensor *h, *v_first = NULL;
    PN_TRY(pn_model_embed(m, t, ids, &h));
    const pn_again before = pn_tape_again(t, PN_AGAIN_NEVER);
    for (int l = 0; l < m->config.n_layers; l++) {
        pn_scope scope = pn_scope_open(t);
        layer_call call = { .model = m, .docs = *docs, .layer = l, .choice = path ? path->choice[l] : 0 };
        pn_tensor *in[LAYER_IN] = { h, gates, v_first }, *out[LAYER_OUT] = { NULL };
        const int n_out = makes_v_first(&call, in) ? LAYER_OUT : OUT_V_FIRST;
        const pn_recompute_level level = pn_recompute_at(&pass->recompute, l);
        if (pass->passed) PN_TRY(pn_tape_mark(t, pass->passed, pass->passed_ctx, l));
        pn_tape_again(t, pn_recompute_again(level));
        if (level == PN_RECOMPUTE_LAYERS)
            PN_TRY(pn_tape_recompute(t, run_layer, &call, sizeof call, in, LAYER_IN, out, n_out));
        else
            PN_TRY(run_layer(t, &call, in, LAYER_IN, out, n_out));
        if (n_out > OUT_V_FIRST) v_first = out[OUT_V_FIRST];
        if (features) features[l] = out[OUT_Y];
        pn_tensor *keep[] = { out[OUT_H], v_first, features ? out[OUT_Y] : NULL };
        pn_scope_close(t, scope, keep, 3);
        h = out[OUT_H];
    }
    pn_tape_again(t, before);
    PN_TRY(pn_model_final(m, t, h, hidden));
    return PN_OK;
}

static pn_status feature_losses(pn_tape *t, const pn_distill *pass, pn_tensor *const *student,
                                pn_tensor *const *teacher, pn_tensor **loss) {
    const pn_model *m = pass->student;
    pn_tensor *sum = NULL;
    int n = 0;
    for (int l = 0; l < m->config.n_layers; l++) {
        pn_block *mixer = m->layer[l].candidate[pass->path ? pass->path->choice[l] : 0];
        if (!pass->gates && mixer->spec.type == &pn_block_none) continue;
        if (!student[l]->wants_grad) continue;
        pn_tensor *one;
        PN_TRY(pn_feature_loss(t, student[l], teacher[l], &one));
        if (sum)
            PN_TRY(pn_add(t, sum, one, &sum));
        else
            sum = one;
        n++;
    }
    if (sum)
        PN_TRY(pn_weighted_sum(t, &sum, (double[]){ 1.0 / n }, 1, loss));
    else
        *loss = NULL;
    return PN_OK;
}

/* An op that reads and writes as much memory takes about as long as its launch. */
static const int64_t small_activation = 1 << 22;

bool pn_distill_small(const pn_distill *pass, int64_t tokens) {
    const pn_model *m = pass->student;
    return m->params->backend == PN_CUDA && tokens * m->config.dims.hidden <= small_activation;
}

/* hidden_t: NULL where the batch has the teacher's words. */
static pn_status kl_loss(pn_tape *t, const pn_distill *pass, const pn_batch *batch, pn_tensor *hidden,
                         pn_tensor *hidden_t, pn_tensor *weights, pn_tensor **loss) {
    const double temperature = pass->weights->temperature;
    pn_tensor *head = pass->student->head, *ids, *log_p;
    if (batch->k) {
        PN_TRY(pn_batch_teacher_tensors(batch, t, &ids, &log_p));
        PN_TRY(pn_linear_kl_topk(t, hidden, head, ids, log_p, weights, temperature, loss, NULL));
        return PN_OK;
    }
    PN_TRY(pn_linear_kl(t, hidden, head, hidden_t, pass->teacher->head, weights, temperature, loss, NULL, NULL));
    return PN_OK;
}

/* Whether the teacher runs for the losses of a pass. */
static bool teacher_runs(const pn_loss_weights *w, const pn_batch *batch) {
    return w->feature > 0 || (w->kl > 0 && !batch->k);
}

pn_status pn_distill_forward(pn_tape *t, const pn_distill *pass, const pn_batch *batch, pn_distill_losses *losses) {
    const pn_model *student = pass->student, *teacher = pass->teacher;
    const pn_loss_weights *w = pass->weights;
    const bool runs = teacher_runs(w, batch);
    PN_ASSERT(teacher || !runs);
    pn_tensor *ids, *targets, *weights, *hidden_t = NULL, *hidden;
    pn_tensor *features_t[PN_MAX_LAYERS], *features[PN_MAX_LAYERS];
    const pn_docs docs = pn_batch_docs(batch, pn_distill_small(pass, batch->n_tokens));
    PN_TRY(pn_batch_tensors(batch, t, &ids, &targets, &weights));
    if (runs) {
        bool recording = pn_tape_record(t, false);
        PN_TRY(run_model(t, teacher, pass->teacher_path, NULL, ids, &docs, &(pn_distill){ 0 },
                         w->feature > 0 ? features_t : NULL, &hidden_t));
        pn_tape_record(t, recording);
    }
    PN_TRY(run_model(t, student, pass->path, pass->gates, ids, &docs, pass, w->feature > 0 ? features : NULL, &hidden));

    pn_tensor *term[4];
    double weight[4];
    int n = 0;
    *losses = (pn_distill_losses){ 0 };
    if (w->ce > 0) {
        PN_TRY(pn_linear_cross_entropy(t, hidden, student->head, targets, weights, &term[n], NULL));
        losses->ce = term[n];
        weight[n++] = w->ce;
    }
    if (w->kl > 0) {
        PN_TRY(kl_loss(t, pass, batch, hidden, hidden_t, weights, &term[n]));
        losses->kl = term[n];
        weight[n++] = w->kl;
    }
    if (w->feature > 0) {
        PN_TRY(feature_losses(t, pass, features, features_t, &term[n]));
        if (term[n]) {
            losses->feature = term[n];
            weight[n++] = w->feature;
        }
    }
    PN_CHECK(n > 0, PN_USAGE,
             "training: every loss weight is 0, or nothing on this path trains; set loss.ce, loss.kl or "
             "loss.feature above 0");
    if (pass->term) {
        term[n] = pass->term;
        weight[n++] = 1;
    }
    PN_TRY(pn_weighted_sum(t, term, weight, n, &losses->total));
    return PN_OK;
}

pn_status pn_distill_read(const pn_distill_losses *losses, pn_loss_parts *parts) {
    *parts = (pn_loss_parts){ 0 };
    pn_tensor *const from[] = { losses->total, losses->ce, losses->kl, losses->feature };
    double *const to[] = { &parts->total, &parts->ce, &parts->kl, &parts->feature };
    for (int i = 0; i < 4; i++)
        if (from[i]) PN_TRY(pn_tensor_read(from[i], to[i], PN_F64));
    return PN_OK;
}

/* ---- what is not finite ---- */

static pn_status check_finite(const pn_tensor *x, bool *finite) {
    const int64_t n = pn_tensor_elems(x);
    float *values = malloc((size_t)n * sizeof *values + 1);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(x, values, PN_F32);
    *finite = true;
    for (int64_t i = 0; i < n && !s; i++) *finite = *finite && isfinite(values[i]);
    free(values);
    return s;
}

/* From the last layer on. Log-probabilities, because a word's is finite only where all logits of its token are. */
static pn_status locate_words(pn_tape *t, const char *who, const pn_model *m, pn_tensor *h,
                              char where[PN_DISTILL_WHERE]) {
    pn_tensor *hidden, *ids, *log_p;
    bool finite;
    PN_TRY(pn_model_final(m, t, h, &hidden));
    PN_TRY(check_finite(hidden, &finite));
    if (!finite) {
        snprintf(where, PN_DISTILL_WHERE, "%s, the final norm", who);
        return PN_OK;
    }
    PN_TRY(pn_linear_topk(t, hidden, m->head, 1, 1, &ids, &log_p));
    PN_TRY(check_finite(log_p, &finite));
    if (!finite)
        snprintf(where, PN_DISTILL_WHERE, "%s, lm_head%s", who,
                 m->config.tied ? ", whose weights are the embedding's" : "");
    return PN_OK;
}

static pn_status locate(pn_tape *t, const char *who, const pn_model *m, const pn_path *path, pn_tensor *gates,
                        pn_tensor *ids, const pn_docs *docs, char where[PN_DISTILL_WHERE]) {
    pn_tensor *h, *v_first = NULL;
    bool finite;
    PN_TRY(pn_model_embed(m, t, ids, &h));
    PN_TRY(check_finite(h, &finite));
    if (!finite) snprintf(where, PN_DISTILL_WHERE, "%s, the embedding", who);
    for (int l = 0; l < m->config.n_layers && finite; l++) {
        layer_call call = { .model = m, .docs = *docs, .layer = l, .choice = path ? path->choice[l] : 0 };
        pn_tensor *in[LAYER_IN] = { h, gates, v_first }, *out[LAYER_OUT] = { NULL };
        const int n_out = makes_v_first(&call, in) ? LAYER_OUT : OUT_V_FIRST;
        const char *mixer = gates ? "all candidates" : m->layer[l].candidate[call.choice]->spec.type->name;
        PN_TRY(run_layer(t, &call, in, LAYER_IN, out, n_out));
        if (n_out > OUT_V_FIRST) v_first = out[OUT_V_FIRST];
        h = out[OUT_H];
        PN_TRY(check_finite(out[OUT_Y], &finite));
        if (!finite) snprintf(where, PN_DISTILL_WHERE, "%s, layer %d, the output of %s", who, l, mixer);
        if (finite) PN_TRY(check_finite(h, &finite));
        if (!finite && !*where) snprintf(where, PN_DISTILL_WHERE, "%s, layer %d, after the MLP", who, l);
    }
    if (finite) PN_TRY(locate_words(t, who, m, h, where));
    return PN_OK;
}

/* In the losses, of what is finite. They are recorded, as it is by recording that the feature loss knows what trains.
 */
static pn_status locate_loss(pn_tape *t, const pn_distill *pass, const pn_batch *batch, char where[PN_DISTILL_WHERE]) {
    pn_distill again = *pass;
    pn_distill_losses losses;
    bool finite = true;
    again.passed = NULL;
    PN_TRY(pn_distill_forward(t, &again, batch, &losses));
    const struct {
        const char *name;
        const pn_tensor *value;
    } part[] = { { "the ce loss", losses.ce },
                 { "the kl loss", losses.kl },
                 { "the feature loss", losses.feature },
                 { "the term that the gates add to the loss", pass->term },
                 { "the sum of the losses", losses.total } };
    for (size_t i = 0; i < sizeof part / sizeof *part && finite; i++) {
        if (part[i].value) PN_TRY(check_finite(part[i].value, &finite));
        if (!finite) snprintf(where, PN_DISTILL_WHERE, "%s", part[i].name);
    }
    return PN_OK;
}

pn_status pn_distill_locate(pn_tape *t, const pn_distill *pass, const pn_batch *batch, char where[PN_DISTILL_WHERE]) {
    pn_tensor *ids, *targets, *weights;
    const pn_scope scope = pn_scope_open(t);
    bool recording = pn_tape_record(t, false);
    *where = '\0';
    pn_status s = pn_batch_tensors(batch, t, &ids, &targets, &weights);
    if (!s) s = locate(t, "student", pass->student, pass->path, pass->gates, ids, &batch->docs, where);
    if (!s && !*where && pass->teacher && teacher_runs(pass->weights, batch))
        s = locate(t, "teacher", pass->teacher, pass->teacher_path, NULL, ids, &batch->docs, where);
    if (!s) pn_scope_close(t, scope, NULL, 0);
    pn_tape_record(t, true);
    if (!s && !*where) s = locate_loss(t, pass, batch, where);
    pn_tape_record(t, recording);
    return s;
}
