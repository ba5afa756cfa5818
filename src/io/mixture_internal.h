/* Inside mixtures: what mixture.c (parts and their order) and mixture_row.c (rows) share. */
#ifndef PN_IO_MIXTURE_INTERNAL_H
#define PN_IO_MIXTURE_INTERNAL_H

#include "mixture.h"

enum { PN_MIXTURE_PERIOD = 1000, PN_MIXTURE_PARTS_MAX = 64 };

/* The sets of one part for one split, read as one list of windows. */
typedef struct pn_windows {
    pn_token_set **sets; /* (n) owned */
    int64_t *first;      /* (n + 1) window at which each begins */
    int64_t n;
} pn_windows;

typedef struct pn_part {
    double weight;
    float class_weight[PN_CLASS_COUNT];
    pn_skill *skill; /* owned; NULL: shards */
    int64_t document_min, document_max;
    pn_windows windows[PN_SPLITS];
} pn_part;

/* Which part each row of a period comes from, and how many rows of that part came before it. */
typedef struct pn_schedule {
    int16_t part[PN_MIXTURE_PERIOD], before[PN_MIXTURE_PERIOD];
    int16_t rows[PN_MIXTURE_PARTS_MAX]; /* of each part in a period */
    bool empty;
} pn_schedule;

struct pn_mixture {
    const pn_tokenizer *tokenizer;
    pn_doc_frame frame;
    int64_t sequence_length;
    uint64_t seed;
    int32_t pad;
    pn_part *parts; /* (n_parts) */
    int64_t n_parts;
    pn_schedule schedule[PN_SPLITS];
    pn_token_doc doc; /* scratch */
};

#endif
