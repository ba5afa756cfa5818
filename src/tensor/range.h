/* Names for stretches of the host's work, as profilers show them beside what the GPU does (NVTX): nothing unless one is
 * attached, and nothing at all without CUDA. */
#ifndef PN_TENSOR_RANGE_H
#define PN_TENSOR_RANGE_H

#include <stdint.h>

/* Every begin has its end, in the same thread. name: "layer"; number: shown with it unless negative. */
#ifdef POSTNAS_HAVE_CUDA
void pn_range_begin(const char *name, int64_t number);
void pn_range_end(void);
#else
static inline void pn_range_begin(const char *name, int64_t number) {
    (void)name, (void)number;
}
static inline void pn_range_end(void) {}
#endif

#endif
