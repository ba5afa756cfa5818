/* Tensors: conversions against a slow reference, counts and views, the pool. */
#include "harness.h"
#include <math.h>
#include <string.h>

#include "rng.h"
#include "tensor.h"

/* ---- conversions ---- */

/* A 16-bit float format by its fields; the tables below are built from this alone. */
typedef struct format {
    pn_dtype dtype;
    int exponent_bits, mantissa_bits;
} format;

static const format formats[] = { { PN_BF16, 8, 7 }, { PN_F16, 5, 10 } };

static double decode(const format *f, uint16_t bits) {
    int bias = (1 << (f->exponent_bits - 1)) - 1, top = (1 << f->exponent_bits) - 1;
    int exponent = (bits >> f->mantissa_bits) & top, mantissa = bits & ((1 << f->mantissa_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == top) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - f->mantissa_bits);
    return sign * ldexp(mantissa + (1 << f->mantissa_bits), exponent - bias - f->mantissa_bits);
}

/* Nearest value, ties to even, by bisection over the non-negative codes (their values ascend; the last is infinity,
 * standing for the value one step past the largest finite one). */
static uint16_t encode(const format *f, double x) {
    uint16_t infinity = (uint16_t)(((1 << f->exponent_bits) - 1) << f->mantissa_bits), sign = signbit(x) ? 0x8000 : 0;
    double magnitude = fabs(x);
    uint16_t lo = 0, hi = infinity;
    while (hi - lo > 1) {
        uint16_t mid = (uint16_t)((lo + hi) / 2);
        if (decode(f, mid) <= magnitude)
            lo = mid;
        else
            hi = mid;
    }
    double below = decode(f, lo), above = hi == infinity ? 2 * below - decode(f, (uint16_t)(lo - 1)) : decode(f, hi);
    double middle = below + (above - below) / 2;
    if (magnitude < middle || (magnitude == middle && lo % 2 == 0)) return sign | lo;
    return sign | hi;
}

static bool same_f32(float a, float b) {
    return isnan(a) ? isnan(b) : !memcmp(&a, &b, sizeof a);
}

START_TEST(widening_every_code) {
    static uint16_t codes[65536];
    static float values[65536];
    static double wide[65536];
    for (int i = 0; i < 65536; i++) codes[i] = (uint16_t)i;
    for (int f = 0; f < 2; f++) {
        pn_convert(values, PN_F32, codes, formats[f].dtype, 65536);
        pn_convert(wide, PN_F64, codes, formats[f].dtype, 65536);
        for (int i = 0; i < 65536; i++) {
            double want = decode(&formats[f], codes[i]);
            ck_assert_msg(same_f32(values[i], (float)want), "%s %04x", pn_dtype_name(formats[f].dtype), i);
            ck_assert(isnan(want) ? isnan(wide[i]) : wide[i] == want);
        }
    }
}
END_TEST

static void narrows_f32(const format *f, const float *x, int64_t n) {
    uint16_t got[5];
    ck_assert_int_le(n, 5);
    pn_convert(got, f->dtype, x, PN_F32, n);
    for (int64_t i = 0; i < n; i++) {
        uint16_t want = encode(f, x[i]);
        ck_assert_msg(got[i] == want, "%s of %a: %04x, want %04x", pn_dtype_name(f->dtype), x[i], got[i], want);
    }
}

/* Rounding can change only at the 16-bit values and at the middles between them: all of these, and the floats beside
 * them. */
START_TEST(narrowing_at_every_border) {
    for (int k = 0; k < 2; k++) {
        const format *f = &formats[k];
        for (int code = 0; code < 65535; code++) {
            double a = decode(f, (uint16_t)code), b = decode(f, (uint16_t)(code + 1));
            if (isnan(a) || isnan(b)) continue;
            if (isinf(a)) a = copysign(ldexp(1, f->exponent_bits == 8 ? 127 : 16), a);
            if (isinf(b)) b = copysign(f->exponent_bits == 8 ? 0x1.ffp127 : 65536.0, b);
            float at[] = { (float)a, (float)((a + b) / 2) };
            for (int i = 0; i < 2; i++)
                narrows_f32(f, (float[]){ at[i], nextafterf(at[i], INFINITY), nextafterf(at[i], -INFINITY) }, 3);
        }
    }
}
END_TEST

