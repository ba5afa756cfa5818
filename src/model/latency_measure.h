/* Inside latency: timing a pass of something that takes tokens. */
#ifndef PN_MODEL_LATENCY_MEASURE_H
#define PN_MODEL_LATENCY_MEASURE_H

#include "decode.h"
#include "latency.h"

/* What is run once. Tensors are borrowed and stay as they are. */
typedef struct pn_latency_step {
    pn_tape *tape;      /* does not record */
    pn_docs docs;       /* the new tokens of every sequence */
    int64_t past;       /* tokens that every sequence has seen */
    pn_tensor *ids, *x; /* [tokens] I32 and [tokens, D] in the compute type: ids, and made-up activations */
    bool body, head;    /* without body, only logits of x; without head, no logits */
} pn_latency_step;

/* What a copy has: borrowed. */
typedef struct pn_latency_copy {
    const pn_params *params;
    pn_state *const *state; /* n_states of them, NULL: no state; the past is said before every run */
    int n_states;
} pn_latency_copy;

enum { PN_LATENCY_MOST_COPIES = 64 };
typedef struct pn_latency_subject {
    int64_t hidden, vocab; /* of the ids */
    int copies;            /* used in turn */
    bool has_head;
    pn_latency_copy (*copy)(void *ctx, int copy);
    pn_status (*run)(void *ctx, int copy, const pn_latency_step *step);
    void *ctx;
} pn_latency_subject;

pn_status pn_latency_measure(const pn_latency_subject *s, const pn_latency_setting *setting, pn_timing *out);

/* The pieces of a prompt that are measured, and how often each counts so that the sum is that of all pieces, as the
 * head of latency.h says. Returns how many. */
enum { PN_LATENCY_PIECES = 66 };
typedef struct pn_latency_piece {
    int64_t past, tokens;
    double weight;
} pn_latency_piece;
int pn_latency_pieces(int64_t context, int64_t chunk, pn_latency_piece out[PN_LATENCY_PIECES]);

#endif
