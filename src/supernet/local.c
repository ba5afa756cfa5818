/* Local training: the candidates of a layer learn the teacher's own map of that layer.
 *
 * With x = rms(h) the layer's normalised input in the teacher's run and y = attention(x) its mixer's output, a
 * candidate minimises |f(x) - y|^2 / var(y). Nothing flows through depth, so a layer needs only its inputs h: one pass
 * computes x and y, updates every candidate, and hands h + y (through the MLP) to the next layer.
 *
 *     order: step    for each step, walk all layers: all optimizers in memory, nothing stored
 *     order: layer   for each layer, walk all steps over an activation store that holds h of every token; afterwards
 *                    the store holds the next layer's h: one layer's optimizer in memory, the data read once
 *
 * Both do the same updates in the same order per layer, from the same batches: with a store as wide as what is computed
 * in the weights agree bit for bit. Layers do not depend on each other's candidates, so each keeps a state of its own
 * (local_internal.h): a run that goes on updates nothing that has been updated. The activation store is not part of the
 * state, for it is as large as the data: the teacher's pass over the layers before, without their candidates, fills it
 * again. */
#include "local.h"

#include <math.h>
#include <stdlib.h>

#include <xxhash.h>

#include "clock.h"
#include "device.h"
#include "feature_loss/feature_loss.h"
#include "local_internal.h"
#include "log.h"
#include "machine.h"
#include "monitor.h"
#include "optimizer.h"
#include "signals.h"
#include "start.h"

/* Candidates of an earlier stage are frozen; none has no weights. */
static bool trains(const pn_model *m, int l, int choice) {
    for (int i = 0; i < m->params->n; i++)
        if (m->params->item[i]->value->wants_grad &&
            pn_param_below(m->params->item[i]->name, m->layer[l].candidate[choice]->prefix))
            return true;
    return false;
}

static int count_learners(const pn_model *m) {
    int n = 0;
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 1; c < m->layer[l].n_candidates; c++) n += trains(m, l, c);
    return n;
}

/* With the weights as they were drawn: what they start from instead follows from these parts. */
static pn_status identify(local *r, const pn_supernet_phase *o, const pn_supernet_job *job) {
    uint64_t weights;
    PN_TRY(pn_params_hash(r->m->params, &weights));
    const uint64_t parts[] = { weights + pn_supernet_start_hash(job), pn_mixture_hash(job->mixture),
                               pn_train_options_hash(r->train), (uint64_t)o->order, (uint64_t)o->store };
    r->fingerprint = pn_params_fingerprint(r->m->params, XXH3_64bits(parts, sizeof parts));
    return PN_OK;
}

/* ---- training ---- */

bool pn_local_owns(const local *r, const learner *x, const pn_param *p) {
    return pn_param_below(p->name, r->m->layer[x->layer].candidate[x->choice]->prefix);
}

static pn_status start_learner(local *r, learner *x) {
    const pn_train_options *o = r->train;
    const pn_adamw_settings set = { o->beta1, o->beta2, o->epsilon, o->weight_decay, o->clip };
    const char *prefix = r->m->layer[x->layer].candidate[x->choice]->prefix;
    PN_TRY(pn_optimizer_create(r->m->params, prefix, &set, &x->optim));
    PN_TRY(pn_readback_create(pn_backend_pool(r->m->params->backend), &x->sent));
    return PN_OK;
}

static void end_learner(learner *x) {
    pn_readback_destroy(&x->sent);
    pn_adamw_destroy(&x->optim);
    x->open = false;
}

static void show_error(const local *r, const learner *x, int64_t step, double error) {
    char series[64], name[PN_NAME_MAX], block[64];
    snprintf(series, sizeof series, "%.40s%slocal layer %02d", r->name ? r->name : "", r->name ? " " : "", x->layer);
    snprintf(name, sizeof name, "local_error/%s", pn_candidate_text(r->m, x->layer, x->choice, block, sizeof block));
    pn_monitor_point(series, step, &(pn_scalar){ name, error }, 1);
}

pn_status pn_local_start(local *r, int layer) {
    for (int i = 0; i < r->n_learners; i++) {
        learner *x = &r->learner[i];
        if (x->layer == layer && !x->optim && r->trained[layer] < r->steps) PN_TRY(start_learner(r, x));
    }
    return PN_OK;
}

