/* The GGUF reader: metadata of every type, dequantisation against vectors, and hostile files. */
#include "gguf.h"

#include <math.h>

#include "gguf_build.h"
#include "gguf_hashes.h"
#include "gguf_vectors.h"

enum { VECTORS = sizeof vectors / sizeof *vectors };

static gguf_build g;

static pn_status open_built(size_t cut) {
    pn_gguf *f = NULL;
    const char *path = scratch("t.gguf");
    gguf_write_cut(&g, path, cut);
    pn_status s = pn_gguf_open(path, &f);
    if (s) ck_assert_ptr_null(f);
    pn_gguf_close(&f);
    return s;
}
#define refused(...) ck_refused(open_built(0), PN_FORMAT, "t.gguf", __VA_ARGS__)

START_TEST(metadata_of_every_type) {
    add_key(&g, "u8", GGUF_U8, &(uint8_t){ 200 }, 1);
    add_key(&g, "i8", GGUF_I8, &(int8_t){ -3 }, 1);
    add_key(&g, "u16", GGUF_U16, &(uint16_t){ 60000 }, 2);
    add_key(&g, "i16", GGUF_I16, &(int16_t){ -30000 }, 2);
    add_key_u32(&g, "u32", 4000000000u);
    add_key(&g, "i32", GGUF_I32, &(int32_t){ -2000000000 }, 4);
    add_key(&g, "u64", GGUF_U64, &(uint64_t){ UINT64_MAX }, 8);
    add_key(&g, "i64", GGUF_I64, &(int64_t){ INT64_MIN }, 8);
    add_key_f32(&g, "f32", 1e-5f);
    add_key(&g, "f64", GGUF_F64, &(double){ 0.1 }, 8);
    add_key_f32(&g, "inf", INFINITY);
    add_key_bool(&g, "bool", true);
    add_key_string(&g, "string", "text");
    add_key(&g, "nul", GGUF_STRING, "\3\0\0\0\0\0\0\0a\0b", 11);
    static const char *const strings[] = { "", "one", "\xe2\x82\xac" };
    add_key_strings(&g, "strings", strings, 3);
    add_key_array(&g, "ints", GGUF_I16, 3, (int16_t[]){ 1, -2, 3 }, 6);
    add_key_array(&g, "long", GGUF_I64, 1, &(int64_t){ INT64_C(1) << 40 }, 8);
    add_key_array(&g, "none", GGUF_I32, 0, NULL, 0);
    add_key_array(&g, "nested", GGUF_ARRAY, 2, NULL, 0);
    for (uint32_t i = 0; i < 2; i++) {
        add_u32(&g.keys, GGUF_U8);
        add_u64(&g.keys, 2);
        add_bytes(&g.keys, "ab", 2);
    }
    add_key_bool(&g, "last", false);
    const char *path = scratch("t.gguf");
    gguf_write(&g, path);

    pn_gguf *f;
    ck_ok(pn_gguf_open(path, &f));
    static const struct {
        const char *key;
        int64_t want;
    } ints[] = { { "u8", 200 },         { "i8", -3 },           { "u16", 60000 },    { "i16", -30000 },
                 { "u32", 4000000000 }, { "i32", -2000000000 }, { "i64", INT64_MIN } };
    int64_t n;
    double x;
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        ck_ok(pn_gguf_int(f, ints[i].key, INT64_MIN, INT64_MAX, &n));
        ck_assert_int_eq(n, ints[i].want);
        ck_ok(pn_gguf_number(f, ints[i].key, &x));
        ck_assert_double_eq(x, (double)ints[i].want);
    }
    ck_ok(pn_gguf_number(f, "f32", &x));
    ck_assert_double_eq(x, 1e-5);
    ck_ok(pn_gguf_number(f, "f64", &x));
    ck_assert_double_eq(x, 0.1);
    ck_ok(pn_gguf_number(f, "u64", &x));
    ck_assert_double_eq(x, 18446744073709551616.0);
    bool b;
    const char *text;
    ck_ok(pn_gguf_bool(f, "bool", &b));
    ck_assert(b);
    ck_ok(pn_gguf_string(f, "string", &text));
    ck_assert_str_eq(text, "text");
    const char **list;
    uint32_t *bytes;
    ck_ok(pn_gguf_strings(f, "strings", &list, &bytes, &n));
    ck_assert_int_eq(n, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(bytes[i], strlen(strings[i]));
        ck_assert_mem_eq(list[i], strings[i], bytes[i]);
    }
    free(list);
    free(bytes);
    int32_t *values;
    ck_ok(pn_gguf_ints(f, "ints", &values, &n));
    ck_assert_int_eq(n, 3);
    ck_assert_int_eq(values[1], -2);
    free(values);
    ck_ok(pn_gguf_ints(f, "none", &values, &n));
    ck_assert_int_eq(n, 0);
    free(values);
    ck_assert(pn_gguf_has(f, "nested") && pn_gguf_has(f, "last") && !pn_gguf_has(f, "lost"));

    ck_refused(pn_gguf_int(f, "lost", 0, 1, &n), PN_FORMAT, "t.gguf", "no key lost");
    ck_refused(pn_gguf_int(f, "f32", 0, 1, &n), PN_FORMAT, "key f32 is of type float32; an integer");
    ck_refused(pn_gguf_int(f, "u8", 0, 199, &n), PN_FORMAT, "key u8 is 200; 0 to 199");
    ck_refused(pn_gguf_int(f, "u64", 0, INT64_MAX, &n), PN_FORMAT, "key u64");
    ck_refused(pn_gguf_int(f, "ints", 0, 1, &n), PN_FORMAT, "array of int16");
    ck_refused(pn_gguf_number(f, "inf", &x), PN_FORMAT, "key inf is not finite");
    ck_refused(pn_gguf_number(f, "string", &x), PN_FORMAT, "key string is of type string");
    ck_refused(pn_gguf_bool(f, "u8", &b), PN_FORMAT, "key u8 is of type uint8; a bool");
    ck_refused(pn_gguf_string(f, "bool", &text), PN_FORMAT, "key bool");
    ck_refused(pn_gguf_string(f, "nul", &text), PN_FORMAT, "key nul holds a NUL");
    ck_refused(pn_gguf_strings(f, "ints", &list, &bytes, &n), PN_FORMAT, "array of int16; an array of strings");
    ck_refused(pn_gguf_ints(f, "strings", &values, &n), PN_FORMAT, "an array of integers");
    ck_refused(pn_gguf_ints(f, "long", &values, &n), PN_FORMAT, "element 0 is beyond 32 bits");
    pn_gguf_close(&f);
    pn_gguf_close(&f);
}
END_TEST

