/* CUDA graphs: decoding by them has the bits of decoding kernel by kernel, whatever changes between two launches. */
#include "hybrid.h"

#include <string.h>

#include "decode.h"

enum { SEQUENCES = 3, STEPS = 64 };

typedef struct shape {
    const char *what;
    const char *block[MOST_LAYERS + 1]; /* NULL-ended */
    int recordings;                     /* of STEPS steps: one more where a cache of 64 rows grows on the way */
} shape;

/* Every kind of decode state: caches that grow, rings that are full, states and windows of every core. */
static const shape shapes[] = { { "attention, a window, JetBlocks", { "jet", "attention", "swa", "jet" }, 2 },
                                { "delta rules", { "gated_deltanet", "deltanet", "attention" }, 2 },
                                { "linear attention", { "gla", "mamba2", "retnet", "swa" }, 1 },
                                { "RWKV-7", { "rwkv7", "rwkv7", "attention" }, 2 } };
enum { SHAPES = sizeof shapes / sizeof *shapes, HYBRID = 0 };

static int32_t id_of(int sequence, int64_t position) {
    return (int32_t)((position * position * 7 + 13 * sequence) % VOCAB);
}

/* Sequences of a model: what they have seen, and how they go on. */
typedef struct decoding {
    pn_model *m;
    pn_cache *cache;
    pn_tape *tape;
    pn_model_decoder *decoder; /* NULL: kernel by kernel */
    int64_t past[SEQUENCES];
} decoding;

/* Tokens length[i] of each sequence, in one piece. */
static pn_tensor *feed(decoding *d, const int64_t length[SEQUENCES]) {
    int64_t offset[SEQUENCES + 1] = { 0 };
    for (int i = 0; i < SEQUENCES; i++) offset[i + 1] = offset[i] + length[i];
    int32_t *id = malloc((size_t)offset[SEQUENCES] * sizeof *id);
    for (int i = 0; i < SEQUENCES; i++)
        for (int64_t k = 0; k < length[i]; k++) id[offset[i] + k] = id_of(i, d->past[i]++);
    pn_tensor *ids, *hidden, *logits;
    pn_tape_reset(d->tape);
    ck_ok(pn_tape_new(d->tape, PN_I32, 1, &offset[SEQUENCES], &ids));
    ck_ok(pn_tensor_write(ids, id, PN_I32));
    ck_ok(pn_model_extend(d->m, d->cache, d->tape, ids, &(pn_docs){ .n = SEQUENCES, .offset = offset }, &hidden));
    ck_ok(pn_model_logits(d->m, d->tape, hidden, &logits));
    free(id);
    return logits;
}

/* The layout: sequences of different lengths. */
static void start(decoding *d, const int64_t length[SEQUENCES]) {
    pn_cache_destroy(&d->cache);
    ck_ok(pn_cache_create(d->m, NULL, SEQUENCES, &d->cache));
    memset(d->past, 0, sizeof d->past);
    feed(d, length);
}

static decoding decoding_of(pn_model *m, const int64_t length[SEQUENCES], bool graphs) {
    decoding d = { .m = m };
    ck_ok(pn_params_tape(m->params, &d.tape));
    pn_tape_record(d.tape, false);
    start(&d, length);
    if (graphs) ck_ok(pn_model_decoder_create(m, d.cache, d.tape, &d.decoder));
    return d;
}

static void decoding_free(decoding *d) {
    pn_model_decoder_destroy(&d->decoder);
    pn_cache_destroy(&d->cache);
    pn_tape_destroy(&d->tape);
}

/* The next token of each; their logits. */
static void step(decoding *d, float logits[SEQUENCES * VOCAB]) {
    static const int64_t one[SEQUENCES] = { 1, 1, 1 };
    pn_tensor *out;
    if (d->decoder) {
        int32_t id[SEQUENCES];
        for (int i = 0; i < SEQUENCES; i++) id[i] = id_of(i, d->past[i]++);
        ck_ok(pn_model_decoder_step(d->decoder, id, &out));
    } else {
        out = feed(d, one);
    }
    ck_ok(pn_tensor_read(out, logits, PN_F32));
}

