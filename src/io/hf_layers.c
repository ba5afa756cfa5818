/* Which token mixer each layer has: layer_types and efficient_attention_config of config.json. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "hf_config.h"
#include "hf_internal.h"

/* ---- names ---- */

/* The how-manieth setting of this layer's block it is, from 1; with and without extensions are two blocks here. */
static int setting_number(const pn_model_config *c, int layer) {
    const pn_block_spec *own = &c->layer[layer];
    int n = 1;
    for (int l = 0; l < c->n_layers; l++) {
        const pn_block_spec *other = &c->layer[l];
        if (pn_block_spec_equal(other, own)) return n;
        bool counted = other->type != own->type || pn_block_spec_extended(other) != pn_block_spec_extended(own);
        for (int k = 0; k < l && !counted; k++) counted = pn_block_spec_equal(&c->layer[k], other);
        n += !counted;
    }
    return n;
}

void pn_hf_layer_name(const pn_model_config *c, int layer, char out[PN_HF_LAYER_NAME]) {
    const pn_block_spec *spec = &c->layer[layer];
    const int number = setting_number(c, layer);
    const char *extended = pn_block_spec_extended(spec) ? PN_EXTENDED_SUFFIX : "";
    if (number > 1)
        snprintf(out, PN_HF_LAYER_NAME, "%s%s_%d", spec->type->hf_name, extended, number);
    else
        snprintf(out, PN_HF_LAYER_NAME, "%s%s", spec->type->hf_name, extended);
}

bool pn_hf_layer_published(const char *name) {
    return !strcmp(name, "attn") || !strcmp(name, "swa") || !strcmp(name, "jet");
}

/* Whether text is "" or "_2", "_3" .., which says that a block with options has several settings. */
static bool is_number(const char *text, const pn_block_type *type) {
    return !*text || (type->options && text[0] == '_' && isdigit((unsigned char)text[1]) &&
                      text[1 + strspn(text + 1, "0123456789")] == '\0');
}

/* "gdn", "gdn_postnas", either with "_2" .. behind it; NULL: no mixer is called so. *extended: which. */
static const pn_block_type *type_of(const char *name, bool *extended) {
    int n;
    const pn_block_type *const *all = pn_block_types(&n);
    for (int i = 0; i < n; i++) {
        const size_t len = strlen(all[i]->hf_name ? all[i]->hf_name : "");
        if (all[i]->role != PN_MIXER || strncmp(all[i]->hf_name, name, len) != 0) continue;
        *extended = !strncmp(name + len, PN_EXTENDED_SUFFIX, sizeof PN_EXTENDED_SUFFIX - 1);
        if (is_number(name + len + (*extended ? sizeof PN_EXTENDED_SUFFIX - 1 : 0), all[i])) return all[i];
    }
    return NULL;
}

/* ---- options of one block type ---- */

/* These select kernels upstream, not mathematics. */
static bool only_kernels(const char *key) {
    return !strcmp(key, "mode") || !strcmp(key, "dconv_implementation") || !strcmp(key, "chunk_size");
}

/* The scalar as pn_option_parse reads it; NULL: of a JSON type this option cannot have. */
static const char *scalar_text(const pn_option *row, const json_t *v, char *buffer, size_t n) {
    bool number = row->kind == PN_OPTION_FLOAT;
    if (row->kind == PN_OPTION_BOOL && json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
    if (row->kind == PN_OPTION_ENUM && json_is_string(v)) return json_string_value(v);
    /* Published files hold norm_eps as the string "1e-5"; no other number may be a string. */
    if (number && !strcmp(row->name, "norm_eps") && json_is_string(v)) return json_string_value(v);
    if (json_is_integer(v) && (number || row->kind == PN_OPTION_INT || row->kind == PN_OPTION_INTS)) {
        snprintf(buffer, n, "%lld", (long long)json_integer_value(v));
        return buffer;
    }
    return json_is_real(v) && number ? pn_double_text(json_real_value(v), buffer, n) : NULL;
}

pn_status pn_hf_read_option(const char *where, const pn_option *row, const json_t *v, void *options) {
    char number[64];
    bool list = row->kind == PN_OPTION_INTS && json_is_array(v);
    size_t n = list ? json_array_size(v) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *text = scalar_text(row, list ? json_array_get(v, i) : v, number, sizeof number);
        PN_CHECK(text, PN_FORMAT, "%s: %s is of the wrong JSON type; it is: %s", where, row->name, row->help);
        PN_TRY(pn_option_parse(row, where, text, (int64_t)i, options));
    }
    return PN_OK;
}