static size_t from_hex(const char *hex, unsigned char *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        ck_assert_int_eq(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (unsigned char)byte;
    }
    return n;
}

START_TEST(dequantises) {
    /* 100 copies of each block: enough for the parallel path, in whose every piece the values must be the same. */
    enum { COPIES = 2400 };
    unsigned char *bytes = malloc(COPIES * 512);
    const char *path = scratch("t.gguf");
    for (int v = 0; v < VECTORS; v++) {
        size_t n = from_hex(vectors[v].bytes, bytes);
        for (size_t c = 1; c < COPIES; c++) memcpy(bytes + c * n, bytes, n);
        add_tensor(&g, vectors[v].name, 2, (uint64_t[]){ (uint64_t)vectors[v].n * 4, COPIES / 4 }, vectors[v].type,
                   bytes, COPIES * n);
    }
    free(bytes);
    gguf_write(&g, path);
    pn_gguf *f;
    pn_pool *pool;
    ck_ok(pn_gguf_open(path, &f));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_assert_int_eq(pn_gguf_count(f), VECTORS);
    for (int v = 0; v < VECTORS; v++) {
        const pn_tensor_info *info = pn_gguf_info(f, v);
        ck_assert_str_eq(info->type, vectors[v].name);
        ck_assert_int_eq(info->shape[0], COPIES / 4);
        ck_assert_int_eq(info->shape[1], vectors[v].n * 4);
        pn_tensor *x, *narrow, *rounded;
        ck_ok(pn_tensor_create(pool, PN_F32, 2, info->shape, &x));
        ck_ok(pn_tensor_create(pool, PN_BF16, 2, info->shape, &narrow));
        ck_ok(pn_tensor_create(pool, PN_BF16, 2, info->shape, &rounded));
        ck_ok(pn_gguf_read(f, vectors[v].name, x));
        int n = vectors[v].n;
        for (int c = 0; c < COPIES; c++) {
            const float *block = pn_f32(x) + c * n;
            double sum = 0;
            for (int i = 0; i < n; i++) sum += block[i];
            ck_assert_msg(sum == vectors[v].sum, "%s: sum %g, not %g", vectors[v].name, sum, vectors[v].sum);
            for (int i = 0; i < 32; i++) {
                int at = i * vectors[v].step % n;
                ck_assert_msg(block[at] == vectors[v].values[i], "%s: value %d is %g, not %g", vectors[v].name, at,
                              block[at], vectors[v].values[i]);
            }
        }
        ck_ok(pn_gguf_read(f, vectors[v].name, narrow));
        ck_ok(pn_tensor_copy(rounded, x));
        ck_assert_mem_eq(pn_data(narrow), pn_data(rounded), pn_tensor_bytes(narrow));
        pn_tensor_release(&x);
        pn_tensor_release(&narrow);
        pn_tensor_release(&rounded);
    }
    pn_pool_destroy(&pool);
    pn_gguf_close(&f);
}
END_TEST

