/* The GPU's memory: copies of any size, pools, types, exhaustion, events. */
#include "gpu.h"

#include <string.h>

#include "readback.h"
#include "rng.h"

static unsigned char *random_bytes(size_t n) {
    static pn_rng rng;
    static bool begun;
    if (!begun) pn_rng_stream(7, "gpu", 0, &rng);
    begun = true;
    unsigned char *x = malloc(n);
    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < n; i++) x[i] = (unsigned char)(pn_rng_uniform(&rng) * 256);
    return x;
}

START_TEST(copies_of_any_size_arrive) {
    ck_need_gpu();
    static const size_t sizes[] = { 1, 100, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (8 << 20) + 3, (17 << 20) + 5 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        unsigned char *sent = random_bytes(n), *kept = malloc(n), *back = calloc(n, 1);
        void *a = pn_device_alloc(n), *b = pn_device_alloc(n);
        ck_assert_ptr_nonnull(a);
        ck_assert_ptr_nonnull(b);
        memcpy(kept, sent, n);
        ck_ok(pn_device_upload(a, sent, n));
        memset(sent, 0, n); /* it may change at once */
        ck_ok(pn_device_fill(b, 0xff, n));
        ck_ok(pn_device_copy(b, a, n));
        ck_ok(pn_device_fill(a, 0, n));
        ck_ok(pn_device_download(back, b, n));
        ck_assert_msg(!memcmp(back, kept, n), "%zu bytes did not come back as they went", n);
        ck_ok(pn_device_download(back, a, n));
        size_t wrong = 0; /* an assertion for each byte would take half a minute */
        for (size_t k = 0; k < n; k++) wrong += back[k] != 0;
        ck_assert_uint_eq(wrong, 0);
        pn_device_free(a);
        pn_device_free(b);
        free(sent);
        free(kept);
        free(back);
    }
    ck_ok(pn_device_sync());
}
END_TEST

START_TEST(a_pool_of_the_gpu_keeps_what_comes_back) {
    ck_need_gpu();
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    size_t after_first = 0;
    for (int step = 0; step < 3; step++) {
        pn_storage *s[3];
        for (int i = 0; i < 3; i++) ck_ok(pn_storage_create(pool, (size_t)1000 << (4 * i), &s[i]));
        for (int i = 0; i < 3; i++) pn_storage_release(&s[i]);
        if (step == 0) after_first = pn_pool_system_bytes(pool);
        ck_assert_uint_eq(pn_pool_system_bytes(pool), after_first);
        ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    }
    ck_assert_uint_gt(after_first, 0);
    pn_pool_trim(pool);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), 0);
    pn_pool_destroy(&pool);
}
END_TEST

/* Storage of many sizes, made and dropped: none overwrites another while the pool grows and shrinks, and a plan counts
 * what it takes. */
START_TEST(a_pool_of_the_gpu_grows_in_place) {
    ck_need_gpu();
    enum { HELD = 12, ROUNDS = 300, SAMPLE = 4096 };
    static unsigned char back[SAMPLE];
    pn_pool *pool, *plan;
    pn_storage *s[HELD] = { 0 }, *p[HELD] = { 0 };
    pn_rng rng;
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    ck_ok(pn_pool_create_counting(PN_POOL_DEVICE, &plan));
    pn_rng_stream(3, "pool", 0, &rng);
    for (int round = 0; round < ROUNDS; round++) {
        const int i = (int)pn_rng_below(&rng, HELD);
        if (s[i]) {
            ck_ok(pn_storage_read(back, s[i], s[i]->n_bytes - SAMPLE, SAMPLE));
            for (int k = 0; k < SAMPLE; k++) ck_assert_int_eq(back[k], i);
            pn_storage_release(&s[i]);
            pn_storage_release(&p[i]);
        } else {
            const size_t n_bytes = SAMPLE + pn_rng_below(&rng, (uint64_t)1 << (12 + pn_rng_below(&rng, 14)));
            ck_ok(pn_storage_create(pool, n_bytes, &s[i]));
            ck_ok(pn_storage_create(plan, n_bytes, &p[i]));
            ck_ok(pn_storage_fill(s[i], 0, s[i]->n_bytes, i));
        }
        if (round % 40 == 0) {
            pn_pool_trim(pool);
            pn_pool_trim(plan);
        }
        ck_assert_uint_eq(pn_pool_system_bytes(pool), pn_pool_system_bytes(plan));
    }
    for (int i = 0; i < HELD; i++) {
        pn_storage_release(&s[i]);
        pn_storage_release(&p[i]);
    }
    pn_pool_trim(pool);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), 0);
    pn_pool_destroy(&pool);
    pn_pool_destroy(&plan);
}
END_TEST