static void ck_same_steps(decoding *eager, decoding *graph, int steps, const char *what) {
    float want[SEQUENCES * VOCAB], got[SEQUENCES * VOCAB], before[SEQUENCES * VOCAB] = { 0 };
    for (int i = 0; i < steps; i++) {
        step(eager, want);
        step(graph, got);
        ck_assert_msg(!memcmp(want, got, sizeof want), "%s: step %d has other bits", what, i);
        ck_assert_msg(memcmp(want, before, sizeof want), "%s: step %d is the one before", what, i);
        memcpy(before, want, sizeof want);
    }
}

static int recordings(const decoding *d) {
    return pn_replay_recordings(pn_model_decoder_replay(d->decoder));
}
static int64_t launches(const decoding *d) {
    return pn_replay_launches(pn_model_decoder_replay(d->decoder));
}

/* The first step before each recording runs kernel by kernel; all others are launches. */
START_TEST(decoding_has_the_bits_of_the_kernels) {
    ck_need_gpu();
    static const int64_t length[] = { 30, 7, 19 };
    for (int i = 0; i < SHAPES; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            pn_model *m = hybrid_of(shapes[i].block, bf16 ? PN_BF16 : PN_F32);
            decoding eager = decoding_of(m, length, false), graph = decoding_of(m, length, true);
            ck_same_steps(&eager, &graph, STEPS, shapes[i].what);
            ck_assert_msg(recordings(&graph) == shapes[i].recordings, "%s: %d recordings", shapes[i].what,
                          recordings(&graph));
            ck_assert_int_eq(launches(&graph), STEPS - shapes[i].recordings);
            decoding_free(&eager);
            decoding_free(&graph);
            pn_model_destroy(&m);
        }
}
END_TEST

/* The lengths of the sequences are in tables, not in the recording. */
START_TEST(one_recording_serves_every_layout) {
    ck_need_gpu();
    static const int64_t layout[][SEQUENCES] = { { 30, 7, 19 }, { 1, 40, 2 }, { 33, 33, 33 } };
    pn_model *m = hybrid_of(shapes[HYBRID].block, PN_BF16);
    decoding graph = decoding_of(m, layout[0], true);
    for (int i = 0; i < 3; i++) {
        decoding eager = decoding_of(m, layout[i], false);
        for (int l = 0; l < graph.cache->n_layers; l++) { /* its states become those of the other, in place */
            pn_state *to = graph.cache->layer[l], *from = eager.cache->layer[l];
            for (int k = 0; k < to->n_tensors; k++) ck_ok(pn_tensor_copy(to->tensor[k], from->tensor[k]));
            memcpy(to->past, from->past, sizeof eager.past);
        }
        memcpy(graph.past, eager.past, sizeof eager.past);
        ck_same_steps(&eager, &graph, 10, "another layout");
        decoding_free(&eager);
    }
    ck_assert_int_eq(recordings(&graph), 1);
    ck_assert_int_eq(launches(&graph), 29);
    decoding_free(&graph);
    pn_model_destroy(&m);
}
END_TEST

/* Takes the values elsewhere and spoils what was there. */
static void move(pn_tensor *x, pn_pool *pool) {
    pn_storage *old = x->storage;
    old->refs++;
    pn_tensor *copy, *old_tensor;
    ck_ok(pn_tensor_create(pool, x->dtype, x->rank, x->shape, &copy));
    ck_ok(pn_tensor_copy(copy, x));
    ck_ok(pn_tensor_detach(x, &old_tensor));
    pn_storage_release(&x->storage);
    x->storage = copy->storage;
    x->storage->refs++;
    ck_ok(pn_tensor_fill_bytes(old_tensor, 0xff));
    pn_tensor_release(&old_tensor);
    pn_tensor_release(&copy);
    pn_storage_release(&old);
}

