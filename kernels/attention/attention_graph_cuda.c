/* The operations of attention as cuDNN's fused engines know them: they take exactly these graphs and no others that
 * compute the same. Scores exist only between operations; the engines never store them. */
#include "attention_graph_cuda.h"

#ifdef PN_HAVE_CUDNN

typedef struct builder {
    pn_cudnn_graph *g;
    const pn_attention_graph *x;
    pn_cudnn_tensor scale, lowest, window, one;            /* numbers */
    pn_cudnn_tensor lengths, q_at, kv_at, lse_at;          /* packed, else NULL */
    pn_cudnn_tensor q, k_turned, v, v_turned, o, lse, d_o; /* turned: the last two dimensions change places */
} builder;

static pn_cudnn_tensor number(builder *b, int64_t id, cudnnDataType_t type) {
    return pn_cudnn_add_tensor(
        b->g,
        &(pn_cudnn_shape){ .id = id, .type = type, .size = { 1, 1, 1, 1 }, .stride = { 1, 1, 1, 1 }, .scalar = true });
}
static pn_cudnn_tensor list(builder *b, int64_t id, int64_t n) {
    return pn_cudnn_add_tensor(
        b->g,
        &(pn_cudnn_shape){ .id = id, .type = CUDNN_DATA_INT32, .size = { n, 1, 1, 1 }, .stride = { 1, 1, 1, 1 } });
}
/* [docs, heads, length, d] of activations. */
static pn_cudnn_tensor rows(builder *b, int64_t id, cudnnDataType_t type, int64_t heads, pn_cudnn_tensor at,
                            bool turned) {
    const int64_t d = b->x->d, length = b->x->length, row = heads * d;
    pn_cudnn_shape s = { .id = id, .type = type, .offset = at };
    s.size[0] = b->x->docs, s.stride[0] = length * row;
    s.size[1] = heads, s.stride[1] = d;
    s.size[turned ? 3 : 2] = length, s.stride[turned ? 3 : 2] = row;
    s.size[turned ? 2 : 3] = d, s.stride[turned ? 2 : 3] = 1;
    return pn_cudnn_add_tensor(b->g, &s);
}
/* [docs, heads, length, columns], head by head. */
static pn_cudnn_tensor by_head(builder *b, int64_t id, cudnnDataType_t type, int64_t columns) {
    const int64_t length = b->x->length, heads = b->x->heads;
    return pn_cudnn_add_tensor(
        b->g, &(pn_cudnn_shape){ .id = id,
                                 .type = type,
                                 .size = { b->x->docs, heads, length, columns },
                                 .stride = { heads * length * columns, length * columns, columns, 1 } });
}
static pn_cudnn_tensor scores(builder *b, cudnnDataType_t type) {
    return by_head(b, 0, type, b->x->length);
}
static pn_cudnn_tensor turned_scores(builder *b) {
    const int64_t n = b->x->length, heads = b->x->heads;
    return pn_cudnn_add_tensor(b->g, &(pn_cudnn_shape){ .type = CUDNN_DATA_BFLOAT16,
                                                        .size = { b->x->docs, heads, n, n },
                                                        .stride = { heads * n * n, n * n, 1, n } });
}
static pn_cudnn_tensor column(builder *b) {
    return by_head(b, 0, CUDNN_DATA_FLOAT, 1);
}
/* [docs, heads, length, 1], with the heads of a token side by side. */
static pn_cudnn_tensor lse(builder *b) {
    const int64_t length = b->x->length, heads = b->x->heads;
    return pn_cudnn_add_tensor(b->g, &(pn_cudnn_shape){ .id = PN_CUDNN_LSE,
                                                        .type = CUDNN_DATA_FLOAT,
                                                        .size = { b->x->docs, heads, length, 1 },
                                                        .stride = { heads * length, 1, heads, 1 },
                                                        .offset = b->lse_at });
}

static pn_cudnn_tensor made(builder *b, cudnnPointwiseMode_t mode, cudnnDataType_t type, pn_cudnn_tensor x,
                            pn_cudnn_tensor other, pn_cudnn_tensor y) {
    pn_cudnn_add_pointwise(b->g, mode, type, x, other, NULL, y, 0);
    return y;
}
static pn_cudnn_tensor number_by_number(builder *b, cudnnPointwiseMode_t mode, pn_cudnn_tensor x,
                                        pn_cudnn_tensor other) {
    return made(b, mode, CUDNN_DATA_FLOAT, x, other, scores(b, CUDNN_DATA_FLOAT));
}

