/* Which OpenBLAS kernels are left alone, and what replaces the others. */
#include "harness.h"

#include <string.h>

#include "cpu/blas_core.h"

START_TEST(kernels_that_use_the_processor_stay) {
    ck_assert_ptr_null(pn_blas_core_for("SkylakeX", true, true));
    ck_assert_ptr_null(pn_blas_core_for("Zen", true, true));
    ck_assert_ptr_null(pn_blas_core_for("ZEN", true, false));
    ck_assert_ptr_null(pn_blas_core_for("Prescott", false, false));
    ck_assert_ptr_null(pn_blas_core_for("Sandybridge", false, false));
}
END_TEST

START_TEST(older_ones_are_replaced) {
    ck_assert_str_eq(pn_blas_core_for("Prescott", true, true), "SkylakeX");
    ck_assert_str_eq(pn_blas_core_for("Prescott", true, false), "Haswell");
    ck_assert_str_eq(pn_blas_core_for("Sandybridge", true, false), "Haswell");
}
END_TEST

TEST_MAIN("unit/blas_core", kernels_that_use_the_processor_stay, older_ones_are_replaced)
