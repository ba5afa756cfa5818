/* The optimizer of a list's weights, and its part of run state. */
#ifndef PN_TRAIN_OPTIMIZER_H
#define PN_TRAIN_OPTIMIZER_H

#include "checkpoint.h"
#include "optim.h"
#include "param.h"

/* Of every weight that trains, or of those below a prefix ("model.layers.0.mlp."; NULL: all). */
pn_status pn_optimizer_create(const pn_params *p, const char *below, const pn_adamw_settings *settings, pn_adamw **out);

enum { PN_OPTIMIZER_ARRAYS = 3, PN_OPTIMIZER_NAME = PN_NAME_MAX + 16 };
#define PN_OPTIMIZER_WEIGHT "weight"
/* weight/NAME (the master), moment1/NAME and moment2/NAME of each of its slots, all F32: PN_OPTIMIZER_ARRAYS times
 * pn_adamw_slots(o), which is returned. The arrays borrow their names and the optimizer. */
int pn_optimizer_arrays(pn_adamw *o, pn_checkpoint_array *out, char (*names)[PN_OPTIMIZER_NAME]);

#endif
