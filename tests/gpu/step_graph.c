/* Training steps as CUDA graphs: one recording serves every layout of documents, with the bits of the kernels. */
#include "hybrid.h"

#include <string.h>

#include "optimizer.h"
#include "replay.h"
#include "step.h"

enum { TOKENS = 256, MOST_DOCS = 16 };

typedef struct shape {
    const char *what;
    const char *block[MOST_LAYERS + 1]; /* NULL-ended */
} shape;

static const shape shapes[] = { { "attention, windows, JetBlock", { "attention", "jet", "swa", "gated_deltanet" } },
                                { "linear attention", { "gla", "mamba2", "retnet", "deltanet" } },
                                { "RWKV-7", { "rwkv7", "attention", "rwkv7" } } };
enum { SHAPES = sizeof shapes / sizeof *shapes, HYBRID = 0, LINEAR = 1 };

/* Five to eight documents: one kind of step; and more of them: another. */
typedef struct layout {
    int n;
    int64_t length[MOST_DOCS];
} layout;
static const layout layouts[] = { { 7, { 30, 7, 19, 64, 100, 1, 35 } },
                                  { 5, { 64, 64, 64, 32, 32 } },
                                  { 8, { 1, 1, 1, 200, 50, 1, 1, 1 } },
                                  { 8, { 32, 32, 32, 32, 32, 32, 32, 32 } },
                                  { 6, { 3, 63, 65, 62, 60, 3 } } };
static const layout more = { 12, { 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20, 36 } };
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* `times` tokens for each of the layout's. */
static void make_batch(const layout *l, int64_t times, int step, pn_batch *b) {
    static int32_t ids[TOKENS * 4];
    int64_t offset[MOST_DOCS + 1] = { 0 };
    for (int i = 0; i < l->n; i++) offset[i + 1] = offset[i] + times * l->length[i];
    ck_assert_int_eq(offset[l->n], times * TOKENS);
    for (int64_t i = 0; i < offset[l->n]; i++) ids[i] = (int32_t)((i * i * 7 + 13 * step + i) % VOCAB);
    ck_ok(pn_batch_from_ids(ids, offset, l->n, b));
    b->longest = b->n_tokens; /* as rows of a mixture are: the longest document is not known before */
    b->weighted = times > 1;
    for (int64_t i = 0; i < b->n_tokens && b->weighted; i++) b->weights[i] = (float)((i + step) % 3) / 2;
}

/* A model that trains. */
typedef struct training {
    pn_model *m, *teacher;
    pn_tape *tape;
    pn_adamw *optim;
    pn_step step;
    pn_loss_weights weights;
    pn_distill pass;
    pn_batch batch;
} training;

static void start(training *r, const shape *s, pn_dtype dtype, bool taught) {
    static const pn_adamw_settings settings = { 0.9, 0.95, 1e-8, 0.01, 1 };
    static const shape teacher = { "teacher", { "attention", "attention", "attention", "attention" } };
    *r = (training){ .m = hybrid_of(s->block, dtype), .weights = { .ce = 1 } };
    pn_params_train(r->m->params, "*", true);
    if (taught) {
        r->teacher = hybrid_of(teacher.block, dtype);
        pn_params_train(r->teacher->params, "*", false);
        r->weights = (pn_loss_weights){ .ce = 0.5, .kl = 1, .feature = 1, .temperature = 2 };
    }
    r->pass = (pn_distill){ .student = r->m, .teacher = r->teacher, .weights = &r->weights };
    ck_ok(pn_params_tape(r->m->params, &r->tape));
    ck_ok(pn_optimizer_create(r->m->params, NULL, &settings, &r->optim));
    ck_ok(pn_step_open(&r->step, r->tape, r->optim));
}

static void end(training *r) {
    pn_batch_free(&r->batch);
    pn_step_close(&r->step);
    pn_adamw_destroy(&r->optim);
    pn_tape_destroy(&r->tape);
    pn_model_destroy(&r->teacher);
    pn_model_destroy(&r->m);
}

typedef struct seen {
    pn_loss_parts loss;
    double norm;
} seen;

