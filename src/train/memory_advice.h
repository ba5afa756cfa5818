/* Which settings make a training need less memory: of those that its command has the ones that are not at their end
 * already, with the most that each can take off. Named to people are those that suffice alone, else all of them. */
#ifndef PN_TRAIN_MEMORY_ADVICE_H
#define PN_TRAIN_MEMORY_ADVICE_H

#include "memory.h"

enum { PN_MEMORY_SETTINGS = 8, PN_MEMORY_ADVICE = 1024 };

typedef struct pn_memory_setting {
    double saves;   /* bytes, at most */
    char text[120]; /* "lower batch_tokens" */
} pn_memory_setting;

typedef struct pn_memory_settings { /* starts as {0} */
    int n;
    pn_memory_setting item[PN_MEMORY_SETTINGS];
    double memory_gb; /* what the configuration says of it; 0: nothing */
} pn_memory_settings;

/* Adds one; where it saves nothing it does not. */
void pn_memory_may(pn_memory_settings *s, double saves, const char *fmt, ...) PN_PRINTF(3, 4);
/* Adds what the options of a job have, which needs `need` and has free_bytes: tokens of a pass, recompute, precision;
 * of a stage of finetune also ranks, what trains, and the teacher. */
void pn_memory_job_settings(const pn_train_job *job, const pn_memory_need *need, double free_bytes,
                            pn_memory_settings *s);

/* "lower a, or set b": what takes `excess` bytes off. Returns text, of PN_MEMORY_ADVICE bytes. */
const char *pn_memory_advice(const pn_memory_settings *s, double excess, char text[PN_MEMORY_ADVICE]);

/* Bytes of the weights of m (NULL: none) that are not those of the model beside it. */
double pn_own_bytes(const pn_model *m, const pn_model *beside);

#endif
