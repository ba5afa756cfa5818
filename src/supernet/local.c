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
 * Both do the same updates in the same order per layer, from the same batches: with an F32 store the weights agree bit
 * for bit. Layers do not depend on each other's candidates, so a run that was stopped keeps the finished ones. */
#include "local.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "add/add.h"
#include "checkpoint.h"
#include "feature_loss/feature_loss.h"
#include "files.h"
#include "log.h"
#include "progress.h"
#include "signals.h"

/* One candidate that trains: its optimizer and how its error went. */
typedef struct learner {
    int layer, choice;
    pn_adamw *optim;
    double first, last; /* mean errors over the first and last tenth */
    bool done;          /* trained by an earlier run and read from its state */
} learner;

typedef struct local {
    pn_model *m;
    const pn_train_options *train;
    pn_tape *tape;
    int64_t steps, rows;
    learner *learner; /* by layer, then choice */
    int n_learners;
    pn_progress progress;
    int64_t done;          /* layer-tokens */
    double error;          /* smoothed, for the progress line */
    bool by_layers;        /* order: layer */
    const char *state_dir; /* NULL: none */
    uint64_t fingerprint;
} local;

static bool has_weights(const pn_model *m, int l, int choice) {
    return m->layer[l].candidate[choice]->spec.type->build != NULL;
}

static int count_learners(const pn_model *m) {
    int n = 0;
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 1; c < m->layer[l].n_candidates; c++) n += has_weights(m, l, c);
    return n;
}

/* ---- state: <state_dir>/layer-<l> holds what layer l learnt, once it has ---- */

static uint64_t fingerprint(const local *r, const pn_supernet_phase *o, const pn_mixture *mixture) {
    const uint64_t parts[] = { pn_params_hash(r->m->params), pn_mixture_hash(mixture), pn_train_options_hash(r->train),
                               (uint64_t)o->order, (uint64_t)o->store };
    return XXH3_64bits(parts, sizeof parts);
}

/* The weights of a layer's candidates, and their errors into or from `errors`. Returns how many arrays. */
static int layer_arrays(local *r, int l, pn_checkpoint_array *arrays, float *errors) {
    pn_params *p = r->m->params;
    int n = 0, n_errors = 0;
    for (int k = 0; k < r->n_learners; k++) {
        if (r->learner[k].layer != l) continue;
        const char *prefix = r->m->layer[l].candidate[r->learner[k].choice]->prefix;
        for (int i = 0; i < p->n; i++) {
            pn_param *w = p->item[i];
            if (strncmp(w->name, prefix, strlen(prefix))) continue;
            arrays[n++] = (pn_checkpoint_array){ w->name, PN_F32, pn_tensor_elems(w->value), pn_f32(w->value) };
        }
        errors[n_errors++] = (float)r->learner[k].first;
        errors[n_errors++] = (float)r->learner[k].last;
    }
    arrays[n++] = (pn_checkpoint_array){ "errors", PN_F32, n_errors, errors };
    return n;
}

static pn_status layer_state(local *r, int l, bool save) {
    if (!r->state_dir) return PN_OK;
    char name[32], dir[PN_PATH_MAX];
    snprintf(name, sizeof name, "layer-%d", l);
    PN_TRY(pn_path_join(dir, r->state_dir, name));
    pn_checkpoint_array *arrays = calloc((size_t)r->m->params->n + 1, sizeof *arrays);
    PN_CHECK(arrays, PN_MEMORY, "out of memory");
    float errors[2 * PN_MAX_CANDIDATES];
    int n = layer_arrays(r, l, arrays, errors);
    int64_t step = -1;
    pn_status s = save ? pn_checkpoint_save(dir, 0, r->fingerprint, arrays, n)
                       : pn_checkpoint_load(dir, r->fingerprint, arrays, n, &step);
    free(arrays);
    PN_TRY(s);
    const float *e = errors;
    for (int k = 0; k < r->n_learners && step >= 0; k++) {
        learner *x = &r->learner[k];
        if (x->layer != l) continue;
        x->done = true;
        x->first = *e++;
        x->last = *e++;
    }
    return PN_OK;
}

