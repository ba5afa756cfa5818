/* OpenBLAS picks its kernels by the processor's model number when it is loaded. A version older than the processor may
 * not know the number and then takes those of a processor of 2004, six times slower. */
#ifndef PN_KERNELS_CPU_BLAS_CORE_H
#define PN_KERNELS_CPU_BLAS_CORE_H

#include <stdbool.h>

/* The OPENBLAS_CORETYPE that fits a processor with these instructions; NULL when `chosen` uses them already. */
const char *pn_blas_core_for(const char *chosen, bool has_avx2, bool has_avx512);
/* The same for this machine. It takes effect in a process that starts with the variable set. */
const char *pn_blas_better_core(void);

#endif
