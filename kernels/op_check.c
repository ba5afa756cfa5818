#include "op_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op_case.h"
#include "op_each.h"

/* Limits of blocks.md 13 where a case names none, and those of BF16, which cases do not name: what is wider in F32
 * (gates) is so in BF16. */
static const double default_out = 1e-5, default_din = 2e-5, gate_din = 1e-4;
static const double bf16_out = 5e-3, bf16_din = 8e-3, bf16_gate_din = 2e-2;

static double limit_out(const pn_op_case *c, int i, pn_dtype type) {
    if (type == PN_BF16) return bf16_out;
    return c->limit_out[i] > 0 ? c->limit_out[i] : default_out;
}
static double limit_din(const pn_op_case *c, int i, pn_dtype type) {
    if (type == PN_BF16) return c->limit_din[i] >= gate_din ? bf16_gate_din : bf16_din;
    return c->limit_din[i] > 0 ? c->limit_din[i] : default_din;
}
/* Central differences of a double-precision forward with this step: truncation and rounding both stay near 1e-9. */
static const double gradcheck_step = 1e-5, gradcheck_limit = 1e-6;

double pn_relative_error(const float *x, const double *ref, int64_t n) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return INFINITY;
        double d = (double)x[i] - ref[i];
        diff += d * d;
        norm += ref[i] * ref[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

/* Backward may read only what saves() names: as on a tape, the other values are gone (pn_data aborts on them). */
static pn_storage *hide(pn_tensor *t, uint32_t saved) {
    if (!t || saved) return NULL;
    pn_storage *storage = t->storage;
    t->storage = NULL;
    return storage;
}
static void unhide(pn_tensor *t, pn_storage *storage) {
    if (storage) t->storage = storage;
}

/* As pn_relative_error, of a tensor on the host in any type that should be `times` the reference. */
static pn_status tensor_error(const pn_tensor *x, float times, const pn_tensor *ref, double *error) {
    int64_t n = pn_tensor_elems(x);
    float *values = malloc((size_t)(n + 1) * sizeof *values);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_convert(values, PN_F32, pn_data(x), x->dtype, n);
    for (int64_t i = 0; i < n; i++) values[i] /= times;
    *error = pn_relative_error(values, pn_f64(ref), n);
    free(values);
    return PN_OK;
}

static pn_status run(pn_case_call *s, const pn_op_impl *impl, bool backward) {
    PN_TRY(pn_case_call_scratch(s, impl, backward));
    if (!backward) return impl->forward(&s->call);
    pn_storage *unsaved_in[PN_OP_IN], *unsaved_out[PN_OP_OUT];
    uint32_t saved = s->call.op->contract->saves(&s->call);
    for (int i = 0; i < s->call.n_in; i++) unsaved_in[i] = hide(s->call.in[i], saved & PN_SAVE_IN(i));
    for (int i = 0; i < s->call.n_out; i++) unsaved_out[i] = hide(s->call.out[i], saved & PN_SAVE_OUT(i));
    pn_status status = impl->backward(&s->call);
    for (int i = 0; i < s->call.n_in; i++) unhide(s->call.in[i], unsaved_in[i]);
    for (int i = 0; i < s->call.n_out; i++) unhide(s->call.out[i], unsaved_out[i]);
    return status;
}

typedef struct row {
    char text[1024];
    size_t len;
    bool ok;
} row;

static void row_add(row *r, const char *what, double error, double limit) {
    bool ok = error <= limit;
    r->ok = r->ok && ok;
    if (r->len < sizeof r->text)
        r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, " %s %.1e/%.0e%s", what, error, limit,
                                   ok ? "" : "!");
}

static void print_row(const pn_op_check_options *o, const pn_op_case *c, const char *impl, const row *r) {
    if (!o->out || (r->ok && o->failures_only)) return;
    fprintf(o->out, "%s  %-34s | %-28s |%s\n", r->ok ? "ok  " : "FAIL", c->name, impl, r->text);
    fflush(o->out); /* a run that is cut short has said how far it came */
}

/* What two runs of an implementation left behind, compared bit for bit. */
static bool same_bits(const pn_case_call *a, const pn_case_call *b) {
    for (int i = 0; i < PN_OP_OUT; i++)
        if (a->call.out[i] && memcmp(pn_data(a->call.out[i]), pn_data(b->call.out[i]), pn_tensor_bytes(a->call.out[i])))
            return false;
    for (int i = 0; i < PN_OP_IN; i++)
        if (a->call.din[i] && memcmp(pn_data(a->call.din[i]), pn_data(b->call.din[i]), pn_tensor_bytes(a->call.din[i])))
            return false;
    return true;
}

