/* The register-tiled product, compiled once per instruction set. The including file defines TILE_NAME, TILE_TARGET,
 * TILE_ROWS, TILE_TRIANGLE_ROWS, TILE_WIDE, TILE_WIDE_ROWS, TILE_LANES, tile_vec, tile_mask and the functions tile_*,
 * and undefines them after.
 *
 * A tile of C is TILE_ROWS x 2 vectors, or TILE_WIDE_ROWS x TILE_WIDE, held in registers over the whole inner
 * dimension. A step takes a load per vector of B and a broadcast per row for rows x vectors multiply-adds, so the
 * multiply-add units are the limit. With 32 registers the wide tile is the faster one where B has the columns: fewer
 * loads, and fewer rows of A, whose addresses would not all fit the integer registers. */
#define TILE_GLUE2(a, b) a##b
#define TILE_GLUE(a, b)  TILE_GLUE2(a, b)
#define TILE_FN(name)    TILE_GLUE(name, TILE_NAME)
#define TILE_COLS        (2 * TILE_LANES)

/* One element of every row of A times one row of B. */
static inline __attribute__((always_inline)) TILE_TARGET void
TILE_FN(step_)(const int rows, const int vecs, const int ragged, tile_mask mask, const float *a, int64_t a_row,
               const float *b, tile_vec acc[TILE_ROWS][TILE_WIDE]) {
    tile_vec bv[TILE_WIDE];
#pragma GCC unroll 4
    for (int v = 0; v < vecs; v++)
        bv[v] = ragged && v == vecs - 1 ? tile_load_part(b + v * TILE_LANES, mask) : tile_load(b + v * TILE_LANES);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        tile_vec x = tile_set1(a[r * a_row]);
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) acc[r][v] = tile_fma(x, bv[v], acc[r][v]);
    }
}

/* rows, vecs, ragged are constants at every call. When ragged, the last vector has only the lanes of `mask`. */
static inline __attribute__((always_inline)) TILE_TARGET void
TILE_FN(tile_)(const pn_mm *p, const int rows, const int vecs, const int ragged, tile_mask mask, int64_t i0, int64_t j0,
               int64_t l0, int64_t l1, const float *b, int64_t ldb) {
    const float *line[MAX_INNER / AHEAD_STEPS];
    const int lines = p->ahead ? ahead_take(p->ahead, (int)(l1 - l0) / AHEAD_STEPS, line) : 0;
    tile_vec acc[TILE_ROWS][TILE_WIDE];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) acc[r][v] = tile_set1(0.0f);
    const float *a = p->a + i0 * p->a_row + l0 * p->a_col;
    const int64_t a_row = p->a_row, a_col = p->a_col;
    b += l0 * ldb;
    for (int k = 0; k < lines; k++) {
        __builtin_prefetch(line[k], 0, 2);
#pragma GCC unroll 2
        for (int s = 0; s < AHEAD_STEPS; s++, a += a_col, b += ldb)
            TILE_FN(step_)(rows, vecs, ragged, mask, a, a_row, b, acc);
    }
    for (int64_t l = l0 + AHEAD_STEPS * lines; l < l1; l++, a += a_col, b += ldb)
        TILE_FN(step_)(rows, vecs, ragged, mask, a, a_row, b, acc);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        int64_t i = i0 + r;
        tile_vec scale = tile_set1(p->scale_row ? p->scale * p->scale_row[i] : p->scale);
        tile_vec keep = tile_set1(p->keep_row ? p->keep * p->keep_row[i] : p->keep);
        float *c = p->c + i * p->ldc + j0;
        const float *c0 = p->c0 ? p->c0 + i * p->ldc0 + j0 : NULL;
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) {
            tile_vec x = tile_mul(scale, acc[r][v]);
            if (ragged && v == vecs - 1) {
                if (c0) x = tile_fma(keep, tile_load_part(c0 + v * TILE_LANES, mask), x);
                tile_store_part(c + v * TILE_LANES, mask, x);
            } else {
                if (c0) x = tile_fma(keep, tile_load(c0 + v * TILE_LANES), x);
                tile_store(c + v * TILE_LANES, x);
            }
        }
    }
}

/* All row tiles of one panel of vecs vectors. Triangles go by fewer rows, so that less of the other half is computed.
 */
