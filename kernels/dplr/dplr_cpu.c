#include "dplr_chunk.h"

pn_dplr_dims pn_dplr_dims_of(const pn_op_call *c) {
    const pn_dplr_attr *attr = c->attr;
    return (pn_dplr_dims){ .heads = attr->heads,
                           .dk = attr->dk,
                           .dv = attr->dv,
                           .size = (int64_t)attr->dk * attr->dv,
                           .ldk = (int64_t)attr->heads * attr->dk,
                           .ldv = (int64_t)attr->heads * attr->dv,
                           .scale = (float)attr->scale };
}

extern const pn_op_impl *const dplr_cpu[];
const pn_op_impl *const dplr_cpu[] = { &pn_dplr_cpu_step, NULL };