START_TEST(values_cross_types_and_memories) {
    ck_need_gpu();
    enum { N = 12, D = 5 };
    pn_pool *gpu, *host;
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &gpu));
    ck_ok(pn_pool_create(PN_POOL_HOST, &host));
    const int64_t shape[] = { N, D };
    double values[N * D], back[N * D];
    for (int i = 0; i < N * D; i++) values[i] = i * 0.5 - 7; /* exact in BF16 */
    pn_tensor *a, *b, *c, *rows;
    ck_ok(pn_tensor_create(gpu, PN_F32, 2, shape, &a));
    ck_ok(pn_tensor_create(gpu, PN_BF16, 2, shape, &b));
    ck_ok(pn_tensor_zeros(host, PN_F32, 2, shape, &c));
    ck_ok(pn_tensor_write(a, values, PN_F64));
    ck_ok(pn_tensor_copy(b, a)); /* on the GPU, another type */
    ck_ok(pn_tensor_copy(c, b)); /* to the host, another type */
    for (int i = 0; i < N * D; i++) ck_assert_double_eq(pn_f32(c)[i], values[i]);
    ck_ok(pn_tensor_rows(a, 3, 5, &rows));
    ck_ok(pn_tensor_read(rows, back, PN_F64));
    for (int i = 0; i < 2 * D; i++) ck_assert_double_eq(back[i], values[3 * D + i]);
    ck_ok(pn_tensor_fill_zero(rows)); /* a view clears its rows only */
    ck_ok(pn_tensor_copy(c, a));
    for (int i = 0; i < N * D; i++) ck_assert_double_eq(pn_f32(c)[i], i >= 3 * D && i < 5 * D ? 0 : values[i]);
    pn_tensor_release(&a);
    pn_tensor_release(&b);
    pn_tensor_release(&c);
    pn_tensor_release(&rows);
    pn_pool_destroy(&gpu);
    pn_pool_destroy(&host);
}
END_TEST

START_TEST(exhausted_memory_is_said_and_survived) {
    ck_need_gpu();
    pn_pool *pool;
    pn_storage *s;
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    ck_assert_int_eq(pn_storage_create(pool, (size_t)1 << 45, &s), PN_MEMORY);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "GPU memory exhausted"));
    ck_assert_ptr_nonnull(strstr(pn_error_message(), " MB are free"));
    ck_ok(pn_storage_create(pool, 4096, &s));
    ck_ok(pn_storage_fill(s, 0, 4096, 7));
    unsigned char back[4096];
    ck_ok(pn_storage_read(back, s, 0, sizeof back));
    ck_assert_uint_eq(back[4095], 7);
    pn_storage_release(&s);
    pn_pool_destroy(&pool);
}
END_TEST

/* More small uploads than there are pinned buffers, while the GPU is at work: each value is what it was when it was
 * added, whatever came after it. */
START_TEST(values_are_sent_while_work_goes_on) {
    ck_need_gpu();
    enum { BYTES = 256 << 20, ROUNDS = 100 };
    pn_pool *pool;
    pn_tensor *a, *b;
    pn_readback *r;
    double v[PN_READBACK_VALUES];
    void *large = pn_device_alloc(BYTES);
    ck_assert_ptr_nonnull(large);
    ck_ok(pn_pool_create(PN_POOL_DEVICE, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 1 }, &a));
    ck_ok(pn_tensor_create(pool, PN_F64, 1, (int64_t[]){ 2 }, &b));
    ck_ok(pn_readback_create(PN_POOL_DEVICE, &r));
    for (int i = 0; i < ROUNDS; i++) {
        const float x = (float)i;
        const double y[] = { i + 0.25, -i };
        ck_ok(pn_device_fill(large, i, BYTES));
        ck_ok(pn_tensor_write(a, &x, PN_F32));
        ck_ok(pn_tensor_write(b, y, PN_F64));
        if (i) { /* of the round before */
            ck_ok(pn_readback_wait(r, v));
            ck_assert(v[0] == i - 1 && v[1] == i - 0.75 && v[2] == 1 - i && v[3] == 0);
        }
        ck_ok(pn_readback_add(r, a));
        ck_ok(pn_readback_add(r, b));
        ck_ok(pn_readback_add(r, NULL));
    }
    pn_readback_destroy(&r); /* with values on their way */
    pn_tensor_release(&a);
    pn_tensor_release(&b);
    pn_pool_destroy(&pool);
    pn_device_free(large);
}
END_TEST

START_TEST(events_time_the_gpu) {
    ck_need_gpu();
    enum { BYTES = 256 << 20, FILLS = 8 };
    void *x = pn_device_alloc(BYTES);
    pn_event *begin, *end;
    double seconds = 0;
    ck_assert_ptr_nonnull(x);
    ck_ok(pn_event_create(&begin));
    ck_ok(pn_event_create(&end));
    ck_ok(pn_event_record(begin));
    for (int i = 0; i < FILLS; i++) ck_ok(pn_device_fill(x, i, BYTES));
    ck_ok(pn_event_record(end));
    ck_ok(pn_event_seconds(begin, end, &seconds));
    ck_assert_double_gt(seconds, (double)BYTES * FILLS / 20e12); /* no GPU writes 20 TB/s */
    ck_assert_double_lt(seconds, 10);
    pn_event_destroy(&begin);
    pn_event_destroy(&end);
    pn_device_free(x);
}
END_TEST

START_TEST(the_gpu_says_what_it_is) {
    ck_need_gpu();
    pn_device_info gpu;
    ck_ok(pn_device_describe(&gpu));
    ck_assert_int_ge(gpu.major, 8);
    ck_assert_int_gt(gpu.multiprocessors, 0);
    ck_assert_int_gt((int)strlen(gpu.name), 0);
    ck_assert_uint_le(gpu.free_bytes, gpu.memory_bytes);
    ck_assert_int_ge(gpu.driver / 1000, gpu.runtime / 1000);
}
END_TEST

TEST_MAIN("device", copies_of_any_size_arrive, a_pool_of_the_gpu_keeps_what_comes_back,
          a_pool_of_the_gpu_grows_in_place, values_are_sent_while_work_goes_on, values_cross_types_and_memories,
          exhausted_memory_is_said_and_survived, events_time_the_gpu, the_gpu_says_what_it_is)
