/* The model card of `postnas export`: what the run's directory says of base, recipe and scores. */
#ifndef PN_CLI_EXPORT_CARD_H
#define PN_CLI_EXPORT_CARD_H

#include "model_card.h"

typedef struct pn_export_card {
    const char *run;    /* the directory of the run that made it; NULL: not known */
    bool is_result;     /* the run's scores are its own */
    int stage;          /* of finetune, from 1: the one after which it is the model; 0: the last, or no such run */
    int64_t step;       /* of that stage, which is not finished: the one after which it is the model; 0: it is */
    const char *scores; /* a file of `postnas eval --output`, instead of those; NULL: none */
    const pn_model_config *config;
    int64_t parameters;
    pn_hf_kind kind;
    const char *target; /* of the export: its last part is the heading */
} pn_export_card;

/* Writes dir/README.md. PN_FORMAT, PN_USAGE: a file of the run, or the scores, are no such file. */
pn_status pn_export_card_write(const pn_export_card *card, const char *dir);

#endif
