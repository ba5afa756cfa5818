/* What tests that run the program on a GPU share. */
#ifndef PN_TESTS_GPU_PROGRAM_H
#define PN_TESTS_GPU_PROGRAM_H

#include <stdlib.h>

/* The folder with configs and data: a bundle's script says where its copies are. */
static inline const char *source(void) {
    const char *folder = getenv("POSTNAS_SOURCE");
    return folder ? folder : POSTNAS_SOURCE_DIR;
}

#endif