/* As gguf_vectors.py makes them: pseudo-random bytes, with the scales of one regime. */
static void random_blocks(int row, unsigned char *bytes) {
    const size_t size = (size_t)hashed[row].block_bytes, n = HASHED_BLOCKS * size;
    uint64_t state = hashed[row].seed;
    for (size_t i = 0; i < n; i++) {
        if (i % 8 == 0) state += 0x9e3779b97f4a7c15u; /* splitmix64 */
        uint64_t z = state;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        bytes[i] = (unsigned char)((z ^ z >> 31) >> 8 * (i % 8));
    }
    int n_scales = hashed[row].scale_at[0] == hashed[row].scale_at[1] ? 1 : 2;
    for (size_t b = 0; b < n; b += size)
        for (int k = 0; k < n_scales; k++) {
            unsigned char *at = bytes + b + hashed[row].scale_at[k];
            unsigned scale = (at[0] | (unsigned)at[1] << 8);
            scale = (scale & hashed[row].scale_keep) | hashed[row].scale_set;
            at[0] = (unsigned char)scale;
            at[1] = (unsigned char)(scale >> 8);
        }
}

static uint64_t fnv(const float *x, int64_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if (isnan(x[i])) bits = 0x7fc00000; /* which NaN it is depends on the machine */
        for (int k = 0; k < 4; k++) h = (h ^ (bits >> 8 * k & 255)) * 0x100000001b3u;
    }
    return h;
}

