/* finetune: trains a model on mixtures in stages, from random weights, a model directory or the run of a search.
 *
 *     output: runs/base          seed: 1          sequence_length: 256
 *     model: DIR                 or   random: { hidden_size: 64, ... }  with  tokenizer: bytes | DIR
 *     hybrid: { layers: "jet*14, attention, ..." }     other mixers in the model's layers, with random weights
 *     trains: ["*"]              glob patterns of the weights that train; frozen: patterns taken out again
 *     stages:
 *       - name: distil
 *         tokens: 1000000
 *         teacher: base          whom kl and feature follow
 *         teacher_logits: DIR    what it said, read in its place (teach.h)
 *         ce: 0
 *         kl: [1, 0.1]           a weight from the stage's start to its end
 *         frozen: ["*.mlp.*"]
 *         mixture: [ { skill: recall, document_max: 31 } ]
 *
 * Every stage has the keys of a trainer (train_options.h), a mixture, a teacher and what trains. A run goes on where it
 * was stopped. */
#ifndef PN_TRAIN_FINETUNE_H
#define PN_TRAIN_FINETUNE_H

#include "config.h"
#include "launch.h"

extern const pn_config_section pn_finetune_sections[]; /* every one, for `postnas config` */
/* Reads every section, for `postnas config` and before running. */
pn_status pn_finetune_read_config(pn_config *c);
/* Runs to the end; the model is in <output>/model, those after the stages before the last in <output>/stages/1 ..
 * who: one of how many ranks; all run with the same configuration, on a file system that all of them see. Rank 0 alone
 * writes, but for each rank's part of the state. */
pn_status pn_finetune_run(pn_config *c, const pn_launch *who);

typedef struct pn_finetune_plan_options {
    double tokens_per_second; /* of a device; 0: not known, or measured */
    bool measure;             /* time a few steps of every stage on this machine's device */
    int64_t devices;          /* that share the work evenly, and the optimizer (zero.h) */
} pn_finetune_plan_options;

/* What training would take, to `out`: steps, memory by part, time. Trains nothing and writes nothing. */
pn_status pn_finetune_plan(pn_config *c, const pn_finetune_plan_options *o, FILE *out);

#endif
