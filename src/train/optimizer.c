#include "optimizer.h"

#include <stdio.h>
#include <stdlib.h>

pn_status pn_optimizer_create(const pn_params *p, const char *below, const pn_adamw_settings *settings,
                              pn_adamw **out) {
    pn_adamw_slot *slots = calloc((size_t)p->n + 1, sizeof *slots);
    PN_CHECK(slots, PN_MEMORY, "out of memory");
    int n = 0;
    for (int i = 0; i < p->n; i++) {
        const pn_param *x = p->item[i];
        if (x->value->wants_grad && (!below || pn_param_below(x->name, below)))
            slots[n++] = (pn_adamw_slot){ x->value, x->decay, x->name };
    }
    pn_status s = pn_adamw_create(slots, n, settings, out);
    free(slots);
    return s;
}

static pn_status read_master(const void *of, int i, void *values) {
    return pn_adamw_read_master(of, i, values);
}
static pn_status write_master(void *of, int i, const void *values) {
    return pn_adamw_write_master(of, i, values);
}
static const pn_checkpoint_source masters = { read_master, write_master };

int pn_optimizer_arrays(pn_adamw *o, pn_checkpoint_array *out, char (*names)[PN_OPTIMIZER_NAME]) {
    static const char *const parts[PN_OPTIMIZER_ARRAYS] = { PN_OPTIMIZER_WEIGHT, "moment1", "moment2" };
    int n = 0;
    for (int i = 0; i < pn_adamw_slots(o); i++) {
        pn_tensor *value = pn_adamw_value(o, i);
        for (int part = 0; part < PN_OPTIMIZER_ARRAYS; part++, n++) {
            snprintf(names[n], sizeof names[n], "%s/%s", parts[part], pn_adamw_name(o, i));
            if (part)
                out[n] = pn_checkpoint_tensor(names[n], PN_F32, pn_adamw_moment(o, i, part - 1));
            else if (value->dtype == PN_F32)
                out[n] = pn_checkpoint_tensor(names[n], PN_F32, value);
            else
                out[n] = pn_checkpoint_from(names[n], PN_F32, pn_tensor_elems(value), &masters, o, i);
        }
    }
    return n;
}
