/* Batches: their documents as they are, and as one of many layouts. */
#include "batch.h"
#include "harness.h"

static pn_batch batch_of(int n, const int64_t *length) {
    static int32_t ids[4096];
    int64_t offset[64] = { 0 };
    for (int i = 0; i < n; i++) offset[i + 1] = offset[i] + length[i];
    pn_batch b = { 0 };
    ck_ok(pn_batch_from_ids(ids, offset, n, &b));
    return b;
}

START_TEST(any_layout_ends_in_empty_documents) {
    static const int64_t length[] = { 5, 1, 17, 3, 9 };
    pn_batch b = batch_of(5, length);
    const pn_docs exact = pn_batch_docs(&b, false), any = pn_batch_docs(&b, true);
    ck_assert(exact.n == 5 && exact.longest == 0 && exact.offset == b.offset);
    ck_assert(any.n == 8 && any.longest == 32 && any.offset == b.offset);
    for (int i = 5; i <= 8; i++) ck_assert_int_eq(any.offset[i], 35);
    ck_ok(pn_docs_check(&any, 35, "test"));
    pn_batch_free(&b);
}
END_TEST

/* As many documents as batches of as many tokens usually have, or a power of two of them. */
START_TEST(batches_of_one_kind_look_alike) {
    static const int64_t few[] = { 2000, 48 }, some[] = { 1024, 512, 256, 256 };
    static int64_t many[40];
    for (int i = 0; i < 40; i++) many[i] = i < 8 ? 52 : 51;
    pn_batch a = batch_of(2, few), b = batch_of(4, some), c = batch_of(40, many);
    ck_assert_int_eq(a.n_tokens, 2048);
    ck_assert_int_eq(c.n_tokens, 2048);
    ck_assert_int_eq(pn_batch_docs(&a, true).n, 4);
    ck_assert_int_eq(pn_batch_docs(&b, true).n, 4);
    ck_assert_int_eq(pn_batch_docs(&c, true).n, 64);
    ck_assert(a.longest == 2048 && b.longest == 1024 && c.longest == 64);
    pn_batch_free(&a);
    pn_batch_free(&b);
    pn_batch_free(&c);
}
END_TEST

TEST_MAIN("batch", any_layout_ends_in_empty_documents, batches_of_one_kind_look_alike)
