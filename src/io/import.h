/* import: a model in GGUF or Hugging Face form becomes a model directory of our own: config.json,
 * generation_config.json, safetensors and the tokenizer's files. */
#ifndef PN_IO_IMPORT_H
#define PN_IO_IMPORT_H

#include "model_load.h"

typedef struct pn_import_options {
    pn_dtype dtype; /* of the written matrices. PN_DTYPES: that of the source; F32 for a quantised one, whose values
                     * neither BF16 nor F16 can hold exactly */
    int64_t max_shard_bytes; /* 0: PN_DEFAULT_SHARD_BYTES */
} pn_import_options;

typedef struct pn_import_report {
    int64_t parameters;
    int n_layers;
    pn_dtype dtype;   /* as written */
    bool quantised;   /* the source was */
    const char *kind; /* "qwen2", "llama", "jet_nemotron"; static */
} pn_import_report;

/* source: a directory or a GGUF file. dir: does not exist or is empty; it appears when everything is in it. The
 * tokenizer of a GGUF file is converted; the files of a directory's are copied as they are. report: NULL if not wanted.
 */
pn_status pn_import(const char *source, const char *dir, const pn_import_options *options, pn_import_report *report);

#endif