static seen step_by_graphs(training *r) {
    seen s;
    pn_tape_reset(r->tape);
    ck_ok(pn_step_forward(&r->step, &r->pass, &r->batch));
    ck_ok(pn_step_update(&r->step, 1e-3));
    ck_ok(pn_step_settle(&r->step, &s.loss, &s.norm));
    return s;
}

static seen step_by_kernels(training *r) {
    seen s;
    pn_distill_losses losses;
    pn_tape_reset(r->tape);
    ck_ok(pn_distill_forward(r->tape, &r->pass, &r->batch, &losses));
    ck_ok(pn_tape_backward_unchecked(r->tape, losses.total));
    ck_ok(pn_distill_read(&losses, &s.loss));
    ck_ok(pn_adamw_begin(r->optim, 1e-3, losses.total));
    ck_ok(pn_adamw_finish(r->optim, &s.norm));
    return s;
}

static void ck_same_weights(const training *a, const training *b, const char *what) {
    uint64_t hash[2];
    ck_ok(pn_params_hash(a->m->params, &hash[0]));
    ck_ok(pn_params_hash(b->m->params, &hash[1]));
    ck_assert_msg(hash[0] == hash[1], "%s: weights have other bits", what);
}

/* The same step of both. */
static void ck_same_step(training *eager, training *graph, const layout *l, int64_t times, int step, const char *what) {
    make_batch(l, times, step, &eager->batch);
    make_batch(l, times, step, &graph->batch);
    const seen want = step_by_kernels(eager), got = step_by_graphs(graph);
    ck_assert_msg(!memcmp(&want, &got, sizeof want), "%s: step %d: loss %.9g, norm %.9g; by kernels %.9g, %.9g", what,
                  step, got.loss.total, got.norm, want.loss.total, want.norm);
    ck_same_weights(eager, graph, what);
}

static void ck_counts(const training *r, int recordings, int64_t launches, const char *what) {
    ck_assert_msg(pn_pass_graphs_recordings(r->step.graphs) == recordings, "%s: %d recordings", what,
                  pn_pass_graphs_recordings(r->step.graphs));
    ck_assert_msg(pn_pass_graphs_launches(r->step.graphs) == launches, "%s: %lld launches", what,
                  (long long)pn_pass_graphs_launches(r->step.graphs));
}

/* The first step runs kernel by kernel, the second is recorded, and serves five layouts. */
START_TEST(one_recording_serves_every_layout) {
    ck_need_gpu();
    for (int i = 0; i < SHAPES; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            training eager, graph;
            start(&eager, &shapes[i], bf16 ? PN_BF16 : PN_F32, false);
            start(&graph, &shapes[i], bf16 ? PN_BF16 : PN_F32, false);
            for (int k = 0; k < 2 * LAYOUTS; k++)
                ck_same_step(&eager, &graph, &layouts[k % LAYOUTS], 1, k, shapes[i].what);
            ck_counts(&graph, 1, 2 * LAYOUTS - 1, shapes[i].what);
            end(&eager);
            end(&graph);
        }
}
END_TEST

/* As the trainer asks for steps: forward before the last one is known. */
START_TEST(steps_are_asked_for_ahead) {
    ck_need_gpu();
    training eager, graph;
    seen s;
    start(&eager, &shapes[HYBRID], PN_BF16, false);
    start(&graph, &shapes[HYBRID], PN_BF16, false);
    for (int k = 0; k < 2 * LAYOUTS; k++) {
        make_batch(&layouts[k % LAYOUTS], 1, k, &eager.batch);
        make_batch(&layouts[k % LAYOUTS], 1, k, &graph.batch);
        step_by_kernels(&eager);
        pn_tape_reset(graph.tape);
        ck_ok(pn_step_forward(&graph.step, &graph.pass, &graph.batch));
        if (graph.step.open) ck_ok(pn_step_settle(&graph.step, &s.loss, &s.norm));
        ck_ok(pn_step_update(&graph.step, 1e-3));
    }
    ck_ok(pn_step_settle(&graph.step, &s.loss, &s.norm));
    ck_same_weights(&eager, &graph, "asked for ahead");
    ck_counts(&graph, 1, 2 * LAYOUTS - 1, "asked for ahead");
    end(&eager);
    end(&graph);
}
END_TEST

