/* An F32 master as two halves: its BF16 value, which the model computes with, and 16 bits more.
 *
 * On the bits of the floats, read as integers,
 *
 *     value = (master + 0x8000) >> 16        the nearest BF16; where two are as near, the one of larger magnitude
 *     low   = master & 0xffff                read as int16: how far the master is above its value
 *     master = (value << 16) + low
 *
 * exactly, for every master that is a number: -0, denormals, infinities, and those that the value rounds to infinity.
 * For the sum in the first line carries into the value just where low is negative, and never out of 32 bits. (Ties to
 * even would need 17 bits: the two masters half way above and below an even value have the same value and low.) NaNs
 * could carry into the sign or past it, so a NaN becomes the quiet one of its sign first, and stays a NaN. */
#ifndef PN_AUTOGRAD_MASTER_H
#define PN_AUTOGRAD_MASTER_H

#include <stdint.h>

#ifdef __CUDACC__
#define PN_MASTER_INLINE __host__ __device__ static inline
#else
#define PN_MASTER_INLINE static inline
#endif

typedef struct pn_master_halves {
    uint16_t value, low;
} pn_master_halves;

PN_MASTER_INLINE pn_master_halves pn_master_split(uint32_t master) {
    if ((master & 0x7fffffffu) > 0x7f800000u) master = (master & 0x80000000u) | 0x7fc00000u;
    pn_master_halves h = { (uint16_t)((master + 0x8000u) >> 16), (uint16_t)master };
    return h;
}

PN_MASTER_INLINE uint32_t pn_master_join(pn_master_halves h) {
    return ((uint32_t)h.value << 16) + (uint32_t)(int32_t)(int16_t)h.low;
}

#endif
