/* The safetensors reader: values of every dtype, and files that break each rule of the format. */
#include "safetensors.h"

#include "io_fixture.h"

static const char *path;

/* A file of this header and n data bytes (0, 1, 2, ...); claimed: the header length to write, or -1 for the true one.
 */
static void build_claiming(int64_t claimed, const char *header, size_t n_data) {
    unsigned char bytes[4096];
    size_t len = strlen(header);
    uint64_t says = claimed < 0 ? len : (uint64_t)claimed;
    ck_assert_uint_le(8 + len + n_data, sizeof bytes);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(says >> (8 * i));
    memcpy(bytes + 8, header, len);
    for (size_t i = 0; i < n_data; i++) bytes[8 + len + i] = (unsigned char)i;
    path = scratch("t.safetensors");
    write_bytes(path, bytes, 8 + len + n_data);
}
static void build(const char *header, size_t n_data) {
    build_claiming(-1, header, n_data);
}
static pn_status open_built(void) {
    pn_safetensors *f = NULL;
    pn_status s = pn_safetensors_open(path, &f);
    if (s) ck_assert_ptr_null(f);
    pn_safetensors_close(&f);
    return s;
}
#define refused(header, n_data, ...)                                                                                   \
    do {                                                                                                               \
        build(header, n_data);                                                                                         \
        ck_refused(open_built(), PN_FORMAT, "t.safetensors", __VA_ARGS__);                                             \
    } while (0)

START_TEST(describes_its_tensors) {
    build("{\"__metadata__\":{\"format\":\"pt\",\"seed\":\"20\"},"
          "\"z.second\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[4,12]},"
          "\"a.last\":{\"dtype\":\"F8_E4M3\",\"shape\":[1,1,1,1,1,3],\"data_offsets\":[12,15]},"
          "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
          "\"first\":{\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}   ",
          15);
    pn_safetensors *f;
    ck_ok(pn_safetensors_open(path, &f));
    ck_assert_int_eq(pn_safetensors_count(f), 4);
    static const char *const order[] = { "first", "empty", "z.second", "a.last" };
    for (int i = 0; i < 4; i++) {
        ck_assert_str_eq(pn_safetensors_info(f, i)->name, order[i]);
        ck_assert_ptr_eq(pn_safetensors_find(f, order[i]), pn_safetensors_info(f, i));
    }
    const pn_tensor_info *t = pn_safetensors_find(f, "z.second");
    ck_assert_int_eq(t->dtype, PN_F32);
    ck_assert_int_eq(t->rank, 2);
    ck_assert_int_eq(t->shape[0], 2);
    ck_assert_int_eq(t->shape[1], 1);
    ck_assert_uint_eq(t->n_bytes, 8);
    ck_assert_int_eq(((const unsigned char *)t->data)[0], 4);
    ck_assert_int_eq(pn_safetensors_find(f, "first")->rank, 0);
    ck_assert_int_eq(pn_safetensors_find(f, "first")->n_elems, 1);
    ck_assert_ptr_null(pn_safetensors_find(f, "third"));
    ck_assert_str_eq(pn_safetensors_metadata(f, "seed"), "20");
    ck_assert_ptr_null(pn_safetensors_metadata(f, "first"));
    pn_safetensors_close(&f);
    ck_assert_ptr_null(f);
    pn_safetensors_close(&f);
}
END_TEST

