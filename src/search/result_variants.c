/* The stages after the placement, in result.json. */
#include <string.h>

#include "result.h"

/* An option as JSON: numbers, booleans and names as they are. */
static json_t *option_json(const pn_option *row, const pn_block_spec *spec) {
    const void *field = spec->options + row->offset;
    pn_buf text = { 0 };
    json_t *out;
    switch (row->kind) {
    case PN_OPTION_BOOL: return json_boolean(*(const bool *)field);
    case PN_OPTION_INT: return json_integer(*(const int64_t *)field);
    case PN_OPTION_FLOAT: return json_real(*(const double *)field);
    default: break;
    }
    pn_option_text(row, spec->options, &text);
    out = json_string(pn_buf_string(&text));
    pn_buf_free(&text);
    return out;
}

static json_t *options_json(const pn_block_spec *spec) {
    json_t *o = json_object();
    for (const pn_option *row = spec->type->options; row && row->name; row++)
        json_object_set_new(o, row->name, option_json(row, spec));
    return o;
}

static json_t *variant_json(const pn_result *r, const pn_variant *x) {
    const pn_history *h = &r->history[x->row];
    json_t *o = json_object();
    json_object_set_new(o, "text", json_string(x->text));
    json_object_set_new(o, "type", json_string(x->spec.type->name));
    json_object_set_new(o, "options", options_json(&x->spec));
    json_object_set_new(o, "row", json_integer(x->row));
    json_object_set_new(o, "objective", json_real(h->objective));
    json_object_set_new(o, "tasks", pn_tasks_json(r->config, h->metrics));
    for (int k = 0; k < PN_VARIANT_DECODE; k++) json_object_set_new(o, pn_variant_cost_names[k], json_real(x->cost[k]));
    return o;
}

static json_t *worth_json(const pn_variants_config *c) {
    json_t *o = json_object();
    for (int k = 0; k < PN_VARIANT_COSTS; k++)
        if (c->worth[k] > 0) json_object_set_new(o, pn_variant_cost_names[k], json_real(c->worth[k]));
    return o;
}

static json_t *stage_json(const pn_result *r, const char *name, const pn_variants *v) {
    json_t *list = json_array(), *o = json_object();
    char text[PN_PATH_TEXT_MAX];
    for (int i = 0; i < v->n; i++) json_array_append_new(list, variant_json(r, &v->item[i]));
    json_object_set_new(o, "stage", json_string(name));
    json_object_set_new(o, "objective", json_string(v->config->objective.text));
    json_object_set_new(o, "ascending", json_boolean(v->config->objective.ascending));
    json_object_set_new(o, "worth", worth_json(v->config));
    json_object_set_new(o, "chosen", json_integer(v->chosen));
    json_object_set_new(o, "path", json_string(pn_path_text(r->supernet, &v->path, text, sizeof text)));
    json_object_set_new(o, "winner", json_integer(v->winner));
    json_object_set_new(o, "variants", list);
    json_object_set_new(o, "local_errors", pn_local_errors_json(r->supernet, &v->trained));
    return o;
}

json_t *pn_variants_json(const pn_result *r) {
    json_t *list = json_array();
    for (int k = 0; k < PN_VARIANT_STAGES; k++)
        if (r->variants[k].n) json_array_append_new(list, stage_json(r, pn_variant_stage_names[k], &r->variants[k]));
    return list;
}
