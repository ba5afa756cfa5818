/* What staged_cuda.c asks of recorded.h. */
#ifndef PN_KERNELS_CUDA_RECORDED_CUDA_H
#define PN_KERNELS_CUDA_RECORDED_CUDA_H

#include "staged_cuda.h"

/* While work runs as usual: somebody may want to know of its tables. */
void pn_recorded_asked(const pn_table_recipe *r);
/* While it is recorded: the table's place. PN_UNSUPPORTED when it was not learnt. */
pn_status pn_recorded_table(const pn_table_recipe *r, const int32_t **out);

#endif
