/* Where own kernels run softmax attention on a GPU in place of cuDNN: the reason, and that the log has it once. */
#include "attention/attention_own.h"

#include <string.h>
#include <unistd.h>

#include "attention/attention_vary.h"
#include "files.h"
#include "harness.h"
#include "log.h"

enum { TOKENS = 4096 };
static const int64_t offset[] = { 0, TOKENS };

static pn_attention_attr large(void) {
    return (pn_attention_attr){
        .docs = { .n = 1, .offset = offset }, .heads = 12, .kv_heads = 2, .head_dim = 128, .scale = 0.1
    };
}
static const char *reason(const pn_attention_attr *a, pn_dtype dtype, bool built) {
    const pn_op_call c = { .attr = a, .dtype = dtype };
    return pn_attention_own_reason(&c, built);
}

static void ck_holds(const char *text, const char *part) {
    ck_assert_msg(text && strstr(text, part), "\"%s\" is not in: %s", part, text ? text : "(nothing)");
}

START_TEST(cudnn_is_asked_about_large_calls_in_bf16) {
    pn_attention_attr a = large();
    ck_assert_ptr_null(reason(&a, PN_BF16, true));
    a.window = 64;
    ck_assert_ptr_null(reason(&a, PN_BF16, true));
}
END_TEST

START_TEST(of_other_calls_there_is_a_reason) {
    static const int64_t short_offset[] = { 0, 511 }, least_offset[] = { 0, 512 }, zero[] = { 0 }, keys[] = { TOKENS };
    pn_attention_attr a = large();
    ck_holds(reason(&a, PN_F32, true), "BF16 only");
    ck_holds(reason(&a, PN_BF16, false), "build without cuDNN; install");
    a.key_start = zero, a.key_len = keys;
    ck_holds(reason(&a, PN_BF16, true), "cache");
    a = large(), a.head_dim = 100;
    ck_holds(reason(&a, PN_BF16, true), "multiple of 8");
    a = large(), a.docs.offset = short_offset;
    ck_holds(reason(&a, PN_BF16, true), "too few tokens");
    a.docs.offset = least_offset;
    ck_assert_ptr_null(reason(&a, PN_BF16, true));
    a = large(), a.heads = 1 << 20;
    ck_holds(reason(&a, PN_BF16, true), "31 bits");
}
END_TEST

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++) n++;
    return n;
}

START_TEST(the_log_has_each_kind_once) {
    char file[] = "/tmp/postnas-own-XXXXXX", *text;
    size_t n;
    int fd = mkstemp(file);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_ok(pn_log_open(file));
    pn_attention_attr a = large();
    const pn_op_call c = { .attr = &a, .dtype = PN_F32 };
    for (int i = 0; i < 3; i++) {
        for (a.window = 0; a.window < 2; a.window++) pn_attention_own_say(&c, "because");
        a.window = 0;
        pn_attention_own_say(&c, "no, because");
    }
    for (a.heads = 1; a.heads < 200; a.heads++) pn_attention_own_say(&c, "many"); /* not for ever */
    pn_log_close();
    ck_ok(pn_file_read(file, 1 << 20, &text, &n));
    unlink(file);
    ck_assert_int_eq(count(text, "own kernels for 12/2 heads of 128: because"), 1);
    ck_assert_int_eq(count(text, "own kernels for 12/2 heads of 128, window 1: because"), 1);
    ck_assert_int_eq(count(text, "own kernels for 12/2 heads of 128: no, because"), 1);
    ck_assert_int_lt(count(text, ": many"), 100);
    ck_assert_int_eq(count(text, "is not told"), 1);
    free(text);
}
END_TEST

START_TEST(bits_vary_where_it_was_said) {
    unsetenv("PN_CUDA_VARY");
    ck_assert(!pn_attention_varies());
    setenv("PN_CUDA_VARY", "0", 1);
    ck_assert(!pn_attention_varies());
    setenv("PN_CUDA_VARY", "1", 1);
    ck_assert(pn_attention_varies());
    pn_attention_vary(false); /* a configuration's word counts more */
    ck_assert(!pn_attention_varies());
    unsetenv("PN_CUDA_VARY");
    pn_attention_vary(true);
    ck_assert(pn_attention_varies());
}
END_TEST

TEST_MAIN("attention_own", cudnn_is_asked_about_large_calls_in_bf16, of_other_calls_there_is_a_reason,
          the_log_has_each_kind_once, bits_vary_where_it_was_said)
