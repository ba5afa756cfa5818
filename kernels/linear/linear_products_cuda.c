#include "linear_cuda.h"

static pn_matmul y_of(const pn_linear_cuda *l, const void *x, const void *w, void *y) {
    return (pn_matmul){ .name = l->name,
                        .m = l->rows,
                        .n = l->out,
                        .k = l->in,
                        .a = x,
                        .b = w,
                        .b_turned = true,
                        .c = y,
                        .a_type = l->type,
                        .b_type = l->type,
                        .c_type = l->type };
}

pn_status pn_linear_cuda_y(const pn_linear_cuda *l, const void *x, const void *w, const void *bias, void *y) {
    pn_matmul p = y_of(l, x, w, y);
    p.bias = bias;
    return pn_cuda_matmul(&p, l->workspace);
}

pn_status pn_linear_cuda_sum(const pn_linear_cuda *l, const void *plus, const void *x, const void *w, void *y) {
    pn_matmul p = y_of(l, x, w, y);
    p.plus = plus;
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
