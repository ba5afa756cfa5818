#include "head_basis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/lapack.h"

/* x [m, d] = Q R: R [min(m, d), d], row after row and new, *k rows. In Fortran's order x is its transpose, so that R is
 * the transpose of the L in its LQ factors. */
static pn_status thin_r(double *x, int64_t m, int64_t d, double **r, int64_t *k) {
    const blasint rows = (blasint)d, columns = (blasint)m, all = -1;
    blasint info = 0;
    double best;
    *k = m < d ? m : d;
    dgelqf_(&rows, &columns, x, &rows, NULL, &best, &all, &info);
    const blasint n_work = (blasint)best;
    double *tau = calloc((size_t)*k, sizeof *tau), *work = malloc((size_t)n_work * sizeof *work);
    *r = calloc((size_t)(*k * d), sizeof **r);
    pn_status s = PN_OK;
    if (!tau || !work || !*r) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    dgelqf_(&rows, &columns, x, &rows, tau, work, &n_work, &info);
    PN_ASSERT(info == 0);
    for (int64_t i = 0; i < *k; i++) memcpy(*r + i * d + i, x + i * d + i, (size_t)(d - i) * sizeof **r);
done:
    free(tau);
    free(work);
    return s;
}

typedef struct svd {    /* x [m, n] = sum_i s_i u_i v_i^T, i < min(m, n) */
    double *s, *u, *vt; /* u: [min, m], row i is u_i; vt: [n, min], column i is v_i */
    int64_t n;
} svd;

static void svd_free(svd *f) {
    free(f->s);
    free(f->u);
    free(f->vt);
}

/* x in Fortran's order; overwritten. */
static pn_status svd_of(double *x, int64_t m, int64_t n, svd *f) {
    const blasint rows = (blasint)m, columns = (blasint)n, least = rows < columns ? rows : columns, all = -1;
    blasint info = 0;
    double best;
    dgesvd_("S", "S", &rows, &columns, x, &rows, NULL, NULL, &rows, NULL, &least, &best, &all, &info, 1, 1);
    const blasint n_work = (blasint)best;
    double *work = malloc((size_t)n_work * sizeof *work);
    *f = (svd){ calloc((size_t)least, sizeof *f->s), calloc((size_t)(m * least), sizeof *f->u),
                calloc((size_t)(n * least), sizeof *f->vt), least };
    pn_status s = PN_OK;
    if (!work || !f->s || !f->u || !f->vt) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    dgesvd_("S", "S", &rows, &columns, x, &rows, f->s, f->u, &rows, f->vt, &least, work, &n_work, &info, 1, 1);
    if (info) PN_FAIL_GOTO(s, PN_NUMERIC, done, "the singular values of a head's scores do not converge");
done:
    free(work);
    return s;
}

/* With a = Qa Ra, b = Qb Rb and Ra Rb^T = U S V^T, the queries Qa U S^1/2 are a P^T for P = S^-1/2 V^T Rb, and the keys
 * Qb V S^1/2 are b R^T for R = S^-1/2 U^T Ra: no factor is inverted. */
pn_status pn_head_basis(double *a, int64_t m, double *b, int64_t n, int64_t d, int64_t rank, double *p, double *r,
                        double *kept) {
    double *ra = NULL, *rb = NULL, *core = NULL, sum = 0, part = 0;
    int64_t ka, kb;
    svd f = { 0 };
    pn_status s = PN_OK;
    PN_TRY_GOTO(s, thin_r(a, m, d, &ra, &ka), done);
    PN_TRY_GOTO(s, thin_r(b, n, d, &rb, &kb), done);
    core = malloc((size_t)(ka * kb) * sizeof *core);
    if (!core) PN_FAIL_GOTO(s, PN_MEMORY, done, "out of memory");
    cblas_dgemm(CblasColMajor, CblasTrans, CblasNoTrans, (blasint)ka, (blasint)kb, (blasint)d, 1, ra, (blasint)d, rb,
                (blasint)d, 0, core, (blasint)ka);
    PN_TRY_GOTO(s, svd_of(core, ka, kb, &f), done);
    memset(p, 0, (size_t)(rank * d) * sizeof *p);
    memset(r, 0, (size_t)(rank * d) * sizeof *r);
    for (int64_t i = 0; i < f.n; i++) {
        sum += f.s[i] * f.s[i];
        if (i >= rank || f.s[i] <= 1e-7 * f.s[0]) continue; /* below the precision of the F32 factors */
        part += f.s[i] * f.s[i];
        double scale = 1 / sqrt(f.s[i]);
        cblas_dgemv(CblasColMajor, CblasNoTrans, (blasint)d, (blasint)kb, scale, rb, (blasint)d, f.vt + i, (blasint)f.n,
                    0, p + i * d, 1);
        cblas_dgemv(CblasColMajor, CblasNoTrans, (blasint)d, (blasint)ka, scale, ra, (blasint)d, f.u + i * ka, 1, 0,
                    r + i * d, 1);
    }
    *kept = sum > 0 ? part / sum : 1;
done:
    svd_free(&f);
    free(ra);
    free(rb);
    free(core);
    return s;
}
