/* The arena against a map of who has which grain, and what a pool makes of it. */
#include "arena.h"

#include "harness.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "rng.h"
#include "span.h"

enum { GRAIN = PN_ARENA_GRAIN, GRAINS = 8192, PARTS = 64, ROUNDS = 20000 };

typedef struct held {
    pn_arena_part *part;
    size_t at, n; /* grains */
} held;

static bool taken[GRAINS];

static void mark(const held *h, bool to) {
    ck_assert_uint_le(h->at + h->n, GRAINS);
    for (size_t i = h->at; i < h->at + h->n; i++) {
        ck_assert(taken[i] != to);
        taken[i] = to;
    }
}

/* The smallest free run that holds n grains, the lowest of several; `end` when there is none. */
static size_t best(size_t n, size_t end) {
    size_t at = end, size = GRAINS + 1;
    for (size_t i = 0, run; i < end; i += run ? run : 1) {
        for (run = 0; i + run < end && !taken[i + run]; run++) {
        }
        if (run >= n && run < size) at = i, size = run;
    }
    return at;
}

/* Where the free run that reaches the end begins. */
static size_t tail(size_t end) {
    while (end > 0 && !taken[end - 1]) end--;
    return end;
}

static uint64_t walk(pn_arena *a, uint64_t seed) {
    held parts[PARTS] = { 0 };
    pn_rng rng;
    uint64_t places = 0;
    memset(taken, 0, sizeof taken);
    pn_rng_stream(seed, "arena", 0, &rng);
    for (int round = 0; round < ROUNDS; round++) {
        held *h = &parts[pn_rng_below(&rng, PARTS)];
        const size_t end = pn_arena_end(a) / GRAIN;
        if (h->part) {
            pn_arena_give(a, h->part);
            mark(h, false);
            h->part = NULL;
            ck_assert_uint_eq(pn_arena_end(a) / GRAIN, end);
            continue;
        }
        h->n = 1 + pn_rng_below(&rng, pn_rng_below(&rng, 2) ? 4 : 60);
        size_t expected = best(h->n, end), at;
        const bool grows = expected == end;
        if (grows) expected = tail(end);
        ck_ok(pn_arena_take(a, h->n * GRAIN - pn_rng_below(&rng, GRAIN), &h->part, &at));
        h->at = at / GRAIN;
        ck_assert_uint_eq(at % GRAIN, 0);
        ck_assert_uint_eq(h->at, expected);
        ck_assert_uint_eq(pn_arena_end(a) / GRAIN, grows ? expected + h->n : end);
        mark(h, true);
        places = places * 31 + at;
        if (round % 500 == 0) {
            pn_arena_trim(a);
            ck_assert_uint_eq(pn_arena_end(a) / GRAIN, tail(GRAINS));
        }
    }
    for (int i = 0; i < PARTS; i++)
        if (parts[i].part) pn_arena_give(a, parts[i].part);
    return places;
}

START_TEST(parts_go_where_they_fit_best) {
    pn_arena *a, *b;
    ck_ok(pn_arena_create(&a));
    ck_ok(pn_arena_create(&b));
    for (uint64_t seed = 0; seed < 3; seed++) {
        const uint64_t places = walk(a, seed);
        pn_arena_trim(a);
        ck_assert_uint_eq(pn_arena_end(a), 0);
        ck_assert_uint_eq(walk(b, seed), places); /* the same requests: the same places */
        pn_arena_trim(b);
    }
    pn_arena_destroy(&a);
    pn_arena_destroy(&b);
}
END_TEST

/* What one large block leaves serves smaller ones, and these together a large one again. */
START_TEST(a_pool_of_a_device_reuses_any_size) {
    enum { MB = 1 << 20, PIECES = 7 };
    pn_pool *pool;
    pn_storage *s, *piece[PIECES], *small;
    ck_ok(pn_pool_create_counting(PN_POOL_DEVICE, &pool));
    ck_ok(pn_storage_create(pool, 100 * MB, &s));
    ck_ok(pn_storage_create(pool, 1000, &small));
    const size_t all = pn_pool_system_bytes(pool);
    ck_assert_uint_eq(all, pn_span_rounded(100 * MB) + small->n_bytes);
    pn_storage_release(&s);
    for (int i = 0; i < PIECES; i++) ck_ok(pn_storage_create(pool, 14 * MB + 1, &piece[i]));
    ck_assert_uint_eq(pn_pool_system_bytes(pool), all);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), PIECES * (14 * (size_t)MB + PN_ARENA_GRAIN) + small->n_bytes);
    for (int i = 0; i < PIECES; i++) pn_storage_release(&piece[(i * 3 + 1) % PIECES]);
    ck_ok(pn_storage_create(pool, 100 * MB, &s));
    ck_assert_uint_eq(pn_pool_system_bytes(pool), all);
    const size_t before = pn_pool_given_back(pool);
    pn_pool_trim(pool); /* s and small are there */
    ck_assert_uint_eq(pn_pool_system_bytes(pool), all);
    ck_assert_uint_eq(pn_pool_given_back(pool), before);
    pn_storage_release(&s);
    pn_pool_trim(pool);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), small->n_bytes);
    ck_assert_uint_gt(pn_pool_given_back(pool), before);
    pn_storage_release(&small);
    pn_pool_destroy(&pool);
}
END_TEST

TEST_MAIN("arena", parts_go_where_they_fit_best, a_pool_of_a_device_reuses_any_size)