/* Softmax attention of 1,024 tokens is cuDNN's, where it is installed. */
START_TEST(attention_by_cudnn_is_recorded_too) {
    ck_need_gpu();
    training eager, graph;
    start(&eager, &shapes[HYBRID], PN_BF16, false);
    start(&graph, &shapes[HYBRID], PN_BF16, false);
    for (int k = 0; k < LAYOUTS + 2; k++) ck_same_step(&eager, &graph, &layouts[k % LAYOUTS], 4, k, "1,024 tokens");
    ck_counts(&graph, 1, LAYOUTS + 1, "1,024 tokens");
    end(&eager);
    end(&graph);
}
END_TEST

START_TEST(a_teacher_and_recompute_are_recorded_too) {
    ck_need_gpu();
    for (int level = PN_RECOMPUTE_NONE; level <= PN_RECOMPUTE_LAYERS; level++) {
        const shape *s = &shapes[level % 2 ? LINEAR : HYBRID];
        training eager, graph;
        start(&eager, s, PN_BF16, true);
        start(&graph, s, PN_BF16, true);
        eager.pass.recompute.level = graph.pass.recompute.level = (pn_recompute_level)level;
        for (int k = 0; k < LAYOUTS; k++) ck_same_step(&eager, &graph, &layouts[k], 1, k, s->what);
        ck_counts(&graph, 1, LAYOUTS - 1, s->what);
        end(&eager);
        end(&graph);
    }
}
END_TEST

/* More documents, other losses, weights elsewhere, memory given back: each is noticed, and what was recorded before
 * serves again when its kind of step comes back. */
START_TEST(other_steps_are_recorded_anew) {
    ck_need_gpu();
    training eager, graph;
    int k = 0;
    start(&eager, &shapes[HYBRID], PN_F32, true);
    start(&graph, &shapes[HYBRID], PN_F32, true);
    for (; k < 6; k++) ck_same_step(&eager, &graph, k % 2 ? &more : &layouts[k % LAYOUTS], 1, k, "more documents");
    ck_counts(&graph, 2, 4, "more documents");
    eager.weights.feature = graph.weights.feature = 0.5;
    for (; k < 9; k++) ck_same_step(&eager, &graph, &layouts[0], 1, k, "another loss");
    ck_counts(&graph, 3, 6, "another loss");
    eager.weights.feature = graph.weights.feature = 1;
    ck_same_step(&eager, &graph, &layouts[1], 1, k++, "the first loss");
    ck_counts(&graph, 3, 7, "the first loss");
    pn_tape_reset(graph.tape);
    pn_pool_trim(pn_tape_pool(graph.tape));
    for (; k < 13; k++) ck_same_step(&eager, &graph, &layouts[2], 1, k, "after the pool gave memory back");
    ck_counts(&graph, 4, 9, "after the pool gave memory back");
    for (int i = 0; i < 2; i++) {
        pn_param *p = (i ? &graph : &eager)->m->params->item[3];
        p->value->wants_grad = false;
    }
    for (; k < 16; k++) ck_same_step(&eager, &graph, &layouts[3], 1, k, "a frozen weight");
    ck_counts(&graph, 5, 11, "a frozen weight");
    end(&eager);
    end(&graph);
}
END_TEST

/* What a teacher said, from memory. */
static void add_words(pn_batch *b, int64_t k) {
    b->k = k;
    b->cap_words = b->n_tokens * k;
    b->teacher_ids = realloc(b->teacher_ids, (size_t)b->cap_words * sizeof *b->teacher_ids);
    b->teacher_log_p = realloc(b->teacher_log_p, (size_t)b->cap_words * sizeof *b->teacher_log_p);
    for (int64_t i = 0; i < b->cap_words; i++) {
        b->teacher_ids[i] = (int32_t)(i / k % 7 + 9 * (i % k));
        b->teacher_log_p[i] = -2.0f - (float)(i % 3);
    }
}

