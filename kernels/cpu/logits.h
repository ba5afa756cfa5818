/* Output-projection losses without the logits.
 *
 * The logits of a step are [tokens, vocabulary]: at 4096 x 151,936 they are 2.5 GB, several times the rest of the step,
 * and backward would want as much again for their gradient. But a loss needs only a few sums per row. So the product
 * h W^T is made one tile at a time, each tile is folded into running sums per row (online softmax: when the running
 * maximum grows, what was summed so far is scaled down), and backward makes each tile again, turns it in place into the
 * gradient of the logits, and multiplies it into dh and dW while it is still in cache. One product more, no memory.
 *
 * Threads share out the vocabulary: each owns a range of words, hence rows of dW and running sums of its own, works
 * through its tiles alone (one-threaded products, the tile stays in its cache) and meets the others once per
 * PN_LOGIT_ROWS tokens, where the parts are combined in order. Results depend on the number of parts, not on timing. */
#ifndef PN_KERNELS_CPU_LOGITS_H
#define PN_KERNELS_CPU_LOGITS_H

#include <stddef.h>
#include <stdint.h>

enum { PN_LOGIT_ROWS = 1024, PN_LOGIT_COLS = 512, PN_LOGIT_MAX_PARTS = 64 };

/* How many parts the vocabulary is cut into: the threads there are, as far as it has tiles for them. */
int pn_vocab_parts(int64_t V);
/* The first word of part p; that of part `parts` is V. */
int64_t pn_vocab_begin(int64_t V, int parts, int p);

/* Carves arrays out of an op's scratch memory; with base NULL it only counts. */
typedef struct pn_carve {
    char *base;
    size_t n_bytes;
} pn_carve;
void *pn_carve_take(pn_carve *c, size_t n_bytes); /* 64-byte aligned; NULL while counting */

/* dst [n, D] = the rows of src [., D] named by index [n]. */
void pn_gather_rows(float *dst, const float *src, const int32_t *index, int64_t n, int64_t D);
/* The rows of dst named by index += the sum over parts of src [parts, stride], of which the first n D elements count.
 * An index occurs once. */
void pn_scatter_add_parts(float *dst, const float *src, int parts, int64_t stride, const int32_t *index, int64_t n,
                          int64_t D);

/* tile [rows, cols] (row stride cols) = h [rows, D] W[v0 .. v0+cols) [cols, D]^T */
void pn_logits_tile(float *tile, const float *h, int64_t rows, const float *W, int64_t v0, int64_t cols, int64_t D);
/* With the tile holding gradients: dh [rows, D] += tile W[v0 ..], dW[v0 ..] += tile^T h. NULL dh or dW: skipped. */
void pn_logits_tile_backward(const float *tile, const float *h, int64_t rows, const float *W, int64_t v0, int64_t cols,
                             int64_t D, float *dh, float *dW);

/* sum exp(x - max) of what was seen so far; log-sum-exp = max + log(sum). Start: { -INFINITY, 0 }. */
typedef struct pn_online_sum {
    float max;
    double sum;
} pn_online_sum;

/* The largest logit of a row so far and its word, the first of equal ones. Start: { -INFINITY, 0 }. */
typedef struct pn_first_choice {
    float max;
    int32_t id;
} pn_first_choice;

/* The weight of row n in a loss, and that of rows 0 .. n - 1 together. weight NULL: 1 each. */
double pn_loss_weight(const float *weight, int64_t n);
double pn_loss_weights(const float *weight, int64_t n);

float pn_row_max(const float *x, int64_t n);
/* Folds in the logits x of words v0 .. v0 + n - 1, of which max is the largest; words come in ascending order. */
void pn_choice_add(pn_first_choice *c, const float *x, int64_t v0, float max);
/* The same for later words that were folded elsewhere. */
void pn_choice_merge(pn_first_choice *c, const pn_first_choice *later);

/* Folds scale * x[0 .. n) in; max is the largest of x. */
void pn_online_add(pn_online_sum *s, const float *x, int64_t n, float scale, float max);
/* Raises s->max to max and returns the factor by which sums relative to it shrink. */
double pn_online_raise(pn_online_sum *s, float max);
void pn_online_merge(pn_online_sum *s, const pn_online_sum *other);
double pn_online_lse(const pn_online_sum *s);

#endif
