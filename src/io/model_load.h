/* A model out of its files (a Hugging Face directory, or a GGUF file) and into a Hugging Face directory. */
#ifndef PN_IO_MODEL_LOAD_H
#define PN_IO_MODEL_LOAD_H

#include "gguf.h"
#include "hf_config.h"
#include "model.h"
#include "weights.h"

/* Config and weights of a model, open but not loaded. */
typedef struct pn_model_files {
    pn_model_config config;
    pn_hf_kind kind;     /* whose names the tensors have in the files; PN_HF_AUTO for GGUF */
    pn_weights *weights; /* under our names, which are those of Hugging Face's own models; owned */
    pn_gguf *gguf;       /* owned; NULL for a directory */
} pn_model_files;

/* path: a directory with config.json and safetensors, or a GGUF file. config.file_dtype is that
 * of the stored matrices. */
pn_status pn_model_files_open(const char *path, pn_model_files *out);
/* Leaves {0}. */
void pn_model_files_close(pn_model_files *files);

/* The model with all its weights, as values of `dtype`. PN_FORMAT: a tensor is missing or has another shape, which is
 * found before memory is taken for it; the files hold one that the model has no place for. */
pn_status pn_model_load(const char *path, pn_dtype dtype, pn_model **out);
/* The same from open files. */
pn_status pn_model_load_files(const pn_model_files *files, pn_dtype dtype, pn_model **out);

typedef struct pn_save_options {
    pn_dtype dtype;          /* of matrices; small tensors that the maths needs in F32 stay so (blocks.md 1.2) */
    int64_t max_shard_bytes; /* 0: PN_DEFAULT_SHARD_BYTES */
    pn_hf_kind kind;
} pn_save_options;

/* Writes config.json, generation_config.json and the weights of candidate 0 of every layer into an existing directory.
 * An attention layer without QKV biases is written with zero ones where the model type always has them. A jet_nemotron
 * directory with layer types that only postnas knows also gets a postnas.json that says so. */
pn_status pn_model_save(const pn_model *m, const char *dir, const pn_save_options *options);

#endif
