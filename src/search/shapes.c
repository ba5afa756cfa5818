#include "shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---- */

typedef struct entry_options {
    const char *type;
    int64_t init, state;
} entry_options;
const pn_option pn_shape_entry_keys[] = {
    PN_OPT_STRING(entry_options, type, NULL, "block type, whose options each take a value or a list of values",
                  .example = "gated_deltanet"),
    PN_OPT_ENUM(entry_options, init, "random", pn_start_names, "what its weights start from"),
    PN_OPT_INT(entry_options, state, 0, 0, 1e12, "keep shapes whose recurrent state has so many values; 0: all"),
    PN_OPT_END,
};

/* The rows of a type's options as lists of texts: a table of its own per type, for the config keeps what it was read
 * with. */
static const pn_option *lists_of(const pn_block_type *type) {
    enum { TYPES = 32 };
    static pn_option tables[TYPES][PN_SHAPE_OPTIONS + 1];
    int n, index = 0, rows = 0;
    const pn_block_type *const *types = pn_block_types(&n);
    while (types[index] != type) index++;
    PN_ASSERT(index < TYPES);
    for (const pn_option *row = type->options; row && row->name; row++, rows++) {
        PN_ASSERT(rows < PN_SHAPE_OPTIONS);
        tables[index][rows] = (pn_option){ .name = row->name,
                                           .kind = PN_OPTION_STRINGS,
                                           .offset = (size_t)rows * sizeof(pn_string_list),
                                           .help = row->help };
    }
    return tables[index];
}

pn_status pn_shape_entry_read(pn_config *file, const char *section, pn_shape_entry *out) {
    entry_options o;
    memset(out, 0, sizeof *out);
    PN_TRY(pn_config_read(file, section, pn_shape_entry_keys, &o));
    snprintf(out->where, sizeof out->where, "%s", pn_config_where(file, section));
    PN_TRY(pn_block_find_linear(o.type, out->where, &out->type));
    PN_TRY(pn_start_check(o.init, out->type, out->where));
    out->init = o.init;
    out->state = o.state;
    PN_TRY(pn_config_read(file, section, lists_of(out->type), out->value));
    return PN_OK;
}

/* ---- expansion ---- */

static pn_status refuse(const pn_shape_entry *e, const pn_block_spec *spec, pn_status why) {
    pn_buf text = { 0 };
    char reason[512];
    snprintf(reason, sizeof reason, "%s", pn_error_message());
    for (const pn_option *row = e->type->options; row->name; row++) {
        if (!e->value[row - e->type->options].n) continue;
        pn_buf_printf(&text, " %s ", row->name);
        pn_option_text(row, spec->options, &text);
    }
    pn_status s =
        pn_fail_at(__FILE__, __LINE__, why, "%s: %s%s: %s", e->where, e->type->name, pn_buf_string(&text), reason);
    pn_buf_free(&text);
    return s;
}

static const pn_option *free_expand(const pn_shape_entry *e) {
    const pn_option *row = pn_option_find(e->type->options, "expand_v");
    return row && e->state && !e->value[row - e->type->options].n ? row : NULL;
}

static pn_status state_values(const pn_block_spec *spec, const pn_dims *dims, double *out) {
    PN_TRY(pn_block_spec_cache_bytes(spec, dims, 0, 0, out)); /* nothing but the recurrent state, in F32 */
    *out /= 4;
    return PN_OK;
}

/* The state grows with expand_v in proportion, so one look at expand_v 1 is enough. */
static pn_status solve(const pn_shape_entry *e, const pn_option *expand, const pn_dims *dims, pn_block_spec *spec,
                       bool *solved) {
    double *value = (double *)(void *)(spec->options + expand->offset), values;
    *value = 1;
    PN_TRY(state_values(spec, dims, &values));
    *value = (double)e->state / values;
    *solved = *value >= expand->min && *value <= expand->max;
    return PN_OK;
}