START_TEST(narrowing_random_and_special) {
    pn_rng rng;
    pn_rng_stream(20, "convert", 0, &rng);
    for (int k = 0; k < 2; k++) {
        const format *f = &formats[k];
        for (int i = 0; i < 300000; i++) {
            double x = pn_rng_normal(&rng) * exp2(30 * pn_rng_normal(&rng));
            narrows_f32(f, (float[]){ (float)x }, 1);
        }
        const float special[] = { 0, -0.0f, INFINITY, -INFINITY, 3e38f };
        uint16_t got[5], nan_code;
        pn_convert(got, f->dtype, special, PN_F32, 5);
        for (int i = 0; i < 4; i++) ck_assert_uint_eq(got[i], encode(f, special[i]));
        /* NaN with its payload in the low bits only must not become infinity */
        const uint32_t quiet[] = { 0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu };
        for (int i = 0; i < 4; i++) {
            float x;
            memcpy(&x, &quiet[i], sizeof x);
            pn_convert(&nan_code, f->dtype, &x, PN_F32, 1);
            ck_assert(isnan(decode(f, nan_code)));
        }
    }
}
END_TEST

/* From double in one rounding: just above a middle goes up, although the nearest float is the middle itself. */
START_TEST(double_rounds_once) {
    for (int k = 0; k < 2; k++) {
        const format *f = &formats[k];
        for (int code = 1; code < 0x7c00; code += 3) {
            double a = decode(f, (uint16_t)code), b = decode(f, (uint16_t)(code + 1)), middle = a + (b - a) / 2;
            if (isinf(b)) continue;
            double x[] = { middle, nextafter(middle, INFINITY), nextafter(middle, 0), -nextafter(middle, INFINITY) };
            uint16_t got[4];
            pn_convert(got, f->dtype, x, PN_F64, 4);
            for (int i = 0; i < 4; i++)
                ck_assert_msg(got[i] == encode(f, x[i]), "%s of %a: %04x, want %04x", pn_dtype_name(f->dtype), x[i],
                              got[i], encode(f, x[i]));
        }
    }
}
END_TEST

START_TEST(integers_and_same_dtype) {
    const int64_t ids[] = { 0, 1, 151935, 2147483647, -1 };
    int32_t narrow[5];
    int64_t back[5];
    double real[5];
    pn_convert(narrow, PN_I32, ids, PN_I64, 5);
    pn_convert(back, PN_I64, narrow, PN_I32, 5);
    pn_convert(real, PN_F64, ids, PN_I64, 5);
    ck_assert_mem_eq(ids, back, sizeof ids);
    for (int i = 0; i < 5; i++) ck_assert_double_eq(real[i], (double)ids[i]);
    const uint8_t bytes[] = { 0, 127, 255 };
    pn_convert(narrow, PN_I32, bytes, PN_U8, 3);
    ck_assert_int_eq(narrow[2], 255);
    float shifted[] = { 1, 2, 3, 4 };
    pn_convert(shifted + 1, PN_F32, shifted, PN_F32, 3); /* equal dtypes may overlap */
    ck_assert_float_eq(shifted[3], 3);
}
END_TEST

/* ---- tensors ---- */

static pn_pool *pool;

static pn_tensor *matrix(int64_t rows, int64_t cols) {
    pn_tensor *t;
    ck_ok(pn_tensor_zeros(pool, PN_F32, 2, (int64_t[]){ rows, cols }, &t));
    return t;
}

