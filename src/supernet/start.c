/* Candidates that start from attention: one pass of the teacher over a batch, layer by layer, fits them
 * (from_attention.h). */
#include "start.h"

#include <math.h>
#include <string.h>

#include <xxhash.h>

#include "add/add.h"
#include "attention_map.h"
#include "from_attention.h"
#include "log.h"

enum { CALIBRATION_TOKENS = 4096 };

const char *const pn_start_names[] = { [PN_START_RANDOM] = "random", [PN_START_ATTENTION] = "attention", NULL };

pn_status pn_start_check(int64_t start, const pn_block_type *type, const char *where) {
    PN_CHECK(start != PN_START_ATTENTION || type->attention_map, PN_USAGE,
             "%s: init is attention, but %s has nothing that attention's weights could go to; use init: random", where,
             type->name);
    return PN_OK;
}

static bool starts(const pn_supernet_job *job, int choice) {
    return job->start && choice >= 1 && choice <= job->n_starts && job->start[choice - 1] == PN_START_ATTENTION;
}

static bool any(const pn_supernet_job *job) {
    for (int c = 1; c <= job->n_starts; c++)
        if (starts(job, c)) return true;
    return false;
}

uint64_t pn_supernet_start_hash(const pn_supernet_job *job) {
    return any(job) ? XXH3_64bits(job->start, (size_t)job->n_starts * sizeof *job->start) : 0;
}

/* ---- what was done, for people ---- */

static void merge(pn_start_report *all, const pn_start_report *one) {
    all->kept_qk = fmin(all->kept_qk, one->kept_qk);
    all->kept_v = fmin(all->kept_v, one->kept_v);
    all->least_scale = fmin(all->least_scale, one->least_scale);
    all->most_scale = fmax(all->most_scale, one->most_scale);
}

static void record(const pn_model *m, int l, int choice, const pn_start_report *r) {
    pn_event e = pn_event_begin("start_from_attention");
    pn_event_i64(&e, "layer", l);
    pn_event_str(&e, "block", m->layer[l].candidate[choice]->spec.type->name);
    pn_event_f64(&e, "kept_qk", r->kept_qk);
    pn_event_f64(&e, "kept_v", r->kept_v);
    pn_event_f64(&e, "least_scale", r->least_scale);
    pn_event_f64(&e, "most_scale", r->most_scale);
    pn_event_end(&e);
}

static void width_text(pn_buf *text, const char *names, int64_t have, int64_t want, double kept) {
    if (have == want)
        pn_buf_printf(text, "%s copied; ", names);
    else if (have > want)
        pn_buf_printf(text, "%s copied into %lld of %lld channels, the others random and without effect yet; ", names,
                      (long long)want, (long long)have);
    else
        pn_buf_printf(text, "%s approximated by %lld of %lld channels (they keep at least %.3f of the square); ", names,
                      (long long)have, (long long)want, kept);
}

typedef enum origin { FROM_ATTENTION, SET, DRAWN } origin;

static origin origin_of(const pn_attention_map *map, const pn_tensor *w) {
    bool copied = w == map->out, set = w == map->gate_rows;
    for (int i = 0; i < PN_MAP_PARTS; i++) {
        copied = copied || w == map->part[i].w || w == map->part[i].bias;
        set = set || w == map->conv[i];
    }
    for (int i = 0; i < map->n_values; i++) set = set || w == map->value[i].weight;
    return copied ? FROM_ATTENTION : set ? SET : DRAWN;
}

/* The block's weights of one origin; nothing when there are none. */
static void names_text(pn_buf *text, const char *what, const pn_model *m, const pn_block *b,
                       const pn_attention_map *map, origin from) {
    const size_t n = strlen(b->prefix);
    const char *separator = what;
    for (int i = 0; i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (strncmp(p->name, b->prefix, n) != 0 || origin_of(map, p->value) != from) continue;
        pn_buf_printf(text, "%s%s", separator, p->name + n);
        separator = ", ";
    }
}

/* What a candidate starts from, the same in every layer. */
static void tell(const pn_model *m, int choice, const pn_start_report *r) {
    const pn_block *b = m->layer[0].candidate[choice];
    const pn_dims *dims = &b->dims;
    pn_attention_map map = { 0 };
    pn_buf text = { 0 };
    b->spec.type->attention_map(b, &map);
    width_text(&text, "q, k", map.part[PN_MAP_K].width, dims->head_dim, r->kept_qk);
    width_text(&text, "v, W_o", map.part[PN_MAP_V].width, dims->head_dim, r->kept_v);
    const int64_t heads[] = { map.part[PN_MAP_Q].heads, map.out_heads };
    if (heads[0] != dims->heads || heads[1] != dims->heads)
        pn_buf_printf(&text, "approximated by %lld query and %lld output heads for attention's %lld; ",
                      (long long)heads[0], (long long)heads[1], (long long)dims->heads);
    if (dims->qkv_bias && !map.part[PN_MAP_Q].bias) pn_buf_printf(&text, "biases dropped; ");
    pn_buf_printf(&text, "heads scaled %.3g to %.3g", r->least_scale, r->most_scale);
    names_text(&text, "; set: ", m, b, &map, SET);
    names_text(&text, "; as drawn: ", m, b, &map, DRAWN);
    pn_info("%s starts from attention: %s", b->spec.type->name, pn_buf_string(&text));
    pn_buf_free(&text);
}

/* ---- the pass ---- */

/* One that does not train is finished: it stays as it is. */
static bool trains(const pn_block *b) {
    pn_attention_map map = { 0 };
    b->spec.type->attention_map(b, &map);
    return map.out->wants_grad;
}