START_TEST(dequantises_any_bits_as_the_reference) {
    enum { ROWS = sizeof hashed / sizeof *hashed };
    unsigned char bytes[HASHED_BLOCKS * 256];
    pn_pool *pool;
    pn_gguf *f;
    pn_tensor *x;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    for (int row = 0; row < ROWS; row++) {
        int per_block = hashed[row].type < 10 ? 32 : 256;
        random_blocks(row, bytes);
        add_tensor(&g, "t", 2, (uint64_t[]){ (uint64_t)per_block, HASHED_BLOCKS }, hashed[row].type, bytes,
                   HASHED_BLOCKS * (size_t)hashed[row].block_bytes);
        gguf_write(&g, scratch("t.gguf"));
        ck_ok(pn_gguf_open(scratch("t.gguf"), &f));
        ck_ok(pn_tensor_create(pool, PN_F32, 2, (int64_t[]){ HASHED_BLOCKS, per_block }, &x));
        ck_ok(pn_gguf_read(f, "t", x));
        uint64_t h = fnv(pn_f32(x), HASHED_BLOCKS * per_block);
        ck_assert_msg(h == hashed[row].hash, "%s: %016llx, the reference has %016llx", hashed[row].name,
                      (unsigned long long)h, (unsigned long long)hashed[row].hash);
        pn_tensor_release(&x);
        pn_gguf_close(&f);
    }
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(plain_types_and_refusals_on_reading) {
    g.version = 2;
    g.alignment = 8;
    add_key_u32(&g, "general.alignment", 8);
    add_tensor(&g, "f32", 2, (uint64_t[]){ 3, 2 }, 0, (float[]){ 1, 2, 3, 4, 5, 6 }, 24);
    add_tensor(&g, "f16", 1, (uint64_t[]){ 2 }, 1, "\x00\x3e\x00\xc0", 4);
    add_tensor(&g, "bf16", 1, (uint64_t[]){ 2 }, 30, "\xc0\x3f\x00\xc0", 4);
    add_tensor(&g, "scalar", 0, NULL, 28, &(double){ 2.5 }, 8);
    add_tensor(&g, "iq", 1, (uint64_t[]){ 32 }, 20, "0123456789abcdefgh", 18);
    add_tensor(&g, "odd", 1, (uint64_t[]){ 2 }, 77, "ab", 2);
    const char *path = scratch("t.gguf");
    gguf_write(&g, path);
    pn_gguf *f;
    pn_pool *pool;
    pn_tensor *x, *two, *one, *block;
    ck_ok(pn_gguf_open(path, &f));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 2, (int64_t[]){ 2, 3 }, &x));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 2 }, &two));
    ck_ok(pn_tensor_create(pool, PN_F32, 0, NULL, &one));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 32 }, &block));
    ck_ok(pn_gguf_read(f, "f32", x)); /* the file's {3, 2} is two rows of three */
    for (int i = 0; i < 6; i++) ck_assert_float_eq(pn_f32(x)[i], (float)(i + 1));
    ck_ok(pn_gguf_read(f, "f16", two));
    ck_assert(pn_f32(two)[0] == 1.5f && pn_f32(two)[1] == -2);
    ck_ok(pn_gguf_read(f, "bf16", two));
    ck_assert(pn_f32(two)[0] == 1.5f && pn_f32(two)[1] == -2);
    ck_ok(pn_gguf_read(f, "scalar", one));
    ck_assert_float_eq(pn_f32(one)[0], 2.5f);
    ck_refused(pn_gguf_read(f, "f32", two), PN_FORMAT, "t.gguf", "f32", "[2, 3]", "[2] is needed");
    ck_refused(pn_gguf_read(f, "f64", two), PN_FORMAT, "no tensor f64");
    ck_refused(pn_gguf_read(f, "iq", block), PN_UNSUPPORTED, "tensor iq", "IQ4_NL", "Q4_0");
    ck_refused(pn_gguf_read(f, "odd", two), PN_UNSUPPORTED, "tensor odd", "unknown type 77");
    pn_tensor_release(&x);
    pn_tensor_release(&two);
    pn_tensor_release(&one);
    pn_tensor_release(&block);
    pn_pool_destroy(&pool);
    pn_gguf_close(&f);
}
END_TEST

