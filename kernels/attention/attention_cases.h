#ifndef PN_KERNELS_ATTENTION_CASES_H
#define PN_KERNELS_ATTENTION_CASES_H

#include "attention.h"

bool pn_attention_case_at(int i, pn_op_case *out);

#endif