/* Reads the layers that earlier runs have finished. */
static pn_status resume(local *r, bool *all) {
    for (int l = 0; l < r->m->config.n_layers; l++) PN_TRY(layer_state(r, l, false));
    int done = 0;
    for (int k = 0; k < r->n_learners; k++) done += r->learner[k].done;
    *all = done == r->n_learners;
    if (done) pn_info("local training: %d of %d candidates read from %s", done, r->n_learners, r->state_dir);
    return PN_OK;
}

/* ---- training ---- */

static pn_status start_learner(local *r, learner *x) {
    if (x->done) return PN_OK;
    pn_params *p = r->m->params;
    const char *prefix = r->m->layer[x->layer].candidate[x->choice]->prefix;
    pn_adamw_slot *slots = calloc((size_t)p->n, sizeof *slots);
    PN_CHECK(slots, PN_MEMORY, "out of memory");
    int n = 0;
    for (int i = 0; i < p->n; i++)
        if (!strncmp(p->item[i]->name, prefix, strlen(prefix)))
            slots[n++] = (pn_adamw_slot){ p->item[i]->value, p->item[i]->decay };
    const pn_train_options *o = r->train;
    const pn_adamw_settings set = { o->beta1, o->beta2, o->epsilon, o->weight_decay, o->clip };
    pn_status s = pn_adamw_create(slots, n, &set, &x->optim);
    free(slots);
    return s;
}

static pn_status update(local *r, learner *x, int64_t step, pn_tensor *input, pn_tensor *target, const pn_docs *docs) {
    pn_tensor *y, *loss;
    pn_carry carry = { 0 };
    pn_scope scope = pn_scope_open(r->tape);
    pn_tape_record(r->tape, true);
    PN_TRY(pn_block_forward(r->m->layer[x->layer].candidate[x->choice], r->tape, input, docs, &carry, &y));
    PN_TRY(pn_feature_loss(r->tape, y, target, &loss));
    double error = pn_f32(loss)[0];
    PN_TRY(pn_tape_backward(r->tape, loss));
    PN_TRY(pn_adamw_step(x->optim, pn_schedule_rate(&r->train->schedule, step, r->steps), NULL));
    pn_tape_record(r->tape, false);
    pn_scope_close(r->tape, scope, NULL, 0);
    int64_t tenth = (r->steps + 9) / 10;
    if (step < tenth) x->first += error / (double)tenth;
    if (step >= r->steps - tenth) x->last += error / (double)tenth;
    r->error = r->error == 0 ? error : 0.98 * r->error + 0.02 * error;
    return PN_OK;
}

/* One layer on one batch: teaches its candidates and returns the teacher's next h (NULL out: not wanted). */
static pn_status layer_step(local *r, int l, int64_t step, pn_tensor *h, const pn_docs *docs, pn_tensor **next) {
    pn_tensor *x, *y, *sum;
    pn_carry carry = { 0 };
    PN_TRY(pn_model_mixer_input(r->m, l, r->tape, h, &x));
    PN_TRY(pn_block_forward(r->m->layer[l].candidate[0], r->tape, x, docs, &carry, &y));
    for (int i = 0; i < r->n_learners; i++)
        if (r->learner[i].layer == l && !r->learner[i].done) PN_TRY(update(r, &r->learner[i], step, x, y, docs));
    if (next) {
        PN_TRY(pn_add(r->tape, h, y, &sum));
        PN_TRY(pn_model_mlp_half(r->m, l, r->tape, sum, next));
    }
    r->done += docs->offset[docs->n];
    pn_progress_update(&r->progress, r->done, "layer %d  error %.3f", l, r->error);
    PN_CHECK(!pn_interrupted(), PN_INTERRUPTED, "local training: stopped by a signal in layer %d%s", l,
             !r->state_dir  ? ""
             : r->by_layers ? "; finished layers are kept: the same command goes on with this one"
                            : "; with supernet.order: step, the same command trains the candidates again");
    return PN_OK;
}

