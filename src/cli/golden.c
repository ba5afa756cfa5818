#include "golden.h"

#include <fnmatch.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *pn_golden_name(const pn_safetensors *f) {
    const char *path = pn_safetensors_path(f), *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

pn_status pn_golden_info(const pn_safetensors *f, const char *name, const pn_tensor_info **out) {
    *out = pn_safetensors_find(f, name);
    PN_CHECK(*out, PN_FORMAT, "%s: no tensor %s; a golden file of this kind has one", pn_safetensors_path(f), name);
    PN_CHECK((*out)->dtype != PN_DTYPES, PN_FORMAT, "%s: tensor %s is %s, which postnas does not read",
             pn_safetensors_path(f), name, (*out)->type);
    return PN_OK;
}

/* The first dimension that is not 1. */
static int64_t rows_of(int rank, const int64_t *shape) {
    for (int i = 0; i < rank; i++)
        if (shape[i] != 1) return shape[i];
    return 1;
}

pn_status pn_golden_read(const pn_safetensors *f, const char *name, pn_pool *pool, pn_dtype type, int rank,
                         const int64_t *shape, pn_tensor **out) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(f, name, &info));
    int64_t n = 1;
    bool ok = true;
    for (int i = 0; i < rank; i++) ok = ok && !__builtin_mul_overflow(n, shape[i], &n);
    PN_CHECK(ok && n == info->n_elems && rows_of(rank, shape) == rows_of(info->rank, info->shape), PN_FORMAT,
             "%s: tensor %s has shape %s, which does not fit the file's other tensors or its settings",
             pn_safetensors_path(f), name, pn_tensor_info_shape_text(info));
    void *values = malloc((size_t)n * pn_dtype_bytes(type) + 1);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_convert_unaligned(values, type, info->data, info->dtype, n);
    pn_status s = pn_tensor_create(pool, type, rank, shape, out);
    if (!s) s = pn_tensor_write(*out, values, type);
    free(values);
    return s;
}

pn_status pn_golden_add(const pn_safetensors *f, const char *name, int64_t first, const float *x, int64_t n,
                        pn_golden_sum *sum) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(f, name, &info));
    PN_CHECK(first >= 0 && n <= info->n_elems - first, PN_FORMAT,
             "%s: tensor %s has shape %s; %lld more values are expected", pn_safetensors_path(f), name,
             pn_tensor_info_shape_text(info), (long long)(first + n - info->n_elems));
    enum { PIECE = 512 };
    double ref[PIECE];
    const char *from = (const char *)info->data + (size_t)first * pn_dtype_bytes(info->dtype);
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t count = n - at < PIECE ? n - at : PIECE;
        pn_convert_unaligned(ref, PN_F64, from + (size_t)at * pn_dtype_bytes(info->dtype), info->dtype, count);
        for (int64_t i = 0; i < count; i++) {
            double d = (double)x[at + i] - ref[i];
            sum->bad = sum->bad || !isfinite(x[at + i]);
            sum->diff += d * d;
            sum->norm += ref[i] * ref[i];
        }
    }
    return PN_OK;
}

double pn_golden_rms(const pn_golden_sum *sum) {
    if (sum->bad) return INFINITY;
    return sum->norm > 0 ? sqrt(sum->diff / sum->norm) : sqrt(sum->diff);
}

pn_status pn_golden_error(const pn_safetensors *f, const char *name, int64_t first, const float *x, int64_t n,
                          double *error) {
    pn_golden_sum sum = { 0 };
    PN_TRY(pn_golden_add(f, name, first, x, n, &sum));
    *error = pn_golden_rms(&sum);
    return PN_OK;
}

