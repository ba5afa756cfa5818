/* postnas: post-training neural architecture search. See README.md for a tour of the source in reading order. */
#include "status.h"

int main(void) {
    return pn_exit_code(PN_OK);
}
