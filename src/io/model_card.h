/* README.md of an exported directory, the model card of the Hugging Face hub: where the model comes from, what its
 * layers are, how it was made, what it scored. What is not known is said to be so. */
#ifndef PN_IO_MODEL_CARD_H
#define PN_IO_MODEL_CARD_H

#include "hf_config.h"
#include "json.h"

enum { PN_CARD_STAGES = 64 };

/* A part of training, as the configuration writes it; NULL: it does not say. */
typedef struct pn_card_stage {
    const char *name, *tokens, *batch_tokens, *learning_rate, *schedule, *teacher;
} pn_card_stage;

typedef struct pn_model_card { /* everything is borrowed */
    const char *name;          /* heading */
    const pn_model_config *config;
    int64_t parameters;
    pn_hf_kind kind;                     /* the directory's layout; AUTO is what it means for this model */
    const char *base;                    /* NULL: not recorded */
    const char *recipe;                  /* the run's configuration, YAML; NULL: not recorded */
    const char *where;                   /* a sentence: which model of the run it is; NULL: its result */
    bool unfinished;                     /* its last stage did not come to its end */
    pn_card_stage stage[PN_CARD_STAGES]; /* those that made it */
    int n_stages;
    const json_t *scores;  /* rows of a score table (search/result.h): the model's last, others to compare with before
                              it; NULL: not measured */
    const json_t *trained; /* the stages in the result.json of a finetune run, with held-out losses; NULL: none */
} pn_model_card;

/* Written aside and renamed. */
pn_status pn_model_card_write(const char *path, const pn_model_card *card);

#endif