static pn_status settle(local *r, learner *x) {
    double error;
    char block[64];
    const int64_t step = x->step, tenth = (r->steps + 9) / 10;
    if (!x->open) return PN_OK;
    x->open = false;
    PN_TRY(pn_readback_wait(x->sent, &error));
    const pn_status updated = pn_adamw_finish(x->optim, NULL);
    PN_CHECK(isfinite(error), PN_NUMERIC,
             "layer %d, step %lld: the error of %s is %g: lower the learning rate or check the data", x->layer,
             (long long)step + 1, pn_candidate_text(r->m, x->layer, x->choice, block, sizeof block), error);
    PN_TRY(updated);
    if (pn_monitor_due(step + 1, r->steps)) show_error(r, x, step + 1, error);
    if (step == 0) x->error_sums[2] = error;
    if (step < tenth) x->error_sums[0] += error / (double)tenth;
    if (step >= r->steps - tenth) x->error_sums[1] += error / (double)tenth;
    r->error = r->error == 0 ? error : 0.98 * r->error + 0.02 * error;
    return PN_OK;
}

pn_status pn_local_settle(local *r, int layer) {
    for (int i = 0; i < r->n_learners; i++)
        if (r->learner[i].layer == layer) PN_TRY(settle(r, &r->learner[i]));
    return PN_OK;
}

static pn_status update(local *r, learner *x, int64_t step, pn_tensor *input, pn_tensor *target, const pn_docs *docs) {
    pn_tensor *y, *loss;
    pn_carry carry = { 0 };
    pn_scope scope = pn_scope_open(r->tape);
    pn_tape_record(r->tape, true);
    PN_TRY(pn_block_forward(r->m->layer[x->layer].candidate[x->choice], r->tape, input, docs, &carry, &y));
    PN_TRY(pn_feature_loss(r->tape, y, target, &loss));
    PN_TRY(settle(r, x));
    PN_TRY(pn_tape_backward_unchecked(r->tape, loss));
    PN_TRY(pn_adamw_begin(x->optim, pn_schedule_rate(&r->train->schedule, step, r->steps), loss));
    PN_TRY(pn_readback_add(x->sent, loss));
    x->open = true;
    x->step = step;
    pn_tape_record(r->tape, false);
    pn_scope_close(r->tape, scope, NULL, 0);
    return r->m->params->backend == PN_CUDA ? PN_OK : settle(r, x);
}

/* Asked after every layer of every step. State is written where a signal stops the run, and now and then on the way. */
static pn_status keep(local *r, int first, int end) {
    bool stop = pn_interrupted();
    double interval = r->train->checkpoint_seconds;
    const bool due = interval > 0 && pn_seconds() - r->saved > interval;
    for (int l = first; l < end && (stop || due); l++) {
        const pn_status s = pn_local_save(r, l);
        if (s != PN_IO || stop) /* the state before is still there, and the next may fit */
            PN_TRY(s);
        else
            pn_warn("local training: a checkpoint was not written: %s", pn_error_message());
    }
    PN_CHECK(!stop, PN_INTERRUPTED, "local training: stopped by a signal%s",
             r->state_dir ? "; state saved: the same command goes on from here" : "");
    return PN_OK;
}

/* One layer on one batch: teaches its candidates, unless an earlier run has, and returns the teacher's next h (NULL
 * out: not wanted). */
static pn_status layer_step(local *r, int l, int64_t step, pn_tensor *h, const pn_docs *docs, pn_tensor **next) {
    pn_tensor *x, *y;
    pn_carry carry = { 0 };
    bool teach = step >= r->trained[l];
    r->done += docs->offset[docs->n];
    if (!teach && !next) return PN_OK;
    PN_TRY(pn_model_mixer_input(r->m, l, r->tape, h, &x));
    PN_TRY(pn_block_forward(r->m->layer[l].candidate[0], r->tape, x, docs, &carry, &y));
    for (int i = 0; i < r->n_learners && teach; i++)
        if (r->learner[i].layer == l) PN_TRY(update(r, &r->learner[i], step, x, y, docs));
    if (teach) r->trained[l] = step + 1;
    if (next) PN_TRY(pn_model_mlp_half(r->m, l, r->tape, h, y, next));
    pn_progress_update(&r->progress, r->done, "layer %d  error %.3f", l, r->error);
    return PN_OK;
}

static pn_status finish_layer(local *r, int l) {
    PN_TRY(pn_local_settle(r, l));
    for (int i = 0; i < r->n_learners; i++)
        if (r->learner[i].layer == l) end_learner(&r->learner[i]);
    return pn_local_save(r, l);
}