static pn_status step_order(local *r, pn_mixture *mixture) {
    pn_batch batch = { 0 };
    pn_status s = PN_OK;
    for (int i = 0; i < r->n_learners; i++) PN_TRY_GOTO(s, start_learner(r, &r->learner[i]), done);
    for (int64_t step = 0; step < r->steps; step++) {
        pn_tensor *ids, *targets, *weights, *h;
        pn_tape_reset(r->tape);
        PN_TRY_GOTO(s, pn_batch_load(mixture, step * r->rows, r->rows, &batch), done);
        PN_TRY_GOTO(s, pn_batch_tensors(&batch, r->tape, &ids, &targets, &weights), done);
        PN_TRY_GOTO(s, pn_model_embed(r->m, r->tape, ids, &h), done);
        for (int l = 0; l < r->m->config.n_layers; l++) {
            pn_scope scope = pn_scope_open(r->tape);
            pn_tensor *next = NULL;
            bool last = l + 1 == r->m->config.n_layers;
            PN_TRY_GOTO(s, layer_step(r, l, step, h, &batch.docs, last ? NULL : &next), done);
            pn_scope_close(r->tape, scope, &next, last ? 0 : 1);
            h = next;
        }
    }
    for (int l = 0; l < r->m->config.n_layers; l++) PN_TRY_GOTO(s, layer_state(r, l, true), done);
done:
    pn_batch_free(&batch);
    return s;
}

/* The activation store: h of every token of every step. */
typedef struct store {
    unsigned char *data; /* steps x batch tokens x D */
    pn_dtype dtype;
    size_t step_bytes;
    int64_t elems;   /* per step */
    pn_batch *batch; /* steps: the documents of each */
} store;

static void store_free(store *s, int64_t steps) {
    for (int64_t i = 0; s->batch && i < steps; i++) pn_batch_free(&s->batch[i]);
    free(s->batch);
    free(s->data);
}

static pn_status store_open(local *r, pn_mixture *mixture, pn_dtype dtype, store *s) {
    int64_t D = r->m->config.dims.hidden;
    s->dtype = dtype;
    s->elems = r->train->batch_tokens * D;
    s->step_bytes = (size_t)s->elems * pn_dtype_bytes(dtype);
    double n_bytes = (double)r->steps * (double)s->step_bytes; /* may be more than a size_t holds */
    if (n_bytes < (double)PTRDIFF_MAX) {
        s->batch = calloc((size_t)r->steps, sizeof *s->batch);
        s->data = malloc((size_t)r->steps * s->step_bytes);
    }
    PN_CHECK(s->batch && s->data, PN_MEMORY,
             "the activation store needs %.1f GB: lower supernet.tokens, or use supernet.store: bf16 or "
             "supernet.order: step",
             n_bytes / 1e9);
    for (int64_t step = 0; step < r->steps; step++) {
        pn_tensor *ids, *targets, *weights, *h;
        pn_tape_reset(r->tape);
        PN_TRY(pn_batch_load(mixture, step * r->rows, r->rows, &s->batch[step]));
        PN_TRY(pn_batch_tensors(&s->batch[step], r->tape, &ids, &targets, &weights));
        PN_TRY(pn_model_embed(r->m, r->tape, ids, &h));
        pn_convert(s->data + (size_t)step * s->step_bytes, dtype, pn_data(h), h->dtype, s->elems);
    }
    return PN_OK;
}

