/* Every op of ops.def: each implementation against the reference, the reference against finite differences.
 * `test_ops_ops NAME` runs one op with a row per case. */
#include "harness.h"
#include "op_case.h"
#include "op_check.h"
#include "op_each.h"
#include <stdlib.h>
#include <string.h>

static void check_all(pn_backend backend) {
    const char *only_op = *ck_argument();
    int n, passed = 0, failed = 0;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++) {
        if (only_op && strcmp(only_op, ops[i]->name)) continue;
        pn_op_check_options o = { .backend = backend, .out = stdout, .failures_only = !only_op };
        int before = failed;
        ck_ok(pn_op_check(ops[i], &o, &passed, &failed));
        ck_assert_msg(failed == before, "%s: %d cases failed", ops[i]->name, failed - before);
    }
    printf("%s: %d cases passed\n", pn_backend_name(backend), passed);
    if (!only_op) ck_assert_int_gt(passed, 0); /* one op alone may have no gradient to check */
}

START_TEST(cpu_against_reference) {
    check_all(PN_CPU);
}
END_TEST
START_TEST(reference_against_finite_differences) {
    check_all(PN_REF);
}
END_TEST

static bool takes(const pn_op_impl *impl, const pn_op *op, const pn_op_case *c) {
    pn_case_call x;
    ck_ok(pn_case_call_make(op, c, PN_CPU, PN_F32, &x));
    bool taken = !impl->takes || impl->takes(&x.call);
    pn_case_call_free(&x);
    return taken;
}

/* An implementation that refuses every case would pass them all. */
START_TEST(every_implementation_takes_a_case) {
    int n;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++)
        for (const pn_op_impl *const *impl = ops[i]->impl[PN_CPU]; *impl; impl++) {
            pn_op_case c;
            bool taken = false;
            for (int k = 0; !taken; k++) {
                memset(&c, 0, sizeof c);
                ck_assert_msg(ops[i]->contract->case_at(k, &c), "no quick case of %s is one for %s", ops[i]->name,
                              (*impl)->name);
                taken = !c.slow && takes(*impl, ops[i], &c);
            }
        }
}
END_TEST

/* What sanitizers run must reach all of them, backward too. */
START_TEST(each_runs_every_implementation) {
    int n, n_samples;
    const pn_op *const *ops = pn_op_list(&n);
    for (int i = 0; i < n; i++) {
        pn_op_sample *sample;
        ck_ok(pn_op_each(ops[i], PN_CPU, PN_F32, &sample, &n_samples));
        for (const pn_op_impl *const *impl = ops[i]->impl[PN_CPU]; *impl; impl++) {
            bool run = false, backward = false;
            for (int k = 0; k < n_samples; k++) {
                pn_op_case c;
                memset(&c, 0, sizeof c);
                if (sample[k].impl != *impl) continue;
                ck_assert(ops[i]->contract->case_at(sample[k].at, &c) && takes(*impl, ops[i], &c));
                run = true;
                for (int x = 0; x < c.n_in; x++)
                    backward = backward || (c.in[x].present && !c.in[x].integer && !c.in[x].no_grad);
            }
            ck_assert_msg(run && (backward || !(*impl)->backward), "%s is in no sample", (*impl)->name);
        }
        free(sample);
    }
}
END_TEST

TEST_MAIN("ops", every_implementation_takes_a_case, each_runs_every_implementation,
          reference_against_finite_differences, cpu_against_reference)
