/* "gates": {"candidates": [name], "points": [{"step", "tokens", "temperature", "p": [[per candidate] per layer]}],
 * "final": [[per candidate] per layer]}; layer 0 has every candidate. */
#include "result.h"

static json_t *rows(const pn_gates *g) {
    json_t *layers = json_array();
    for (int l = 0; l < g->n_layers; l++) {
        json_t *row = json_array();
        for (int c = 0; c < g->n_candidates; c++) json_array_append_new(row, json_real(g->p[l][c]));
        json_array_append_new(layers, row);
    }
    return layers;
}

json_t *pn_gates_json(const pn_model *supernet, const pn_supernet_result *trained) {
    json_t *names = json_array(), *points = json_array();
    for (int c = 0; c < supernet->layer[0].n_candidates; c++) {
        char name[64];
        json_array_append_new(names, json_string(pn_candidate_text(supernet, 0, c, name, sizeof name)));
    }
    for (int i = 0; i < trained->gate_curve.n; i++) {
        const pn_gate_point *p = &trained->gate_curve.point[i];
        json_array_append_new(points,
                              json_pack("{s:I, s:I, s:f, s:o}", "step", (json_int_t)p->step, "tokens",
                                        (json_int_t)p->tokens, "temperature", p->temperature, "p", rows(&p->gates)));
    }
    return json_pack("{s:o, s:o, s:o}", "candidates", names, "points", points, "final", rows(&trained->gates));
}
