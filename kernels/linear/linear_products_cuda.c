#include "linear_cuda.h"

pn_status pn_linear_cuda_y(const pn_linear_cuda *l, const void *x, const void *w, const void *bias, void *y) {
    const pn_matmul p = { .name = l->name,
                          .m = l->rows,
                          .n = l->out,
                          .k = l->in,
                          .a = x,
                          .b = w,
                          .b_turned = true,
                          .bias = bias,
                          .c = y,
                          .a_type = l->type,
                          .b_type = l->type,
                          .c_type = l->type };
    return pn_cuda_matmul(&p, l->workspace);
}

pn_status pn_linear_cuda_dx(const pn_linear_cuda *l, const void *dy, const void *w, void *dx, bool add) {
    const pn_matmul p = { .name = l->name,
                          .m = l->rows,
                          .n = l->in,
                          .k = l->out,
                          .a = dy,
                          .b = w,
                          .c = dx,
                          .add = add,
                          .a_type = l->type,
                          .b_type = l->type,
                          .c_type = l->type };
    return pn_cuda_matmul(&p, l->workspace);
}

pn_status pn_linear_cuda_dw(const pn_linear_cuda *l, const void *dy, const void *x, float *dw, bool add) {
    const pn_matmul p = { .name = l->name,
                          .m = l->out,
                          .n = l->in,
                          .k = l->rows,
                          .a = dy,
                          .a_turned = true,
                          .b = x,
                          .c = dw,
                          .add = add,
                          .a_type = l->type,
                          .b_type = l->type,
                          .c_type = PN_F32 };
    return pn_cuda_matmul(&p, l->workspace);
}
