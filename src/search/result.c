#include "result.h"

#include <inttypes.h>
#include <string.h>

enum { HISTORY_CONTEXT = 65536 }; /* tokens at which the history's decode states are compared */

/* A path as a list of block names, one per layer. */
static json_t *path_json(const pn_model *m, const pn_path *path) {
    json_t *list = json_array();
    for (int l = 0; l < path->n; l++)
        json_array_append_new(list, json_string(m->layer[l].candidate[path->choice[l]]->spec.type->name));
    return list;
}

json_t *pn_metrics_json(const pn_metrics *m) {
    json_t *o = json_object();
    for (int i = 0; i < m->n; i++) json_object_set_new(o, m->name[i], json_real(m->value[i]));
    return o;
}

json_t *pn_tasks_json(const pn_search_config *c, const pn_metrics *metrics) {
    json_t *o = json_object();
    for (int k = 0; k < c->n_tasks; k++) json_object_set_new(o, c->tasks[k].options.name, pn_metrics_json(&metrics[k]));
    return o;
}

static json_t *limits_json(const pn_search_config *c) {
    json_t *o = json_object();
    for (int k = 0; k < PN_KINDS; k++) json_object_set_new(o, pn_kind_names[k], json_integer(c->limit[k]));
    return o;
}

/* Which kinds were placed together, by what objective, and the path after each. */
static json_t *stages_json(const pn_result *r) {
    json_t *list = json_array();
    char text[PN_PATH_TEXT_MAX];
    for (int i = 0; i < r->n_stages; i++) {
        const pn_stage *g = &r->stage[i];
        json_t *kinds = json_array();
        for (int k = g->first; k < g->first + g->n; k++)
            json_array_append_new(kinds, json_string(r->space.limit[k].name));
        if (i >= r->n_placements) json_array_append_new(kinds, json_string(g->name));
        json_array_append_new(list,
                              json_pack("{s:o, s:s, s:b, s:b, s:s}", "kinds", kinds, "objective", g->objective->text,
                                        "ascending", g->objective->ascending, "normalised", g->objective->normalised,
                                        "path", pn_path_text(r->supernet, &r->placed[i], text, sizeof text)));
    }
    return list;
}

static json_t *history_json(const pn_result *r) {
    json_t *list = json_array();
    for (int i = 0; i < r->n_history; i++) {
        const pn_history *h = &r->history[i];
        json_t *o = json_object();
        char text[PN_PATH_TEXT_MAX];
        json_object_set_new(o, "path", json_string(pn_path_text(r->supernet, &h->path, text, sizeof text)));
        json_object_set_new(o, "layers", path_json(r->supernet, &h->path));
        json_object_set_new(o, "complete",
                            json_boolean(h->stage >= r->n_placements || pn_space_complete(&r->space, &h->path)));
        json_object_set_new(o, "objective", json_real(h->objective));
        json_object_set_new(o, "stage", json_integer(h->stage));
        json_object_set_new(o, "round", json_integer(h->round));
        json_object_set_new(o, "parent", json_integer(h->parent));
        json_object_set_new(o, "cache_bytes",
                            json_real(pn_model_cache_bytes(r->supernet, &h->path, HISTORY_CONTEXT, 2)));
        json_object_set_new(o, "tasks", pn_tasks_json(r->config, h->metrics));
        json_array_append_new(list, o);
    }
    return list;
}

/* The all-linear path and the paths with attention in a single layer, where the search has measured them. */
static const pn_history *find(const pn_result *r, int attention_layer) {
    pn_path want = pn_space_all_linear(&r->space);
    if (attention_layer >= 0) want.choice[attention_layer] = (uint8_t)r->config->choice[PN_KIND_ATTENTION];
    for (int i = 0; i < r->n_history; i++)
        if (pn_path_equal(&r->history[i].path, &want)) return &r->history[i];
    return NULL;
}

/* Importance of a layer on a task: what attention in that layer alone gains over the all-linear path, per metric,
 * signed so that more is better. */
static json_t *importance_json(const pn_result *r) {
    json_t *list = json_array();
    const pn_history *base = find(r, -1);
    for (int l = 0; base && l < r->space.start.n; l++) {
        const pn_history *h = find(r, l);
        if (!h) continue;
        json_t *o = json_pack("{s:i}", "layer", l), *tasks = json_object();
        for (int k = 0; k < r->config->n_tasks; k++) {
            json_t *gains = json_object();
            for (int i = 0; i < h->metrics[k].n; i++) {
                const char *name = h->metrics[k].name[i];
                const double *before = pn_metrics_get(&base->metrics[k], name);
                if (!before || strstr(name, "chance")) continue;
                double gain = h->metrics[k].value[i] - *before;
                json_object_set_new(gains, name, json_real(pn_metric_ascending(name) ? gain : -gain));
            }
            json_object_set_new(tasks, r->config->tasks[k].options.name, gains);
        }
        json_object_set_new(o, "gain", tasks);
        json_array_append_new(list, o);
    }
    return list;
}

