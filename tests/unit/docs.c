/* Packed documents: how much room any layout of them needs. */
#include "docs.h"
#include "harness.h"
#include "rng.h"

enum { MOST = 12, TRIALS = 2000 };

/* As many lengths as documents, of `tokens` in all, drawn so that many are 0 and many end just past a chunk. */
static void draw(pn_rng *rng, int n, int64_t tokens, int64_t offset[MOST + 1]) {
    static const int64_t some[] = { 0, 1, 2, 63, 64, 65, 128, 129 };
    offset[0] = 0;
    for (int i = 0; i < n; i++) {
        const int64_t left = tokens - offset[i], want = some[pn_rng_below(rng, sizeof some / sizeof *some)];
        offset[i + 1] = offset[i] + (i == n - 1 || want > left ? left : want);
    }
}

START_TEST(any_layout_has_no_more_chunks) {
    pn_rng rng;
    pn_rng_stream(5, "docs", 0, &rng);
    int64_t offset[MOST + 1];
    int fullest = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        const int n = 1 + (int)pn_rng_below(&rng, MOST);
        draw(&rng, n, (int64_t)pn_rng_below(&rng, 700), offset);
        const pn_docs exact = { .n = n, .offset = offset };
        pn_docs any = exact;
        any.longest = pn_docs_longest(&exact);
        if (any.longest == 0) continue;
        ck_ok(pn_docs_check(&any, offset[n], "test"));
        const int64_t has = pn_docs_chunks(&exact, n), most = pn_docs_chunks(&any, n);
        ck_assert_msg(has <= most, "%d documents of %lld tokens have %lld chunks, more than %lld", n,
                      (long long)offset[n], (long long)has, (long long)most);
        fullest += has == most;
        for (int i = 0; i < n; i++) ck_assert(pn_docs_chunks(&any, i) == pn_docs_chunks(&exact, i));
    }
    ck_assert_int_gt(fullest, 0); /* nor is there more room than some layout needs */
}
END_TEST

START_TEST(a_document_that_is_too_long_is_refused) {
    static const int64_t offset[] = { 0, 3, 3, 10 };
    ck_ok(pn_docs_check(&(pn_docs){ .n = 3, .offset = offset, .longest = 7 }, 10, "test"));
    ck_assert_int_eq(pn_docs_check(&(pn_docs){ .n = 3, .offset = offset, .longest = 6 }, 10, "test"), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "document 2 has 7 tokens, more than 6"));
}
END_TEST

/* What is chosen for one token of each document is not chosen for any layout. */
START_TEST(any_layout_is_not_decoding) {
    static const int64_t offset[] = { 0, 1, 2 };
    ck_assert(pn_docs_one_each(&(pn_docs){ .n = 2, .offset = offset }));
    ck_assert(!pn_docs_one_each(&(pn_docs){ .n = 2, .offset = offset, .longest = 1 }));
}
END_TEST

TEST_MAIN("docs", any_layout_has_no_more_chunks, a_document_that_is_too_long_is_refused, any_layout_is_not_decoding)
