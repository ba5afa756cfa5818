#include "pass_graphs.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "device.h"
#include "replay.h"

/* Kinds of steps that are kept. Where a run has more of them than recordings are worth, none is made any more. */
enum { KINDS = 4, MOST_RECORDINGS = 64, LOSSES = 4 };

typedef struct kind {
    uint64_t hash;
    int64_t used; /* when it was used last; 0: never */
    pn_replay *replay;
    /* Where a launch leaves its results; owned. grad: of the student's weights, NULL where there is none. */
    pn_tensor *loss[LOSSES], **grad;
    int n_grads;
} kind;

struct pn_pass_graphs {
    pn_tape *tape;
    kind kinds[KINDS];
    int64_t steps;    /* that were one of a kind */
    int64_t launches; /* of kinds that are gone, ... */
    int recordings;   /* and of these */
    /* The step that was begun. */
    const pn_distill *pass;  /* only while its forward pass is asked for */
    const pn_params *params; /* the student's */
    pn_distill_losses losses;
    kind *now;     /* NULL: it is of none */
    bool launched; /* as a graph */
    /* What every launch reads: batches of as many tokens, with weights or without, and as many words of a teacher's. */
    pn_pool *pool;
    pn_batch batch;
    int64_t most_docs; /* the offsets have room for */
    pn_tensor *input[PN_BATCH_TENSORS];
    pn_tensor *one;  /* the gradient of the loss */
    uint64_t *words; /* to be hashed; owned */
    int cap_words;
};

/* ---- kinds ---- */

static void close_kind(pn_pass_graphs *g, kind *k) {
    if (k->replay) {
        g->launches += pn_replay_launches(k->replay);
        g->recordings += pn_replay_recordings(k->replay);
    }
    pn_replay_destroy(&k->replay);
    for (int i = 0; i < LOSSES; i++) pn_tensor_release(&k->loss[i]);
    for (int i = 0; i < k->n_grads; i++) pn_tensor_release(&k->grad[i]);
    free(k->grad);
    *k = (kind){ 0 };
}

static pn_status open_kind(pn_pass_graphs *g, kind *k, uint64_t hash) {
    const int n = g->params->n;
    close_kind(g, k);
    k->grad = calloc((size_t)n + 1, sizeof(pn_tensor *));
    PN_CHECK(k->grad, PN_MEMORY, "out of memory");
    k->n_grads = n;
    k->hash = hash;
    PN_TRY(pn_replay_create(g->tape, &k->replay));
    PN_TRY(pn_replay_name(k->replay, g->batch.offset, g->most_docs + 1, false));
    return PN_OK;
}

static pn_status find_kind(pn_pass_graphs *g, uint64_t hash) {
    kind *oldest = g->kinds;
    for (int i = 0; i < KINDS; i++) {
        kind *k = &g->kinds[i];
        if (k->replay && k->hash == hash) g->now = k;
        if (k->used < oldest->used) oldest = k;
    }
    if (!g->now) {
        const pn_status s = open_kind(g, oldest, hash);
        if (s) close_kind(g, oldest);
        PN_TRY(s);
        g->now = oldest;
    }
    g->now->used = ++g->steps;
    return PN_OK;
}

/* ---- what a kind is ---- */

static pn_status reserve_words(pn_pass_graphs *g, int n) {
    if (n <= g->cap_words) return PN_OK;
    uint64_t *grown = realloc(g->words, (size_t)n * sizeof *grown);
    PN_CHECK(grown, PN_MEMORY, "out of memory");
    g->words = grown;
    g->cap_words = n;
    return PN_OK;
}

/* Where the weights are, and which of them train. */
static int put_weights(const pn_params *p, uint64_t *to) {
    for (int i = 0; i < p->n; i++) {
        const pn_tensor *x = p->item[i]->value;
        to[2 * i] = (uintptr_t)pn_data(x);
        to[2 * i + 1] = (uint64_t)x->wants_grad;
    }
    return 2 * p->n;
}

static uint64_t path_hash(const pn_path *p) {
    return p ? XXH3_64bits(p->choice, (size_t)p->n * sizeof p->choice[0]) : 0;
}

/* Everything that decides which kernels run, how many, and where. */
static pn_status hash_pass(pn_pass_graphs *g, const pn_distill *pass, const pn_docs *docs, uint64_t *out) {
    const pn_params *student = pass->student->params, *teacher = pass->teacher ? pass->teacher->params : NULL;
    const uint64_t other[] = { (uintptr_t)pass->student,
                               (uintptr_t)pass->teacher,
                               path_hash(pass->path),
                               path_hash(pass->teacher_path),
                               XXH3_64bits(pass->weights, sizeof *pass->weights),
                               (uint64_t)pass->recompute.level,
                               (uint64_t)pass->recompute.more,
                               (uint64_t)docs->n,
                               (uint64_t)docs->longest,
                               (uint64_t)pn_docs_tokens(docs),
                               (uint64_t)g->batch.k,
                               g->batch.weighted };
    enum { OTHER = sizeof other / sizeof *other };
    PN_TRY(reserve_words(g, OTHER + 2 * (student->n + (teacher ? teacher->n : 0))));
    memcpy(g->words, other, sizeof other);
    int n = OTHER;
    n += put_weights(student, g->words + n);
    if (teacher) n += put_weights(teacher, g->words + n);
    *out = XXH3_64bits(g->words, (size_t)n * sizeof *g->words);
    return PN_OK;
}

