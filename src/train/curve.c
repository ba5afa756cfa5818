#include "curve.h"

#include <stdlib.h>
#include <string.h>

enum { CURVE_POINTS = 400, POINT_VALUES = 8 };

void pn_curve_free(pn_curve *c) {
    free(c->point);
    *c = (pn_curve){ 0 };
}

static int64_t stride_of(int64_t steps) {
    return steps / CURVE_POINTS + 1;
}

int64_t pn_curve_points(int64_t steps) {
    const int64_t stride = stride_of(steps);
    return (steps + stride - 1) / stride;
}

pn_status pn_curve_record_open(int64_t steps, int64_t stride, pn_curve_record *out) {
    if (!stride) stride = stride_of(steps);
    *out = (pn_curve_record){ .steps = steps, .stride = stride, .n = (steps + stride - 1) / stride };
    out->values = calloc((size_t)out->n * POINT_VALUES, sizeof *out->values);
    PN_CHECK(out->values, PN_MEMORY, "out of memory");
    return PN_OK;
}

void pn_curve_record_close(pn_curve_record *r) {
    free(r->values);
    *r = (pn_curve_record){ 0 };
}

pn_checkpoint_array pn_curve_record_array(pn_curve_record *r, const char *name) {
    return pn_checkpoint_data(name, PN_F64, r->n * POINT_VALUES, r->values);
}

int64_t pn_curve_index(const pn_curve_record *r, int64_t step) {
    const bool on = step > 0 && (step % r->stride == 0 || step == r->steps);
    return on ? (step + r->stride - 1) / r->stride - 1 : -1;
}

void pn_curve_keep(pn_curve_record *r, const pn_curve_point *p) {
    const double values[POINT_VALUES] = { (double)p->step, (double)p->tokens, p->learning_rate, p->norm,
                                          p->loss.total,   p->loss.ce,        p->loss.kl,       p->loss.feature };
    memcpy(r->values + pn_curve_index(r, p->step) * POINT_VALUES, values, sizeof values);
}

bool pn_curve_has(const pn_curve_record *r, int64_t step) {
    const int64_t i = pn_curve_index(r, step);
    return i >= 0 && r->values[i * POINT_VALUES] > 0;
}

pn_status pn_curve_copy(const pn_curve_record *r, int64_t step, pn_curve *out) {
    const int64_t n = step == r->steps ? r->n : step / r->stride;
    pn_curve_point *point = malloc((size_t)(n + 1) * sizeof *point);
    PN_CHECK(point, PN_MEMORY, "out of memory");
    int kept = 0;
    for (int64_t i = 0; i < n; i++) {
        const double *v = r->values + i * POINT_VALUES;
        if (v[0] > 0)
            point[kept++] = (pn_curve_point){ (int64_t)v[0], (int64_t)v[1], v[2], v[3], { v[4], v[5], v[6], v[7] } };
    }
    pn_curve_free(out);
    *out = (pn_curve){ point, kept };
    return PN_OK;
}
