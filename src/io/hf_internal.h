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
/* Fails again with the same status, the file's name in front of the message. */
pn_status pn_in_file(const char *path, pn_status s);

#endif
