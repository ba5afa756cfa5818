/* Elementwise loops: threads share out spans, and a span's loop is a leaf function that PN_CLONES can compile twice.
 *
 *     PN_FOR_SPANS(i, len, n) leaf(y + i, x + i, len); */
#ifndef PN_KERNELS_CPU_SPAN_H
#define PN_KERNELS_CPU_SPAN_H

#include <stdint.h>

enum { PN_SPAN = 4096 };

#define PN_PRAGMA(text) _Pragma(#text)
#define PN_FOR_SPANS(i, len, n)                                                                                        \
    PN_PRAGMA(omp parallel for schedule(static) if ((n) > 4 * PN_SPAN))                                                \
    for (int64_t i = 0; i < (n); i += PN_SPAN)                                                                         \
        for (int64_t len = (n)-i < PN_SPAN ? (n)-i : PN_SPAN, once = 1; once; once = 0)

#endif
