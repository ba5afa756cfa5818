/* config.json of a Hugging Face model directory, in and out (model types qwen2, llama, jet_nemotron, and those of fla:
 * fla.h).
 *
 * Both generations of field names are read: rope_theta and torch_dtype, rope_parameters.rope_theta and dtype. A setting
 * that would change the mathematics and has no counterpart here is refused by name, never ignored. */
#ifndef PN_IO_HF_CONFIG_H
#define PN_IO_HF_CONFIG_H

#include "model.h"

typedef enum pn_hf_kind {
    PN_HF_AUTO, /* qwen2 or llama where every layer is full attention, else jet_nemotron */
    PN_HF_QWEN2,
    PN_HF_LLAMA,
    PN_HF_JET_NEMOTRON, /* with auto_map to the published modelling code */
    PN_HF_FLA           /* the model type of flash-linear-attention that the hybrid's linear block has; its names too */
} pn_hf_kind;

/* path: the directory, or the file itself. The result has passed pn_model_config_check and its block options are
 * resolved. PN_IO: not readable. PN_FORMAT, PN_USAGE, PN_UNSUPPORTED: the message names file and field. */
pn_status pn_hf_config_read(const char *path, pn_model_config *out);
/* The same, and whose names the weights beside it have: never AUTO. */
pn_status pn_hf_config_read_kind(const char *path, pn_model_config *out, pn_hf_kind *kind);
/* The same from memory; `name` stands for the file in messages. */
pn_status pn_hf_config_parse(const char *name, const char *text, size_t n_bytes, pn_model_config *out);

/* A layer's name in layer_types and efficient_attention_config: "gdn", or "gdn_postnas" with an extension on; "gdn_2"
 * for a second setting of that block in the model. */
enum { PN_HF_LAYER_NAME = 64 };
void pn_hf_layer_name(const pn_model_config *c, int layer, char out[PN_HF_LAYER_NAME]);
/* Whether the published jet_nemotron modelling code loads a layer of this name. */
bool pn_hf_layer_published(const char *name);

/* What AUTO means for this model: never AUTO. */
pn_hf_kind pn_hf_kind_of(const pn_model_config *c, pn_hf_kind asked);
/* "qwen2", ..., "fla"; not of AUTO. */
const char *pn_hf_model_type(pn_hf_kind kind);
/* Whether a model can be written as that model type. PN_UNSUPPORTED, starting with `where`, when not (a linear block in
 * llama; what fla's layers do not do): it says why and what to do instead. */
pn_status pn_hf_config_fits(const char *where, const pn_model_config *c, pn_hf_kind kind);
/* Written aside and renamed. The model must fit, or it fails as that does. */
pn_status pn_hf_config_write(const char *path, const pn_model_config *c, pn_hf_kind kind);
/* generation_config.json: which ids start and end a text. */
pn_status pn_hf_generation_config_write(const char *path, const pn_model_config *c);

#endif