static pn_status step_order(local *r, pn_mixture *mixture) {
    pn_batch batch = { 0 };
    pn_status s = PN_OK;
    int n_layers = r->m->config.n_layers;
    int64_t first = r->steps;
    for (int l = 0; l < n_layers; l++) {
        PN_TRY_GOTO(s, pn_local_start(r, l), done);
        if (r->trained[l] < first) first = r->trained[l];
    }
    r->done = r->progress.first = first * r->train->batch_tokens * n_layers;
    for (int64_t step = first; step < r->steps; step++) {
        pn_tensor *ids, *targets, *weights, *h;
        pn_tape_reset(r->tape);
        PN_TRY_GOTO(s, pn_batch_load(mixture, step * r->rows, r->rows, &batch), done);
        PN_TRY_GOTO(s, pn_batch_tensors(&batch, r->tape, &ids, &targets, &weights), done);
        PN_TRY_GOTO(s, pn_model_embed(r->m, r->tape, ids, &h), done);
        for (int l = 0; l < n_layers; l++) {
            pn_scope scope = pn_scope_open(r->tape);
            pn_tensor *next = NULL;
            bool last = l + 1 == n_layers;
            PN_TRY_GOTO(s, layer_step(r, l, step, h, &batch.docs, last ? NULL : &next), done);
            pn_scope_close(r->tape, scope, &next, last ? 0 : 1);
            h = next;
            PN_TRY_GOTO(s, keep(r, 0, n_layers), done);
        }
    }
    for (int l = 0; l < n_layers; l++) PN_TRY_GOTO(s, finish_layer(r, l), done);
done:
    pn_batch_free(&batch);
    return s;
}

/* The activation store: h of every token of every step, on the GPU where the model is and there is room, else on the
 * host. */
typedef struct store {
    pn_pool *pool;
    pn_tensor **h;   /* steps: [batch tokens, D] */
    pn_batch *batch; /* steps: the documents of each */
} store;

static void store_free(store *s, int64_t steps) {
    for (int64_t i = 0; s->batch && i < steps; i++) pn_batch_free(&s->batch[i]);
    for (int64_t i = 0; s->h && i < steps; i++) pn_tensor_release(&s->h[i]);
    free(s->batch);
    free(s->h);
    pn_pool_destroy(&s->pool);
}

static pn_status store_place(const local *r, double n_bytes, pn_pool_kind *out) {
    pn_device_info gpu = { 0 };
    if (r->m->params->backend == PN_CUDA) PN_TRY(pn_device_describe(&gpu));
    *out = n_bytes < pn_local_store_share * (double)gpu.free_bytes ? PN_POOL_DEVICE : PN_POOL_HOST;
    PN_CHECK(*out == PN_POOL_DEVICE || n_bytes < pn_memory_bytes(), PN_MEMORY,
             "the activation store needs %.1f GB: lower supernet.tokens, or use supernet.store: bf16 or "
             "supernet.order: step",
             n_bytes / 1e9);
    return PN_OK;
}

static pn_status store_open(local *r, pn_mixture *mixture, pn_dtype dtype, store *s) {
    const int64_t shape[] = { r->train->batch_tokens, r->m->config.dims.hidden };
    const double step_bytes = (double)shape[0] * (double)shape[1] * (double)pn_dtype_bytes(dtype);
    pn_pool_kind kind;
    PN_TRY(store_place(r, (double)r->steps * step_bytes, &kind));
    PN_TRY(pn_pool_create(kind, &s->pool));
    s->batch = calloc((size_t)r->steps, sizeof *s->batch);
    s->h = calloc((size_t)r->steps, sizeof(pn_tensor *));
    PN_CHECK(s->batch && s->h, PN_MEMORY, "out of memory");
    for (int64_t step = 0; step < r->steps; step++) {
        pn_tensor *ids, *targets, *weights, *h;
        PN_TRY(keep(r, 0, 0));
        pn_tape_reset(r->tape);
        PN_TRY(pn_batch_load(mixture, step * r->rows, r->rows, &s->batch[step]));
        PN_TRY(pn_batch_tensors(&s->batch[step], r->tape, &ids, &targets, &weights));
        PN_TRY(pn_model_embed(r->m, r->tape, ids, &h));
        PN_TRY(pn_tensor_create(s->pool, dtype, 2, shape, &s->h[step]));
        PN_TRY(pn_tensor_copy(s->h[step], h));
    }
    return PN_OK;
}

