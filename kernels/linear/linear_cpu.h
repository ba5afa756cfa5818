#ifndef PN_KERNELS_LINEAR_CPU_H
#define PN_KERNELS_LINEAR_CPU_H

#include "op.h"

extern const pn_op_impl pn_linear_cpu_narrow; /* few outputs: linear_cpu_narrow.c */

#endif