START_TEST(refuses_a_bad_frame) {
    pn_gguf *f;
    ck_refused(pn_gguf_open(scratch("absent.gguf"), &f), PN_IO, "absent.gguf", "No such file");
    write_bytes(scratch("e.gguf"), "", 0);
    ck_refused(pn_gguf_open(scratch("e.gguf"), &f), PN_FORMAT, "not a GGUF file");
    write_bytes(scratch("e.gguf"), "GGUF\3\0\0\0", 8);
    ck_refused(pn_gguf_open(scratch("e.gguf"), &f), PN_FORMAT, "not a GGUF file");
    write_bytes(scratch("e.gguf"), "GGML\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    ck_refused(pn_gguf_open(scratch("e.gguf"), &f), PN_FORMAT, "not a GGUF file");
    write_bytes(scratch("e.gguf"), "GGUF\0\0\0\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
    ck_refused(pn_gguf_open(scratch("e.gguf"), &f), PN_UNSUPPORTED, "big-endian");
    g.version = 1;
    ck_refused(open_built(0), PN_UNSUPPORTED, "version 1");
    g.n_keys = UINT64_MAX;
    refused("18446744073709551615 keys, more than fit");
    g.n_tensors = UINT64_C(1) << 60;
    refused("tensors, more than fit");
    ck_ok(open_built(0));
}
END_TEST

START_TEST(refuses_bad_metadata) {
    add_key(&g, "a", 13, "", 1);
    refused("key a", "unknown type 13");
    add_key(&g, "", GGUF_U8, "", 1);
    refused("a key at byte 24", "0 bytes");
    add_key_u32(&g, "same", 1);
    add_key_u32(&g, "same", 1);
    refused("key same is there twice");
    add_key(&g, "b", GGUF_BOOL, "\2", 1);
    refused("key b", "neither 0 nor 1");
    add_key_u32(&g, "cut", 1);
    ck_refused(open_built(1), PN_FORMAT, "t.gguf", "cut at byte 39", "cut short");
    add_key_string(&g, "cut", "text");
    ck_refused(open_built(1), PN_FORMAT, "cut at byte", "cut short");
    add_key(&g, "s", GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    refused("s at byte", "cut short");
    add_key_array(&g, "a", GGUF_U64, UINT64_C(1) << 61, "", 0);
    refused("key a claims 2305843009213693952 values");
    add_key_array(&g, "a", GGUF_STRING, UINT64_MAX, "", 0);
    refused("a at byte", "cut short");
    add_key_array(&g, "a", GGUF_U8, UINT64_MAX, "", 0);
    refused("a at byte", "cut short");
    add_key_array(&g, "a", 99, 1, "", 0);
    refused("key a", "unknown type 99");
    add_key_array(&g, "deep", GGUF_ARRAY, 1, NULL, 0);
    for (int i = 0; i < 20; i++) {
        add_u32(&g.keys, GGUF_ARRAY);
        add_u64(&g.keys, 1);
    }
    refused("key deep nests arrays more than 8 deep");
    add_bytes(&g.keys, "\xff\xff\xff\xff\xff\xff\xff\x7f keys need bytes", 24);
    g.n_keys = 1;
    refused("a key at byte", "cut short");
    add_bytes(&g.keys, "\2\0\0\0\0\0\0\0a\0 and enough bytes", 26);
    g.n_keys = 1;
    refused("a key at byte 24", "NUL");
    static const uint32_t alignments[] = { 0, 24, 1u << 21 };
    for (int i = 0; i < 3; i++) {
        add_key_u32(&g, "general.alignment", alignments[i]);
        refused("general.alignment");
    }
    add_key_string(&g, "general.alignment", "32");
    refused("key general.alignment is of type string");
}
END_TEST

START_TEST(refuses_bad_tensors) {
    static const uint64_t two[] = { 2, 2 }, huge[] = { UINT64_C(1) << 32, UINT64_C(1) << 32, 4, 1 };
    static const uint64_t many[] = { 1, 1, 1, 1, 1 }, wide[] = { UINT64_C(1) << 62 }, negative[] = { UINT64_MAX };
    float ones[4] = { 1, 1, 1, 1 };
    add_tensor_row(&g, "t", 5, many, 0, 0);
    refused("tensor t has 5 dimensions");
    add_tensor_row(&g, "t", 4, huge, 0, 0);
    refused("tensor t", "shape overflows");
    add_tensor_row(&g, "t", 1, negative, 0, 0);
    refused("tensor t", "shape overflows");
    add_tensor_row(&g, "t", 1, wide, 0, 0);
    refused("tensor t", "size overflows");
    add_tensor_row(&g, "t", 2, (uint64_t[]){ 33, 32 }, 8, 0);
    refused("tensor t", "rows of 33 values", "Q8_0 blocks of 32");
    add_tensor_row(&g, "t", 2, two, 0, 0);
    refused("tensor t", "16 bytes at offset 0", "cut short");
    add_tensor(&g, "t", 2, two, 0, ones, sizeof ones);
    ck_refused(open_built(1), PN_FORMAT, "tensor t", "16 bytes at offset 0", "cut short");
    add_tensor_row(&g, "t", 2, two, 0, UINT64_MAX - 31);
    refused("tensor t", "offset 18446744073709551584");
    add_tensor_row(&g, "t", 2, two, 0, 16);
    refused("tensor t", "offset 16 is not a multiple of the alignment 32");
    add_tensor(&g, "t", 2, two, 0, ones, sizeof ones);
    add_tensor_row(&g, "u", 2, two, 0, 0);
    refused("tensors", "overlap");
    add_tensor(&g, "t", 2, two, 0, ones, sizeof ones);
    add_tensor(&g, "t", 2, two, 0, ones, sizeof ones);
    refused("tensor t is there twice");
    add_tensor(&g, "t", 2, two, 0, ones, sizeof ones);
    add_tensor(&g, "u", 2, two, 0, ones, sizeof ones);
    ck_ok(open_built(0));
}
END_TEST

/* A whole file, cut at every length and with every byte changed in turn, is read or refused, never more. */
START_TEST(survives_damage) {
    static const char *const strings[] = { "a", "bc" };
    add_key_strings(&g, "strings", strings, 2);
    add_key_u32(&g, "general.alignment", 32);
    add_key_string(&g, "name", "x");
    add_key_array(&g, "ints", GGUF_I32, 2, (int32_t[]){ 1, 2 }, 8);
    add_tensor(&g, "t", 2, (uint64_t[]){ 32, 2 }, 2, (unsigned char[36]){ 1, 2, 3 }, 36);
    add_tensor(&g, "u", 1, (uint64_t[]){ 3 }, 0, (float[3]){ 1, 2, 3 }, 12);
    const char *whole = scratch("t.gguf"), *path = scratch("damaged.gguf");
    gguf_write(&g, whole);
    unsigned char bytes[1024];
    FILE *in = fopen(whole, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    ck_assert_uint_lt(n, sizeof bytes);
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    int refusals = 0;
    static const unsigned char changes[] = { 0x01, 0x80, 0xff };
    for (size_t at = 0; at < 4 * n; at++) {
        unsigned char saved = bytes[at % n];
        if (at < 3 * n) bytes[at % n] ^= changes[at / n];
        write_bytes(path, bytes, at < 3 * n ? n : at % n);
        bytes[at % n] = saved;
        pn_gguf *f;
        if (pn_gguf_open(path, &f)) {
            ck_assert_ptr_null(f);
            refusals++;
            continue;
        }
        for (int64_t i = 0; i < pn_gguf_count(f); i++) {
            const pn_tensor_info *info = pn_gguf_info(f, i);
            pn_tensor *t;
            if (info->n_elems > 1000000) continue; /* of an unknown type: only then can it exceed the file */
            ck_ok(pn_tensor_create(pool, PN_F32, info->rank, info->shape, &t));
            (void)!pn_gguf_read_info(f, info, t);
            pn_tensor_release(&t);
        }
        pn_gguf_close(&f);
    }
    ck_assert_int_gt(refusals, (int)n);
    pn_pool_destroy(&pool);
}
END_TEST

TEST_MAIN("gguf", metadata_of_every_type, dequantises, dequantises_any_bits_as_the_reference,
          plain_types_and_refusals_on_reading, refuses_a_bad_frame, refuses_bad_metadata, refuses_bad_tensors,
          survives_damage)
