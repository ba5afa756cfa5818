/* PN_CLONES: compiles a function twice, for the baseline and for AVX-512, and picks one at load time.
 *
 * It belongs on leaf loops only: a function with an OpenMP region hands its body to an outlined function that is not
 * cloned. The function may be static if it is only called, not pointed to (gcc 12 then emits its symbol twice). Inline
 * functions (fast_math.h) are inlined into both versions. Where function multiversioning does not exist (not x86-64,
 * not ELF) and in sanitizer builds (PN_NO_CLONES: their runtime is not yet up when the choice is made) it is nothing.
 */
#ifndef PN_KERNELS_CPU_CLONES_H
#define PN_KERNELS_CPU_CLONES_H

/* For helpers of cloned loops: one that is not inlined runs its baseline version only. */
#define PN_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 &&           \
    !defined(PN_NO_CLONES)
#define PN_CLONES      __attribute__((target_clones("default", "arch=x86-64-v4")))
#define PN_HAVE_CLONES 1
/* For the few functions that are written differently for AVX-512. */
static inline int pn_cpu_is_v4(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
#else
#define PN_CLONES
#endif

#endif
