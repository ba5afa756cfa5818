/* result.json and report.html of a finetune run: what it trained on and how its losses went. */
#ifndef PN_TRAIN_FINETUNE_RESULT_H
#define PN_TRAIN_FINETUNE_RESULT_H

#include <jansson.h>

#include "recipe.h"
#include "run_dir.h"
#include "trainer.h"

typedef struct pn_finetune_result {
    const pn_run_dir *run; /* borrowed */
    json_t *root, *stage;  /* owned; the entry of the stage that trains, which root owns */
} pn_finetune_result;

pn_status pn_finetune_result_open(const pn_recipe *r, const pn_run_dir *run, const pn_params *params,
                                  pn_finetune_result *out);
void pn_finetune_result_close(pn_finetune_result *x); /* also one that is zeroed */
/* The stage that follows; teacher: its directory, "" for none. */
pn_status pn_finetune_result_begin(pn_finetune_result *x, const pn_recipe *r, int stage, const pn_params *params,
                                   const char *teacher);
/* The stage's losses so far, and both files again. As a job's `shows`: ctx is the result. */
pn_status pn_finetune_result_show(void *ctx, const pn_curve *curve, const pn_curve *heldout);

#endif
