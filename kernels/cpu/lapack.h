/* The LAPACK routines in use. OpenBLAS carries them; its headers do not declare them. Column-major, as in Fortran; a
 * trailing length for every character argument. */
#ifndef PN_KERNELS_CPU_LAPACK_H
#define PN_KERNELS_CPU_LAPACK_H

#include <cblas.h>
#include <stddef.h>

/* LQ factors of a [m, n]. */
void dgelqf_(const blasint *m, const blasint *n, double *a, const blasint *lda, double *tau, double *work,
             const blasint *lwork, blasint *info);
/* Singular values and vectors of a [m, n]. */
void dgesvd_(const char *jobu, const char *jobvt, const blasint *m, const blasint *n, double *a, const blasint *lda,
             double *s, double *u, const blasint *ldu, double *vt, const blasint *ldvt, double *work,
             const blasint *lwork, blasint *info, size_t jobu_length, size_t jobvt_length);

#endif