pn_status pn_golden_tensor_error(const pn_safetensors *f, const char *name, const pn_tensor *x, double *error) {
    const pn_tensor_info *info;
    const int64_t n = pn_tensor_elems(x);
    PN_TRY(pn_golden_info(f, name, &info));
    PN_CHECK(info->n_elems == n, PN_FORMAT, "%s: tensor %s has shape %s, which does not fit the others",
             pn_safetensors_path(f), name, pn_tensor_info_shape_text(info));
    float *values = malloc((size_t)(n + 1) * sizeof *values);
    PN_CHECK(values, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(x, values, PN_F32);
    if (!s) s = pn_golden_error(f, name, 0, values, n, error);
    free(values);
    return s;
}

const pn_golden_limits *pn_golden_limits_of(pn_dtype compute) {
    static const pn_golden_limits f32 = { .core = PN_LIMIT_OUTPUT,
                                          .core_gradient = PN_LIMIT_GRADIENT,
                                          .core_gate = PN_LIMIT_GATE_GRADIENT,
                                          .block = PN_LIMIT_OUTPUT,
                                          .dx = PN_LIMIT_GRADIENT,
                                          .weight = PN_LIMIT_GRADIENT,
                                          .gate_weight = PN_LIMIT_GATE_GRADIENT,
                                          .model = PN_LIMIT_OUTPUT,
                                          .model_gradient = PN_LIMIT_MODEL_GRADIENT };
    static const pn_golden_limits bf16 = { .core = 5e-3,
                                           .core_gradient = 8e-3,
                                           .core_gate = 2e-2,
                                           .block = 1.5e-2,
                                           .dx = 1.5e-2,
                                           .weight = 3e-2,
                                           .gate_weight = 3e-2,
                                           .model = 1e-2,
                                           .model_gradient = 5e-2 };
    return compute == PN_BF16 ? &bf16 : &f32;
}

/* ---- settings ---- */

/* The value as text; NULL when missing or none. Lists and objects are none of ours. */
static const char *setting(const pn_golden_settings *s, const char *key, char *buffer, size_t n) {
    const char *text = NULL;
    if (!s->layer) {
        text = pn_safetensors_metadata(s->file, key);
    } else {
        const json_t *v = json_object_get(s->layer, key);
        if (json_is_string(v)) text = json_string_value(v);
        if (json_is_boolean(v)) text = json_is_true(v) ? "True" : "False";
        if (json_is_number(v)) snprintf(buffer, n, "%.17g", json_number_value(v)), text = buffer;
    }
    return text && strcmp(text, "None") ? text : NULL;
}

const char *pn_golden_kind(const pn_golden_settings *s) {
    char buffer[32];
    const char *kind = setting(s, "kind", buffer, sizeof buffer);
    if (kind == buffer) return NULL; /* a number */
    if (kind && !strcmp(kind, "attn") && setting(s, "window", buffer, sizeof buffer)) return "swa";
    return kind;
}

pn_status pn_golden_number(const pn_golden_settings *s, const char *key, double *out, bool *found) {
    char buffer[32];
    const char *text = setting(s, key, buffer, sizeof buffer);
    *found = text != NULL;
    if (!text) return PN_OK;
    if (!strcmp(text, "True") || !strcmp(text, "False")) {
        *out = *text == 'T';
        return PN_OK;
    }
    char *end;
    *out = strtod(text, &end);
    PN_CHECK(end != text && !*end && isfinite(*out), PN_FORMAT, "%s: setting %s is \"%.40s\"; it must be a number",
             pn_safetensors_path(s->file), key, text);
    return PN_OK;
}

/* ---- blocks ---- */

/* An option of a block from settings: names joined by * and /, from left to right. A setting that is none leaves the
 * option at its default. */
typedef struct from_settings {
    const char *option, *formula;
} from_settings;

/* A block that is not registered is "not built in"; its row is ready for it. */
static const struct block_kind {
    const char *kind, *block;
    from_settings option[10];
} kinds[] = {
    { .kind = "attn", .block = "attention" },
    { .kind = "swa", .block = "swa", .option = { { "window_size", "window" } } },
    { .kind = "retnet",
      .block = "retnet",
      .option = { { "num_heads", "H" }, { "expand_k", "H*dk/D" }, { "expand_v", "H*dv/D" }, { "norm_eps", "eps" } } },
    { .kind = "gla",
      .block = "gla",
      .option = { { "num_heads", "H" },
                  { "expand_k", "H*dk/D" },
                  { "expand_v", "H*dv/D" },
                  { "gate_low_rank_dim", "rank" },
                  { "gate_logit_normalizer", "norm" },
                  { "clamp_min", "clamp_min" },
                  { "norm_eps", "eps" } } },
    { .kind = "mamba2",
      .block = "mamba2",
      .option = { { "expand", "inner/D" },
                  { "head_dim", "p" },
                  { "state_size", "N" },
                  { "n_groups", "G" },
                  { "conv_kernel", "W" },
                  { "norm_eps", "eps" } } },
    { .kind = "deltanet",
      .block = "deltanet",
      .option = { { "num_heads", "H" },
                  { "expand_k", "H*dk/D" },
                  { "expand_v", "H*dv/D" },
                  { "conv_size", "W" },
                  { "norm_eps", "eps" },
                  { "allow_neg_eigval", "neg" },
                  { "use_gate", "gate" } } },
    { .kind = "gdn",
      .block = "gated_deltanet",
      .option = { { "num_heads", "H" },
                  { "num_v_heads", "Hv" },
                  { "head_dim", "dk" },
                  { "expand_v", "dv/dk" },
                  { "conv_size", "W" },
                  { "norm_eps", "eps" },
                  { "allow_neg_eigval", "neg" },
                  { "use_gate", "gate" } } },
    { .kind = "rwkv7",
      .block = "rwkv7",
      .option = { { "head_dim", "N" },
                  { "decay_low_rank_dim", "rw" },
                  { "a_low_rank_dim", "ra" },
                  { "v_low_rank_dim", "rv" },
                  { "gate_low_rank_dim", "rg" },
                  { "norm_eps", "eps" },
                  { "use_v_first", "layers" } } }, /* any number of them: always on */
    { .kind = "jet",
      .block = "jet",
      .option = { { "num_heads", "H" },
                  { "head_dim", "dk" },
                  { "expand_v", "dv/dk" },
                  { "conv_size", "W" },
                  { "dconv_generator_reduction", "H*dv/R" },
                  { "norm_eps", "eps" } } },
};

static pn_status evaluate(const pn_golden_settings *s, const char *formula, double *out, bool *found) {
    *out = 1;
    char operation = '*';
    for (const char *p = formula;;) {
        char name[32];
        size_t len = strcspn(p, "*/");
        PN_ASSERT(len < sizeof name);
        memcpy(name, p, len);
        name[len] = '\0';
        double x;
        PN_TRY(pn_golden_number(s, name, &x, found));
        if (!*found) return PN_OK;
        PN_CHECK(operation == '*' || x != 0, PN_FORMAT, "%s: setting %s is 0", pn_safetensors_path(s->file), name);
        *out = operation == '*' ? *out * x : *out / x;
        p += len;
        if (!*p) return PN_OK;
        operation = *p++;
    }
}

static pn_status set_option(const pn_golden_settings *s, const from_settings *from, pn_block_spec *spec) {
    const pn_option *row = spec->type->options ? pn_option_find(spec->type->options, from->option) : NULL;
    double value;
    bool found;
    PN_TRY(evaluate(s, from->formula, &value, &found));
    if (!found) return PN_OK;
    PN_CHECK(row, PN_UNSUPPORTED, "block %s has no option %s, which %s sets", spec->type->name, from->option,
             pn_safetensors_path(s->file));
    char where[PN_NAME_MAX], text[40];
    snprintf(where, sizeof where, "%.80s: %s", pn_golden_name(s->file), from->option);
    if (row->kind == PN_OPTION_BOOL)
        snprintf(text, sizeof text, "%s", value != 0 ? "true" : "false");
    else
        snprintf(text, sizeof text, "%.17g", value);
    PN_TRY(pn_option_parse(row, where, text, 0, spec->options));
    return PN_OK;
}

/* A setting that is a size. */
static pn_status size_setting(const pn_golden_settings *s, const char *key, int64_t missing, int64_t *out) {
    double x;
    bool found;
    PN_TRY(pn_golden_number(s, key, &x, &found));
    *out = missing;
    if (!found && missing) return PN_OK;
    PN_CHECK(found && x >= 1 && x <= 65536 && x == floor(x), PN_FORMAT,
             "%s: setting %s must be a whole number in 1 .. 65536", pn_safetensors_path(s->file), key);
    *out = (int64_t)x;
    return PN_OK;
}

pn_status pn_golden_block(const pn_golden_settings *s, bool qkv_bias, pn_block_spec *spec, pn_dims *dims) {
    *spec = (pn_block_spec){ 0 };
    const char *kind = pn_golden_kind(s);
    const struct block_kind *row = NULL;
    for (size_t i = 0; kind && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].kind, kind)) row = &kinds[i];
    const pn_block_type *type = row ? pn_block_find(row->block) : NULL;
    if (!type) return PN_OK;
    PN_TRY(pn_block_spec_default(type, spec));
    for (const from_settings *from = row->option; from->option; from++) PN_TRY(set_option(s, from, spec));
    bool softmax = type->attention_weights, found;
    *dims = (pn_dims){ .heads = 1, .kv_heads = 1, .head_dim = 2, .rope_theta = 1e4, .rms_norm_eps = 1e-6 };
    dims->qkv_bias = qkv_bias;
    double layer = 0;
    PN_TRY(pn_golden_number(s, "layer", &layer, &found));
    dims->place.carried = layer > 0; /* of its type, in a stack of nothing else */
    PN_TRY(size_setting(s, "D", 0, &dims->hidden));
    dims->intermediate = dims->hidden;
    if (softmax) {
        PN_TRY(size_setting(s, "H", 0, &dims->heads));
        PN_TRY(size_setting(s, "Hkv", 0, &dims->kv_heads));
        PN_TRY(size_setting(s, "d", 0, &dims->head_dim));
        PN_CHECK(dims->heads % dims->kv_heads == 0 && dims->head_dim % 2 == 0, PN_FORMAT,
                 "%s: H must be a multiple of Hkv, and d even", pn_safetensors_path(s->file));
        PN_TRY(pn_golden_number(s, "theta", &dims->rope_theta, &found));
    }
    return PN_OK;
}

bool pn_golden_is_gate(const char *name) {
    static const char *const gates[] = {
        "A_log",         "dt_bias",       "a_proj.weight", "b_proj.weight", "gk_proj.*",
        "w_lora.lora.*", "a_lora.lora.*", "x_w",           "x_a",           "k_a"
    };
    for (size_t i = 0; i < sizeof gates / sizeof *gates; i++) {
        char suffix[40];
        snprintf(suffix, sizeof suffix, "*.%s", gates[i]);
        if (!fnmatch(gates[i], name, 0) || !fnmatch(suffix, name, 0)) return true;
    }
    return false;
}
