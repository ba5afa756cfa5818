#include "blas_core.h"

#include <cblas.h>
#include <stddef.h>
#include <strings.h>

const char *pn_blas_core_for(const char *chosen, bool has_avx2, bool has_avx512) {
    static const char *const with_avx2[] = {
        "Haswell", "Zen", "Excavator", "SkylakeX", "Cooperlake", "Sapphirerapids"
    };
    if (!has_avx2) return NULL;
    for (size_t i = 0; i < sizeof with_avx2 / sizeof *with_avx2; i++)
        if (!strcasecmp(chosen, with_avx2[i])) return NULL;
    return has_avx512 ? "SkylakeX" : "Haswell";
}

const char *pn_blas_better_core(void) {
#if defined(__x86_64__)
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return pn_blas_core_for(openblas_get_corename(), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"),
                            avx512);
#else
    return NULL;
#endif
}