/* x where the two compare, else the lowest number. */
static pn_cudnn_tensor where(builder *b, pn_cudnn_tensor x, cudnnPointwiseMode_t mode, pn_cudnn_tensor left,
                             pn_cudnn_tensor right) {
    pn_cudnn_tensor seen = made(b, mode, CUDNN_DATA_BOOLEAN, left, right, scores(b, CUDNN_DATA_BOOLEAN));
    pn_cudnn_tensor y = scores(b, CUDNN_DATA_FLOAT);
    pn_cudnn_add_pointwise(b->g, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, x, b->lowest, seen, y, 0);
    return y;
}
static pn_cudnn_tensor index_of(builder *b, pn_cudnn_tensor x, int64_t axis) {
    pn_cudnn_tensor y = scores(b, CUDNN_DATA_INT32);
    pn_cudnn_add_pointwise(b->g, CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, x, NULL, NULL, y, axis);
    return y;
}
/* Row i sees columns up to i, `window` of them at most, and none past its document's end. */
static pn_cudnn_tensor masked(builder *b, pn_cudnn_tensor x) {
    if (b->lengths) {
        pn_cudnn_tensor row = index_of(b, x, 2), col = index_of(b, x, 3);
        pn_cudnn_tensor row_in =
            made(b, CUDNN_POINTWISE_CMP_LT, CUDNN_DATA_BOOLEAN, row, b->lengths, scores(b, CUDNN_DATA_BOOLEAN));
        pn_cudnn_tensor col_in =
            made(b, CUDNN_POINTWISE_CMP_LT, CUDNN_DATA_BOOLEAN, col, b->lengths, scores(b, CUDNN_DATA_BOOLEAN));
        pn_cudnn_tensor in =
            made(b, CUDNN_POINTWISE_LOGICAL_AND, CUDNN_DATA_BOOLEAN, row_in, col_in, scores(b, CUDNN_DATA_BOOLEAN));
        pn_cudnn_tensor y = scores(b, CUDNN_DATA_FLOAT);
        pn_cudnn_add_pointwise(b->g, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, x, b->lowest, in, y, 0);
        x = y;
    }
    pn_cudnn_tensor row = index_of(b, x, 2), col = index_of(b, x, 3);
    x = where(b, x, CUDNN_POINTWISE_CMP_GE, row, col);
    if (!b->window) return x;
    row = index_of(b, x, 2), col = index_of(b, x, 3);
    col = made(b, CUDNN_POINTWISE_ADD, CUDNN_DATA_INT32, col, b->window, scores(b, CUDNN_DATA_INT32));
    return where(b, x, CUDNN_POINTWISE_CMP_GT, col, row);
}

static void inputs(builder *b) {
    const pn_attention_graph *x = b->x;
    const cudnnDataType_t bf16 = CUDNN_DATA_BFLOAT16;
    b->scale = number(b, PN_CUDNN_SCALE, CUDNN_DATA_FLOAT);
    b->lowest = number(b, PN_CUDNN_LOWEST, CUDNN_DATA_FLOAT);
    if (x->window) b->window = number(b, PN_CUDNN_WINDOW, CUDNN_DATA_INT32);
    if (x->packed) {
        b->lengths = list(b, PN_CUDNN_LENGTHS, x->docs);
        b->q_at = list(b, PN_CUDNN_Q_AT, x->docs + 1);
        b->kv_at = list(b, PN_CUDNN_KV_AT, x->docs + 1);
        b->lse_at = list(b, PN_CUDNN_LSE_AT, x->docs + 1);
    }
    b->q = rows(b, PN_CUDNN_Q, bf16, x->heads, b->q_at, false);
    b->k_turned = rows(b, PN_CUDNN_K, bf16, x->kv_heads, b->kv_at, true);
    b->o = rows(b, PN_CUDNN_O, bf16, x->heads, b->q_at, false);
    b->lse = lse(b);
}

static void forward(builder *b) {
    pn_cudnn_tensor s = scores(b, CUDNN_DATA_FLOAT);
    pn_cudnn_add_matmul(b->g, b->q, b->k_turned, s, b->lengths, b->lengths, NULL);
    s = masked(b, number_by_number(b, CUDNN_POINTWISE_MUL, s, b->scale));
    pn_cudnn_tensor most = column(b), sum = column(b);
    pn_cudnn_add_reduction(b->g, CUDNN_REDUCE_TENSOR_MAX, s, most);
    pn_cudnn_tensor e =
        number_by_number(b, CUDNN_POINTWISE_EXP, number_by_number(b, CUDNN_POINTWISE_SUB, s, most), NULL);
    pn_cudnn_add_reduction(b->g, CUDNN_REDUCE_TENSOR_ADD, e, sum);
    pn_cudnn_tensor log_sum = made(b, CUDNN_POINTWISE_LOG, CUDNN_DATA_FLOAT, sum, NULL, column(b));
    made(b, CUDNN_POINTWISE_ADD, CUDNN_DATA_FLOAT, most, log_sum, b->lse);
    pn_cudnn_tensor p = made(b, CUDNN_POINTWISE_DIV, CUDNN_DATA_FLOAT, e, sum, scores(b, CUDNN_DATA_BFLOAT16));
    b->v = rows(b, PN_CUDNN_V, CUDNN_DATA_BFLOAT16, b->x->kv_heads, b->kv_at, false);
    pn_cudnn_add_matmul(b->g, p, b->v, b->o, b->lengths, NULL, b->lengths);
}

