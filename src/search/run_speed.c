/* Speed: of the variants alone, which the stages have measured, and of whole models, as predicted and as measured.
 * Timings have a file of their own, speed.json: result.json is the same for equal runs. */
#include "run_phases.h"

#include "json.h"
#include "log.h"

enum { MODELS = 2 };

static json_t *rates_json(const double *rates, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_real(rates[i]));
    return list;
}

static json_t *stage_json(const pn_run *r, pn_variant_stage which) {
    const pn_variants *v = &r->variants[which];
    int64_t n = r->config.latency.context.n;
    json_t *list = json_array();
    for (int i = 0; i < v->n; i++) {
        const pn_variant *x = &v->item[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:o, s:o, s:b}", "text", x->text, "decode", rates_json(x->decode, n),
                                        "prefill", rates_json(x->prefill, n), "front", x->front));
    }
    return json_pack("{s:s, s:o}", "stage", pn_variant_stage_names[which], "variants", list);
}

/* One pass at one context through a whole model: predicted from its parts, and measured. */
static pn_status whole(pn_run *r, const char *name, const pn_path *path, pn_latency_pass pass, int64_t context,
                       json_t *list) {
    pn_latency_setting setting;
    pn_timing predicted, measured;
    pn_model_config config;
    pn_model_path_config(r->net, path, &config);
    PN_TRY(pn_latency_setting_of(&r->config.latency, pass, context, &r->net->config, &setting));
    PN_TRY(pn_latency_predict(r->latency, &config, &setting, &predicted));
    PN_TRY(pn_latency_model(r->net, path, &setting, &measured));
    double tokens = pn_latency_tokens(&setting);
    const char *what = pass == PN_LATENCY_DECODE ? "decode" : "prefill";
    json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:f, s:f, s:f}", "model", name, "pass", what, "context",
                                          (json_int_t)context, "predicted", tokens / predicted.median, "measured",
                                          tokens / measured.median, "error", predicted.median / measured.median - 1));
    fprintf(r->out, "%-8s  %-8s  %8lld  %14.0f  %14.0f  %+6.1f %%\n", name, what, (long long)context,
            tokens / predicted.median, tokens / measured.median, 100 * (predicted.median / measured.median - 1));
    return PN_OK;
}

static pn_status measure(pn_run *r, json_t *list) {
    const pn_int_list *context = &r->config.latency.context;
    const pn_path path[MODELS] = { pn_model_own_path(r->net), r->winner };
    static const char *const name[MODELS] = { "base", "PostNAS" };
    fprintf(r->out, "\nwhole models, tokens/s          context       predicted        measured     error\n");
    for (pn_latency_pass pass = PN_LATENCY_DECODE; pass <= PN_LATENCY_PREFILL; pass++)
        for (int64_t i = 0; i < context->n; i++)
            for (int k = 0; k < MODELS; k++) PN_TRY(whole(r, name[k], &path[k], pass, context->item[i], list));
    return PN_OK;
}

pn_status pn_run_speed(pn_run *r) {
    char file[PN_PATH_MAX];
    if (r->n_stages == r->n_placements) return PN_OK;
    json_t *contexts = json_array(), *stages = json_array(), *models = json_array();
    for (int64_t i = 0; i < r->config.latency.context.n; i++)
        json_array_append_new(contexts, json_integer(r->config.latency.context.item[i]));
    for (int k = 0; k < PN_VARIANT_STAGES; k++)
        if (r->variants[k].n) json_array_append_new(stages, stage_json(r, (pn_variant_stage)k));
    r->speed = json_pack("{s:I, s:I, s:o, s:o, s:o}", "batch", (json_int_t)r->config.latency.batch, "chunk",
                         (json_int_t)r->config.latency.chunk, "contexts", contexts, "stages", stages, "models", models);
    PN_CHECK(r->speed, PN_MEMORY, "out of memory");
    PN_TRY(measure(r, models));
    PN_TRY(pn_run_dir_file(&r->dir, "speed.json", file));
    PN_TRY(pn_json_write(file, r->speed));
    return PN_OK;
}
