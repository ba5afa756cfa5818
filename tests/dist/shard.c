/* Buckets and shards, element by element: every one has exactly one owner, whatever the sizes. */
#include "shard.h"

#include <string.h>

#include "harness.h"
#include "rng.h"

enum { PARAMS = 12 };

/* Random sizes, of which some are 1 and some larger than a bucket. */
static int random_sizes(pn_rng *rng, int64_t *elems) {
    const int n = 1 + (int)pn_rng_below(rng, PARAMS);
    for (int i = 0; i < n; i++) elems[i] = pn_rng_below(rng, 4) ? 1 + (int64_t)pn_rng_below(rng, 60) : 1;
    return n;
}

static void check_layout(const pn_bucket_plan *p, int64_t bucket_elems, int64_t align) {
    int64_t total = 0, shard = 0;
    int param = 0;
    for (int b = 0; b < p->n_buckets; b++) {
        const pn_bucket *k = &p->bucket[b];
        ck_assert(k->at == total && k->part_at == shard && k->first == param && k->end > k->first);
        ck_assert(k->elems == k->part * p->ranks && k->part % align == 0);
        int64_t free_from = 0;
        for (; param < k->end; param++) {
            ck_assert(p->bucket_of[param] == b && p->offset[param] % align == 0 && p->offset[param] >= free_from);
            ck_assert(param == k->first || free_from < bucket_elems); /* a full bucket takes no more */
            free_from = p->offset[param] + p->elems[param];
        }
        ck_assert(free_from <= k->elems && k->elems - free_from < (p->ranks + 1) * align);
        ck_assert(b == p->n_buckets - 1 || free_from + align > bucket_elems);
        total += k->elems;
        shard += k->part;
    }
    ck_assert(param == p->n_params && total == p->total_elems && shard == p->shard_elems);
}

/* What rank owns by its ranges is what it owns by cutting the buckets. */
static void check_ranges(const pn_bucket_plan *p) {
    unsigned char owned[PARAMS][64] = { { 0 } };
    pn_shard_range range[PARAMS * 2];
    for (int r = 0; r < p->ranks; r++) {
        const int n = pn_shard_ranges(p, r, NULL);
        ck_assert_int_le(n, PARAMS * 2);
        ck_assert_int_eq(pn_shard_ranges(p, r, range), n);
        int64_t at = -1;
        for (int i = 0; i < n; i++) {
            ck_assert(range[i].at > at && range[i].n > 0);
            at = range[i].at + range[i].n - 1;
            for (int64_t e = 0; e < range[i].n; e++) {
                const int64_t offset = range[i].offset + e;
                const pn_bucket *k = &p->bucket[p->bucket_of[range[i].param]];
                int64_t where;
                owned[range[i].param][offset]++;
                ck_assert_int_eq(pn_shard_owner(p, range[i].param, offset, &where), r);
                ck_assert_int_eq(where, range[i].at + e);
                ck_assert_int_eq(p->offset[range[i].param] + offset, r * k->part + where - k->part_at);
            }
        }
        ck_assert(at < p->shard_elems);
    }
    for (int i = 0; i < p->n_params; i++)
        for (int64_t e = 0; e < p->elems[i]; e++) ck_assert_int_eq(owned[i][e], 1);
}

START_TEST(every_element_has_one_owner) {
    pn_rng rng;
    pn_rng_stream(1, "shards", 0, &rng);
    for (int round = 0; round < 400; round++) {
        int64_t elems[PARAMS];
        const int n = random_sizes(&rng, elems), ranks = 1 + (int)pn_rng_below(&rng, 6);
        const int64_t align = 1 + (int64_t)pn_rng_below(&rng, 8), bucket = 1 + (int64_t)pn_rng_below(&rng, 100);
        pn_bucket_plan *p;
        ck_ok(pn_bucket_plan_create(elems, n, bucket, ranks, align, &p));
        check_layout(p, bucket, align);
        check_ranges(p);
        pn_bucket_plan_destroy(&p);
    }
}
END_TEST