static pn_status layer_order(local *r, pn_mixture *mixture, pn_dtype dtype) {
    store st = { 0 };
    pn_status s = PN_OK;
    PN_TRY_GOTO(s, store_open(r, mixture, dtype, &st), done);
    const int64_t shape[] = { r->train->batch_tokens, r->m->config.dims.hidden };
    for (int l = 0; l < r->m->config.n_layers; l++) {
        PN_TRY_GOTO(s, pn_local_start(r, l), done);
        bool last = l + 1 == r->m->config.n_layers;
        for (int64_t step = 0; step < r->steps; step++) {
            pn_tensor *h, *next;
            pn_tape_reset(r->tape);
            PN_TRY_GOTO(s, pn_tape_new(r->tape, pn_tape_dtype(r->tape), 2, shape, &h), done);
            PN_TRY_GOTO(s, pn_tensor_copy(h, st.h[step]), done);
            PN_TRY_GOTO(s, layer_step(r, l, step, h, &st.batch[step].docs, last ? NULL : &next), done);
            if (!last) PN_TRY_GOTO(s, pn_tensor_copy(st.h[step], next), done);
            PN_TRY_GOTO(s, keep(r, l, l + 1), done);
        }
        PN_TRY_GOTO(s, finish_layer(r, l), done);
    }
done:
    store_free(&st, r->steps);
    return s;
}

static bool finished(const local *r) {
    for (int i = 0; i < r->n_learners; i++)
        if (r->trained[r->learner[i].layer] < r->steps) return false;
    return true;
}

static pn_status start_layers(local *r, const pn_supernet_phase *phase, const pn_supernet_job *job) {
    bool begun[PN_MAX_LAYERS] = { false };
    for (int l = 0; l < r->m->config.n_layers; l++) begun[l] = r->trained[l] > 0;
    PN_TRY(pn_supernet_start(r->m, phase, job, begun));
    return PN_OK;
}

static pn_status train_all(local *r, const pn_supernet_phase *phase, pn_mixture *mixture) {
    r->progress = pn_progress_begin("local training", 0, r->steps * r->train->batch_tokens * r->m->config.n_layers,
                                    "layer tokens");
    if (phase->order == PN_ORDER_LAYER)
        PN_TRY(layer_order(r, mixture, pn_local_store_dtype(r->m, phase)));
    else
        PN_TRY(step_order(r, mixture));
    pn_progress_end(&r->progress);
    return PN_OK;
}

static pn_status report(const local *r, pn_supernet_result *out) {
    out->error = calloc((size_t)r->n_learners + 1, sizeof *out->error);
    PN_CHECK(out->error, PN_MEMORY, "out of memory");
    out->n_errors = r->n_learners;
    for (int i = 0; i < r->n_learners; i++) {
        const learner *x = &r->learner[i];
        char block[64];
        out->error[i] = (pn_local_error){ x->layer, x->choice, x->error_sums[2], x->error_sums[0], x->error_sums[1] };
        pn_event e = pn_event_begin("local_error");
        pn_event_i64(&e, "layer", x->layer);
        pn_event_str(&e, "block", pn_candidate_text(r->m, x->layer, x->choice, block, sizeof block));
        pn_event_f64(&e, "start", x->error_sums[2]);
        pn_event_f64(&e, "first", x->error_sums[0]);
        pn_event_f64(&e, "last", x->error_sums[1]);
        pn_event_end(&e);
    }
    return PN_OK;
}

pn_status pn_supernet_train_local(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                                  const char *state_dir, pn_supernet_result *out) {
    const pn_train_options *train = &phase->train;
    PN_TRY(pn_train_options_check(train, job->mixture, "supernet"));
    pn_train_options_apply(train, m->params->backend);
    local r = { .m = m,
                .name = job->name,
                .train = train,
                .state_dir = state_dir,
                .rows = train->batch_tokens / pn_mixture_row_tokens(job->mixture),
                .steps = train->tokens / train->batch_tokens,
                .saved = pn_seconds() };
    pn_status s = PN_OK;
    r.learner = calloc((size_t)count_learners(m) + 1, sizeof *r.learner);
    if (!r.learner) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 1; c < m->layer[l].n_candidates; c++)
            if (trains(m, l, c)) r.learner[r.n_learners++] = (learner){ .layer = l, .choice = c };
    PN_TRY_GOTO(s, pn_params_tape(m->params, &r.tape), done);
    pn_tape_record(r.tape, false);
    PN_TRY_GOTO(s, identify(&r, phase, job), done);
    PN_TRY_GOTO(s, pn_local_load(&r), done);
    if (!finished(&r) && job->finished)
        PN_FAIL_GOTO(s, PN_USAGE, done, "%s: holds no super-network that was trained to the end with these settings",
                     state_dir);
    if (!finished(&r)) PN_TRY_GOTO(s, start_layers(&r, phase, job), done);
    if (!finished(&r)) PN_TRY_GOTO(s, train_all(&r, phase, job->mixture), done);
    PN_TRY_GOTO(s, report(&r, out), done);
done:
    for (int i = 0; r.learner && i < r.n_learners; i++) end_learner(&r.learner[i]);
    free(r.learner);
    pn_tape_destroy(&r.tape);
    return s;
}
