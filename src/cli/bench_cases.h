/* The shapes that `postnas bench` measures: those of models people have. */
#ifndef PN_CLI_BENCH_CASES_H
#define PN_CLI_BENCH_CASES_H

#include "model.h"
#include "op.h"

typedef struct pn_bench_shape {
    const char *name;
    pn_dims dims;
    int64_t vocab;
    int n_layers;
    bool hybrid; /* Jet-Nemotron-2B: JetBlock, and four layers of attention (arXiv:2508.15884, table 1) */
} pn_bench_shape;

/* PN_USAGE with the nearest name for an unknown one. */
pn_status pn_bench_shape_find(const char *name, const pn_bench_shape **out);
/* "smollm2-135m, qwen2.5-0.5b, ..."; returns buffer. */
const char *pn_bench_shape_names(char *buffer, size_t n);

/* A model of that shape with random weights: speed does not depend on what they say. Its layers, or the first `layers`
 * of them (0: all), have the blocks in turn. */
pn_status pn_bench_shape_model(const pn_bench_shape *shape, int64_t layers, const pn_block_spec *block, int n_blocks,
                               pn_model **out);

/* The same layers with softmax attention and weights of its own for it; the others are the student's. */
pn_status pn_bench_teacher(const pn_model *student, pn_model **out);

/* The mixers of the shape's layers in turn, at most PN_MAX_LAYERS: attention, or what the published hybrid has. */
pn_status pn_bench_shape_blocks(const pn_bench_shape *shape, pn_block_spec *block, int *n);

enum { PN_BENCH_DECODING = 8, PN_BENCH_MOST_SEQUENCES = 256 };

/* A case and the arrays its attributes point to: not to be copied. The name holds the shape. */
typedef struct pn_bench_case {
    pn_op_case op_case;
    int64_t offset[PN_BENCH_MOST_SEQUENCES + 1];
    int64_t key_start[PN_BENCH_MOST_SEQUENCES], key_len[PN_BENCH_MOST_SEQUENCES];
} pn_bench_case;

/* Variant i of an op in a model of that shape, on so many tokens in documents of equal length; false past the last.
 * tokens 0: the variants for decoding, sequences by one token each. sequences 0: one document, PN_BENCH_DECODING
 * sequences. An op that has no shapes here is measured on the
 * largest of its own cases. */
bool pn_bench_case_at(const pn_op *op, const pn_bench_shape *shape, int64_t tokens, int64_t sequences, int i,
                      pn_bench_case *out);

#endif
