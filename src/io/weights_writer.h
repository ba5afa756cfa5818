/* Writes a model's weights as Hugging Face directories hold them: model.safetensors, or, beyond the size of a shard,
 * model-00001-of-0000N.safetensors ... and model.safetensors.index.json.
 *
 * All tensors are declared up front, so the headers are written first and the data streams behind them in any order:
 * no more than a piece of one tensor is ever in memory twice. Files grow under the name <file>.part and get their own
 * name in pn_weights_writer_commit, the index last. */
#ifndef PN_IO_WEIGHTS_WRITER_H
#define PN_IO_WEIGHTS_WRITER_H

#include "tensor.h"

/* What Hugging Face's own tools use. */
#define PN_DEFAULT_SHARD_BYTES INT64_C(5000000000)

typedef struct pn_weight_decl {
    const char *name; /* copied */
    pn_dtype dtype;   /* in the file */
    int rank;
    int64_t shape[PN_MAX_RANK];
} pn_weight_decl;

typedef struct pn_weights_writer pn_weights_writer;

/* dir exists. Tensors fill shards in the order given; one larger than max_shard_bytes has a shard to itself.
 * PN_IO: a file cannot be written. PN_USAGE: a name declared twice, a size beyond 64 bits. */
pn_status pn_weights_writer_create(const char *dir, const pn_weight_decl *decls, int64_t n, int64_t max_shard_bytes,
                                   pn_weights_writer **out);
/* Once for each declared tensor; t has the declared shape and any dtype. Rounds to nearest even. */
pn_status pn_weights_writer_put(pn_weights_writer *w, const char *name, const pn_tensor *t);
/* The files get their names; those of an earlier model in dir that would be read instead are removed. PN_USAGE when a
 * declared tensor was never put. */
pn_status pn_weights_writer_commit(pn_weights_writer *w);
/* Without a commit, nothing of it stays on disk. Accepts NULL, leaves NULL. */
void pn_weights_writer_destroy(pn_weights_writer **w);

#endif