static pn_status layer_order(local *r, pn_mixture *mixture, pn_dtype dtype) {
    store st = { 0 };
    pn_status s = PN_OK;
    PN_TRY_GOTO(s, store_open(r, mixture, dtype, &st), done);
    const int64_t shape[] = { r->train->batch_tokens, r->m->config.dims.hidden };
    for (int l = 0; l < r->m->config.n_layers; l++) {
        for (int i = 0; i < r->n_learners; i++)
            if (r->learner[i].layer == l) PN_TRY_GOTO(s, start_learner(r, &r->learner[i]), done);
        bool last = l + 1 == r->m->config.n_layers;
        for (int64_t step = 0; step < r->steps; step++) {
            pn_tensor *h, *next;
            unsigned char *slot = st.data + (size_t)step * st.step_bytes;
            pn_tape_reset(r->tape);
            PN_TRY_GOTO(s, pn_tape_new(r->tape, PN_F32, 2, shape, &h), done);
            pn_convert(pn_data(h), PN_F32, slot, dtype, st.elems);
            PN_TRY_GOTO(s, layer_step(r, l, step, h, &st.batch[step].docs, last ? NULL : &next), done);
            if (!last) pn_convert(slot, dtype, pn_data(next), PN_F32, st.elems);
        }
        for (int i = 0; i < r->n_learners; i++)
            if (r->learner[i].layer == l) pn_adamw_destroy(&r->learner[i].optim);
        PN_TRY_GOTO(s, layer_state(r, l, true), done);
    }
done:
    store_free(&st, r->steps);
    return s;
}

static pn_status train_all(local *r, const pn_supernet_phase *phase, pn_mixture *mixture) {
    r->progress = pn_progress_begin("local training", 0, r->steps * r->train->batch_tokens * r->m->config.n_layers,
                                    "layer tokens");
    if (r->by_layers)
        PN_TRY(layer_order(r, mixture, phase->store ? PN_BF16 : PN_F32));
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
        out->error[i] =
            (pn_local_error){ x->layer, x->choice, (float)x->first, (float)x->last }; /* as the state has it */
        pn_event e = pn_event_begin("local_error");
        pn_event_i64(&e, "layer", x->layer);
        pn_event_str(&e, "block", r->m->layer[x->layer].candidate[x->choice]->spec.type->name);
        pn_event_f64(&e, "first", x->first);
        pn_event_f64(&e, "last", x->last);
        pn_event_end(&e);
    }
    return PN_OK;
}

pn_status pn_supernet_train_local(pn_model *m, const pn_supernet_phase *phase, pn_mixture *mixture,
                                  const char *state_dir, pn_supernet_result *out) {
    const pn_train_options *train = &phase->train;
    PN_TRY(pn_train_options_check(train, mixture, "supernet"));
    local r = { .m = m,
                .train = train,
                .state_dir = state_dir,
                .by_layers = phase->order == PN_ORDER_LAYER,
                .rows = train->batch_tokens / pn_mixture_row_tokens(mixture),
                .steps = train->tokens / train->batch_tokens };
    pn_status s = PN_OK;
    r.learner = calloc((size_t)count_learners(m) + 1, sizeof *r.learner);
    if (!r.learner) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    for (int l = 0; l < m->config.n_layers; l++)
        for (int c = 1; c < m->layer[l].n_candidates; c++)
            if (has_weights(m, l, c)) r.learner[r.n_learners++] = (learner){ .layer = l, .choice = c };
    PN_TRY_GOTO(s, pn_tape_create(PN_CPU, &r.tape), done);
    pn_tape_record(r.tape, false);
    r.fingerprint = fingerprint(&r, phase, mixture);
    bool all = false;
    if (state_dir) PN_TRY_GOTO(s, resume(&r, &all), done);
    if (!all) PN_TRY_GOTO(s, train_all(&r, phase, mixture), done);
    PN_TRY_GOTO(s, report(&r, out), done);
done:
    for (int i = 0; r.learner && i < r.n_learners; i++) pn_adamw_destroy(&r.learner[i].optim);
    free(r.learner);
    pn_tape_destroy(&r.tape);
    return s;
}