static inline __attribute__((always_inline)) TILE_TARGET void TILE_FN(panel_)(const pn_mm *p, const int vecs,
                                                                              const int ragged, tile_mask mask,
                                                                              int64_t j0, const float *b, int64_t ldb) {
    const int tall = vecs > 2 ? TILE_WIDE_ROWS : TILE_ROWS, low = vecs > 2 ? 4 : TILE_TRIANGLE_ROWS;
    const int64_t most = p->form == PN_MM_A_LOWER || p->form == PN_MM_A_UPPER ? low : tall;
    for (int64_t i = 0, rows; i < p->m; i += rows) {
        int64_t left = p->m - i;
        rows = left >= most ? most : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        int64_t l0 = p->form == PN_MM_A_UPPER && i < p->l ? i : 0, l1 = p->l;
        if (p->form == PN_MM_A_UPPER && i >= p->l) l1 = 0;
        if (p->form == PN_MM_A_LOWER && i + rows < l1) l1 = i + rows;
        if (p->form == PN_MM_C_LOWER && j0 > i + rows - 1) continue;
        if (vecs == 2 && rows == tall && p->form == PN_MM_C_LOWER && i + rows <= j0 + TILE_LANES)
            TILE_FN(tile_)(p, tall, 1, 0, mask, i, j0, l0, l1, b, ldb);
        else if (rows == tall)
            TILE_FN(tile_)(p, tall, vecs, ragged, mask, i, j0, l0, l1, b, ldb);
        else if (rows == low)
            TILE_FN(tile_)(p, low, vecs, ragged, mask, i, j0, l0, l1, b, ldb);
        else if (rows == 4)
            TILE_FN(tile_)(p, 4, vecs, ragged, mask, i, j0, l0, l1, b, ldb);
        else if (rows == 2)
            TILE_FN(tile_)(p, 2, vecs, ragged, mask, i, j0, l0, l1, b, ldb);
        else
            TILE_FN(tile_)(p, 1, vecs, ragged, mask, i, j0, l0, l1, b, ldb);
    }
}

/* A panel without ragged columns. Rows of B that lie a power of two apart share a few cache sets: made contiguous. */
static inline __attribute__((always_inline)) TILE_TARGET void TILE_FN(whole_)(const pn_mm *p, const int vecs,
                                                                              bool packs, float *pack, int64_t j0) {
    const float *b = p->b + j0;
    if (!packs) {
        TILE_FN(panel_)(p, vecs, 0, tile_first(TILE_LANES), j0, b, p->ldb);
        return;
    }
    for (int64_t l = 0; l < p->l; l++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++)
            tile_store(pack + (l * vecs + v) * TILE_LANES, tile_load(b + l * p->ldb + v * TILE_LANES));
    TILE_FN(panel_)(p, vecs, 0, tile_first(TILE_LANES), j0, pack, vecs * TILE_LANES);
}

static TILE_TARGET void TILE_FN(mm_)(const pn_mm *p) {
    _Alignas(64) float pack[MAX_INNER * TILE_COLS];
    const bool packs = p->m >= PACK_ROWS && p->ldb >= PACK_STRIDE;
    const bool wide = TILE_WIDE > 2 && p->form != PN_MM_C_LOWER && (!packs || TILE_WIDE * p->l <= 2 * MAX_INNER);
    int64_t j = 0;
    for (; wide && p->n - j >= TILE_WIDE * TILE_LANES; j += TILE_WIDE * TILE_LANES)
        TILE_FN(whole_)(p, TILE_WIDE, packs, pack, j);
    for (; p->n - j >= TILE_COLS; j += TILE_COLS) TILE_FN(whole_)(p, 2, packs, pack, j);
    int64_t rest = p->n - j;
    if (rest > TILE_LANES)
        TILE_FN(panel_)(p, 2, 1, tile_first(rest - TILE_LANES), j, p->b + j, p->ldb);
    else if (rest == TILE_LANES)
        TILE_FN(panel_)(p, 1, 0, tile_first(TILE_LANES), j, p->b + j, p->ldb);
    else if (rest > 0)
        TILE_FN(panel_)(p, 1, 1, tile_first(rest), j, p->b + j, p->ldb);
}

#undef TILE_GLUE2
#undef TILE_GLUE
#undef TILE_FN
#undef TILE_COLS
