#include "dplr_chunk.h"

#include "cpu/clones.h"
#include "cpu/unit_lower.h"

enum { C = PN_DPLR_C };

pn_dplr_dims pn_dplr_dims_of(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    return (pn_dplr_dims){ .heads = attr->heads,
                           .dk = attr->dk,
                           .dv = attr->dv,
                           .size = (int64_t)attr->dk * attr->dv,
                           .row = pn_whole_lines(attr->dk),
                           .ldk = (int64_t)attr->heads * attr->dk,
                           .ldv = (int64_t)attr->heads * attr->dv,
                           .scale = (float)attr->scale };
}

pn_dplr_rows pn_dplr_rows_of(const pn_op_call *c, int64_t k_at) {
    return (pn_dplr_rows){ .q = pn_f32(c->in[0]) + k_at,
                           .k = pn_f32(c->in[1]) + k_at,
                           .a = pn_f32(c->in[3]) + k_at,
                           .b = pn_f32(c->in[4]) + k_at,
                           .g = pn_f32(c->in[5]) + k_at };
}

enum { ROW_TILES = 15, SCORE_TILES = 4, SUMS = 2 + C };

size_t pn_dplr_tiles_floats(const pn_dplr_dims *d) {
    return (size_t)(ROW_TILES * C * d->row + d->row + SCORE_TILES * PN_DPLR_TILE + C * PN_UNIT_LOWER_BLOCK +
                    2 * SUMS * d->row);
}
pn_dplr_tiles pn_dplr_tiles_at(const pn_dplr_dims *d, float **at) {
    pn_dplr_tiles t = { 0 };
    float **const rows[] = { &t.up, &t.down, &t.start, &t.end,  &t.step, &t.Q,       &t.A,      &t.K,
                             &t.B,  &t.Qin,  &t.Ain,   &t.Kout, &t.Bout, &t.work[0], &t.work[1] };
    _Static_assert(sizeof rows / sizeof *rows == ROW_TILES, "pn_dplr_tiles_floats counts them");
    for (int i = 0; i < ROW_TILES; i++) *rows[i] = pn_take(at, C * d->row);
    float **const scores[] = { &t.QK, &t.QB, &t.AK, &t.N };
    for (int i = 0; i < SCORE_TILES; i++) *scores[i] = pn_take(at, PN_DPLR_TILE);
    t.through = pn_take(at, d->row);
    t.X = pn_take(at, C * PN_UNIT_LOWER_BLOCK);
    t.sums = (double *)(void *)pn_take(at, 2 * SUMS * d->row);
    return t;
}

/* The first `cols` columns of row c of YT [rows, 64] times factor c. */
static PN_CLONES void move_columns(int64_t rows, int64_t cols, const float *factor, float *YT) {
    for (int64_t c = 0; c < rows; c++)
        for (int64_t j = 0; j < cols; j++) YT[c * C + j] *= factor[c];
}

/* Scores of one block's rows with all columns up to their own. later: 0, or 1 for rows whose pairs are those of the
 * token before. */
static void block_scores(const pn_dplr_dims *d, int64_t b, int64_t later, const float *rows_of, const float *YT,
                         float factor, float *scores, pn_dplr_tiles *t) {
    int64_t first = t->first[b], next = t->first[b + 1] - (b == t->blocks - 1 ? later : 0), rows = next - first;
    const float *x = rows_of + (first + later) * d->row;
    float *out = scores + (first + later) * C;
    if (rows == 0) return;
    pn_mm p = pn_mm_of(rows, rows, d->dk, x, d->row, YT + first, C, out + first, C);
    p.scale = factor;
    pn_mm_run(p, PN_MM_C_LOWER, false, &t->ahead);
    p.n = first, p.b = YT, p.c = out;
    if (first > 0) pn_mm_run(p, PN_MM_DENSE, false, &t->ahead);
}

/* Zeros from column i - below + 1 of row i on, as far as products look. */
static void mask(int64_t n, int64_t below, float *scores) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1 - below; j < (i & ~(int64_t)15) + 16; j++) scores[i * C + j] = 0;
}

void pn_dplr_chunk(const pn_dplr_dims *d, int64_t n, const pn_dplr_rows *x, pn_dplr_tiles *t) {
    pn_dplr_decays(d, n, x, t);
    float *KT = t->work[0], *BT = t->work[1];
    pn_tile_transpose(KT, C, t->K, d->row, n, d->dk);
    pn_tile_transpose(BT, C, t->B, d->row, n, d->dk);
    for (int64_t b = 0; b < t->blocks; b++) {
        if (b > 0) {
            move_columns(d->dk, t->first[b], t->step + b * d->row, KT);
            move_columns(d->dk, t->first[b], t->step + b * d->row, BT);
        }
        block_scores(d, b, 0, t->Q, KT, 1, t->QK, t);
        block_scores(d, b, 0, t->Q, BT, 1, t->QB, t);
        block_scores(d, b, 1, t->A, KT, 1, t->AK, t);
        block_scores(d, b, 1, t->A, BT, -1, t->N, t);
    }
    mask(n, 0, t->QK);
    mask(n, 0, t->QB);
    mask(n, 1, t->AK);
    mask(n, 1, t->N);
    pn_unit_lower_prepare(n, t->N, C, t->X);
}

void pn_dplr_answers(const pn_dplr_dims *d, int64_t cols, const float *V, const float *S, float *R, float *P,
                     pn_dplr_tiles *t) {
    int64_t n = t->n;
    pn_mm_run(pn_mm_of(n, cols, n, t->AK, C, V, cols, R, cols), PN_MM_A_LOWER, false, &t->ahead);
    if (S) pn_mm_run(pn_mm_of(n, cols, d->dk, t->Ain, d->row, S, cols, R, cols), PN_MM_DENSE, true, &t->ahead);
    pn_unit_lower_solve(n, t->N, C, t->X, R, cols, P, cols, cols);
}
