/* Values of tensors in either dtype, and weights for tests that need some. */
#ifndef PN_TESTS_RANDOM_WEIGHTS_H
#define PN_TESTS_RANDOM_WEIGHTS_H

#include "harness.h"
#include "param.h"
#include "rng.h"

static inline void set(pn_tensor *t, int64_t i, double x) {
    if (t->dtype == PN_F64)
        pn_f64(t)[i] = x;
    else
        pn_f32(t)[i] = (float)x;
}
static inline double get(const pn_tensor *t, int64_t i) {
    return t->dtype == PN_F64 ? pn_f64(t)[i] : (double)pn_f32(t)[i];
}

/* Weights away from special initial values (zeros hide paths), the same floats in every dtype. */
static inline void randomise(pn_params *params) {
    ck_ok(pn_params_init(params, 20));
    for (int i = 0; i < params->n; i++) {
        pn_param *p = params->item[i];
        pn_rng rng;
        pn_rng_stream(20, p->name, 1, &rng);
        for (int64_t k = 0; k < pn_tensor_elems(p->value); k++)
            set(p->value, k, (float)((float)get(p->value, k) + (float)(0.2 * pn_rng_normal(&rng))));
    }
}

#endif