START_TEST(views_share_values) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *base = matrix(5, 3), *rows, *inner, *same, *none;
    for (int i = 0; i < 15; i++) pn_f32(base)[i] = (float)i;
    ck_ok(pn_tensor_rows(base, 1, 4, &rows));
    ck_ok(pn_tensor_rows(rows, 2, 3, &inner));
    ck_ok(pn_tensor_rows(base, 5, 5, &none));
    ck_ok(pn_tensor_detach(inner, &same));
    ck_assert_int_eq(pn_tensor_elems(rows), 9);
    ck_assert_int_eq(pn_tensor_elems(none), 0);
    ck_assert_float_eq(pn_f32(rows)[0], 3);
    ck_assert_float_eq(pn_f32(inner)[2], 11);
    base->wants_grad = true;
    ck_assert(!rows->wants_grad && !same->wants_grad);
    ck_assert_str_eq(pn_tensor_shape_text(rows), "[3, 3]");
    pn_tensor_release(&base); /* a view keeps the memory */
    pn_tensor_release(&rows);
    pn_f32(same)[0] = 90;
    ck_assert_float_eq(pn_f32(inner)[0], 90);
    ck_assert_uint_gt(pn_pool_live_bytes(pool), 0);
    pn_tensor_release(&inner);
    pn_tensor_release(&same);
    pn_tensor_release(&none);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(values_from_and_to_the_host) {
    pn_pool *counting;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_pool_create(PN_POOL_COUNTING, &counting));
    pn_tensor *base = matrix(4, 2), *rows, *narrow, *planned;
    const double in[] = { 1, 2.5, -3, 4 };
    double out[4] = { 9, 9, 9, 9 };
    ck_ok(pn_tensor_rows(base, 1, 3, &rows));
    ck_ok(pn_tensor_write(rows, in, PN_F64));
    ck_ok(pn_tensor_read(rows, out, PN_F64));
    for (int i = 0; i < 4; i++) ck_assert_double_eq(out[i], in[i]);
    ck_assert_float_eq(pn_f32(base)[1], 0); /* only its rows were written */
    ck_assert_float_eq(pn_f32(base)[6], 0);
    ck_ok(pn_tensor_create(pool, PN_BF16, 2, (int64_t[]){ 2, 2 }, &narrow));
    ck_ok(pn_tensor_copy(narrow, rows));
    ck_ok(pn_tensor_fill_bytes(rows, 0xff));
    ck_assert(isnan(pn_f32(rows)[0]) && isnan(pn_f32(rows)[3]));
    ck_assert_float_eq(pn_f32(base)[1], 0);
    ck_ok(pn_tensor_read(narrow, out, PN_F64));
    ck_assert_double_eq(out[1], 2.5);
    ck_ok(pn_tensor_zeros(counting, PN_F32, 2, (int64_t[]){ 2, 2 }, &planned)); /* planned: there are no values */
    ck_ok(pn_tensor_write(planned, in, PN_F64));
    ck_ok(pn_tensor_copy(planned, narrow));
    ck_ok(pn_tensor_copy(narrow, planned));
    ck_ok(pn_tensor_read(planned, out, PN_F64));
    ck_assert_double_eq(out[1], 2.5);
    pn_tensor_release(&base);
    pn_tensor_release(&rows);
    pn_tensor_release(&narrow);
    pn_tensor_release(&planned);
    pn_pool_destroy(&pool);
    pn_pool_destroy(&counting);
}
END_TEST

START_TEST(values_go_before_the_shell) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *t = matrix(8, 8), *shell = pn_tensor_retain_shell(t), *both = pn_tensor_retain(t);
    ck_assert_ptr_eq(both, t);
    pn_tensor_release(&t);
    ck_assert_ptr_null(t);
    ck_assert_ptr_nonnull(shell->storage);
    pn_tensor_release(&both);
    ck_assert_ptr_null(shell->storage);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    ck_assert_int_eq(shell->shape[1], 8);
    ck_ok(pn_tensor_zeros(pool, PN_F32, shell->rank, shell->shape, &shell->grad)); /* goes with the shell */
    pn_tensor_release_shell(&shell);
    pn_tensor_release(&shell); /* NULL is fine */
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(copies_and_absurd_sizes) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *a = matrix(2, 3), *b = matrix(3, 2), *wide, *huge = NULL;
    ck_ok(pn_tensor_create(pool, PN_F64, 2, (int64_t[]){ 2, 3 }, &wide));
    pn_f32(a)[5] = 0.5f;
    ck_ok(pn_tensor_copy(wide, a));
    ck_assert_double_eq(pn_f64(wide)[5], 0.5);
    ck_assert_int_eq(pn_tensor_copy(b, a), PN_USAGE);
    ck_assert_msg(strstr(pn_error_message(), "[2, 3]") && strstr(pn_error_message(), "[3, 2]"), "%s",
                  pn_error_message());
    ck_assert_int_eq(pn_tensor_create(pool, PN_F32, 2, (int64_t[]){ (int64_t)1 << 40, (int64_t)1 << 40 }, &huge),
                     PN_MEMORY);
    ck_assert_int_eq(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ (int64_t)1 << 50 }, &huge), PN_MEMORY);
    pn_tensor_release(&a);
    pn_tensor_release(&b);
    pn_tensor_release(&wide);
    pn_pool_destroy(&pool);
}
END_TEST

