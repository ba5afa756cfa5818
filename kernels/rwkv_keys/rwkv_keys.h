/* The three keys of RWKV-7's core from one projection (blocks.md 9.3, steps 6 to 8), with u = k * k_k and per head
 * kk = u / max(sqrt(sum(u^2) + eps), floor):
 *
 *     key    = k * (1 + (a - 1) * k_a)     what is written
 *     remove = -kk                         the core's a: what is read of the old state
 *     add    = kk * a                      the core's b: where that goes
 *
 * k, a and the outputs: [N, H*d], head h at channels h*d ..; k_k, k_a: [H*d]. The gradient is that of eps under the
 * root whichever of the two bounds the norm. */
#ifndef PN_KERNELS_RWKV_KEYS_H
#define PN_KERNELS_RWKV_KEYS_H

#include "op.h"

typedef struct pn_rwkv_keys_attr {
    int64_t head_dim;
    double eps, floor; /* not negative, and not both 0 */
} pn_rwkv_keys_attr;

typedef struct pn_rwkv_keys_out {
    pn_tensor *key, *remove, *add;
} pn_rwkv_keys_out;

static inline pn_status pn_rwkv_keys(pn_tape *t, const pn_rwkv_keys_attr *attr, pn_tensor *k, pn_tensor *a,
                                     pn_tensor *k_k, pn_tensor *k_a, pn_rwkv_keys_out *keys) {
    pn_tensor *in[] = { k, a, k_k, k_a }, *out[3];
    PN_TRY(pn_tape_call(t, &pn_op_rwkv_keys, attr, sizeof *attr, in, 4, out, 3));
    *keys = (pn_rwkv_keys_out){ out[0], out[1], out[2] };
    return PN_OK;
}

#endif