START_TEST(a_changed_address_is_noticed) {
    ck_need_gpu();
    static const int64_t length[] = { 5, 7, 9 };
    pn_model *m = hybrid_of(shapes[HYBRID].block, PN_F32);
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    decoding eager = decoding_of(m, length, false), graph = decoding_of(m, length, true);
    ck_same_steps(&eager, &graph, 5, "before");
    ck_assert_int_eq(recordings(&graph), 1);
    move(graph.cache->layer[0]->tensor[0], pool);
    ck_same_steps(&eager, &graph, 5, "after a state has moved");
    ck_assert_int_eq(recordings(&graph), 2);
    move(m->params->item[3]->value, pool);
    ck_same_steps(&eager, &graph, 5, "after a weight has moved");
    ck_assert_int_eq(recordings(&graph), 3);
    pn_pool_trim(pn_tape_pool(graph.tape));
    ck_same_steps(&eager, &graph, 5, "after the pool gave memory back");
    ck_assert_int_eq(recordings(&graph), 4);
    decoding_free(&eager);
    decoding_free(&graph);
    pn_model_destroy(&m);
    pn_pool_destroy(&pool);
}
END_TEST

/* Kernels that write the next state over the last give the same as others. */
START_TEST(a_state_is_renewed_in_place) {
    ck_need_gpu();
    static const int64_t length[] = { 5, 7, 9 };
    for (int i = 0; i < SHAPES; i++) {
        pn_model *m = hybrid_of(shapes[i].block, PN_BF16);
        decoding in_place = decoding_of(m, length, false), copied = decoding_of(m, length, false);
        for (int l = 0; l < m->config.n_layers; l++)
            for (int k = 0; k < copied.cache->layer[l]->n_tensors; k++)
                copied.cache->layer[l]->tensor[k]->renewable = false;
        ck_same_steps(&copied, &in_place, 8, shapes[i].what);
        decoding_free(&in_place);
        decoding_free(&copied);
        pn_model_destroy(&m);
    }
}
END_TEST

/* Work that waits for the GPU, or asks for a table nobody can keep up, is done as usual every time. */
typedef struct work {
    pn_tape *tape;
    pn_tensor *at;
    int64_t *numbers;
    double value; /* read back */
    bool reads;
} work;

static pn_status run_work(void *ctx) {
    work *w = ctx;
    PN_TRY(pn_tensor_fill_zero(w->at));
    if (w->reads) PN_TRY(pn_tensor_read(w->at, &w->value, PN_F64));
    w->value++;
    return PN_OK;
}

START_TEST(what_cannot_be_recorded_runs) {
    ck_need_gpu();
    for (int reads = 0; reads < 2; reads++) {
        work w = { .reads = reads };
        pn_replay *r;
        ck_ok(pn_tape_create(PN_CUDA, &w.tape));
        pn_tape_record(w.tape, false);
        ck_ok(pn_tensor_create(pn_tape_pool(w.tape), PN_F32, 1, (int64_t[]){ 1 }, &w.at));
        ck_ok(pn_replay_create(w.tape, &r));
        for (int i = 0; i < 4; i++) ck_ok(pn_replay_run(r, 0, run_work, &w));
        ck_ok(pn_device_sync());
        ck_assert_int_eq(pn_replay_recordings(r), !reads);
        ck_assert_int_eq(pn_replay_launches(r), reads ? 0 : 3);
        ck_assert_double_eq(w.value, reads ? 1 : 2);
        pn_replay_destroy(&r);
        pn_tensor_release(&w.at);
        pn_tape_destroy(&w.tape);
    }
}
END_TEST

START_TEST(graphs_can_be_turned_off) {
    ck_assert_int_eq(setenv("PN_CUDA_GRAPHS", "0", 1), 0);
    ck_need_gpu();
    static const int64_t length[] = { 5, 7, 9 };
    pn_model *m = hybrid_of(shapes[HYBRID].block, PN_F32);
    decoding eager = decoding_of(m, length, false), off = decoding_of(m, length, true);
    ck_same_steps(&eager, &off, 5, "turned off");
    ck_assert(recordings(&off) == 0 && launches(&off) == 0);
    decoding_free(&eager);
    decoding_free(&off);
    pn_model_destroy(&m);
}
END_TEST

TEST_MAIN("graph", decoding_has_the_bits_of_the_kernels, one_recording_serves_every_layout,
          a_changed_address_is_noticed, a_state_is_renewed_in_place, what_cannot_be_recorded_runs,
          graphs_can_be_turned_off)