/* ---- the pool ---- */

START_TEST(blocks_are_reused) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    for (size_t n = 0; n < 70000; n = n < 300 ? n + 1 : n * 9 / 8) { /* every small size, then every size class */
        pn_storage *s;
        ck_ok(pn_storage_create(pool, n, &s));
        void *data = s->data;
        ck_assert_uint_ge(s->n_bytes, n);
        ck_assert_msg(n < 64 || s->n_bytes <= n + n / 8 + 1, "%zu bytes took %zu", n, s->n_bytes);
        ck_assert_uint_eq((uintptr_t)data % 64, 0);
        memset(data, 1, s->n_bytes);
        size_t taken = pn_pool_system_bytes(pool);
        pn_storage_release(&s);
        ck_ok(pn_storage_create(pool, n, &s));
        ck_assert_ptr_eq(s->data, data);
        ck_assert_uint_eq(pn_pool_system_bytes(pool), taken);
        pn_storage_release(&s);
        ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    }
    ck_assert_uint_gt(pn_pool_system_bytes(pool), 0);
    pn_pool_trim(pool);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), 0);
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(an_exact_pool_rounds_and_keeps_nothing) {
    ck_ok(pn_pool_create_exact(PN_POOL_HOST, &pool));
    for (size_t n = 0; n < 70000; n = n < 300 ? n + 1 : n * 9 / 8) {
        pn_storage *s;
        ck_ok(pn_storage_create(pool, n, &s));
        ck_assert_uint_ge(s->n_bytes, n);
        ck_assert_uint_le(s->n_bytes, n < 1 ? 64 : n + 63);
        ck_assert_uint_eq((uintptr_t)s->data % 64, 0);
        memset(s->data, 1, s->n_bytes);
        ck_assert_uint_eq(pn_pool_system_bytes(pool), s->n_bytes);
        pn_storage_release(&s);
        ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
        ck_assert_uint_eq(pn_pool_system_bytes(pool), 0);
    }
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(peak_follows_live) {
    ck_ok(pn_pool_create(PN_POOL_COUNTING, &pool));
    pn_storage *a, *b;
    ck_ok(pn_storage_create(pool, (size_t)1 << 40, &a)); /* a terabyte of nothing */
    ck_assert_ptr_null(a->data);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), (size_t)1 << 40);
    pn_storage_release(&a);
    pn_pool_trim(pool);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), 0);
    ck_assert_uint_eq(pn_pool_peak_bytes(pool), (size_t)1 << 40);
    pn_pool_reset_peak(pool);
    ck_ok(pn_storage_create(pool, 1024, &a));
    ck_ok(pn_storage_create(pool, 2048, &b));
    pn_storage_release(&a);
    ck_assert_uint_eq(pn_pool_peak_bytes(pool), 3072);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 2048);
    pn_storage_release(&b);
    pn_pool_destroy(&pool);
}
END_TEST

/* Storage that outlives its pool's owner (a gradient, say) is still good, and takes the pool with it. */
START_TEST(a_pool_waits_for_its_storage) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *t = matrix(4, 4);
    pn_pool_destroy(&pool);
    ck_assert_ptr_null(pool);
    pn_f32(t)[15] = 1;
    pn_tensor_release(&t);
    pn_pool_destroy(&pool);
}
END_TEST