json_t *pn_local_errors_json(const pn_model *supernet, const pn_supernet_result *trained) {
    json_t *list = json_array();
    char block[64];
    for (int i = 0; i < trained->n_errors; i++) {
        const pn_local_error *e = &trained->error[i];
        json_array_append_new(list, json_pack("{s:i, s:s, s:f, s:f, s:f}", "layer", e->layer, "block",
                                              pn_candidate_text(supernet, e->layer, e->choice, block, sizeof block),
                                              "start", e->start, "first", e->first, "last", e->last));
    }
    return list;
}

json_t *pn_table_json(const pn_table *t) {
    json_t *list = json_array();
    for (int i = 0; i < t->n_rows; i++) {
        const pn_table_row *row = &t->row[i];
        json_t *o = json_object(), *tasks = json_object();
        json_object_set_new(o, "name", json_string(row->name));
        json_object_set_new(o, "path", json_string(row->path));
        json_object_set_new(o, "distilled", json_boolean(row->distilled));
        for (int k = 0; k < t->n_tasks; k++) {
            if (!row->measured[k]) continue;
            json_t *metrics = json_object();
            const pn_metrics *first = &row->metrics[k * t->n_samples];
            for (int m = 0; m < first->n; m++) {
                double mean, least, most;
                if (!pn_table_value(t, row, k, first->name[m], &mean, &least, &most)) continue;
                json_t *values = json_array();
                for (int s = 0; s < t->n_samples; s++)
                    json_array_append_new(
                        values, json_real(*pn_metrics_get(&row->metrics[k * t->n_samples + s], first->name[m])));
                json_object_set_new(
                    metrics, first->name[m],
                    json_pack("{s:f, s:f, s:f, s:o}", "mean", mean, "min", least, "max", most, "values", values));
            }
            json_object_set_new(tasks, t->task[k], metrics);
        }
        json_object_set_new(o, "tasks", tasks);
        json_array_append_new(list, o);
    }
    return list;
}

/* Bytes of decode state per sequence, BF16 activations and F32 recurrent state, for the base and the winner. */
static json_t *cache_json(const pn_result *r) {
    json_t *list = json_array();
    pn_path teacher = pn_model_own_path(r->supernet);
    for (int64_t context = 4096; context <= 262144; context *= 4)
        json_array_append_new(list, json_pack("{s:I, s:f, s:f}", "context", (json_int_t)context, "base",
                                              pn_model_cache_bytes(r->supernet, &teacher, context, 2), "winner",
                                              pn_model_cache_bytes(r->supernet, &r->winner, context, 2)));
    return list;
}

pn_status pn_result_json(const pn_result *r, json_t **out) {
    const pn_search_config *c = r->config;
    char text[PN_PATH_TEXT_MAX], hash[32];
    snprintf(hash, sizeof hash, "%016" PRIx64, r->weights_hash);
    json_t *root = json_object();
    json_object_set_new(root, "format", json_integer(1));
    json_object_set_new(root, "postnas", json_string(POSTNAS_VERSION));
    json_object_set_new(root, "model", json_string(c->top.model));
    json_object_set_new(root, "seed", json_integer(c->top.seed));
    const pn_params *on = r->supernet->params;
    json_object_set_new(root, "backend", json_string(pn_backend_name(on->backend)));
    if (on->backend == PN_CUDA) json_object_set_new(root, "precision", json_string(pn_dtype_name(on->dtype)));
    json_object_set_new(root, "supernet_weights", json_string(hash));
    json_object_set_new(root, "strategy", json_string(c->strategy->name));
    json_object_set_new(root, "refine", json_integer(c->refine));
    json_object_set_new(root, "objective", json_string(r->stage[0].objective->text));
    json_object_set_new(root, "limits", limits_json(c));
    json_object_set_new(root, "stages", stages_json(r));
    json_object_set_new(root, "path", json_string(pn_path_text(r->supernet, &r->winner, text, sizeof text)));
    json_object_set_new(root, "layers", path_json(r->supernet, &r->winner));
    json_object_set_new(root, "table", pn_table_json(r->table));
    if (r->comparison) json_object_set_new(root, "selectors", pn_comparison_json(r->comparison, r->supernet));
    json_object_set_new(root, "cache_bytes", cache_json(r));
    json_object_set_new(root, "importance", importance_json(r));
    json_object_set_new(root, "history", history_json(r));
    if (r->n_stages > r->n_placements) json_object_set_new(root, "variants", pn_variants_json(r));
    json_object_set_new(root, "local_errors", pn_local_errors_json(r->supernet, r->trained));
    json_object_set_new(root, "supernet_curve", pn_curve_json(&r->trained->curve));
    if (r->trained->gates.present) json_object_set_new(root, "gates", pn_gates_json(r->supernet, r->trained));
    json_object_set_new(root, "distill_curve", pn_curve_json(r->distill_curve));
    json_object_set_new(root, "config", json_string(r->config_text));
    *out = root;
    return PN_OK;
}
