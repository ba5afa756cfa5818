/* Where a command computes and in what type: the keys `device` and `precision`, and the options of the same names. */
#ifndef PN_BLOCKS_COMPUTE_H
#define PN_BLOCKS_COMPUTE_H

#include "options.h"
#include "param.h"

typedef struct pn_compute_options {
    int64_t device, precision;
} pn_compute_options;

extern const pn_option pn_compute_option_table[];

typedef struct pn_compute {
    pn_backend backend; /* PN_CPU or PN_CUDA */
    pn_dtype dtype;     /* the compute type (op.h): F32, or BF16 for PN_CUDA */
} pn_compute;

/* Opens the GPU where one is asked for. PN_USAGE, starting with `where`, for BF16 on the CPU;
 * PN_UNSUPPORTED, with the remedy, without a GPU that can be used. */
pn_status pn_compute_open(const pn_compute_options *o, const char *where, pn_compute *out);
/* The same without opening anything. */
pn_compute pn_compute_asked(const pn_compute_options *o);
/* Says which GPU it is, to people and to the log, once that is open; nothing on the CPU. */
pn_status pn_compute_tell(const pn_compute *c);

#endif
