/* A model in a GGUF file (general.architecture llama or qwen2): its config from the metadata, its weights under their
 * Hugging Face names, and its tokenizer.
 *
 * The llama architecture stores the rows of q and k of each head so that rotary pairs are neighbours (2i, 2i + 1); here
 * and in Hugging Face files channel i pairs with i + d/2 (blocks.md 1.5). Reading puts the rows back:
 *     row a d/2 + i of a head  =  stored row 2 i + a,     a = 0, 1, i = 0 .. d/2 - 1
 * The qwen2 architecture stores them as they are. */
#ifndef PN_IO_GGUF_MODEL_H
#define PN_IO_GGUF_MODEL_H

#include "gguf.h"
#include "model.h"
#include "tokenizer.h"
#include "weights.h"

/* file_dtype: that of the matrices when all have one, F32 when any is quantised. PN_FORMAT, PN_UNSUPPORTED: the message
 * names file and key. */
pn_status pn_gguf_config(const pn_gguf *f, pn_model_config *out);
/* f is borrowed until the weights are closed. PN_UNSUPPORTED: a tensor without a counterpart. */
pn_status pn_gguf_weights(const pn_gguf *f, const pn_model_config *c, pn_weights **out);
/* PN_FORMAT, PN_UNSUPPORTED: the message names file and key, or the token at fault. */
pn_status pn_gguf_tokenizer(const pn_gguf *f, pn_tokenizer **out);

#endif