/* Fitting is work of the host, in F32: what is on the GPU comes here for it, as a copy of its own. */
static pn_status block_here(const pn_model *m, const pn_block *b, pn_params *params, pn_block **out) {
    PN_TRY(pn_block_create(&b->spec, &b->dims, params, b->prefix, out));
    PN_TRY(pn_params_copy(m->params, b->prefix, params, b->prefix));
    return PN_OK;
}

/* here: where copies go; NULL: the model is on the host. */
static pn_status start_candidate(pn_model *m, pn_block *b, const pn_attention_batch *batch, pn_params *here, pn_tape *t,
                                 pn_start_report *r) {
    pn_block *copy;
    if (!here) return pn_start_from_attention(b, batch, t, r);
    PN_TRY(block_here(m, b, here, &copy));
    pn_status s = pn_start_from_attention(copy, batch, t, r);
    if (!s) s = pn_params_copy(here, b->prefix, m->params, b->prefix);
    pn_block_destroy(&copy);
    return s;
}

static pn_status start_candidates(pn_model *m, int l, const pn_supernet_job *job, const pn_attention_batch *batch,
                                  pn_params *here, pn_tape *t, pn_start_report *reports) {
    for (int c = 1; c < m->layer[l].n_candidates; c++) {
        pn_start_report r;
        if (!starts(job, c) || !trains(m->layer[l].candidate[c])) continue;
        PN_TRY(start_candidate(m, m->layer[l].candidate[c], batch, here, t, &r));
        record(m, l, c, &r);
        merge(&reports[c], &r);
    }
    return PN_OK;
}

static pn_status start_copies(pn_model *m, int l, const pn_supernet_job *job, pn_tensor *x, const pn_docs *docs,
                              pn_params *here, pn_tape *t, pn_start_report *reports) {
    pn_attention_batch batch;
    pn_block *attention;
    pn_tensor *x_here;
    pn_tape_record(t, false);
    PN_TRY(pn_tape_new(t, PN_F32, x->rank, x->shape, &x_here));
    PN_TRY(pn_tensor_copy(x_here, x));
    PN_TRY(block_here(m, m->layer[l].candidate[0], here, &attention));
    pn_status s = pn_attention_batch_run(attention, t, x_here, docs, &batch);
    if (!s) s = start_candidates(m, l, job, &batch, here, t, reports);
    pn_block_destroy(&attention);
    return s;
}

static pn_status start_layer(pn_model *m, int l, const pn_supernet_job *job, pn_tape *t, pn_tensor *x,
                             const pn_docs *docs, pn_start_report *reports) {
    if (m->params->backend != PN_CUDA) {
        pn_attention_batch batch;
        PN_TRY(pn_attention_batch_run(m->layer[l].candidate[0], t, x, docs, &batch));
        return start_candidates(m, l, job, &batch, NULL, t, reports);
    }
    pn_params *here = NULL;
    pn_tape *host = NULL;
    pn_status s = pn_params_create(PN_F32, &here);
    if (!s) s = pn_tape_create(PN_CPU, &host);
    if (!s) s = start_copies(m, l, job, x, docs, here, host, reports);
    pn_tape_destroy(&host);
    pn_params_destroy(&here);
    return s;
}

static pn_status all_layers(pn_model *m, const pn_supernet_job *job, const bool *begun, const pn_batch *batch,
                            pn_tape *t, pn_start_report *reports) {
    pn_tensor *ids, *targets, *weights, *h;
    PN_TRY(pn_batch_tensors(batch, t, &ids, &targets, &weights));
    PN_TRY(pn_model_embed(m, t, ids, &h));
    for (int l = 0; l < m->config.n_layers; l++) {
        pn_scope scope = pn_scope_open(t);
        pn_carry carry = { 0 };
        pn_tensor *x, *next = NULL;
        if (!begun || !begun[l]) {
            PN_TRY(pn_model_mixer_input(m, l, t, h, &x));
            PN_TRY(start_layer(m, l, job, t, x, &batch->docs, reports));
        }
        PN_TRY(pn_model_layer(m, l, 0, t, h, &batch->docs, &carry, &next));
        pn_scope_close(t, scope, &next, 1);
        h = next;
    }
    return PN_OK;
}

pn_status pn_supernet_start(pn_model *m, const pn_supernet_phase *phase, const pn_supernet_job *job,
                            const bool *begun) {
    bool needed = false;
    for (int l = 0; l < m->config.n_layers; l++) needed = needed || !begun || !begun[l];
    if (!any(job) || !needed) return PN_OK;
    const int64_t row = pn_mixture_row_tokens(job->mixture),
                  rows = row < CALIBRATION_TOKENS ? CALIBRATION_TOKENS / row : 1;
    const int64_t after = phase->train.tokens / row;
    pn_start_report reports[PN_MAX_CANDIDATES];
    for (int c = 0; c < PN_MAX_CANDIDATES; c++) reports[c] = (pn_start_report){ 1, 1, INFINITY, 0 };
    pn_batch batch = { 0 };
    pn_tape *t = NULL;
    pn_status s;
    PN_TRY_GOTO(s, pn_params_tape(m->params, &t), done);
    pn_tape_record(t, false);
    PN_TRY_GOTO(s, pn_batch_load(job->mixture, after, rows, &batch), done);
    PN_TRY_GOTO(s, all_layers(m, job, begun, &batch, t, reports), done);
    for (int c = 1; c <= job->n_starts; c++)
        if (reports[c].most_scale > 0) tell(m, c, &reports[c]);
done:
    pn_batch_free(&batch);
    pn_tape_destroy(&t);
    return s;
}
