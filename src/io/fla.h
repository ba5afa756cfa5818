/* Checkpoints of flash-linear-attention ("fla"): config.json of its model types retnet, gla, delta_net and
 * gated_deltanet, and its names of weights, both ways (blocks.md 1.2).
 *
 * Such a model has one linear block, with one setting, in every layer that `attn` does not name, and one norm_eps for
 * layers and blocks. What fla's model code leaves to its layers' defaults (GLA's gate rank, RetNet's missing
 * convolutions) is fixed here too, so that a file says nothing that fla would not compute. */
#ifndef PN_IO_FLA_H
#define PN_IO_FLA_H

#include "hf_internal.h"

typedef struct pn_fla_kind pn_fla_kind; /* one of fla's model types; static */

/* NULL: not one that is read. */
const pn_fla_kind *pn_fla_find(const char *model_type);
/* "gated_deltanet" */
const char *pn_fla_model_type(const pn_fla_kind *kind);
/* The model type that holds this hybrid. PN_UNSUPPORTED, starting with `where`: none does; the message says why and
 * what to do. */
pn_status pn_fla_fits(const char *where, const pn_model_config *c, const pn_fla_kind **out);
/* config.json of a model that fits; the caller owns it. NULL: out of memory. */
json_t *pn_fla_config_json(const pn_model_config *c, const pn_fla_kind *kind);

/* Parts of reading one: sizes, then the mixers, for which out->dims and out->n_layers are set. A setting without
 * counterpart is refused by name. */
pn_status pn_fla_dims(const pn_hf_file *f, const pn_fla_kind *kind, pn_dims *out);
pn_status pn_fla_layers(const pn_hf_file *f, const pn_fla_kind *kind, pn_model_config *out);

/* Appends fla's name of one of our weights, and ours of one of fla's. Names that both share stay as they are. */
void pn_fla_name(const char *ours, pn_buf *out);
void pn_fla_our_name(const char *theirs, pn_buf *out);

#endif