START_TEST(reads_and_converts) {
    /* One byte of U8 in front makes every later tensor misaligned. */
    static const unsigned char data[] = {
        200,                                            /* u8   200      */
        0x00, 0x00, 0xc0, 0x3f, 0x00, 0x00, 0x20, 0xc1, /* f32  1.5, -10 */
        0x80, 0x3f, 0x40, 0xc0,                         /* bf16 1, -3    */
        0x00, 0x3e, 0x01, 0x00,                         /* f16  1.5, 2^-24 */
        0,    0,    0,    0,    0,    0,    0xf8, 0xbf, /* f64 -1.5 */
        0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, /* i64 -2 */
        0x07, 0x00, 0x00, 0x80,                         /* i32 -2147483641 */
    };
    static const char header[] = "{\"u8\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                 "\"f32\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
                                 "\"bf16\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[9,13]},"
                                 "\"f16\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[13,17]},"
                                 "\"f64\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[17,25]},"
                                 "\"i64\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[25,33]},"
                                 "\"i32\":{\"dtype\":\"I32\",\"shape\":[1],\"data_offsets\":[33,37]}}";
    static const struct {
        const char *name;
        int n;
        double want[2];
    } cases[] = {
        { "u8", 1, { 200 } },           { "f32", 2, { 1.5, -10 } }, { "bf16", 2, { 1, -3 } },
        { "f16", 2, { 1.5, 0x1p-24 } }, { "f64", 1, { -1.5 } },     { "i64", 1, { -2 } },
        { "i32", 1, { -2147483641 } },
    };
    unsigned char bytes[1024];
    size_t len = strlen(header);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(len >> (8 * i));
    memcpy(bytes + 8, header, len);
    memcpy(bytes + 8 + len, data, sizeof data);
    path = scratch("t.safetensors");
    write_bytes(path, bytes, 8 + len + sizeof data);

    pn_safetensors *f;
    pn_pool *pool;
    ck_ok(pn_safetensors_open(path, &f));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        pn_tensor *wide, *narrow;
        int64_t shape[] = { cases[c].n };
        ck_ok(pn_tensor_create(pool, PN_F64, 1, shape, &wide));
        ck_ok(pn_safetensors_read(f, cases[c].name, wide));
        for (int i = 0; i < cases[c].n; i++) ck_assert_double_eq(pn_f64(wide)[i], cases[c].want[i]);
        ck_ok(pn_tensor_create(pool, PN_F32, 1, shape, &narrow));
        ck_ok(pn_safetensors_read(f, cases[c].name, narrow));
        for (int i = 0; i < cases[c].n; i++) ck_assert_float_eq(pn_f32(narrow)[i], (float)cases[c].want[i]);
        pn_tensor_release(&wide);
        pn_tensor_release(&narrow);
    }
    pn_tensor *t;
    ck_ok(pn_tensor_create(pool, PN_F32, 2, (int64_t[]){ 2, 1 }, &t));
    ck_refused(pn_safetensors_read(f, "f32", t), PN_FORMAT, "t.safetensors", "f32", "shape [2] ", "[2, 1]");
    ck_refused(pn_safetensors_read(f, "f33", t), PN_FORMAT, "t.safetensors", "no tensor f33");
    pn_tensor_release(&t);
    pn_pool_destroy(&pool);
    pn_safetensors_close(&f);
}
END_TEST

START_TEST(unknown_types_wait_until_read) {
    build("{\"new\":{\"dtype\":\"F128\",\"shape\":[2],\"data_offsets\":[0,5]},"
          "\"half\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[5,6]},"
          "\"deep\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1],\"data_offsets\":[6,7]}}",
          7);
    pn_safetensors *f;
    pn_pool *pool;
    pn_tensor *two, *one;
    ck_ok(pn_safetensors_open(path, &f));
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 2 }, &two));
    ck_ok(pn_tensor_create(pool, PN_F32, 1, (int64_t[]){ 1 }, &one));
    ck_refused(pn_safetensors_read(f, "new", two), PN_UNSUPPORTED, "new", "F128", "BF16");
    ck_refused(pn_safetensors_read(f, "half", two), PN_UNSUPPORTED, "half", "F4");
    ck_refused(pn_safetensors_read(f, "deep", one), PN_UNSUPPORTED, "deep", "5 dimensions");
    pn_tensor_release(&two);
    pn_tensor_release(&one);
    pn_pool_destroy(&pool);
    pn_safetensors_close(&f);
}
END_TEST