static pn_status run_both_ways(pn_case_call *s, const pn_op_impl *impl) {
    for (int i = 0; i < s->call.n_out; i++) PN_TRY(pn_tensor_fill_bytes(s->call.out[i], 0xff)); /* NaN */
    for (int i = 0; i < s->call.n_in; i++)
        if (s->call.din[i]) PN_TRY(pn_tensor_fill_zero(s->call.din[i]));
    PN_TRY(run(s, impl, false));
    if (impl->backward) PN_TRY(run(s, impl, true));
    return PN_OK;
}

/* Backward twice in a row, so that gradients double. The first time they are written to what holds NaN where the
 * implementation knows how. */
static pn_status run_twice(pn_case_call *s, const pn_op_impl *impl) {
    PN_TRY(run(s, impl, false));
    if (!impl->backward) return PN_OK;
    for (int i = 0; i < s->call.n_in; i++) {
        if (!s->call.din[i]) continue;
        PN_TRY(pn_tensor_fill_bytes(s->call.din[i], impl->fresh ? 0xff : 0));
        if (impl->fresh) s->call.fresh |= 1u << i;
    }
    PN_TRY(run(s, impl, true));
    s->call.fresh = 0;
    return run(s, impl, true);
}

static pn_status compare_gradients(const pn_op_case *c, const pn_case_call *s, float times, const pn_case_call *ref,
                                   const pn_op_check_options *o, row *r) {
    for (int i = 0; i < c->n_in; i++) {
        if (!s->call.din[i]) continue;
        char what[16];
        double error;
        snprintf(what, sizeof what, times > 1 ? "twice%d" : "din%d", i);
        PN_TRY(tensor_error(s->call.din[i], times, ref->call.din[i], &error));
        row_add(r, what, error, limit_din(c, i, o->type));
    }
    return PN_OK;
}

static pn_status compare_outputs(const pn_op_case *c, const pn_case_call *s, const pn_case_call *ref,
                                 const pn_op_check_options *o, row *r) {
    for (int i = 0; i < s->call.n_out; i++) {
        const pn_tensor *x = s->call.out[i];
        char what[16];
        double error;
        snprintf(what, sizeof what, "out%d", i);
        if (x->dtype == PN_I32) {
            row_add(r, what, memcmp(pn_data(x), pn_data(ref->call.out[i]), pn_tensor_bytes(x)) ? INFINITY : 0, 0);
            continue;
        }
        PN_TRY(tensor_error(x, 1, ref->call.out[i], &error));
        row_add(r, what, error, limit_out(c, i, o->type));
    }
    return PN_OK;
}

/* For `each`: forward, a backward that writes where it can and one that adds. */
static pn_status compare_once(const pn_op_case *c, pn_case_call *s, const pn_case_call *ref, const pn_op_impl *impl,
                              const pn_op_check_options *o, row *r) {
    pn_case_call left = { 0 };
    pn_status status;
    PN_TRY_GOTO(status, run_twice(s, impl), done);
    PN_TRY_GOTO(status, pn_case_call_results(s, &left), done);
    PN_TRY_GOTO(status, compare_outputs(c, &left, ref, o, r), done);
    if (impl->backward) PN_TRY_GOTO(status, compare_gradients(c, &left, 2, ref, o, r), done);
done:
    pn_case_call_free(&left);
    return status;
}

static pn_status compare_runs(const pn_op_case *c, pn_case_call *s, const pn_case_call *ref, const pn_op_impl *impl,
                              const pn_op_check_options *o, row *r) {
    pn_case_call first = { 0 }, again = { 0 }, twice = { 0 };
    pn_status status;
    PN_TRY_GOTO(status, run_both_ways(s, impl), done);
    PN_TRY_GOTO(status, pn_case_call_results(s, &first), done);
    PN_TRY_GOTO(status, compare_outputs(c, &first, ref, o, r), done);
    if (impl->backward) PN_TRY_GOTO(status, compare_gradients(c, &first, 1, ref, o, r), done);
    PN_TRY_GOTO(status, run_both_ways(s, impl), done);
    PN_TRY_GOTO(status, pn_case_call_results(s, &again), done);
    if (!same_bits(&first, &again)) row_add(r, "rerun", INFINITY, 0);
    if (!impl->backward) goto done;
    PN_TRY_GOTO(status, run_twice(s, impl), done);
    PN_TRY_GOTO(status, pn_case_call_results(s, &twice), done);
    PN_TRY_GOTO(status, compare_gradients(c, &twice, 2, ref, o, r), done);
done:
    pn_case_call_free(&twice);
    pn_case_call_free(&first);
    pn_case_call_free(&again);
    return status;
}

/* <dout, out> as a function of one input element. */
static pn_status objective(pn_case_call *s, const pn_op_impl *impl, double *value) {
    PN_TRY(run(s, impl, false));
    *value = 0;
    for (int i = 0; i < s->call.n_out; i++) {
        if (!s->call.dout[i]) continue;
        const double *y = pn_f64(s->call.out[i]), *g = pn_f64(s->call.dout[i]);
        for (int64_t k = 0, n = pn_tensor_elems(s->call.out[i]); k < n; k++) *value += y[k] * g[k];
    }
    return PN_OK;
}

