/* Inside mixtures: what mixture.c (parts and their order) and mixture_row.c (rows) share. */
#ifndef PN_IO_MIXTURE_INTERNAL_H
#define PN_IO_MIXTURE_INTERNAL_H

#include "mixture.h"

enum { PN_MIXTURE_PERIOD = 1000, PN_MIXTURE_PARTS_MAX = 64, PN_MIXTURE_SEGMENTS = 64 };

/* The sets of one part for one split, read as one list of windows. */
typedef struct pn_windows {
    pn_token_set **sets; /* (n) owned */
    int64_t *first;      /* (n + 1) window at which each begins */
    int64_t n;
} pn_windows;

typedef struct pn_part {
    pn_ramp weight;
    float class_weight[PN_CLASS_COUNT];
    pn_skill *skill; /* owned; NULL: shards */
    int64_t document_min, document_max;
    pn_windows windows[PN_SPLITS];
} pn_part;

/* The rows of a split: segments of `periods` periods each (the last goes on for ever) of `period` rows. */
typedef struct pn_schedule {
    int64_t period, periods;
    int n_segments; /* 0: no part has rows */
    struct pn_segment {
        int16_t rows[PN_MIXTURE_PARTS_MAX];   /* of each part in a period */
        int64_t before[PN_MIXTURE_PARTS_MAX]; /* rows of each part in earlier segments */
    } * segment;                              /* owned */
    /* Of the segment that was looked at last: which part each row of a period comes from, and how many rows of that
     * part came before it in the period. */
    int laid_out; /* -1: none yet */
    int16_t part[PN_MIXTURE_PERIOD], before[PN_MIXTURE_PERIOD];
} pn_schedule;

/* The part that row or document `index` of a split comes from, and its number among those of that part. The split has
 * rows. */
void pn_mixture_locate(pn_mixture *m, pn_split split, int64_t index, int64_t *part, int64_t *ordinal);
/* Where m->parts stand and m->rows is set. */
pn_status pn_mixture_schedule(pn_mixture *m, pn_split split);

struct pn_mixture {
    const pn_tokenizer *tokenizer;
    pn_doc_frame frame;
    int64_t sequence_length;
    uint64_t seed;
    int64_t rows; /* that changing weights change over */
    int32_t pad;
    pn_part *parts; /* (n_parts) */
    int64_t n_parts;
    pn_schedule schedule[PN_SPLITS];
    pn_token_doc doc; /* scratch */
};

#endif