START_TEST(refuses_a_bad_frame) {
    ck_refused(pn_safetensors_open(scratch("absent.safetensors"), &(pn_safetensors *){ 0 }), PN_IO,
               "absent.safetensors", "No such file");
    ck_refused(pn_safetensors_open(scratch("."), &(pn_safetensors *){ 0 }), PN_IO, "not a regular file");
    path = scratch("t.safetensors");
    write_bytes(path, "", 0);
    ck_refused(open_built(), PN_FORMAT, "0 bytes are too few");
    write_bytes(path, "1234567", 7);
    ck_refused(open_built(), PN_FORMAT, "7 bytes are too few");
    build_claiming(3, "{}", 0);
    ck_refused(open_built(), PN_FORMAT, "3 bytes does not fit", "cut short");
    build_claiming(100000001, "{}", 0);
    ck_refused(open_built(), PN_FORMAT, "beyond the format's limit");
    build_claiming(INT64_MAX, "{}", 0);
    ck_refused(open_built(), PN_FORMAT, "beyond the format's limit");
    build_claiming(0, "{}", 0);
    ck_refused(open_built(), PN_FORMAT, "not valid JSON");
    refused("[]", 0, "not a JSON object");
    refused("{\"a\":", 0, "not valid JSON");
    refused("{} {}", 0, "not valid JSON");
    refused("{\"a\xff\":1}", 0, "not valid JSON");
    refused("{}", 1, "1 bytes after the last tensor");
    build("{}", 0);
    ck_ok(open_built());
}
END_TEST

START_TEST(refuses_bad_entries) {
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "duplicate");
    refused("{\"a\":7}", 0, "tensor a", "not an object");
    refused("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "tensor a", "shape is not a list");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, "tensor a", "dimension 0");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,-1],\"data_offsets\":[0,1]}}", 1, "tensor a", "dimension 1");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "9 dimensions");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "overflows");
    refused("{\"a\":{\"dtype\":\"F64\",\"shape\":[288230376151711744],\"data_offsets\":[0,0]}}", 0, "overflows");
    refused("{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype is not a string");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets is not a pair");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "data_offsets is not a pair");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "data_offsets is not a pair");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1, "data_offsets is not a pair");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "[-1, 0]", "outside");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "[1, 0]", "outside");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "[0, 2]", "cut short");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", 1, "not valid JSON");
    refused("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,11]}}", 11, "[2, 3] of BF16 takes 12",
            "11");
    refused("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    refused("{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ key a");
}
END_TEST

START_TEST(refuses_overlaps_and_gaps) {
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
            3, "tensor b overlaps");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
            2, "tensor b overlaps");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
            "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[3,5]}}",
            5, "tensor b leaves a gap");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "tensor a leaves a gap");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 5, "3 bytes after");
}
END_TEST

/* A whole file, cut at every length and with every byte changed in turn, is read or refused, never more. */
START_TEST(survives_damage) {
    build("{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[1,9]},"
          "\"b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
          9);
    unsigned char bytes[512];
    FILE *in = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, in);
    fclose(in);
    ck_assert_uint_lt(n, sizeof bytes);
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    int refusals = 0;
    static const unsigned char changes[] = { 0x01, 0x04, 0x80 };
    for (size_t at = 0; at < 4 * n; at++) {
        unsigned char saved = bytes[at % n];
        if (at < 3 * n) bytes[at % n] ^= changes[at / n];
        write_bytes(path, bytes, at < 3 * n ? n : at % n);
        bytes[at % n] = saved;
        pn_safetensors *f;
        if (pn_safetensors_open(path, &f)) {
            ck_assert_ptr_null(f);
            refusals++;
            continue;
        }
        for (int64_t i = 0; i < pn_safetensors_count(f); i++) {
            const pn_tensor_info *info = pn_safetensors_info(f, i);
            pn_tensor *t;
            if (info->rank > PN_MAX_RANK || info->n_elems > 1000) continue;
            ck_ok(pn_tensor_create(pool, PN_F32, info->rank, info->shape, &t));
            (void)!pn_safetensors_read_info(f, info, t);
            pn_tensor_release(&t);
        }
        pn_safetensors_close(&f);
    }
    ck_assert_int_gt(refusals, 2 * (int)n);
    pn_pool_destroy(&pool);
}
END_TEST

TEST_MAIN("safetensors", describes_its_tensors, reads_and_converts, unknown_types_wait_until_read, refuses_a_bad_frame,
          refuses_bad_entries, refuses_overlaps_and_gaps, survives_damage)
