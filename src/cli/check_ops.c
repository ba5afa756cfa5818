#include "check_ops.h"

#include <string.h>

#include "check_report.h"
#include "device.h"
#include "find_op.h"
#include "op_check.h"

static pn_status check(const pn_op *op, const pn_check_ops_options *asked, pn_report *report) {
    const pn_backend backend = asked->on.backend;
    if (!op->impl[backend][0]) {
        char why[64];
        snprintf(why, sizeof why, "nothing for %s yet", pn_backend_name(backend));
        pn_row_skip(report, op->name, why);
        return PN_OK;
    }
    fprintf(report->out, "%s\n", op->name);
    pn_op_check_options o = { .backend = PN_REF, .slow = asked->slow, .small = asked->small, .out = report->out };
    if (backend == PN_CPU && !asked->each) PN_TRY(pn_op_check(op, &o, &report->passed, &report->failed));
    o.backend = backend;
    o.each = asked->each;
    o.type = asked->on.dtype;
    PN_TRY(pn_op_check(op, &o, &report->passed, &report->failed));
    return PN_OK;
}

static pn_status print_gpu(FILE *out) {
    pn_device_info gpu;
    PN_TRY(pn_device_describe(&gpu));
    fprintf(out, "on %s, compute capability %d.%d, CUDA %d.%d, driver for CUDA %d.%d\n", gpu.name, gpu.major, gpu.minor,
            gpu.runtime / 1000, gpu.runtime % 1000 / 10, gpu.driver / 1000, gpu.driver % 1000 / 10);
    return PN_OK;
}

pn_status pn_check_ops(const pn_check_ops_options *o, FILE *out) {
    pn_report report = { .out = out };
    for (int i = 0; i < o->n; i++) { /* all names are known before the first runs */
        const pn_op *op;
        PN_TRY(pn_find_op(o->names[i], &op));
    }
    if (o->on.backend == PN_CUDA) PN_TRY(print_gpu(out));
    int n_ops;
    const pn_op *const *ops = pn_op_list(&n_ops);
    for (int i = 0; i < n_ops; i++) {
        bool asked = o->n == 0;
        for (int k = 0; k < o->n; k++) asked = asked || !strcmp(o->names[k], ops[i]->name);
        if (asked) PN_TRY(check(ops[i], o, &report));
    }
    return pn_report_end(&report);
}
