/* Sharded weights: written and read back, rounding on the way, and directories that are not what they say. */
#include "weights.h"
#include "weights_writer.h"

#include <math.h>

#include "io_fixture.h"

enum { N = 4 };
static const struct {
    const char *name;
    pn_dtype in_file;
    int rank;
    int64_t shape[PN_MAX_RANK];
} tensors[N] = {
    { "model.embed_tokens.weight", PN_BF16, 2, { 31, 7 } },
    { "model.norm.weight", PN_F32, 1, { 7 } },
    { "model.layers.0.mlp.down_proj.weight", PN_F16, 2, { 7, 13 } },
    { "model.layers.0.self_attn.conv \"q\".weight", PN_F32, 3, { 7, 1, 4 } },
};

static float value_of(int tensor, int64_t i) {
    return (float)sin(1.0 + 0.37 * (double)i + tensor) * (i % 5 ? 1 : 300);
}

static void decls(pn_weight_decl *d) {
    for (int i = 0; i < N; i++) {
        d[i] = (pn_weight_decl){ .name = tensors[i].name, .dtype = tensors[i].in_file, .rank = tensors[i].rank };
        memcpy(d[i].shape, tensors[i].shape, sizeof d[i].shape);
    }
}

static void make(pn_pool *pool, int i, pn_tensor **t) {
    ck_ok(pn_tensor_create(pool, PN_F32, tensors[i].rank, tensors[i].shape, t));
    for (int64_t k = 0; k < pn_tensor_elems(*t); k++) pn_f32(*t)[k] = value_of(i, k);
}

static void put(pn_weights_writer *w, pn_pool *pool, int i) {
    pn_tensor *t;
    make(pool, i, &t);
    ck_ok(pn_weights_writer_put(w, tensors[i].name, t));
    pn_tensor_release(&t);
}

static void write_model(const char *dir, int64_t shard_bytes) {
    pn_weight_decl d[N];
    pn_weights_writer *w;
    pn_pool *pool;
    decls(d);
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_weights_writer_create(dir, d, N, shard_bytes, &w));
    for (int i = N - 1; i >= 0; i--) put(w, pool, i); /* any order */
    ck_ok(pn_weights_writer_commit(w));
    pn_weights_writer_destroy(&w);
    ck_assert_ptr_null(w);
    pn_pool_destroy(&pool);
}

static void expect_model(const char *path) {
    pn_weights *w;
    pn_pool *pool;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_weights_open(path, &w));
    ck_assert_int_eq(pn_weights_count(w), N);
    for (int64_t i = 1; i < N; i++)
        ck_assert_int_lt(strcmp(pn_weights_info(w, i - 1)->name, pn_weights_info(w, i)->name), 0);
    for (int i = 0; i < N; i++) {
        const pn_tensor_info *info = pn_weights_find(w, tensors[i].name);
        ck_assert_ptr_nonnull(info);
        ck_assert_int_eq(info->dtype, tensors[i].in_file);
        ck_assert_uint_eq((uintptr_t)info->data % pn_dtype_bytes(info->dtype), 0);
        pn_tensor *made, *rounded, *read;
        make(pool, i, &made);
        ck_ok(pn_tensor_create(pool, tensors[i].in_file, tensors[i].rank, tensors[i].shape, &rounded));
        ck_ok(pn_tensor_create(pool, tensors[i].in_file, tensors[i].rank, tensors[i].shape, &read));
        ck_ok(pn_tensor_copy(rounded, made));
        ck_ok(pn_weights_read(w, tensors[i].name, read));
        ck_assert_mem_eq(pn_data(read), pn_data(rounded), pn_tensor_bytes(read));
        pn_tensor_release(&made);
        pn_tensor_release(&rounded);
        pn_tensor_release(&read);
    }
    pn_weights_close(&w);
    pn_pool_destroy(&pool);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

START_TEST(one_file) {
    write_model(scratch("."), PN_DEFAULT_SHARD_BYTES);
    ck_assert(exists(scratch("model.safetensors")));
    ck_assert(!exists(scratch("model.safetensors.part")));
    ck_assert(!exists(scratch("model.safetensors.index.json")));
    expect_model(scratch("."));
    expect_model(scratch("model.safetensors"));
}
END_TEST

START_TEST(shards) {
    write_model(scratch("."), PN_DEFAULT_SHARD_BYTES); /* an earlier model in the same place must not be what is read */
    write_model(scratch("."), 300);                    /* 434 | 28 + 182 | 112 bytes: the second and third pair up */
    ck_assert(!exists(scratch("model.safetensors")));
    ck_assert(exists(scratch("model-00001-of-00003.safetensors")));
    ck_assert(exists(scratch("model-00003-of-00003.safetensors")));
    expect_model(scratch("."));
    expect_model(scratch("model.safetensors.index.json"));
    write_model(scratch("."), PN_DEFAULT_SHARD_BYTES);
    ck_assert(!exists(scratch("model.safetensors.index.json")));
    expect_model(scratch("."));
}
END_TEST