START_TEST(a_teachers_words_are_read_anew) {
    ck_need_gpu();
    training eager, graph;
    start(&eager, &shapes[HYBRID], PN_BF16, false);
    start(&graph, &shapes[HYBRID], PN_BF16, false);
    eager.weights = graph.weights = (pn_loss_weights){ .ce = 0.5, .kl = 1, .temperature = 1 };
    for (int k = 0; k < LAYOUTS; k++) {
        make_batch(&layouts[k], 1, k, &eager.batch);
        make_batch(&layouts[k], 1, k, &graph.batch);
        add_words(&eager.batch, 4);
        add_words(&graph.batch, 4);
        eager.batch.teacher_log_p[0] = graph.batch.teacher_log_p[0] = -3.0f - (float)k;
        const seen want = step_by_kernels(&eager), got = step_by_graphs(&graph);
        ck_assert_msg(!memcmp(&want, &got, sizeof want), "step %d has other bits", k);
        ck_same_weights(&eager, &graph, "a teacher's words");
    }
    ck_counts(&graph, 1, LAYOUTS - 1, "a teacher's words");
    end(&eager);
    end(&graph);
}
END_TEST

/* Steps in parts use the tape between their passes: they run, and whole ones are launched again after them. */
START_TEST(a_step_in_parts_runs) {
    ck_need_gpu();
    static const pn_step_share half = { 0.5, 0.5 };
    training eager, graph;
    seen s;
    pn_distill_losses losses;
    int k = 0;
    start(&eager, &shapes[HYBRID], PN_F32, false);
    start(&graph, &shapes[HYBRID], PN_F32, false);
    for (; k < 3; k++) ck_same_step(&eager, &graph, &layouts[0], 1, k, "whole");
    eager.weights.ce = graph.weights.ce = 0.5;
    for (int part = 0; part < 2; part++) {
        make_batch(&layouts[part], 1, k + part, &eager.batch);
        make_batch(&layouts[part], 1, k + part, &graph.batch);
        pn_tape_reset(eager.tape);
        ck_ok(pn_distill_forward(eager.tape, &eager.pass, &eager.batch, &losses));
        ck_ok(pn_tape_backward_unchecked(eager.tape, losses.total));
        pn_tape_reset(graph.tape);
        ck_ok(pn_step_forward_part(&graph.step, &graph.pass, &graph.batch));
        ck_ok(part ? pn_step_last_part(&graph.step, &half) : pn_step_part(&graph.step, &half));
    }
    ck_ok(pn_adamw_begin(eager.optim, 1e-3, losses.total));
    ck_ok(pn_adamw_finish(eager.optim, NULL));
    ck_ok(pn_step_update(&graph.step, 1e-3));
    ck_ok(pn_step_settle(&graph.step, &s.loss, &s.norm));
    ck_same_weights(&eager, &graph, "in parts");
    eager.weights.ce = graph.weights.ce = 1;
    for (k += 2; k < 8; k++) ck_same_step(&eager, &graph, &layouts[2], 1, k, "whole again");
    ck_counts(&graph, 1, 5, "whole again");
    end(&eager);
    end(&graph);
}
END_TEST

/* What the caller has on the tape, or in gradients, is not the recording's to write over. */
START_TEST(a_step_that_is_not_alone_runs) {
    ck_need_gpu();
    training eager, graph;
    int k = 0;
    start(&eager, &shapes[LINEAR], PN_BF16, false);
    start(&graph, &shapes[LINEAR], PN_BF16, false);
    for (; k < 3; k++) ck_same_step(&eager, &graph, &layouts[0], 1, k, "alone");
    pn_tensor *other;
    const int64_t n = 1000;
    ck_ok(pn_tensor_create(pn_tape_pool(graph.tape), PN_F32, 1, &n, &other));
    for (; k < 6; k++) ck_same_step(&eager, &graph, &layouts[1], 1, k, "with memory in use");
    ck_counts(&graph, 1, 2, "with memory in use");
    pn_tensor_release(&other);
    ck_same_step(&eager, &graph, &layouts[2], 1, k++, "alone again");
    ck_counts(&graph, 1, 3, "alone again");
    end(&eager);
    end(&graph);
}
END_TEST

/* Tables of any layout have rows past the last chunk, and documents that are empty: no bit depends on them. */
START_TEST(any_layout_has_the_bits_of_the_layout) {
    ck_need_gpu();
    for (int i = 0; i < SHAPES; i++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            training exact, any;
            start(&exact, &shapes[i], bf16 ? PN_BF16 : PN_F32, false);
            start(&any, &shapes[i], bf16 ? PN_BF16 : PN_F32, false);
            for (int k = 0; k < LAYOUTS; k++) {
                make_batch(&layouts[k], 1, k, &exact.batch);
                make_batch(&layouts[k], 1, k, &any.batch);
                exact.batch.longest = 0;
                const seen want = step_by_kernels(&exact), got = step_by_kernels(&any);
                ck_assert_msg(!memcmp(&want, &got, sizeof want), "%s: layout %d has other bits", shapes[i].what, k);
                ck_same_weights(&exact, &any, shapes[i].what);
            }
            end(&exact);
            end(&any);
        }
}
END_TEST

