/* What training in mode `gated` says about the layers: how much of every candidate each layer came to use. */
#ifndef PN_SUPERNET_GATES_H
#define PN_SUPERNET_GATES_H

#include "model.h"

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