static pn_status read_options(const char *where, const json_t *settings, bool extended, pn_block_spec *spec) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)settings, key, v) {
        if (json_is_null(v) || only_kernels(key)) continue;
        const pn_option *row = pn_option_find(spec->type->options, key);
        const char *near = row ? NULL : pn_option_nearest(spec->type->options, key);
        PN_CHECK(row, PN_UNSUPPORTED, "%s: %.100s has no counterpart in postnas%s%s%s", where, key,
                 near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
        PN_CHECK(!row->extension || extended, PN_UNSUPPORTED,
                 "%s: %s is an extension of postnas, which the published %s has not; name such layers %s%s", where, key,
                 spec->type->hf_name, spec->type->hf_name, PN_EXTENDED_SUFFIX);
        PN_TRY(pn_hf_read_option(where, row, v, spec->options));
    }
    return PN_OK;
}

static pn_status resolve(const pn_hf_file *f, const pn_dims *dims, pn_block_spec *spec) {
    return spec->type->resolve ? pn_in_file(f->path, spec->type->resolve(spec->options, dims)) : PN_OK;
}

/* The block of this hf_name with the settings of efficient_attention_config[name], which types without options lack. */
static pn_status spec_of(const pn_hf_file *f, const char *name, const pn_dims *dims, pn_block_spec *out) {
    int n;
    char known[400] = "";
    bool extended = false;
    const pn_block_type *type = type_of(name, &extended), *const *all = pn_block_types(&n);
    for (int i = 0; i < n; i++) {
        if (all[i]->role != PN_MIXER) continue;
        size_t len = strlen(known);
        snprintf(known + len, sizeof known - len, "%s%s", len ? ", " : "", all[i]->hf_name);
    }
    PN_CHECK(type, PN_UNSUPPORTED, "%s: layer_types names \"%.100s\"; known are %s", f->path, name, known);
    PN_TRY(pn_block_spec_default(type, out));
    if (type->options) {
        char where[600];
        const json_t *all_settings = json_object_get(f->root, "efficient_attention_config");
        const json_t *settings = json_object_get(all_settings, name);
        PN_CHECK(json_is_object(settings), PN_FORMAT,
                 "%s: layer_types names \"%s\", but efficient_attention_config has no settings for it", f->path, name);
        snprintf(where, sizeof where, "%.400s: efficient_attention_config.%.64s", f->path, name);
        PN_TRY(read_options(where, settings, extended, out));
    }
    PN_CHECK(pn_block_spec_extended(out) == extended, PN_FORMAT,
             "%s: layer_types names \"%s\", but its settings have no extension of postnas on; name such layers %s",
             f->path, name, type->hf_name);
    return resolve(f, dims, out);
}

/* ---- the list ---- */

typedef struct names {
    const char *name[PN_MAX_LAYERS];
    int n;
    char *copy; /* owned; what the names point into when the list was a string */
} names;

static char *skip_spaces(char *p) {
    while (isspace((unsigned char)*p)) p++;
    return p;
}

/* "['jet', \"attn\"]": a Python list of strings without escapes. */
static bool parse_python_list(char *p, names *out) {
    p = skip_spaces(p);
    if (*p != '[') return false;
    p = skip_spaces(p + 1);
    while (*p != ']') {
        char quote = *p;
        if ((quote != '\'' && quote != '"') || out->n == PN_MAX_LAYERS) return false;
        char *end = strchr(p + 1, quote);
        if (!end || memchr(p + 1, '\\', (size_t)(end - p - 1))) return false;
        out->name[out->n++] = p + 1;
        *end = '\0';
        p = skip_spaces(end + 1);
        if (*p == ',')
            p = skip_spaces(p + 1);
        else if (*p != ']')
            return false;
    }
    return *skip_spaces(p + 1) == '\0';
}

