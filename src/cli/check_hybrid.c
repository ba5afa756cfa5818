/* The golden model of layers of several kinds: logits, loss and every gradient. */
#include "check_vectors.h"

#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "linear_cross_entropy/linear_cross_entropy.h"
#include "model.h"
#include "tape.h"

typedef struct hybrid {
    const pn_safetensors *file;
    const pn_golden_limits *limits;
    json_t *layers;
    pn_model *model;
    pn_tape *tape;
    pn_tensor *ids, *targets;
} hybrid;

static void hybrid_free(hybrid *h) {
    pn_tensor_release(&h->ids);
    pn_tensor_release(&h->targets);
    pn_tape_destroy(&h->tape);
    pn_model_destroy(&h->model);
    json_decref(h->layers);
}

static pn_status rows_of(const pn_safetensors *f, const char *name, int64_t *rows) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(f, name, &info));
    PN_CHECK(info->rank == 2, PN_FORMAT, "%s: tensor %s has shape %s; it must be a matrix", pn_safetensors_path(f),
             name, pn_tensor_info_shape_text(info));
    *rows = info->shape[0];
    return PN_OK;
}

/* The attention layers share one set of sizes. */
static pn_status read_config(hybrid *h, pn_model_config *config, bool *built_in) {
    const char *path = pn_safetensors_path(h->file), *text = pn_safetensors_metadata(h->file, "layer_cfgs");
    PN_TRY(pn_json_parse(path, text, strlen(text), &h->layers));
    size_t n = json_array_size(h->layers);
    PN_CHECK(json_is_array(h->layers) && n >= 1 && n <= PN_MAX_LAYERS, PN_FORMAT,
             "%s: layer_cfgs must be a list of 1 .. %d layers", path, PN_MAX_LAYERS);
    bool found, softmax = false;
    *config = (pn_model_config){ .n_layers = (int)n,
                                 .tied = !pn_safetensors_find(h->file, "param.lm_head.weight"),
                                 .bos = -1,
                                 .eos = -1,
                                 .file_dtype = PN_F32 };
    config->initializer_range = 0.02;
    *built_in = true;
    for (size_t l = 0; l < n; l++) {
        const pn_golden_settings settings = { .file = h->file, .layer = json_array_get(h->layers, l) };
        char name[96];
        snprintf(name, sizeof name, "param.model.layers.%zu.self_attn.q_proj.bias", l);
        pn_dims dims;
        PN_TRY(pn_golden_block(&settings, pn_safetensors_find(h->file, name) != NULL, &config->layer[l], &dims));
        if (!config->layer[l].type) {
            *built_in = false;
            return PN_OK;
        }
        bool attends = config->layer[l].type->attention_weights;
        if (l == 0 || (attends && !softmax)) config->dims = dims;
        softmax = softmax || attends;
    }
    PN_TRY(rows_of(h->file, "param.model.embed_tokens.weight", &config->vocab));
    PN_TRY(rows_of(h->file, "param.model.layers.0.mlp.gate_proj.weight", &config->dims.intermediate));
    const pn_golden_settings whole = { .file = h->file };
    PN_TRY(pn_golden_number(&whole, "rms_norm_eps", &config->dims.rms_norm_eps, &found));
    PN_CHECK(found, PN_FORMAT, "%s: no rms_norm_eps in its metadata", path);
    return PN_OK;
}

static pn_status read_params(hybrid *h) {
    pn_params *params = h->model->params;
    for (int i = 0; i < params->n; i++) {
        pn_tensor *w = params->item[i]->value, *read;
        char name[PN_NAME_MAX + 8];
        snprintf(name, sizeof name, "param.%s", params->item[i]->name);
        PN_TRY(pn_golden_read(h->file, name, params->pool, PN_F32, w->rank, w->shape, &read));
        pn_status s = pn_tensor_copy(w, read);
        pn_tensor_release(&read);
        PN_TRY(s);
        w->wants_grad = true;
    }
    return PN_OK;
}