/* ---- what a launch reads ---- */

static void close_inputs(pn_pass_graphs *g) {
    for (int i = 0; i < KINDS; i++) close_kind(g, &g->kinds[i]);
    for (int i = 0; i < PN_BATCH_TENSORS; i++) pn_tensor_release(&g->input[i]);
    free(g->batch.offset);
    g->batch = (pn_batch){ 0 };
    g->most_docs = 0;
}

static pn_status input(pn_pass_graphs *g, int i, pn_dtype type, int64_t k) {
    const int64_t shape[] = { g->batch.n_tokens, k };
    PN_TRY(pn_tensor_create(g->pool, type, k ? 2 : 1, shape, &g->input[i]));
    return PN_OK;
}

static pn_status open_inputs(pn_pass_graphs *g, const pn_batch *b, const pn_docs *docs) {
    const pn_dtype wide = pn_wide_dtype(pn_tape_dtype(g->tape));
    g->most_docs = docs->n > b->n_tokens ? docs->n : b->n_tokens;
    g->batch = (pn_batch){ .n_tokens = b->n_tokens, .weighted = b->weighted, .k = b->k };
    g->batch.offset = calloc((size_t)g->most_docs + 1, sizeof *g->batch.offset);
    PN_CHECK(g->batch.offset, PN_MEMORY, "out of memory");
    PN_TRY(input(g, PN_BATCH_IDS, PN_I32, 0));
    PN_TRY(input(g, PN_BATCH_TARGETS, PN_I32, 0));
    if (b->weighted) PN_TRY(input(g, PN_BATCH_WEIGHTS, wide, 0));
    if (b->k) PN_TRY(input(g, PN_BATCH_TEACHER_IDS, PN_I32, b->k));
    if (b->k) PN_TRY(input(g, PN_BATCH_TEACHER_LOG_P, wide, b->k));
    memcpy(g->batch.there, g->input, sizeof g->input);
    return PN_OK;
}

/* Room for as many tokens, and documents, as in b. Where it has to be made, nothing that was recorded can stay. */
static pn_status reserve_inputs(pn_pass_graphs *g, const pn_batch *b, const pn_docs *docs) {
    const pn_batch *has = &g->batch;
    if (has->offset && has->n_tokens == b->n_tokens && has->weighted == b->weighted && has->k == b->k &&
        docs->n <= g->most_docs)
        return PN_OK;
    close_inputs(g);
    const pn_status s = open_inputs(g, b, docs);
    if (s) close_inputs(g);
    return s;
}

static pn_status write_inputs(pn_pass_graphs *g, const pn_batch *b, const pn_docs *docs) {
    PN_TRY(reserve_inputs(g, b, docs));
    memcpy(g->batch.offset, docs->offset, (size_t)(docs->n + 1) * sizeof *docs->offset);
    g->batch.n_docs = b->n_docs;
    g->batch.docs = (pn_docs){ .n = b->n_docs, .offset = g->batch.offset };
    g->batch.longest = b->longest;
    PN_TRY(pn_tensor_write(g->input[PN_BATCH_IDS], b->ids, PN_I32));
    PN_TRY(pn_tensor_write(g->input[PN_BATCH_TARGETS], b->targets, PN_I32));
    if (b->weighted) PN_TRY(pn_tensor_write(g->input[PN_BATCH_WEIGHTS], b->weights, PN_F32));
    if (b->k) PN_TRY(pn_tensor_write(g->input[PN_BATCH_TEACHER_IDS], b->teacher_ids, PN_I32));
    if (b->k) PN_TRY(pn_tensor_write(g->input[PN_BATCH_TEACHER_LOG_P], b->teacher_log_p, PN_F32));
    return PN_OK;
}

pn_status pn_pass_graphs_create(pn_tape *t, pn_pass_graphs **out) {
    const int64_t n = 1;
    const double one = 1;
    pn_pass_graphs *g = calloc(1, sizeof *g);
    PN_CHECK(g, PN_MEMORY, "out of memory");
    g->tape = t;
    pn_status s = PN_OK;
    PN_TRY_GOTO(s, pn_pool_create_exact(pn_backend_pool(pn_tape_backend(t)), &g->pool), fail);
    PN_TRY_GOTO(s, pn_tensor_create(g->pool, pn_wide_dtype(pn_tape_dtype(t)), 1, &n, &g->one), fail);
    PN_TRY_GOTO(s, pn_tensor_write(g->one, &one, PN_F64), fail);
    *out = g;
    return PN_OK;
fail:
    pn_pass_graphs_destroy(&g);
    return s;
}