static pn_status gradcheck(const pn_op *op, const pn_op_case *c, const pn_op_impl *impl, row *r) {
    pn_case_call s = { 0 };
    pn_status status;
    PN_TRY_GOTO(status, pn_case_call_make(op, c, PN_REF, PN_F32, &s), done);
    PN_TRY_GOTO(status, run_both_ways(&s, impl), done);
    for (int i = 0; i < c->n_in; i++) {
        if (!s.call.din[i]) continue;
        int64_t n = pn_tensor_elems(s.call.in[i]);
        double *x = pn_f64(s.call.in[i]), diff = 0, norm = 0;
        int64_t stride = n > 64 ? n / 64 : 1; /* a sample of the elements of large inputs */
        for (int64_t k = 0; k < n; k += stride) {
            double keep = x[k], up, down;
            x[k] = keep + gradcheck_step;
            PN_TRY_GOTO(status, objective(&s, impl, &up), done);
            x[k] = keep - gradcheck_step;
            PN_TRY_GOTO(status, objective(&s, impl, &down), done);
            x[k] = keep;
            double numeric = (up - down) / (2 * gradcheck_step), d = pn_f64(s.call.din[i])[k] - numeric;
            diff += d * d;
            norm += numeric * numeric;
        }
        char what[16];
        snprintf(what, sizeof what, "din%d", i);
        row_add(r, what, norm > 0 ? sqrt(diff / norm) : sqrt(diff), gradcheck_limit);
    }
done:
    pn_case_call_free(&s);
    return status;
}

/* only: the implementation that is run; NULL: all that take the case. */
static pn_status check_case(const pn_op *op, const pn_op_case *c, const pn_op_check_options *o, const pn_op_impl *only,
                            int *passed, int *failed) {
    const pn_op_impl *oracle = op->impl[PN_REF][0];
    PN_ASSERT(oracle);
    pn_status status = PN_OK;
    pn_case_call ref = { 0 }, s = { 0 };
    if (o->backend == PN_REF) {
        if (!c->gradcheck) return PN_OK;
        row r = { .ok = true };
        PN_TRY(gradcheck(op, c, oracle, &r));
        print_row(o, c, "finite differences", &r);
        *(r.ok ? passed : failed) += 1;
        return PN_OK;
    }
    PN_TRY_GOTO(status, pn_case_call_make(op, c, PN_REF, o->type, &ref), done);
    PN_TRY_GOTO(status, run_both_ways(&ref, oracle), done);
    PN_TRY_GOTO(status, pn_case_call_like(&ref, c, o->backend, o->type, &s), done);
    s.bare = o->each;
    bool some = false;
    for (const pn_op_impl *const *impl = op->impl[o->backend]; *impl; impl++) {
        row r = { .ok = true };
        if ((only && only != *impl) || !pn_op_takes(*impl, &s.call)) continue;
        PN_TRY_GOTO(status, (o->each ? compare_once : compare_runs)(c, &s, &ref, *impl, o, &r), done);
        some = true;
        print_row(o, c, (*impl)->name, &r);
        *(r.ok ? passed : failed) += 1;
    }
    if (!some) {
        row none = { .text = " no implementation takes it" };
        print_row(o, c, pn_backend_name(o->backend), &none);
        *failed += 1;
    }
done:
    pn_case_call_free(&s);
    pn_case_call_free(&ref);
    return status;
}

static pn_status check_each(const pn_op *op, const pn_op_check_options *o, int *passed, int *failed) {
    pn_op_sample *sample = NULL;
    int n = 0;
    pn_status status = PN_OK;
    PN_TRY(pn_op_each(op, o->backend, o->type, &sample, &n));
    for (int i = 0; i < n && !status; i++) {
        pn_op_case c;
        memset(&c, 0, sizeof c);
        op->contract->case_at(sample[i].at, &c);
        status = check_case(op, &c, o, sample[i].impl, passed, failed);
    }
    free(sample);
    return status;
}

pn_status pn_op_check(const pn_op *op, const pn_op_check_options *o, int *passed, int *failed) {
    if (o->each) return check_each(op, o, passed, failed);
    for (int i = 0;; i++) {
        pn_op_case c;
        memset(&c, 0, sizeof c);
        if (!op->contract->case_at || !op->contract->case_at(i, &c)) return PN_OK;
        if ((c.slow && !o->slow) || (o->small && !c.gradcheck) || (o->only && !strstr(c.name, o->only))) continue;
        PN_TRY(check_case(op, &c, o, NULL, passed, failed));
    }
}
