/* Shared by the parts that read config.json. */
#ifndef PN_IO_HF_INTERNAL_H
#define PN_IO_HF_INTERNAL_H

#include "json.h"
#include "model.h"

typedef struct pn_hf_file {
    const char *path; /* for messages */
    const json_t *root;
    const char *model_type;
} pn_hf_file;

/* Fills out->layer from layer_types; out->dims and out->n_layers are set. */
pn_status pn_hf_layers(const pn_hf_file *f, pn_model_config *out);
/* A block option from its JSON value, a message starting with `where`; and back, the caller owning the value. */
pn_status pn_hf_read_option(const char *where, const pn_option *row, const json_t *v, void *options);
json_t *pn_hf_option_json(const pn_option *row, const void *options);
/* A number that gives the same width as `expand`, base times it to nearest, also where a program cuts products off, and
 * of heads together as of one: `expand` itself where it does. */
double pn_hf_expand(double expand, int64_t base, int64_t heads);
/* swa with this window. */
pn_status pn_hf_window_spec(const pn_hf_file *f, int64_t window, const pn_dims *dims, pn_block_spec *out);
/* "bfloat16"; the id, or null for -1. */
const char *pn_hf_dtype_name(pn_dtype t);
json_t *pn_hf_token(int32_t id);
/* Fails again with the same status, the file's name in front of the message. */
pn_status pn_in_file(const char *path, pn_status s);

#endif