void pn_pass_graphs_destroy(pn_pass_graphs **gp) {
    pn_pass_graphs *g = gp ? *gp : NULL;
    if (!g) return;
    close_inputs(g);
    pn_tensor_release(&g->one);
    pn_pool_destroy(&g->pool);
    free(g->words);
    free(g);
    *gp = NULL;
}

/* ---- the two parts ---- */

static pn_status forward(void *ctx) {
    pn_pass_graphs *g = ctx;
    PN_TRY(pn_distill_forward(g->tape, g->pass, &g->batch, &g->losses));
    return PN_OK;
}

static pn_status backward(void *ctx) {
    pn_pass_graphs *g = ctx;
    PN_TRY(pn_tape_backward_from(g->tape, &g->losses.total, &g->one, 1));
    return PN_OK;
}

static pn_tensor **loss_at(pn_distill_losses *l, int i) {
    pn_tensor **const at[LOSSES] = { &l->total, &l->ce, &l->kl, &l->feature };
    return at[i];
}

static void drop_gradients(const pn_pass_graphs *g) {
    for (int i = 0; i < g->params->n; i++) pn_tensor_release(&g->params->item[i]->value->grad);
}

/* Losses and gradients of every launch will be where they are now. */
static pn_status recorded(void *ctx) {
    pn_pass_graphs *g = ctx;
    kind *k = g->now;
    for (int i = 0; i < LOSSES; i++) {
        const pn_tensor *x = *loss_at(&g->losses, i);
        pn_tensor_release(&k->loss[i]);
        if (x) PN_TRY(pn_tensor_again(x, &k->loss[i]));
    }
    for (int i = 0; i < k->n_grads; i++) {
        const pn_tensor *x = g->params->item[i]->value->grad;
        pn_tensor_release(&k->grad[i]);
        if (x) PN_TRY(pn_tensor_again(x, &k->grad[i]));
    }
    drop_gradients(g);
    return PN_OK;
}

static void undo(void *ctx) {
    const pn_pass_graphs *g = ctx;
    pn_tape_record(g->tape, true);
    pn_tape_reset(g->tape);
    drop_gradients(g);
}

/* Whether the step can be one of the recorded: no part of it is made by others, the memory of the tape is all free, and
 * gradients begin with it and are made there. */
static bool is_alone(const pn_pass_graphs *g, const pn_distill *pass, const pn_batch *batch) {
    const pn_params *p = pass->student->params;
    if (pn_tape_backend(g->tape) != PN_CUDA || !pn_graphs_wanted() || !pn_distill_small(pass, batch->n_tokens) ||
        pass->gates || pass->term || pn_tape_has_home(g->tape) || batch->longest <= 0 ||
        g->recordings >= MOST_RECORDINGS || pn_pool_live_bytes(pn_tape_pool(g->tape)) > 0)
        return false;
    for (int i = 0; i < p->n; i++)
        if (p->item[i]->value->grad) return false;
    return true;
}

pn_status pn_pass_graphs_forward(pn_pass_graphs *g, const pn_distill *pass, const pn_batch *batch,
                                 pn_distill_losses *losses) {
    const pn_docs docs = pn_batch_docs(batch, true);
    const pn_replay_parts parts = { forward, backward, recorded, undo, g };
    uint64_t hash;
    g->now = NULL;
    g->pass = pass;
    g->params = pass->student->params;
    if (!is_alone(g, pass, batch)) {
        PN_TRY(pn_distill_forward(g->tape, pass, batch, &g->losses));
        *losses = g->losses;
        return PN_OK;
    }
    PN_TRY(write_inputs(g, batch, &docs));
    PN_TRY(hash_pass(g, pass, &docs, &hash));
    PN_TRY(find_kind(g, hash));
    PN_TRY(pn_replay_first(g->now->replay, 0, &parts, &g->launched));
    for (int i = 0; i < LOSSES && g->launched; i++) *loss_at(&g->losses, i) = g->now->loss[i];
    *losses = g->losses;
    return PN_OK;
}

pn_status pn_pass_graphs_backward(pn_pass_graphs *g) {
    const kind *k = g->now;
    if (!k) return pn_tape_backward_unchecked(g->tape, g->losses.total);
    PN_TRY(pn_replay_second(k->replay));
    for (int i = 0; i < k->n_grads && g->launched; i++)
        if (k->grad[i]) g->params->item[i]->value->grad = pn_tensor_retain(k->grad[i]);
    return PN_OK;
}

bool pn_pass_graphs_begun(const pn_pass_graphs *g) {
    return g->now;
}

void pn_pass_graphs_leave(pn_pass_graphs *g) {
    g->now = NULL;
}

int64_t pn_pass_graphs_launches(const pn_pass_graphs *g) {
    int64_t n = g->launches;
    for (int i = 0; i < KINDS; i++) n += g->kinds[i].replay ? pn_replay_launches(g->kinds[i].replay) : 0;
    return n;
}

int pn_pass_graphs_recordings(const pn_pass_graphs *g) {
    int n = g->recordings;
    for (int i = 0; i < KINDS; i++) n += g->kinds[i].replay ? pn_replay_recordings(g->kinds[i].replay) : 0;
    return n;
}
