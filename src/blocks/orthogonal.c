#include "orthogonal.h"

#include <math.h>
#include <stdlib.h>

#include <cblas.h>

enum { BLOCK = 32 };

static void scale(double *x, double factor, int64_t m) {
#pragma omp simd
    for (int64_t i = 0; i < m; i++) x[i] *= factor;
}

static double dot(const double *x, const double *y, int64_t m) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < m; i++) sum += x[i] * y[i];
    return sum;
}

/* Rows `first` .. first + n of v [.., m], n <= BLOCK, lose what they share with the rows before and with each other,
 * and become unit vectors. products: [BLOCK, first]. */
static void orthonormalise_block(double *v, int64_t first, int64_t n, int64_t m, double *products) {
    double *block = v + first * m;
    if (first) {
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)first, (int)m, 1, block, (int)m, v, (int)m, 0,
                    products, (int)first);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)m, (int)first, -1, products, (int)first, v,
                    (int)m, 1, block, (int)m);
    }
    for (int64_t i = 0; i < n; i++) {
        double *x = block + i * m;
        for (int64_t j = 0; j < i; j++) {
            const double *y = block + j * m, shared = dot(x, y, m);
#pragma omp simd
            for (int64_t c = 0; c < m; c++) x[c] -= shared * y[c];
        }
        scale(x, 1 / sqrt(dot(x, x, m)), m);
    }
}

pn_status pn_orthogonal_fill(double gain, pn_rng *rng, pn_tensor *matrix) {
    PN_ASSERT(matrix->rank == 2);
    const int64_t rows = matrix->shape[0], cols = matrix->shape[1];
    const bool tall = rows > cols;
    const int64_t k = tall ? cols : rows, m = tall ? rows : cols; /* k vectors of m */
    double *v = malloc(sizeof *v * (size_t)((k + BLOCK) * (m + 1)));
    PN_CHECK(v, PN_MEMORY, "out of memory");
    double *products = v + k * m;
    for (int64_t i = 0; i < k * m; i++) v[i] = pn_rng_normal(rng);
    for (int64_t first = 0; first < k; first += BLOCK)
        for (int pass = 0; pass < 2; pass++) /* what rounding left of the first is gone after the second */
            orthonormalise_block(v, first, k - first < BLOCK ? k - first : BLOCK, m, products);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double x = gain * (tall ? v[c * m + r] : v[r * m + c]);
            if (matrix->dtype == PN_F64)
                pn_f64(matrix)[r * cols + c] = x;
            else
                pn_f32(matrix)[r * cols + c] = (float)x;
        }
    free(v);
    return PN_OK;
}
