/* Gates: how much of every candidate each layer uses, learnt in mode `gated` (gated.h).
 *
 *     y_l = sum_c p_lc f_lc(x_l),   p_l = softmax over the candidates of a_l / temperature      (gate_softmax.h)
 *
 * a: one logit per layer and candidate, 0 at first. The temperature falls over the steps, so that mixtures become
 * choices. With budget `limit` the gates of full attention sum to the number of layers that may keep it, at every step:
 * the teacher is candidate 0, so without a limit every layer would simply choose it. */
#ifndef PN_SUPERNET_GATES_H
#define PN_SUPERNET_GATES_H

#include "model.h"

typedef enum pn_gate_anneal { PN_ANNEAL_EXPONENTIAL, PN_ANNEAL_LINEAR } pn_gate_anneal;
typedef enum pn_gate_budget { PN_BUDGET_LIMIT, PN_BUDGET_FREE } pn_gate_budget;
typedef enum pn_gate_cost { PN_COST_NONE, PN_COST_CACHE_BYTES, PN_COST_SECONDS } pn_gate_cost;

typedef struct pn_gate_options {
    double learning_rate;                  /* of the logits, constant */
    double temperature, final_temperature; /* at the first step with learning gates, and at the last */
    int64_t anneal;                        /* pn_gate_anneal: how it goes from one to the other */
    double warmup;                         /* fraction of the steps in which gates stay as they are */
    int64_t budget;                        /* pn_gate_budget */
    int64_t cost;                          /* pn_gate_cost: a term of the loss */
    double cost_weight;
    int64_t cost_context; /* tokens */
} pn_gate_options;

extern const pn_option pn_gate_option_table[];

/* How many of `steps` steps leave the gates alone, and the temperature of one of them, counted from 0. */
int64_t pn_gate_warmup_steps(const pn_gate_options *o, int64_t steps);
double pn_gate_temperature(const pn_gate_options *o, int64_t step, int64_t steps);
/* Identifies everything in the options that training depends on. */
uint64_t pn_gate_options_hash(const pn_gate_options *o);

/* Gates at one moment: row l is a distribution over the candidates of layer l, candidate 0 the base's attention. */
typedef struct pn_gates {       /* a value: copy it freely */
    bool present;               /* false: the super-network was not trained in mode gated */
    int n_layers, n_candidates; /* the most candidates any layer has; a layer with fewer has p = 0 for the rest */
    double p[PN_MAX_LAYERS][PN_MAX_CANDIDATES];
} pn_gates;

typedef struct pn_gate_point {
    int64_t step, tokens;
    double temperature;
    pn_gates gates; /* after that step */
} pn_gate_point;

/* Gates over training, at the steps of the loss curve (trainer.h). */
typedef struct pn_gate_curve {
    pn_gate_point *point; /* owned */
    int n;
} pn_gate_curve;
void pn_gate_curve_free(pn_gate_curve *c);

#endif