/* y [docs, kv_heads, length, d] = p^T x, summed over the query heads of each key/value head. */
static void add_turned_product(builder *b, pn_cudnn_tensor p, pn_cudnn_tensor x, int64_t id) {
    pn_cudnn_tensor turned = turned_scores(b), y = rows(b, id, CUDNN_DATA_BFLOAT16, b->x->kv_heads, b->kv_at, false);
    pn_cudnn_add_reshape(b->g, p, turned);
    if (b->x->heads == b->x->kv_heads) {
        pn_cudnn_add_matmul(b->g, turned, x, y, b->lengths, NULL, b->lengths);
        return;
    }
    pn_cudnn_tensor each = by_head(b, 0, CUDNN_DATA_BFLOAT16, b->x->d);
    pn_cudnn_add_matmul(b->g, turned, x, each, b->lengths, NULL, b->lengths);
    pn_cudnn_add_reduction(b->g, CUDNN_REDUCE_TENSOR_ADD, each, y);
}

/* dq summed as it comes, in float, is faster; without that sum the engine keeps ds and the order of its sums. */
static void add_dq(builder *b, pn_cudnn_tensor ds) {
    pn_cudnn_tensor k = rows(b, 0, CUDNN_DATA_BFLOAT16, b->x->kv_heads, b->kv_at, false);
    pn_cudnn_tensor dq = rows(b, PN_CUDNN_DQ, CUDNN_DATA_BFLOAT16, b->x->heads, b->q_at, false);
    pn_cudnn_add_reshape(b->g, b->k_turned, k);
    if (b->x->repeatable) {
        pn_cudnn_add_matmul(b->g, ds, k, dq, b->lengths, NULL, b->lengths);
        return;
    }
    pn_cudnn_tensor sum = by_head(b, PN_CUDNN_DQ_SUM, CUDNN_DATA_FLOAT, b->x->d);
    pn_cudnn_add_matmul(b->g, ds, k, sum, b->lengths, NULL, b->lengths);
    made(b, CUDNN_POINTWISE_IDENTITY, CUDNN_DATA_FLOAT, sum, NULL, dq);
}

static void backward(builder *b) {
    b->one = number(b, PN_CUDNN_ONE, CUDNN_DATA_FLOAT);
    b->d_o = rows(b, PN_CUDNN_DO, CUDNN_DATA_BFLOAT16, b->x->heads, b->q_at, false);
    b->v_turned = rows(b, PN_CUDNN_V, CUDNN_DATA_BFLOAT16, b->x->kv_heads, b->kv_at, true);
    pn_cudnn_tensor product = rows(b, 0, CUDNN_DATA_FLOAT, b->x->heads, NULL, false), dot = column(b);
    made(b, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, b->d_o, b->o, product);
    pn_cudnn_add_reduction(b->g, CUDNN_REDUCE_TENSOR_ADD, product, dot);
    pn_cudnn_tensor delta = by_head(b, PN_CUDNN_DELTA, CUDNN_DATA_FLOAT, 1);
    made(b, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, dot, b->one, delta);

    pn_cudnn_tensor s = scores(b, CUDNN_DATA_FLOAT), dp = scores(b, CUDNN_DATA_FLOAT);
    pn_cudnn_add_matmul(b->g, b->q, b->k_turned, s, b->lengths, b->lengths, NULL);
    s = number_by_number(b, CUDNN_POINTWISE_MUL, s, b->scale);
    s = masked(b, number_by_number(b, CUDNN_POINTWISE_SUB, s, b->lse));
    pn_cudnn_tensor p = number_by_number(b, CUDNN_POINTWISE_EXP, s, NULL);
    add_turned_product(b, p, b->d_o, PN_CUDNN_DV);

    pn_cudnn_add_matmul(b->g, b->d_o, b->v_turned, dp, b->lengths, b->lengths, NULL);
    pn_cudnn_tensor ds = number_by_number(b, CUDNN_POINTWISE_SUB, dp, delta);
    ds = number_by_number(b, CUDNN_POINTWISE_MUL, ds, p);
    ds = made(b, CUDNN_POINTWISE_MUL, CUDNN_DATA_FLOAT, ds, b->scale, scores(b, CUDNN_DATA_BFLOAT16));
    add_turned_product(b, ds, b->q, PN_CUDNN_DK);
    add_dq(b, ds);
}

pn_status pn_attention_cudnn_plan(const pn_attention_graph *x, size_t most_bytes, pn_cudnn_plan **out) {
    builder b = { .x = x };
    PN_TRY(pn_cudnn_graph_begin(&b.g));
    inputs(&b);
    if (x->backward)
        backward(&b);
    else
        forward(&b);
    PN_TRY(pn_cudnn_graph_end(&b.g, most_bytes, x->backward && x->repeatable, out));
    return PN_OK;
}
#endif
