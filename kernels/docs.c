#include "docs.h"

pn_status pn_docs_check(const pn_docs *d, int64_t tokens, const char *op) {
    PN_CHECK(d->n > 0 && d->offset, PN_USAGE, "%s: no document offsets", op);
    PN_CHECK(d->offset[0] == 0 && d->offset[d->n] == tokens, PN_USAGE,
             "%s: document offsets run from %lld to %lld, but there are %lld tokens", op, (long long)d->offset[0],
             (long long)d->offset[d->n], (long long)tokens);
    for (int64_t i = 0; i < d->n; i++) {
        PN_CHECK(d->offset[i] <= d->offset[i + 1], PN_USAGE,
                 "%s: document %lld ends at token %lld, before its start %lld", op, (long long)i,
                 (long long)d->offset[i + 1], (long long)d->offset[i]);
        PN_CHECK(d->longest <= 0 || d->offset[i + 1] - d->offset[i] <= d->longest, PN_USAGE,
                 "%s: document %lld has %lld tokens, more than %lld", op, (long long)i,
                 (long long)(d->offset[i + 1] - d->offset[i]), (long long)d->longest);
        PN_CHECK(pn_docs_past(d, i) >= 0, PN_USAGE, "%s: document %lld has a past of %lld tokens", op, (long long)i,
                 (long long)d->past[i]);
    }
    return PN_OK;
}