static pn_status read_names(const pn_hf_file *f, const json_t *list, names *out) {
    if (json_is_string(list)) {
        PN_CHECK(out->copy = strdup(json_string_value(list)), PN_MEMORY, "out of memory");
        PN_CHECK(parse_python_list(out->copy, out), PN_FORMAT,
                 "%s: layer_types is a string that does not hold a list of at most %d names", f->path, PN_MAX_LAYERS);
        return PN_OK;
    }
    PN_TRY(pn_json_get_array(f->root, f->path, "layer_types", 0, PN_MAX_LAYERS, &list));
    for (; out->n < (int)json_array_size(list); out->n++) {
        char path[64];
        snprintf(path, sizeof path, "layer_types.%d", out->n);
        PN_TRY(pn_json_get_str(f->root, f->path, path, &out->name[out->n]));
    }
    return PN_OK;
}

/* ---- qwen2 and llama: full attention, and qwen2's window ---- */

pn_status pn_hf_window_spec(const pn_hf_file *f, int64_t window, const pn_dims *dims, pn_block_spec *out) {
    const pn_block_type *swa = &pn_block_swa;
    PN_TRY(pn_block_spec_default(swa, out));
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)window);
    PN_TRY(pn_option_parse(pn_option_find(swa->options, "window_size"), f->path, text, 0, out->options));
    return resolve(f, dims, out);
}

static pn_status sliding_window_spec(const pn_hf_file *f, const pn_dims *dims, pn_block_spec *out) {
    int64_t window;
    PN_TRY(pn_json_get_i64(f->root, f->path, "sliding_window", 1, INT32_MAX, &window));
    return pn_hf_window_spec(f, window, dims, out);
}

static pn_status plain_layers(const pn_hf_file *f, const names *list, pn_model_config *c) {
    bool windowed = false;
    int64_t first_windowed = 28; /* the model type's default */
    pn_block_spec full, window = { 0 };
    PN_TRY(spec_of(f, "attn", &c->dims, &full));
    PN_TRY(pn_json_find_bool(f->root, f->path, "use_sliding_window", &windowed));
    PN_TRY(pn_json_find_i64(f->root, f->path, "max_window_layers", 0, INT32_MAX, &first_windowed));
    for (int l = 0; l < c->n_layers; l++) {
        bool slides = windowed && l >= first_windowed;
        if (list) {
            slides = !strcmp(list->name[l], "sliding_attention");
            PN_CHECK(slides || !strcmp(list->name[l], "full_attention"), PN_FORMAT,
                     "%s: layer_types.%d is \"%.100s\"; full_attention and sliding_attention are possible", f->path, l,
                     list->name[l]);
            PN_CHECK(!slides || windowed, PN_FORMAT,
                     "%s: layer_types.%d is sliding_attention, but use_sliding_window is false", f->path, l);
        }
        if (slides && !window.type) PN_TRY(sliding_window_spec(f, &c->dims, &window));
        c->layer[l] = slides ? window : full;
    }
    return PN_OK;
}

/* ---- jet_nemotron ---- */

static pn_status hybrid_layers(const pn_hf_file *f, const names *list, pn_model_config *c) {
    for (int l = 0; l < c->n_layers; l++) {
        const char *name = list ? list->name[l] : "attn";
        int seen = 0;
        while (list && seen < l && strcmp(list->name[seen], name) != 0) seen++;
        if (seen < l)
            c->layer[l] = c->layer[seen];
        else
            PN_TRY(spec_of(f, name, &c->dims, &c->layer[l]));
    }
    return PN_OK;
}

static pn_status layers(const pn_hf_file *f, names *list, pn_model_config *c) {
    const json_t *types = json_object_get(f->root, "layer_types");
    bool listed = types && !json_is_null(types);
    if (listed) {
        PN_TRY(read_names(f, types, list));
        PN_CHECK(list->n == c->n_layers, PN_FORMAT, "%s: layer_types has %d entries for num_hidden_layers %d", f->path,
                 list->n, c->n_layers);
    }
    bool hybrid = !strcmp(f->model_type, "jet_nemotron");
    return (hybrid ? hybrid_layers : plain_layers)(f, listed ? list : NULL, c);
}

pn_status pn_hf_layers(const pn_hf_file *f, pn_model_config *out) {
    names list = { 0 };
    pn_status s = layers(f, &list, out);
    free(list.copy);
    return s;
}
