/* Rates and shares of a bench's row, and how a GPU and its clock are told: on machines that are made up. */
#include "bench_rates.h"

#include <string.h>

#include "harness.h"

/* 100 TFLOP/s, 2 TB/s. */
static pn_machine gpu(void) {
    return (pn_machine){
        .backend = PN_CUDA, .type = PN_BF16, .gemm = 1e14, .stream = 2e12, .name = "A GPU", .limit_mhz = 1980
    };
}
static const pn_timing timing = { .median = 2e-3, .least = 1e-3, .most = 4e-3, .runs = 5 };
static const pn_op_cost cost = { .flops = 1e11, .bytes = 1e9 };

static double number(const json_t *x, const char *key) {
    ck_assert_msg(json_is_number(json_object_get(x, key)), "no number %s", key);
    return json_number_value(json_object_get(x, key));
}
#define CK_NEAR(a, b) ck_assert_double_eq_tol((a), (b), 1e-9 * (b))

START_TEST(rates_are_those_of_the_median) {
    const pn_machine m = gpu();
    const pn_rates r = pn_machine_rates(&m, &cost, &timing);
    CK_NEAR(r.flops, 5e13);
    CK_NEAR(r.bytes, 5e11);
    CK_NEAR(r.product, 0.5);
    CK_NEAR(r.stream, 0.25);
    CK_NEAR(r.share, 0.5); /* 1 ms of flops, 0.5 ms of bytes */
    CK_NEAR(r.spread, 1.5);
    ck_assert_str_eq(r.bound, "flops");
    json_t *row = json_object();
    pn_rates_to_json(&r, &cost, &timing, "us", row);
    CK_NEAR(number(row, "median_us"), 2000);
    CK_NEAR(number(row, "min_us"), 1000);
    CK_NEAR(number(row, "max_us"), 4000);
    CK_NEAR(number(row, "tflops"), 50);
    CK_NEAR(number(row, "gbytes_per_second"), 500);
    ck_assert(number(row, "runs") == 5);
    json_decref(row);
}
END_TEST

START_TEST(units_are_those_of_the_machine) {
    pn_machine m = gpu();
    ck_assert_str_eq(pn_rates_unit(&m), "TFLOP/s");
    CK_NEAR(pn_rates_in_unit(&m, 5e13), 50);
    m.backend = PN_CPU;
    ck_assert_str_eq(pn_rates_unit(&m), "GFLOP/s");
    CK_NEAR(pn_rates_in_unit(&m, 5e10), 50);
}
END_TEST

static void ck_told(const pn_machine *m, const char *text) {
    char line[512];
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    pn_machine_print(m, f);
    rewind(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    fclose(f);
    ck_assert_msg(strstr(line, text), "\"%s\" is not in: %s", text, line);
    json_t *j = pn_machine_json(m);
    ck_assert_str_eq(json_string_value(json_object_get(j, "gpu")), text);
    json_decref(j);
}

START_TEST(the_clock_is_the_measured_one_where_it_is_known) {
    pn_machine m = gpu();
    ck_told(&m, "A GPU, 1980 MHz at its maximum");
    json_t *j = pn_machine_json(&m);
    ck_assert_str_eq(json_string_value(json_object_get(j, "clock_mhz_is")), "maximum");
    ck_assert(number(j, "clock_mhz") == 1980);
    json_decref(j);
    m.mhz = (pn_clock_seen){ .least = 1500, .most = 1700, .n = 2, .sum = 3200 };
    ck_told(&m, "A GPU, 1600 MHz while measuring (1500 .. 1700)");
    j = pn_machine_json(&m);
    ck_assert_str_eq(json_string_value(json_object_get(j, "clock_mhz_is")), "measured");
    ck_assert(number(j, "clock_mhz") == 1600 && number(j, "clock_min_mhz") == 1500 &&
              number(j, "clock_max_mhz") == 1700 && number(j, "clock_limit_mhz") == 1980);
    json_decref(j);
}
END_TEST

TEST_MAIN("bench_rates", rates_are_those_of_the_median, units_are_those_of_the_machine,
          the_clock_is_the_measured_one_where_it_is_known)
