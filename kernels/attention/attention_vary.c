#include "attention_vary.h"

#include <stdlib.h>
#include <string.h>

static enum { UNSET, REPEATABLE, VARIES } bits;

void pn_attention_vary(bool allowed) {
    bits = allowed ? VARIES : REPEATABLE;
}

bool pn_attention_varies(void) {
    const char *wish = bits == UNSET ? getenv("PN_CUDA_VARY") : NULL;
    return bits == VARIES || (wish && !strcmp(wish, "1"));
}