/* Two parts, of which one waits for the GPU: they run as usual every time, and a recording that failed is undone. */
typedef struct parts {
    pn_tensor *at;
    int reads; /* the part that waits; 0: none */
    int ran, recorded, undone;
} parts;

static pn_status part(parts *w, int number) {
    double value;
    w->ran++;
    PN_TRY(pn_tensor_fill_bytes(w->at, number));
    if (w->reads == number) PN_TRY(pn_tensor_read(w->at, &value, PN_F64));
    return PN_OK;
}
static pn_status first_part(void *ctx) {
    return part(ctx, 1);
}
static pn_status second_part(void *ctx) {
    return part(ctx, 2);
}
static pn_status was_recorded(void *ctx) {
    ((parts *)ctx)->recorded++;
    return PN_OK;
}
static void was_undone(void *ctx) {
    ((parts *)ctx)->undone++;
}

START_TEST(what_cannot_be_recorded_runs) {
    ck_need_gpu();
    enum { RUNS = 8 };
    for (int reads = 0; reads < 3; reads++) {
        parts w = { .reads = reads };
        const pn_replay_parts p = { first_part, second_part, was_recorded, was_undone, &w };
        pn_tape *tape;
        pn_replay *r;
        ck_ok(pn_tape_create(PN_CUDA, &tape));
        ck_ok(pn_tensor_create(pn_tape_pool(tape), PN_F32, 1, (int64_t[]){ 1 }, &w.at));
        ck_ok(pn_replay_create(tape, &r));
        for (int i = 0; i < RUNS; i++) {
            bool launched;
            uint8_t bytes[4];
            ck_ok(pn_replay_first(r, 0, &p, &launched));
            ck_assert_int_eq(launched, reads == 0 && i > 0);
            ck_ok(pn_storage_read(bytes, w.at->storage, 0, 4));
            ck_assert_int_eq(bytes[3], 1);
            ck_ok(pn_replay_second(r));
            ck_ok(pn_storage_read(bytes, w.at->storage, 0, 4));
            ck_assert_int_eq(bytes[3], 2);
        }
        ck_assert_int_eq(pn_replay_recordings(r), reads == 0);
        ck_assert_int_eq(pn_replay_launches(r), reads ? 0 : RUNS - 1);
        ck_assert_int_eq(w.recorded, reads == 0);
        ck_assert_int_eq(w.undone, reads ? 3 : 0); /* times it is tried */
        ck_assert_int_eq(w.ran, reads == 0 ? 4 : reads == 1 ? 2 * RUNS + 3 : 2 * RUNS + 6);
        pn_replay_destroy(&r);
        pn_tensor_release(&w.at);
        pn_tape_destroy(&tape);
    }
}
END_TEST

START_TEST(graphs_can_be_turned_off) {
    ck_assert_int_eq(setenv("PN_CUDA_GRAPHS", "0", 1), 0);
    ck_need_gpu();
    training eager, off;
    start(&eager, &shapes[HYBRID], PN_BF16, false);
    start(&off, &shapes[HYBRID], PN_BF16, false);
    for (int k = 0; k < 4; k++) ck_same_step(&eager, &off, &layouts[k], 1, k, "turned off");
    ck_counts(&off, 0, 0, "turned off");
    end(&eager);
    end(&off);
}
END_TEST

TEST_MAIN("step_graph", one_recording_serves_every_layout, steps_are_asked_for_ahead,
          attention_by_cudnn_is_recorded_too, a_teacher_and_recompute_are_recorded_too, a_teachers_words_are_read_anew,
          a_step_in_parts_runs, other_steps_are_recorded_anew, a_step_that_is_not_alone_runs,
          any_layout_has_the_bits_of_the_layout, what_cannot_be_recorded_runs, graphs_can_be_turned_off)