START_TEST(nothing_half_written) {
    pn_weight_decl d[N];
    pn_weights_writer *w;
    pn_pool *pool;
    pn_tensor *wrong;
    decls(d);
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_weights_writer_create(scratch("."), d, N, 300, &w));
    put(w, pool, 0);
    ck_ok(pn_tensor_zeros(pool, PN_F32, 1, (int64_t[]){ 8 }, &wrong));
    ck_refused(pn_weights_writer_put(w, "model.norm.weight", wrong), PN_USAGE, "model.norm.weight", "[8]", "[7]");
    ck_refused(pn_weights_writer_put(w, "model.normal.weight", wrong), PN_USAGE, "model.normal.weight", "not declared");
    ck_refused(pn_weights_writer_put(w, "model.embed_tokens.weight", wrong), PN_USAGE, "twice");
    ck_refused(pn_weights_writer_commit(w), PN_USAGE, "never written");
    ck_assert(exists(scratch("model-00001-of-00003.safetensors.part")));
    pn_weights_writer_destroy(&w);
    ck_assert(!exists(scratch("model-00001-of-00003.safetensors.part")));
    ck_assert(!exists(scratch("model-00001-of-00003.safetensors")));

    d[1].name = d[0].name;
    ck_refused(pn_weights_writer_create(scratch("."), d, N, 300, &w), PN_USAGE, "declared twice");
    ck_assert_ptr_null(w);
    decls(d);
    d[0].shape[0] = d[0].shape[1] = INT64_C(1) << 32;
    ck_refused(pn_weights_writer_create(scratch("."), d, N, 300, &w), PN_USAGE, "overflows");
    decls(d);
    ck_refused(pn_weights_writer_create(scratch("absent"), d, N, 300, &w), PN_IO, "absent", "No such file");
    ck_refused(pn_weights_writer_create(scratch("."), d, N, 0, &w), PN_USAGE, "too small");
    pn_tensor_release(&wrong);
    pn_pool_destroy(&pool);
}
END_TEST

START_TEST(a_large_tensor_goes_in_pieces) {
    int64_t shape[] = { 1 << 10, 700 };
    pn_weight_decl d = { .name = "large", .dtype = PN_BF16, .rank = 2, .shape = { shape[0], shape[1] } };
    pn_weights_writer *w;
    pn_weights *r;
    pn_pool *pool;
    pn_tensor *t, *back;
    ck_ok(pn_pool_create(PN_POOL_HOST, &pool));
    ck_ok(pn_tensor_create(pool, PN_F32, 2, shape, &t));
    for (int64_t i = 0; i < pn_tensor_elems(t); i++) pn_f32(t)[i] = (float)(i % 251) * (i & 1 ? 1 : -1);
    ck_ok(pn_weights_writer_create(scratch("."), &d, 1, PN_DEFAULT_SHARD_BYTES, &w));
    ck_ok(pn_weights_writer_put(w, "large", t));
    ck_ok(pn_weights_writer_commit(w));
    pn_weights_writer_destroy(&w);
    ck_ok(pn_weights_open(scratch("model.safetensors"), &r));
    ck_ok(pn_tensor_create(pool, PN_F32, 2, shape, &back));
    ck_ok(pn_weights_read(r, "large", back));
    ck_assert_mem_eq(pn_data(t), pn_data(back), pn_tensor_bytes(t)); /* up to 8 bits: exact in bf16 */
    pn_weights_close(&r);
    pn_tensor_release(&t);
    pn_tensor_release(&back);
    pn_pool_destroy(&pool);
}
END_TEST

static void refused_index(const char *index, const char *word, const char *other) {
    pn_weights *w = NULL;
    write_text(scratch("model.safetensors.index.json"), index);
    ck_refused(pn_weights_open(scratch("."), &w), PN_FORMAT, "model.safetensors.index.json", word, other);
    ck_assert_ptr_null(w);
}

START_TEST(refuses_bad_directories) {
    pn_weights *w = NULL;
    ck_refused(pn_weights_open(scratch("absent"), &w), PN_IO, "absent", "no such directory");
    ck_refused(pn_weights_open(scratch("."), &w), PN_IO, "neither model.safetensors nor");
    refused_index("", ":1:", "");
    refused_index("{\n \"weight_map\": {\"a\": \"f\",\n \"a\": \"g\"}}", ":3:", "duplicate");
    refused_index("{\"weight_map\": [] }", "weight_map is missing", "");
    refused_index("{\"metadata\": {}}", "weight_map is missing", "");
    refused_index("{\"weight_map\": {\"a\": 7}}", "file of a", "not a string");
    refused_index("{\"weight_map\": {\"a\": \"../model.safetensors\"}}", "'../model.safetensors'", "beside the index");
    refused_index("{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "'/etc/passwd'", "beside the index");
    refused_index("{\"weight_map\": {\"a\": \"..\"}}", "'..'", "beside the index");
    refused_index("{\"weight_map\": {\"a\": \"\"}}", "''", "beside the index");

    write_text(scratch("model.safetensors.index.json"), "{\"weight_map\": {\"a\": \"model-1.safetensors\"}}");
    ck_refused(pn_weights_open(scratch("."), &w), PN_IO, "model-1.safetensors", "No such file");
    write_bytes(scratch("model-1.safetensors"), "\2\0\0\0\0\0\0\0{}", 10);
    refused_index("{\"weight_map\": {\"a\": \"model-1.safetensors\"}}", "a is in model-1.safetensors",
                  "no such tensor");
    write_bytes(scratch("model-1.safetensors"), "\3\0\0\0\0\0\0\0{}", 10);
    ck_refused(pn_weights_open(scratch("."), &w), PN_FORMAT, "model-1.safetensors", "cut short");
}
END_TEST

TEST_MAIN("weights", one_file, shards, nothing_half_written, a_large_tensor_goes_in_pieces, refuses_bad_directories)