/* Each token's target is the next one; the last has none. */
static pn_status read_ids(hybrid *h) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(h->file, "input_ids", &info));
    PN_CHECK(info->rank == 1 && info->n_elems >= 2, PN_FORMAT, "%s: input_ids has shape %s; it must be [tokens]",
             pn_safetensors_path(h->file), pn_tensor_info_shape_text(info));
    int64_t n = info->n_elems;
    pn_pool *pool = pn_tape_pool(h->tape);
    PN_TRY(pn_golden_read(h->file, "input_ids", pool, PN_I32, 1, &n, &h->ids));
    PN_TRY(pn_tensor_create(pool, PN_I32, 1, &n, &h->targets));
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    PN_CHECK(ids, PN_MEMORY, "out of memory");
    pn_status s = pn_tensor_read(h->ids, ids, PN_I32);
    memmove(ids, ids + 1, (size_t)(n - 1) * sizeof *ids);
    ids[n - 1] = PN_IGNORE;
    if (!s) s = pn_tensor_write(h->targets, ids, PN_I32);
    free(ids);
    return s;
}

static pn_status row_tensor(hybrid *h, pn_row *r, const char *name, const pn_tensor *x) {
    double error;
    PN_TRY(pn_golden_tensor_error(h->file, name, x, &error));
    pn_row_error(r, name, error, h->limits->model);
    return PN_OK;
}

static pn_status check_gradients(hybrid *h, pn_row *r) {
    pn_worst worst = { 0 };
    const pn_params *params = h->model->params;
    for (int i = 0; i < params->n; i++) {
        const pn_tensor *grad = params->item[i]->value->grad;
        char name[PN_NAME_MAX + 8];
        snprintf(name, sizeof name, "grad.%s", params->item[i]->name);
        if (!grad) {
            pn_row_fail(r, "no gradient for %s", params->item[i]->name);
            continue;
        }
        double error;
        PN_TRY(pn_golden_tensor_error(h->file, name, grad, &error));
        pn_worst_take(&worst, params->item[i]->name, error);
    }
    pn_row_worst(r, "grad", &worst, h->limits->model_gradient);
    return PN_OK;
}

static pn_status check(hybrid *h, pn_row *r) {
    const int64_t offset[] = { 0, h->ids->shape[0] };
    const pn_docs docs = { .n = 1, .offset = offset };
    pn_tensor *hidden, *logits, *loss;
    pn_tape_record(h->tape, false);
    PN_TRY(pn_model_hidden(h->model, NULL, h->tape, h->ids, &docs, &hidden));
    PN_TRY(pn_model_logits(h->model, h->tape, hidden, &logits));
    PN_TRY(row_tensor(h, r, "logits", logits));
    pn_tape_reset(h->tape);
    pn_tape_record(h->tape, true);
    PN_TRY(pn_model_hidden(h->model, NULL, h->tape, h->ids, &docs, &hidden));
    PN_TRY(pn_linear_cross_entropy(h->tape, hidden, h->model->head, h->targets, NULL, &loss, NULL));
    PN_TRY(row_tensor(h, r, "loss", loss));
    PN_TRY(pn_tape_backward(h->tape, loss));
    PN_TRY(check_gradients(h, r));
    return PN_OK;
}

pn_status pn_check_hybrid_file(const pn_safetensors *f, const pn_compute *on, pn_report *report, bool *built_in) {
    pn_status s;
    hybrid h = { .file = f, .limits = pn_golden_limits_of(on->dtype) };
    pn_model_config *config = malloc(sizeof *config); /* large for a stack */
    PN_CHECK(config, PN_MEMORY, "out of memory");
    pn_row r = pn_row_start(pn_golden_name(f), pn_backend_name(on->backend));
    PN_TRY_GOTO(s, read_config(&h, config, built_in), done);
    if (!*built_in) goto done;
    PN_TRY_GOTO(s, pn_model_create(config, PN_F32, NULL, &h.model), done);
    PN_TRY_GOTO(s, read_params(&h), done);
    PN_TRY_GOTO(s, pn_params_move(h.model->params, on->backend, on->dtype), done);
    PN_TRY_GOTO(s, pn_params_tape(h.model->params, &h.tape), done);
    PN_TRY_GOTO(s, read_ids(&h), done);
    PN_TRY_GOTO(s, check(&h, &r), done);
    pn_row_end(report, &r);
done:
    hybrid_free(&h);
    free(config);
    return s;
}
