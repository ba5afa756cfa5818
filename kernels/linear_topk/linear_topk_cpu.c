/* Rows of logits, as many as fit BUDGET, are made whole: threads share out the vocabulary for the product, then the
 * rows. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "cpu/gemm.h"
#include "cpu/logits.h"
#include "linear_topk.h"

enum { BUDGET = 1 << 22 /* logits */, MOST_ROWS = 256, RUN = 4096 /* words whose sum is made in one go */ };

typedef struct choice {
    float z;
    int32_t id;
} choice;

typedef struct work {
    int parts, threads;
    int64_t rows; /* R, of which logits are held at a time */
    float *z;     /* [R, V] */
    choice *heap; /* [threads, k] */
} work;

static size_t carve(const pn_op_call *c, work *w) {
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0], k = ((const pn_linear_topk_attr *)c->attr)->k;
    int64_t rows = BUDGET / V < 1 ? 1 : BUDGET / V < MOST_ROWS ? BUDGET / V : MOST_ROWS;
    w->parts = pn_vocab_parts(V);
    w->rows = N < rows ? N : rows;
    w->threads = omp_get_max_threads() < w->rows ? omp_get_max_threads() : (int)w->rows;
    pn_carve s = { .base = c->scratch };
    w->z = pn_carve_take(&s, (size_t)(w->rows * V) * sizeof *w->z);
    w->heap = pn_carve_take(&s, (size_t)(w->threads * k) * sizeof *w->heap);
    return s.n_bytes;
}

static size_t scratch_bytes(const pn_op_call *c, bool backward) {
    (void)backward;
    pn_op_call counting = *c;
    counting.scratch = NULL;
    return carve(&counting, &(work){ 0 });
}

static bool worse(choice a, choice b) {
    return a.z < b.z || (a.z == b.z && a.id > b.id);
}

/* heap [n], the worst of it first, but for its element `at`. */
static void sink(choice *heap, int64_t n, int64_t at) {
    const choice x = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], x)) break;
        heap[at] = heap[child];
    }
    heap[at] = x;
}

static int by_id(const void *a, const void *b) {
    int32_t x = ((const choice *)a)->id, y = ((const choice *)b)->id;
    return (x > y) - (x < y);
}

static void select_row(const float *z, int64_t V, int64_t k, double tau, choice *heap, int32_t *ids, float *log_p) {
    pn_online_sum all = { .max = -INFINITY };
    for (int64_t v0 = 0; v0 < V; v0 += RUN) {
        int64_t n = V - v0 < RUN ? V - v0 : RUN;
        pn_online_add(&all, z + v0, n, (float)(1 / tau), pn_row_max(z + v0, n));
    }
    for (int64_t v = 0; v < k; v++) heap[v] = (choice){ z[v], (int32_t)v };
    for (int64_t at = k / 2; at-- > 0;) sink(heap, k, at);
    for (int64_t v = k; v < V; v++) {
        if (!(z[v] > heap[0].z)) continue; /* an equal one has the higher id */
        heap[0] = (choice){ z[v], (int32_t)v };
        sink(heap, k, 0);
    }
    qsort(heap, (size_t)k, sizeof *heap, by_id);
    const double log_sum = log(all.sum);
    for (int64_t j = 0; j < k; j++) {
        double p = (double)((float)(1 / tau) * heap[j].z) - all.max - log_sum;
        ids[j] = heap[j].id;
        log_p[j] = p > 0 ? 0 : (float)p; /* what is no number stays none: whoever reads it must see */
    }
}

static void make_part(const pn_op_call *c, const work *w, int part, int64_t n0, int64_t n) {
    int64_t V = c->in[1]->shape[0], D = c->in[0]->shape[1];
    int64_t v0 = pn_vocab_begin(V, w->parts, part), end = pn_vocab_begin(V, w->parts, part + 1);
    pn_sgemm(false, true, n, end - v0, D, pn_f32(c->in[0]) + n0 * D, D, pn_f32(c->in[1]) + v0 * D, D, 0, w->z + v0, V);
}

static pn_status forward(const pn_op_call *c) {
    const pn_linear_topk_attr *attr = c->attr;
    int64_t N = c->in[0]->shape[0], V = c->in[1]->shape[0], k = attr->k;
    work w;
    carve(c, &w);
    for (int64_t n0 = 0; n0 < N; n0 += w.rows) {
        int64_t rows = N - n0 < w.rows ? N - n0 : w.rows;
#pragma omp parallel for schedule(static, 1) num_threads(w.parts)
        for (int p = 0; p < w.parts; p++) make_part(c, &w, p, n0, rows);
#pragma omp parallel for schedule(static) num_threads(w.threads)
        for (int64_t r = 0; r < rows; r++)
            select_row(w.z + r * V, V, k, attr->temperature, w.heap + omp_get_thread_num() * k,
                       pn_i32(c->out[0]) + (n0 + r) * k, pn_f32(c->out[1]) + (n0 + r) * k);
    }
    return PN_OK;
}

static const pn_op_impl impl = { .name = "linear_topk/cpu", .scratch_bytes = scratch_bytes, .forward = forward };
extern const pn_op_impl *const linear_topk_cpu[];
const pn_op_impl *const linear_topk_cpu[] = { &impl, NULL };
