#include "shard.h"

#include <stdlib.h>

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int pn_shard_ranges(const pn_bucket_plan *p, int rank, pn_shard_range *out) {
    PN_ASSERT(rank >= 0 && rank < p->ranks);
    int n = 0;
    for (int b = 0; b < p->n_buckets; b++) {
        const pn_bucket *k = &p->bucket[b];
        const int64_t begin = k->part * rank, end = begin + k->part;
        for (int i = k->first; i < k->end; i++) {
            const int64_t from = most(p->offset[i], begin), to = least(p->offset[i] + p->elems[i], end);
            if (from >= to) continue;
            if (out) out[n] = (pn_shard_range){ i, from - p->offset[i], to - from, k->part_at + from - begin };
            n++;
        }
    }
    return n;
}

int pn_shard_owner(const pn_bucket_plan *p, int param, int64_t offset, int64_t *at) {
    PN_ASSERT(param >= 0 && param < p->n_params && offset >= 0 && offset < p->elems[param]);
    const pn_bucket *k = &p->bucket[p->bucket_of[param]];
    const int64_t where = p->offset[param] + offset;
    *at = k->part_at + where % k->part;
    return (int)(where / k->part);
}

pn_shard_meet pn_shard_intersect(const pn_shard_range *a, const pn_shard_range *b) {
    const int64_t from = most(a->offset, b->offset), to = least(a->offset + a->n, b->offset + b->n);
    if (a->param != b->param || from >= to) return (pn_shard_meet){ .n = 0 };
    return (pn_shard_meet){ .n = to - from, .offset = from };
}

static int compare(const void *x, const void *y) {
    const pn_shard_range *a = x, *b = y;
    if (a->param != b->param) return a->param < b->param ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

void pn_shard_sort(pn_shard_range *range, int n) {
    if (n > 0) qsort(range, (size_t)n, sizeof *range, compare);
}

int pn_shard_find(const pn_shard_range *range, int n, int param, int64_t offset) {
    int low = 0, high = n;
    while (low < high) {
        const int mid = low + (high - low) / 2;
        const pn_shard_range *r = &range[mid];
        if (r->param < param || (r->param == param && r->offset + r->n <= offset))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}
