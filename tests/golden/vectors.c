/* `check vectors` over the stored golden files, and proof that it can fail: every result altered by itself. */
#include "golden_write.h"
#include <math.h>
#include <unistd.h>

#include "check_vectors.h"
#include "files.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "model.h"
#include "rng.h"
#include "tape.h"

#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden"

static char folder[64];

static void make_folder(void) {
    strcpy(folder, "/tmp/postnas-golden-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}
static void remove_folder(void) {
    ck_ok(pn_remove_tree(folder));
}

typedef struct outcome {
    pn_status status;
    char *text; /* free() */
} outcome;

static outcome check(const char *path) {
    outcome o;
    size_t n;
    FILE *out = open_memstream(&o.text, &n);
    o.status = pn_check_vectors((char *[]){ (char *)path }, 1, &(pn_compute){ PN_CPU, PN_F32 }, out);
    fclose(out);
    return o;
}

static void expect(const char *path, pn_status status, const char *text) {
    outcome o = check(path);
    ck_assert_msg(o.status == status && strstr(o.text, text), "%s: %s (%s), expected \"%s\" in:\n%s", path,
                  pn_status_text(o.status), o.status ? pn_error_message() : "", text, o.text);
    free(o.text);
}

static const char *in_folder(const char *name) {
    static char path[PN_PATH_MAX];
    ck_ok(pn_path_join(path, folder, name));
    return path;
}

/* Two implementations per core (chunk, step), one per block. */
START_TEST(stored_files_pass) {
    outcome o = check(GOLDEN);
    ck_assert_msg(o.status == PN_OK, "%s", o.text);
    static const char *const rows[] = {
        "ok    block_attn.safetensors | cpu |",
        "ok    block_deltanet.safetensors | cpu |",
        "ok    block_gdn.safetensors | cpu |",
        "ok    block_gla.safetensors | cpu |",
        "ok    block_jet.safetensors | cpu |",
        "ok    block_retnet.safetensors | cpu |",
        "ok    block_mamba2.safetensors | cpu |",
        "ok    block_rwkv7.safetensors | cpu |",
        "ok    block_rwkv7_first.safetensors | cpu |",
        "ok    block_swa.safetensors | cpu |",
        "ok    core_delta.safetensors | gated_delta/cpu-chunk |",
        "ok    core_delta.safetensors | gated_delta/cpu-step |",
        "ok    core_dplr.safetensors | dplr/cpu-chunk |",
        "ok    core_dplr.safetensors | dplr/cpu-step |",
        "ok    core_dplr_strong.safetensors | dplr/cpu-chunk |",
        "ok    core_gated_delta.safetensors | gated_delta/cpu-chunk |",
        "ok    core_gated_delta_strong.safetensors | gated_delta/cpu-step |",
        "ok    core_la_scalar.safetensors | gated_linear/cpu-chunk |",
        "ok    core_la_scalar_strong.safetensors | gated_linear/cpu-step |",
        "ok    core_la_vector.safetensors | gated_linear/cpu-step |",
        "ok    core_la_vector_strong.safetensors | gated_linear/cpu-chunk |",
        "ok    model_hybrid.safetensors | cpu |",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_msg(strstr(o.text, rows[i]) != NULL, "no \"%s\" in:\n%s", rows[i], o.text);
    ck_assert_msg(strstr(o.text, "\n29 passed, 0 failed\n") != NULL, "%s", o.text);
    free(o.text);
}
END_TEST

/* Every result and gradient, one value of it off by half the tensor's rms: its file must fail. */
START_TEST(every_altered_result_fails) {
    static const char *const files[] = { "core_delta",
                                         "core_dplr",
                                         "core_dplr_strong",
                                         "core_gated_delta_strong",
                                         "core_la_scalar_strong",
                                         "core_la_vector",
                                         "block_attn",
                                         "block_deltanet",
                                         "block_gdn",
                                         "block_gla",
                                         "block_jet",
                                         "block_retnet",
                                         "block_mamba2",
                                         "block_rwkv7",
                                         "block_rwkv7_first",
                                         "block_swa" };
    static const char *const results[] = { "o", "ST", "d_", "dS0", "y", "dx", "dv_first", "grad.", "state." };
    make_folder();
    int altered = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[PN_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s.safetensors", GOLDEN, files[i]);
        golden_file g = golden_load(path);
        const char *name;
        json_t *tensor;
        json_object_foreach(g.header, name, tensor) {
            bool result = false;
            for (size_t k = 0; k < sizeof results / sizeof *results; k++) {
                size_t len = strlen(results[k]);
                bool whole = results[k][len - 1] != '_' && results[k][len - 1] != '.';
                result = result || (whole ? !strcmp(name, results[k]) : !strncmp(name, results[k], len));
            }
            if (!result) continue;
            const json_t *at = json_object_get(tensor, "data_offsets");
            size_t n = (size_t)(json_integer_value(json_array_get(at, 1)) - json_integer_value(json_array_get(at, 0)));
            char *values = golden_values(&g, name), *last = values + n - sizeof(float);
            double sum = 0;
            float x, wrong;
            for (size_t k = 0; k < n; k += sizeof x) {
                memcpy(&x, values + k, sizeof x);
                sum += (double)x * x;
            }
            memcpy(&x, last, sizeof x);
            wrong = x + 0.5f * (float)sqrt(sum / ((double)n / sizeof x));
            memcpy(last, &wrong, sizeof x);
            golden_store(&g, in_folder("a.safetensors"));
            memcpy(last, &x, sizeof x);
            outcome o = check(in_folder("a.safetensors"));
            ck_assert_msg(o.status == PN_MISMATCH, "%s with another %s passes:\n%s", files[i], name, o.text);
            ck_assert_ptr_nonnull(strchr(o.text, '!'));
            free(o.text);
            altered++;
        }
        golden_free(&g);
    }
    ck_assert_int_gt(altered, 60);
    remove_folder();
}
END_TEST

START_TEST(what_is_not_built_in) {
    make_folder();
    golden_file g = golden_load(GOLDEN "/block_attn.safetensors");
    json_t *metadata = json_object_get(g.header, "__metadata__");
    json_object_set_new(metadata, "kind", json_string("hyena"));
    golden_store(&g, in_folder("block_hyena.safetensors"));
    expect(folder, PN_OK, "-     block_hyena.safetensors | kind hyena is not built in\n0 passed, 0 failed\n");
    expect(in_folder("block_hyena.safetensors"), PN_MISMATCH, "kind hyena is not built in\n0 passed, 1 failed\n");
    json_object_del(metadata, "kind");
    golden_store(&g, in_folder("block_hyena.safetensors"));
    expect(folder, PN_OK, "no golden file: its metadata names no kind\n");
    golden_free(&g);
    ck_ok(pn_make_directories(in_folder("deeper"))); /* not searched */
    golden_file core = golden_load(GOLDEN "/core_delta.safetensors");
    golden_store(&core, in_folder("deeper/core_delta.safetensors"));
    expect(folder, PN_OK, "\n0 passed, 0 failed\n");
    golden_free(&core);
    remove_folder();
}
END_TEST

typedef void (*alteration)(golden_file *g);

static json_t *metadata_of(golden_file *g) {
    return json_object_get(g->header, "__metadata__");
}
static void no_scale(golden_file *g) {
    json_object_del(metadata_of(g), "scale");
}
static void scale_of_words(golden_file *g) {
    json_object_set_new(metadata_of(g), "scale", json_string("0.25x"));
}
static void renamed_input(golden_file *g) {
    json_object_set_new(g->header, "betas", json_incref(json_object_get(g->header, "beta")));
    json_object_del(g->header, "beta");
}
static void swapped_dimensions(golden_file *g) {
    json_object_set_new(json_object_get(g->header, "kn"), "shape", json_pack("[i, i, i]", 3, 131, 16));
}
static void no_documents_end(golden_file *g) {
    int64_t offset[] = { 0, 3, 2, 141 };
    memcpy(golden_values(g, "cu_seqlens"), offset, sizeof offset);
}
static void huge_width(golden_file *g) {
    json_object_set_new(metadata_of(g), "D", json_string("1e30"));
}
static void odd_heads(golden_file *g) {
    json_object_set_new(metadata_of(g), "Hkv", json_string("3"));
}
static void zero_divisor(golden_file *g) {
    json_object_set_new(metadata_of(g), "dk", json_string("0"));
}
static void absurd_width(golden_file *g) {
    json_object_set_new(metadata_of(g), "dk", json_string("400"));
}
static void other_heads(golden_file *g) {
    json_object_set_new(metadata_of(g), "H", json_string("4"));
}

static void split_width(golden_file *g) {
    json_object_set_new(metadata_of(g), "dk", json_string("7.5"));
}
static void odd_groups(golden_file *g) {
    json_object_set_new(metadata_of(g), "G", json_string("3"));
}
static void renamed_gate(golden_file *g) {
    json_object_set_new(g->header, "gs", json_incref(json_object_get(g->header, "gv")));
    json_object_del(g->header, "gv");
}

START_TEST(damaged_files_are_refused) {
    static const struct {
        const char *file;
        alteration alter;
        pn_status status;
        const char *message;
    } cases[] = {
        { "core_delta", no_scale, PN_FORMAT, "no scale in its metadata" },
        { "core_delta", scale_of_words, PN_FORMAT, "setting scale is \"0.25x\"; it must be a number" },
        { "core_delta", renamed_input, PN_FORMAT, "no tensor beta" },
        { "core_delta", swapped_dimensions, PN_FORMAT, "tensor kn has shape [3, 131, 16]" },
        { "block_attn", no_documents_end, PN_FORMAT, "cu_seqlens does not rise from 0 to the 141 rows of x" },
        { "block_attn", huge_width, PN_FORMAT, "setting D must be a whole number" },
        { "block_attn", odd_heads, PN_FORMAT, "H must be a multiple of Hkv" },
        { "block_gdn", zero_divisor, PN_FORMAT, "setting dk is 0" },
        { "block_gdn", absurd_width, PN_MISMATCH, "head_dim" },
        { "block_jet", other_heads, PN_FORMAT, "does not fit" },
        { "block_gla", split_width, PN_MISMATCH, "which 2 heads do not share evenly" },
        { "block_mamba2", odd_groups, PN_MISMATCH, "4 heads are no multiple of n_groups 3" },
        { "core_la_vector", renamed_gate, PN_FORMAT, "no tensor gv" },
        { "core_dplr", renamed_gate, PN_FORMAT, "no tensor gv" },
    };
    make_folder();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[PN_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s.safetensors", GOLDEN, cases[i].file);
        golden_file g = golden_load(path);
        cases[i].alter(&g);
        golden_store(&g, in_folder("a.safetensors"));
        golden_free(&g);
        outcome o = check(in_folder("a.safetensors"));
        const char *story = cases[i].status == PN_MISMATCH ? o.text : pn_error_message();
        ck_assert_msg(o.status == cases[i].status && strstr(story, cases[i].message), "%s, case %zu: %s: %s\n%s",
                      cases[i].file, i, pn_status_text(o.status), pn_error_message(), o.text);
        free(o.text);
    }
    remove_folder();
    outcome o = check("/tmp/postnas-no-such-file.safetensors");
    ck_assert_int_eq(o.status, PN_IO);
    free(o.text);
}
END_TEST

/* ---- a model of several kinds, made with the reference backend ---- */

static const char layer_cfgs[] =
    "[{\"kind\": \"jet\", \"D\": 32, \"H\": 2, \"dk\": 12, \"dv\": 32, \"W\": 4, \"R\": 8, \"eps\": 1e-05},"
    " {\"kind\": \"attn\", \"D\": 32, \"H\": 4, \"Hkv\": 2, \"d\": 8, \"theta\": 1000000.0, \"window\": null},"
    " {\"kind\": \"gdn\", \"D\": 32, \"H\": 2, \"Hv\": 4, \"dk\": 12, \"dv\": 24, \"W\": 4, \"eps\": 1e-05,"
    "  \"neg\": false, \"gate\": true},"
    " {\"kind\": \"gla\", \"D\": 32, \"H\": 2, \"dk\": 8, \"dv\": 16, \"rank\": 4, \"norm\": 2.0, \"eps\": 1e-05,"
    "  \"clamp_min\": null},"
    " {\"kind\": \"retnet\", \"D\": 32, \"H\": 2, \"dk\": 16, \"dv\": 32, \"eps\": 1e-05},"
    " {\"kind\": \"deltanet\", \"D\": 32, \"H\": 2, \"Hv\": 2, \"dk\": 16, \"dv\": 16, \"W\": 4, \"eps\": 1e-05,"
    "  \"neg\": true, \"gate\": false}]";

static pn_model *reference_model(void) {
    pn_model_config *c = calloc(1, sizeof *c);
    pn_model *m;
    *c = (pn_model_config){ .n_layers = 6, .tied = true, .vocab = 50, .bos = -1, .eos = -1, .initializer_range = 0.3 };
    c->dims = (pn_dims){ .hidden = 32,
                         .heads = 4,
                         .kv_heads = 2,
                         .head_dim = 8,
                         .intermediate = 48,
                         .rope_theta = 1e6,
                         .rms_norm_eps = 1e-6,
                         .qkv_bias = true };
    const struct {
        const char *block, *option[4][2];
    } layers[] = {
        { "jet", { { "num_heads", "2" }, { "head_dim", "12" }, { "expand_v", "2.6666666667" } } },
        { .block = "attention" },
        { "gated_deltanet", { { "num_heads", "2" }, { "num_v_heads", "4" }, { "head_dim", "12" } } },
        { "gla", { { "num_heads", "2" }, { "gate_low_rank_dim", "4" }, { "gate_logit_normalizer", "2" } } },
        { "retnet", { { "num_heads", "2" } } },
        { "deltanet", { { "num_heads", "2" }, { "allow_neg_eigval", "true" } } },
    };
    for (int l = 0; l < c->n_layers; l++) {
        const pn_block_type *type = pn_block_find(layers[l].block);
        ck_ok(pn_block_spec_default(type, &c->layer[l]));
        for (int i = 0; i < 4 && layers[l].option[i][0]; i++)
            ck_ok(pn_option_parse(pn_option_find(type->options, layers[l].option[i][0]), "test", layers[l].option[i][1],
                                  0, c->layer[l].options));
    }
    ck_ok(pn_model_create(c, PN_F64, NULL, &m));
    free(c);
    ck_ok(pn_params_init(m->params, 20));
    for (int i = 0; i < m->params->n; i++) {
        pn_tensor *w = m->params->item[i]->value;
        pn_rng rng;
        pn_rng_stream(20, m->params->item[i]->name, 1, &rng);
        for (int64_t k = 0; k < pn_tensor_elems(w); k++) /* no weight at its special initial value; exact in float */
            pn_f64(w)[k] = (float)(pn_f64(w)[k] + 0.05 * pn_rng_normal(&rng));
        w->wants_grad = true;
    }
    return m;
}

START_TEST(hybrid_model) {
    enum { T = 70 };
    const int64_t n = T, offset[] = { 0, T };
    pn_model *m = reference_model();
    pn_tape *t;
    pn_tensor *ids, *targets, *hidden, *logits, *loss;
    ck_ok(pn_tape_create(PN_REF, &t));
    ck_ok(pn_tape_new(t, PN_I32, 1, &n, &ids));
    ck_ok(pn_tape_new(t, PN_I32, 1, &n, &targets));
    for (int i = 0; i < T; i++) pn_i32(ids)[i] = i * i * 7 % 50;
    for (int i = 0; i < T; i++) pn_i32(targets)[i] = i + 1 < T ? pn_i32(ids)[i + 1] : PN_IGNORE;
    ck_ok(pn_model_hidden(m, NULL, t, ids, &(pn_docs){ .n = 1, .offset = offset }, &hidden));
    ck_ok(pn_model_logits(m, t, hidden, &logits));
    ck_ok(pn_linear_cross_entropy(t, hidden, m->head, targets, NULL, &loss, NULL));
    golden_file g = golden_new(json_pack("{s:s, s:s}", "rms_norm_eps", "1e-06", "layer_cfgs", layer_cfgs));
    golden_add(&g, "input_ids", ids);
    golden_add(&g, "logits", logits);
    golden_add(&g, "loss", loss);
    ck_ok(pn_tape_backward(t, loss));
    for (int i = 0; i < m->params->n; i++) {
        char name[PN_NAME_MAX + 8];
        snprintf(name, sizeof name, "param.%s", m->params->item[i]->name);
        golden_add(&g, name, m->params->item[i]->value);
        snprintf(name, sizeof name, "grad.%s", m->params->item[i]->name);
        golden_add(&g, name, m->params->item[i]->value->grad);
    }
    pn_tape_destroy(&t);
    pn_model_destroy(&m);
    make_folder();
    golden_store(&g, in_folder("model.safetensors"));
    expect(folder, PN_OK, "1 passed, 0 failed\n");
    static const char *const results[] = { "logits", "loss", "grad.model.embed_tokens.weight", "grad.model.norm.weight",
                                           "grad.model.layers.0.self_attn.A_log" };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        char *value = golden_values(&g, results[i]);
        float keep, wrong;
        memcpy(&keep, value, sizeof keep);
        wrong = keep + 1;
        memcpy(value, &wrong, sizeof keep);
        golden_store(&g, in_folder("model.safetensors"));
        expect(folder, PN_MISMATCH, "0 passed, 1 failed\n");
        memcpy(value, &keep, sizeof keep);
    }
    char *other = strdup(layer_cfgs); /* one layer of an unknown kind */
    memcpy(strstr(other, "gdn"), "xyz", 3);
    json_object_set_new(metadata_of(&g), "layer_cfgs", json_string(other));
    golden_store(&g, in_folder("model.safetensors"));
    expect(folder, PN_OK, "a layer's kind is not built in\n0 passed, 0 failed\n");
    expect(in_folder("model.safetensors"), PN_MISMATCH, "0 passed, 1 failed\n");
    json_object_set_new(metadata_of(&g), "layer_cfgs", json_string("[{]"));
    golden_store(&g, in_folder("model.safetensors"));
    expect(folder, PN_FORMAT, "");
    free(other);
    golden_free(&g);
    remove_folder();
}
END_TEST

TEST_MAIN("vectors", stored_files_pass, every_altered_result_fails, what_is_not_built_in, damaged_files_are_refused,
          hybrid_model)
