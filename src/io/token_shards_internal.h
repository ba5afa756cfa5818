/* Inside token shards: what the writer, the reader and the manifest share and nobody else includes. */
#ifndef PN_IO_TOKEN_SHARDS_INTERNAL_H
#define PN_IO_TOKEN_SHARDS_INTERNAL_H

#include "hdf5_io.h"
#include "token_shards.h"

enum {
    PN_SHARD_NAME_MAX = 32,
    PN_SHARDS_MAX = 100000, /* the name has five digits */
    PN_SHARD_CHUNK = 16384, /* tokens per HDF5 chunk: what a random read of one window has to fetch */
    PN_SHARD_SKILLS_MAX = 256,
    PN_MANIFEST_VERSION = 1
};

typedef struct pn_shard_entry {
    char file[PN_SHARD_NAME_MAX];
    int64_t n_tokens, n_docs, n_answers, n_choices, n_choice_tokens, n_bytes;
    uint64_t hash; /* xxh3-64 of the file */
} pn_shard_entry;

/* Owns everything it points to. */
typedef struct pn_token_manifest {
    uint64_t tokenizer_hash, seed;
    int64_t vocab;
    char *source, *split;
    bool classes;
    char **skills; /* (n_skills); NULL: the set keeps no answers */
    int n_skills;
    pn_shard_entry *shards; /* (n_shards) */
    int64_t n_shards;
} pn_token_manifest;

pn_status pn_token_manifest_write(const pn_token_manifest *m, const char *path);
/* Checks everything the file says, also against itself; the shards' files are not looked at. */
pn_status pn_token_manifest_read(const char *path, pn_token_manifest *out);
/* The same from memory; `path` is for messages. */
pn_status pn_token_manifest_parse(const char *path, const char *text, size_t n_bytes, pn_token_manifest *out);
void pn_token_manifest_free(pn_token_manifest *m);

/* The columns of /answers, beside /answers/offsets (n_docs + 1): the answers of document i are rows offsets[i] to
 * offsets[i + 1]. `choice` counts the choices of the shard. X(field, C type, stored type, memory type) */
#define PN_ANSWER_COLUMNS(X)                                                                                           \
    X(begin, int64_t, PN_H5_I64, PN_H5_I64)                                                                            \
    X(end, int64_t, PN_H5_I64, PN_H5_I64)                                                                              \
    X(distance, int64_t, PN_H5_I64, PN_H5_I64)                                                                         \
    X(skill, int32_t, PN_H5_I32, PN_H5_I32)                                                                            \
    X(n_choices, int32_t, PN_H5_I32, PN_H5_I32)                                                                        \
    X(gold, int32_t, PN_H5_I32, PN_H5_I32)                                                                             \
    X(chance, double, PN_H5_F64, PN_H5_F64)                                                                            \
    X(choice, int64_t, PN_H5_I64, PN_H5_I64)

static inline int64_t pn_shard_token_bytes(int64_t vocab) {
    return vocab <= 65536 ? 2 : 4;
}
static inline pn_h5_type pn_shard_token_type(int64_t vocab) {
    return vocab <= 65536 ? PN_H5_U16 : PN_H5_U32;
}

#endif
