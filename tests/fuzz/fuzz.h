/* A fuzz target: what a parser does with any bytes. One per file format; fuzz_target is called by libFuzzer (preset
 * `fuzz`, scripts/fuzz.sh) and by replay.c, which gives it the files of corpus/ and cases/ in every other build.
 *
 * A target asserts with FUZZ_ASSERT what must hold of whatever a parser accepts; that it neither reads outside its
 * input nor leaks is the sanitizers' business. */
#ifndef PN_TESTS_FUZZ_H
#define PN_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* libFuzzer's name for it; 0: the input was taken. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define FUZZ_ASSERT(ok)                                                                                                \
    do {                                                                                                               \
        if (!(ok)) {                                                                                                   \
            fprintf(stderr, "%s:%d: %s does not hold; last message: %s\n", __FILE__, __LINE__, #ok,                    \
                    pn_error_message());                                                                               \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A refusal is the user's input at fault (or memory, which a fuzzer limits), and one sentence says why. */
static inline int fuzz_refused(pn_status s) {
    const char *why = pn_error_message();
    FUZZ_ASSERT(s == PN_FORMAT || s == PN_UNSUPPORTED || s == PN_USAGE || s == PN_IO || s == PN_MEMORY);
    FUZZ_ASSERT(*why && !strpbrk(why, "\n\r\033"));
    return 0;
}

#endif