/* Tensors side by side in one storage: what a part writes, the whole has, and it outlives its old place. */
START_TEST(parts_of_a_tensor) {
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    pn_tensor *all, *part, *t = matrix(2, 3);
    ck_ok(pn_tensor_zeros(pool, PN_F32, 1, (int64_t[]){ 10 }, &all));
    for (int i = 0; i < 6; i++) pn_f32(t)[i] = (float)(i + 1);
    ck_ok(pn_tensor_zeros(pool, PN_F32, 2, t->shape, &t->grad));
    ck_ok(pn_tensor_place(t, all, 3));
    ck_assert_ptr_null(t->grad);
    for (int i = 0; i < 10; i++) ck_assert_float_eq(pn_f32(all)[i], i < 3 || i > 8 ? 0.0F : (float)(i - 2));
    ck_ok(pn_tensor_part(all, 5, 2, (int64_t[]){ 1, 4 }, &part));
    ck_assert_ptr_eq(pn_f32(part), pn_f32(all) + 5);
    ck_ok(pn_tensor_fill_zero(part));
    ck_assert_float_eq(pn_f32(t)[1], 2);
    ck_assert_float_eq(pn_f32(t)[2], 0);
    pn_tensor_release(&all);
    pn_tensor_release(&part);
    ck_assert_float_eq(pn_f32(t)[0], 1);
    pn_tensor_release(&t);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    pn_pool_destroy(&pool);
}
END_TEST

/* The same tensor in another pool and type: whoever has it finds its values there. */
START_TEST(moving_takes_values_along) {
    pn_pool *other;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_pool_create(PN_POOL_HOST, &other));
    pn_tensor *t = matrix(2, 3), *known = pn_tensor_retain_shell(t);
    const float x[] = { 1, -2.5f, 0.00390625f, 1.00390625f, 3, 4 }; /* the fourth is no BF16 value: a tie, to even */
    ck_ok(pn_tensor_write(t, x, PN_F32));
    ck_ok(pn_tensor_zeros(pool, PN_F32, 2, t->shape, &t->grad));
    ck_ok(pn_tensor_move(t, other, PN_BF16));
    ck_assert_int_eq(known->dtype, PN_BF16);
    ck_assert_int_eq(known->grad_dtype, PN_BF16);
    ck_assert_ptr_null(known->grad);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    ck_assert_uint_gt(pn_pool_live_bytes(other), 0);
    float y[6];
    ck_ok(pn_tensor_read(known, y, PN_F32));
    for (int i = 0; i < 6; i++) ck_assert(y[i] == (i == 3 ? 1 : x[i]));
    pn_tensor_release(&t);
    pn_tensor_release_shell(&known);
    pn_pool_destroy(&pool);
    pn_pool_destroy(&other);
}
END_TEST

/* Memory that was given back is seen again, and not given back twice. */
START_TEST(memory_is_there_again) {
    const int64_t n = 100;
    pn_tensor *x, *again, *next;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, &n, &x));
    ck_ok(pn_tensor_again(x, &again));
    pn_f32(x)[7] = 3;
    ck_assert(pn_tensor_same_shape(x, again) && pn_f32(again)[7] == 3);
    pn_tensor_release(&x);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    ck_ok(pn_tensor_create(pool, PN_F32, 1, &n, &next));
    ck_assert_ptr_eq(pn_data(next), pn_data(again));
    const size_t live = pn_pool_live_bytes(pool), system = pn_pool_system_bytes(pool);
    pn_tensor_release(&next);
    pn_tensor_release(&again);
    ck_assert_uint_gt(live, 0);
    ck_assert_uint_eq(pn_pool_live_bytes(pool), 0);
    ck_assert_uint_eq(pn_pool_system_bytes(pool), system);
    ck_ok(pn_tensor_create(pool, PN_F32, 1, &n, &x));
    ck_ok(pn_tensor_again(x, &again));
    pn_tensor_release(&x);
    pn_pool_destroy(&pool); /* goes with the last that knows it */
    pn_tensor_release(&again);
}
END_TEST

TEST_MAIN("tensor", widening_every_code, narrowing_at_every_border, narrowing_random_and_special, double_rounds_once,
          integers_and_same_dtype, views_share_values, values_from_and_to_the_host, values_go_before_the_shell,
          copies_and_absurd_sizes, blocks_are_reused, an_exact_pool_rounds_and_keeps_nothing, peak_follows_live,
          a_pool_waits_for_its_storage, memory_is_there_again, moving_takes_values_along, parts_of_a_tensor)