/* What `from` ranks wrote by their ranges, `to` ranks read by theirs, as a checkpoint does. */
static void resharded(const int64_t *elems, int n, int from, int to, int64_t align) {
    pn_bucket_plan *a, *b;
    pn_shard_range wrote[PARAMS * 2], reads[PARAMS * 2];
    ck_ok(pn_bucket_plan_create(elems, n, 50, from, align, &a));
    ck_ok(pn_bucket_plan_create(elems, n, 70, to, 4, &b)); /* other buckets as well */
    for (int r = 0; r < to; r++) {
        int got[PARAMS][64] = { { 0 } };
        const int n_reads = pn_shard_ranges(b, r, reads);
        pn_shard_sort(reads, n_reads);
        for (int w = 0; w < from; w++) {
            const int n_wrote = pn_shard_ranges(a, w, wrote);
            for (int i = 0; i < n_wrote; i++) {
                int k = pn_shard_find(reads, n_reads, wrote[i].param, wrote[i].offset);
                for (; k < n_reads; k++) {
                    const pn_shard_meet m = pn_shard_intersect(&wrote[i], &reads[k]);
                    if (!m.n) break;
                    for (int64_t e = 0; e < m.n; e++) got[wrote[i].param][m.offset + e]++;
                }
            }
        }
        for (int k = 0; k < n_reads; k++)
            for (int64_t e = 0; e < reads[k].n; e++) ck_assert_int_eq(got[reads[k].param][reads[k].offset + e]--, 1);
        for (int i = 0; i < n; i++)
            for (int64_t e = 0; e < elems[i]; e++) ck_assert_int_eq(got[i][e], 0);
    }
    pn_bucket_plan_destroy(&a);
    pn_bucket_plan_destroy(&b);
}

START_TEST(any_number_of_ranks_reads_what_any_other_wrote) {
    pn_rng rng;
    pn_rng_stream(2, "shards", 0, &rng);
    for (int round = 0; round < 50; round++) {
        int64_t elems[PARAMS];
        const int n = random_sizes(&rng, elems);
        for (int from = 1; from <= 4; from++)
            for (int to = 1; to <= 4; to++) resharded(elems, n, from, to, 1 + round % 5);
    }
}
END_TEST

/* In any order of gradients buckets leave in order, each once, and not before it is full. */
START_TEST(buckets_leave_in_order) {
    pn_rng rng;
    pn_rng_stream(3, "shards", 0, &rng);
    for (int round = 0; round < 200; round++) {
        int64_t elems[PARAMS];
        int order[PARAMS], left = 0, first, end;
        bool seen[PARAMS] = { false };
        pn_bucket_plan *p;
        pn_bucket_count c;
        const int n = random_sizes(&rng, elems), given = (int)pn_rng_below(&rng, (uint64_t)n + 1);
        ck_ok(pn_bucket_plan_create(elems, n, 40, 3, 4, &p));
        ck_ok(pn_bucket_count_create(p, &c));
        for (int turn = 0; turn < 2; turn++, left = 0) {
            pn_bucket_count_reset(&c);
            memset(seen, 0, sizeof seen);
            for (int i = 0; i < n; i++) order[i] = i;
            for (int i = n - 1; i > 0; i--) {
                const int k = (int)pn_rng_below(&rng, (uint64_t)i + 1), t = order[i];
                order[i] = order[k];
                order[k] = t;
            }
            for (int i = 0; i < given; i++) {
                seen[order[i]] = true;
                pn_bucket_count_add(&c, order[i], &first, &end);
                ck_assert(first == left && end >= first);
                for (int b = first; b < end; b++)
                    for (int m = p->bucket[b].first; m < p->bucket[b].end; m++) ck_assert(seen[m]);
                left = end;
                pn_bucket_count_add(&c, order[i], &first, &end); /* again: nothing new */
                ck_assert(first == left && end == left);
            }
            pn_bucket_count_rest(&c, &first, &end);
            ck_assert(first == left && end == p->n_buckets);
            ck_assert(given < n || first == end);
        }
        pn_bucket_count_free(&c);
        pn_bucket_plan_destroy(&p);
    }
}
END_TEST

START_TEST(the_ends_of_the_range) {
    pn_bucket_plan *p;
    ck_ok(pn_bucket_plan_create(NULL, 0, 1, 4, 64, &p)); /* nothing trains */
    ck_assert(p->n_buckets == 0 && p->total_elems == 0 && pn_shard_ranges(p, 3, NULL) == 0);
    pn_bucket_plan_destroy(&p);
    const int64_t large[] = { (int64_t)1 << 40, 3 }, far_too_large[] = { INT64_MAX - 10, 100 };
    ck_ok(pn_bucket_plan_create(large, 2, (int64_t)1 << 25, 256, 128, &p));
    ck_assert(p->n_buckets == 2 && p->bucket[0].part == (int64_t)1 << 32 && p->bucket[1].part == 128);
    pn_bucket_plan_destroy(&p);
    ck_assert_int_eq(pn_bucket_plan_create(far_too_large, 2, INT64_MAX, 2, 64, &p), PN_USAGE);
    ck_assert_ptr_null(p);
}
END_TEST

TEST_MAIN("shard", every_element_has_one_owner, any_number_of_ranks_reads_what_any_other_wrote, buckets_leave_in_order,
          the_ends_of_the_range)
