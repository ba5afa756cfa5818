/* Golden files: safetensors with inputs, results and gradients of one core, block or model, and its settings as
 * metadata. Heads may be a dimension there; here they are folded into the channels, which are contiguous either way. */
#ifndef PN_CLI_GOLDEN_H
#define PN_CLI_GOLDEN_H

#include "block.h"
#include "compute.h"
#include "json.h"
#include "safetensors.h"

/* Where a block's settings stand: the file's metadata, or one layer of a model file's layer_cfgs. */
typedef struct pn_golden_settings {
    const pn_safetensors *file;
    const json_t *layer; /* NULL: the file's own metadata */
} pn_golden_settings;

/* The file's name without its folder; borrowed. */
const char *pn_golden_name(const pn_safetensors *f);
/* PN_FORMAT when missing. */
pn_status pn_golden_info(const pn_safetensors *f, const char *name, const pn_tensor_info **out);
/* The tensor as values of `type` under the given shape, which must have as many elements and rows as the file's
 * (PN_FORMAT). The caller owns *out. */
pn_status pn_golden_read(const pn_safetensors *f, const char *name, pn_pool *pool, pn_dtype type, int rank,
                         const int64_t *shape, pn_tensor **out);
/* An error summed over pieces of a tensor. */
typedef struct pn_golden_sum {
    double diff, norm;
    bool bad; /* a value was not finite */
} pn_golden_sum;
/* Adds n values against elements first .. first + n - 1 of the file's tensor (PN_FORMAT when it is shorter). */
pn_status pn_golden_add(const pn_safetensors *f, const char *name, int64_t first, const float *x, int64_t n,
                        pn_golden_sum *sum);
/* rms(x - ref) / rms(ref) so far, as pn_relative_error. */
double pn_golden_rms(const pn_golden_sum *sum);
/* Of n values in one go, against elements first .. first + n - 1 of the file's tensor. */
pn_status pn_golden_error(const pn_safetensors *f, const char *name, int64_t first, const float *x, int64_t n,
                          double *error);
/* Of a whole tensor of any type, wherever it is, against the file's (PN_FORMAT when that has another size). */
pn_status pn_golden_tensor_error(const pn_safetensors *f, const char *name, const pn_tensor *x, double *error);

/* "attn", "gdn", ...: "swa" for an attention with a window; NULL when there is none. */
const char *pn_golden_kind(const pn_golden_settings *s);
/* A number, or 1 and 0 for true and false. *found false: missing, or none. PN_FORMAT: neither. */
pn_status pn_golden_number(const pn_golden_settings *s, const char *key, double *out, bool *found);

/* The block of these settings, and its model's sizes. spec->type is NULL when no block of the kind is built in.
 * PN_FORMAT: a setting is missing or senseless; PN_USAGE: the block refuses it. */
pn_status pn_golden_block(const pn_golden_settings *s, bool qkv_bias, pn_block_spec *spec, pn_dims *dims);
/* Weights whose gradient comes through a gate or a step size: the wider limit of blocks.md 13. `name` may carry the
 * block's prefix. */
bool pn_golden_is_gate(const char *name);

/* Limits of blocks.md 13, fp32 column. */
#define PN_LIMIT_OUTPUT         1e-5 /* outputs and states of cores and blocks, logits and loss, decoding */
#define PN_LIMIT_GRADIENT       2e-5 /* of cores and blocks */
#define PN_LIMIT_GATE_GRADIENT  1e-4
#define PN_LIMIT_MODEL_GRADIENT 1e-4

/* Both columns, by compute type. */
typedef struct pn_golden_limits {
    double core, core_gradient, core_gate; /* outputs and states; gradients; those of gates */
    double block, dx, weight, gate_weight; /* outputs, states and decoding; gradients of the input and of weights */
    double model, model_gradient;          /* logits and loss; all gradients */
} pn_golden_limits;
const pn_golden_limits *pn_golden_limits_of(pn_dtype compute);

#endif