/* Whether the combination is one of the entry's shapes; a failure says why it can be none. */
static pn_status fit(const pn_shape_entry *e, const pn_dims *dims, pn_block_spec *spec, bool *fits) {
    const pn_option *expand = free_expand(e);
    double values;
    *fits = true;
    if (expand) PN_TRY(solve(e, expand, dims, spec, fits));
    if (!*fits) return PN_OK;
    if (e->type->resolve) PN_TRY(e->type->resolve(spec->options, dims));
    PN_TRY(state_values(spec, dims, &values));
    *fits = !e->state || fabs(values - (double)e->state) < 0.5;
    return PN_OK;
}

static pn_status append(const pn_shape_entry *e, const pn_block_spec *spec, pn_shape *list, int room, int *n) {
    for (int i = 0; i < *n; i++)
        if (list[i].init == e->init && pn_block_spec_equal(&list[i].spec, spec)) return PN_OK;
    PN_CHECK(*n < room, PN_USAGE, "%s: more than %d shapes in all; shorten its lists", e->where, room);
    list[(*n)++] = (pn_shape){ *spec, e->init };
    return PN_OK;
}

/* Combination number k of the lists' values: the last option changes fastest. */
static pn_status combine(const pn_shape_entry *e, int64_t k, pn_block_spec *spec) {
    int rows = 0;
    PN_TRY(pn_block_spec_default(e->type, spec));
    while (e->type->options[rows].name) rows++;
    for (int i = rows - 1; i >= 0; i--) {
        const pn_string_list *list = &e->value[i];
        if (!list->n) continue;
        PN_TRY(pn_option_parse(&e->type->options[i], e->where, list->item[k % list->n], 0, spec->options));
        k /= list->n;
    }
    return PN_OK;
}

pn_status pn_shapes_expand(const pn_shape_entry *e, const pn_dims *dims, pn_shape *list, int room, int *n) {
    int64_t combinations = 1, fitting = 0;
    for (int i = 0; i < PN_SHAPE_OPTIONS; i++)
        if (e->value[i].n) combinations *= e->value[i].n;
    PN_CHECK(combinations <= 100000, PN_USAGE, "%s: %lld combinations; shorten its lists", e->where,
             (long long)combinations);
    for (int64_t k = 0; k < combinations; k++) {
        pn_block_spec spec;
        bool fits;
        PN_TRY(combine(e, k, &spec));
        pn_status s = fit(e, dims, &spec, &fits);
        if (s && !e->state) return refuse(e, &spec, s);
        if (s) pn_error_clear(); /* under a budget the lists say what to try, not what must be */
        if (s || !fits) continue;
        fitting++;
        PN_TRY(append(e, &spec, list, room, n));
    }
    PN_CHECK(fitting, PN_USAGE, "%s: no combination has a state of %lld values; change the lists or `state`", e->where,
             (long long)e->state);
    return PN_OK;
}

/* ---- names ---- */

static bool differs(const pn_shape *list, int n, int i, const pn_option *row) {
    bool any = false;
    pn_buf mine = { 0 };
    pn_option_text(row, list[i].spec.options, &mine);
    for (int k = 0; k < n && !any; k++) {
        if (list[k].spec.type != list[i].spec.type) continue;
        pn_buf other = { 0 };
        pn_option_text(row, list[k].spec.options, &other);
        any = strcmp(pn_buf_string(&mine), pn_buf_string(&other)) != 0;
        pn_buf_free(&other);
    }
    pn_buf_free(&mine);
    return any;
}

const char *pn_shape_text(const pn_shape *list, int n, int i, char *buffer, size_t size) {
    const pn_shape *x = &list[i];
    pn_buf text = { 0 };
    bool inits = false;
    pn_buf_printf(&text, "%s", x->spec.type->name);
    for (const pn_option *row = x->spec.type->options; row && row->name; row++) {
        if (!differs(list, n, i, row)) continue;
        pn_buf_printf(&text, " %s ", row->name);
        pn_option_text(row, x->spec.options, &text);
    }
    for (int k = 0; k < n; k++) inits = inits || (list[k].spec.type == x->spec.type && list[k].init != x->init);
    if (inits) pn_buf_printf(&text, " init %s", pn_start_names[x->init]);
    snprintf(buffer, size, "%s", pn_buf_string(&text));
    pn_buf_free(&text);
    return buffer;
}
