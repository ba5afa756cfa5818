/* finetune: trains a model on mixtures in stages, from random weights or from a model directory.
 *
 *     output: runs/base          seed: 1          sequence_length: 256
 *     model: DIR                 or   random: { hidden_size: 64, ... }  with  tokenizer: bytes | DIR
 *     trains: ["*"]              glob patterns of the weights that train; frozen: patterns taken out again
 *     stages:
 *       - name: short
 *         tokens: 1000000
 *         mixture: [ { skill: recall, document_max: 31 } ]
 *
 * Every stage has the keys of a trainer (trainer.h) and a mixture. A run goes on where it was stopped. */
#ifndef PN_TRAIN_FINETUNE_H
#define PN_TRAIN_FINETUNE_H

#include "config.h"

extern const pn_config_section pn_finetune_sections[]; /* every one, for `postnas config` */
/* Reads every section, for `postnas config` and before running. */
pn_status pn_finetune_read_config(pn_config *c);
/* Runs to the end; the model is in <output>/model. */
pn_status pn_finetune_run(pn_config *c);

#endif
