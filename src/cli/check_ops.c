#include "check_ops.h"

#include <string.h>

#include "check_report.h"
#include "find_op.h"
#include "op_check.h"

static pn_status check(const pn_op *op, bool slow, pn_report *report) {
    fprintf(report->out, "%s\n", op->name);
    for (int pass = 0; pass < 2; pass++) {
        pn_op_check_options o = { .backend = pass ? PN_CPU : PN_REF, .slow = slow, .out = report->out };
        PN_TRY(pn_op_check(op, &o, &report->passed, &report->failed));
    }
    return PN_OK;
}

pn_status pn_check_ops(char *const *names, int n, bool slow, FILE *out) {
    pn_report report = { .out = out };
    for (int i = 0; i < n; i++) { /* all names are known before the first runs */
        const pn_op *op;
        PN_TRY(pn_find_op(names[i], &op));
    }
    int n_ops;
    const pn_op *const *ops = pn_op_list(&n_ops);
    for (int i = 0; i < n_ops; i++) {
        bool asked = n == 0;
        for (int k = 0; k < n; k++) asked = asked || !strcmp(names[k], ops[i]->name);
        if (asked) PN_TRY(check(ops[i], slow, &report));
    }
    return pn_report_end(&report);
}
