/* How fast blocks are on this machine, measured: the latency table, and what it predicts of a whole model.
 *
 * Two passes are measured, on the threads there are with weights and activations in F32, or on the GPU, where a pass
 * ends when the GPU has done it and a step of decoding is a CUDA graph (decode.h):
 *
 *     decode     `batch` sequences, each extended by the last token of a context of `context` tokens
 *     prefill    `prompts` prompts, 1 unless somebody asks for more, of `context` tokens each, in pieces of `chunk`,
 *                through the decode state
 *
 * A decode state starts with zeros for the context instead of computing it. Of a prompt the pieces number 0, 1, 2, 4,
 * 8, .. and the last are measured and those between interpolated: exact where a piece costs a constant and what its
 * tokens look back on, up to a window of a piece times a power of two; memory is that of one piece and the state.
 *
 * A model is its parts: the mixer of every layer, the rest of a layer (both norms, both additions, the MLP), and its
 * ends (embedding, last norm, logits of one token per sequence). Parts are measured in copies used in turn: between
 * two uses of a part, a model uses all of its weights (`working_set`) and the decode state of every layer (`layers`),
 * and what does not fit the caches meanwhile comes from memory.
 *
 * The table keeps every measurement under a key of everything that it depends on: pass, part with its resolved options,
 * dims, setting, threads and processor, or GPU and type. What is in the table is never measured again, so what a run
 * decides by it stays decided when it goes on. */
#ifndef PN_MODEL_LATENCY_H
#define PN_MODEL_LATENCY_H

#include "model.h"
#include "timing.h"

typedef enum pn_latency_pass { PN_LATENCY_DECODE, PN_LATENCY_PREFILL } pn_latency_pass;

typedef struct pn_latency_options {
    const char *table;   /* a table to start from; NULL: none */
    int64_t batch;       /* decode: sequences */
    pn_int_list context; /* tokens: one measurement each */
    int64_t chunk;       /* prefill: tokens of a piece */
    int64_t repeat;      /* timed runs of each measurement */
    double seconds;      /* fewer runs where they take longer than that (timing.h) */
} pn_latency_options;

extern const pn_option pn_latency_option_table[];

typedef struct pn_latency_setting {
    pn_latency_pass pass;
    int64_t batch, context, chunk;
    int64_t working_set; /* bytes of weights */
    int64_t layers;
    int64_t repeat; /* this and the next do not belong to the key */
    double seconds;
    pn_backend backend; /* this and the next are the table's: where, and in what type, its parts are measured */
    pn_dtype dtype;
    int64_t prompts; /* prefill; 0 is 1 */
} pn_latency_setting;
/* Sequences that a pass takes at once. */
int64_t pn_latency_sequences(const pn_latency_setting *setting);

/* The setting for models like `base`, whose weights count as far as they go beyond the caches. */
pn_status pn_latency_setting_of(const pn_latency_options *o, pn_latency_pass pass, int64_t context,
                                const pn_model_config *base, pn_latency_setting *out);
/* Tokens of one pass: of all sequences, or of the prompts. */
double pn_latency_tokens(const pn_latency_setting *setting);

/* ---- the table ---- */

typedef struct pn_latency pn_latency;

/* Reads `file`; where it does not exist, starts with what `start` (NULL: nothing) holds. file NULL: a table in memory
 * only. Nothing is written before something is measured, or taken over from `start`. PN_FORMAT, naming file and place,
 * when one is not a latency table. */
pn_status pn_latency_open(const char *file, const char *start, pn_latency **out);
void pn_latency_close(pn_latency **t);
/* From here on parts are measured (and looked for) on this backend in this type: those of a model (param.h). At first
 * PN_CPU in F32. */
pn_status pn_latency_on(pn_latency *t, pn_backend backend, pn_dtype dtype);
/* From here on PN_USAGE instead of a measurement. */
void pn_latency_freeze(pn_latency *t);
/* How many measurements this process made: the others were stored. */
int64_t pn_latency_measured(const pn_latency *t);

/* Seconds of one pass through a part: from the table, else measured now and stored, the file written aside and renamed.
 * PN_USAGE when options do not fit dims, when a context is too large for the memory; PN_INTERRUPTED by a signal.
 *
 * of a block (a mixer or the MLP): none takes no time */
pn_status pn_latency_block(pn_latency *t, const pn_block_spec *spec, const pn_dims *dims,
                           const pn_latency_setting *setting, pn_timing *out);
/* of the rest of a layer */
pn_status pn_latency_rest(pn_latency *t, const pn_dims *dims, const pn_latency_setting *setting, pn_timing *out);
/* of the ends */
pn_status pn_latency_ends(pn_latency *t, const pn_dims *dims, int64_t vocab, const pn_latency_setting *setting,
                          pn_timing *out);
/* The prediction for a model with the mixers `config->layer` (of a path: pn_model_path_config): the sum over its parts,
 * where also a layer without mixer counts both norms. `runs` is the least of them. */
pn_status pn_latency_predict(pn_latency *t, const pn_model_config *config, const pn_latency_setting *setting,
                             pn_timing *out);

/* ---- without a table ---- */

/* Seconds of one pass through a whole model along a path (NULL: candidate 0), measured in the same way. */
pn_status pn_latency_model(const pn_model *m, const pn_path *path, const pn_latency_setting *setting, pn_timing *out);

#endif
