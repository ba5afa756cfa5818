#include "find_op.h"

#include <stdlib.h>

#include "options.h"

pn_status pn_find_op(const char *name, const pn_op **out) {
    *out = pn_op_find(name);
    if (*out) return PN_OK;
    int n;
    const pn_op *const *ops = pn_op_list(&n);
    const char **names = malloc(sizeof *names * (size_t)n);
    PN_CHECK(names, PN_MEMORY, "out of memory");
    for (int i = 0; i < n; i++) names[i] = ops[i]->name;
    const char *near = pn_nearest(name, names, n);
    free(names);
    PN_FAIL(PN_USAGE, "there is no op %s; %s%s%ssee `postnas list ops`", name, near ? "did you mean " : "",
            near ? near : "", near ? "? " : "");
}
