#include "model_card.h"

#include <math.h>
#include <string.h>

#include "files.h"
#include "fla.h"

/* ---- what reads it ---- */

/* Whether some layer's type is known to postnas alone, so that jet_nemotron's own code cannot load it. */
static bool is_extended(const pn_model_config *c) {
    for (int l = 0; l < c->n_layers; l++) {
        char name[PN_HF_LAYER_NAME];
        pn_hf_layer_name(c, l, name);
        if (!pn_hf_layer_published(name)) return true;
    }
    return false;
}

static const char *model_type(const pn_model_card *card, pn_hf_kind kind) {
    const pn_fla_kind *fla;
    if (kind == PN_HF_FLA && !pn_fla_fits(card->name, card->config, &fla)) return pn_fla_model_type(fla);
    return pn_hf_model_type(kind);
}

static void put_front_matter(pn_buf *b, const pn_model_card *card, pn_hf_kind kind) {
    pn_buf_text(b, "---\npipeline_tag: text-generation\n");
    if (kind != PN_HF_JET_NEMOTRON || !is_extended(card->config)) pn_buf_text(b, "library_name: transformers\n");
    pn_buf_printf(b, "tags: [postnas, %s]\n---\n\n", model_type(card, kind));
}

static void put_usage(pn_buf *b, const pn_model_card *card, pn_hf_kind kind) {
    const char *load = "    model = AutoModelForCausalLM.from_pretrained(\"DIRECTORY\", dtype=\"auto\"";
    pn_buf_text(b, "## Use\n\n    postnas generate DIRECTORY --prompt \"...\"\n\n");
    if (kind == PN_HF_FLA)
        pn_buf_printf(b,
                      "In Python, with flash-linear-attention (and flash-attn for the attention layers):\n\n"
                      "    import fla\n    from transformers import AutoModelForCausalLM\n%s)\n\n",
                      load);
    else if (kind != PN_HF_JET_NEMOTRON)
        pn_buf_printf(b, "In Python:\n\n    from transformers import AutoModelForCausalLM\n%s)\n\n", load);
    else if (!is_extended(card->config))
        pn_buf_printf(b,
                      "In Python, with the modelling code that Jet-Nemotron publishes:\n\n"
                      "    from transformers import AutoModelForCausalLM\n%s, trust_remote_code=True)\n\n",
                      load);
    else
        pn_buf_text(b,
                    "Its layer types are postnas's own (`postnas.json` lists them): transformers cannot load it.\n\n");
}

/* ---- what it is ---- */

static void put_settings(pn_buf *b, const pn_block_spec *spec) {
    const char *comma = "";
    for (const pn_option *row = spec->type->options; row && row->name; row++) {
        if (row->extension && !*(const bool *)(spec->options + row->offset)) continue;
        pn_buf_printf(b, "%s%s ", comma, row->name);
        pn_option_text(row, spec->options, b);
        comma = ", ";
    }
}

/* Those with the setting of layer `first`: "0 to 2, 5". */
static void put_layers(pn_buf *b, const pn_model_config *c, int first) {
    const char *comma = "";
    for (int l = first, end; l < c->n_layers; l = end) {
        for (end = l; end < c->n_layers && pn_block_spec_equal(&c->layer[end], &c->layer[first]); end++) {
        }
        if (end > l) {
            pn_buf_printf(b, "%s%d", comma, l);
            if (end - l > 1) pn_buf_printf(b, " to %d", end - 1);
            comma = ", ";
        } else {
            end++;
        }
    }
}

static void put_architecture(pn_buf *b, const pn_model_card *card, pn_hf_kind kind) {
    const pn_model_config *c = card->config;
    const pn_dims *d = &c->dims;
    pn_buf_printf(
        b,
        "## Architecture\n\n%lld parameters, model type `%s`: %d layers, hidden size %lld, SwiGLU of width %lld, "
        "vocabulary %lld%s.",
        (long long)card->parameters, model_type(card, kind), c->n_layers, (long long)d->hidden,
        (long long)d->intermediate, (long long)c->vocab, c->tied ? ", tied embeddings" : "");
    for (int l = 0; l < c->n_layers; l++) {
        if (!c->layer[l].type->attention_weights) continue;
        pn_buf_printf(b, " Attention: %lld heads of %lld, %lld for keys and values%s, rotary base %g.",
                      (long long)d->heads, (long long)d->head_dim, (long long)d->kv_heads,
                      d->qkv_bias ? ", biases on q, k and v" : "", d->rope_theta);
        break;
    }
    pn_buf_text(b, "\n\n| layers | token mixer | settings |\n| --- | --- | --- |\n");
    for (int l = 0; l < c->n_layers; l++) {
        bool seen = false;
        for (int k = 0; k < l && !seen; k++) seen = pn_block_spec_equal(&c->layer[k], &c->layer[l]);
        if (seen) continue;
        pn_buf_text(b, "| ");
        put_layers(b, c, l);
        pn_buf_printf(b, " | %s | ", c->layer[l].type->name);
        put_settings(b, &c->layer[l]);
        pn_buf_text(b, " |\n");
    }
    pn_buf_char(b, '\n');
}

/* ---- how it was made ---- */

static void put_cell(pn_buf *b, const char *text) {
    pn_buf_printf(b, " %s |", text ? text : "-");
}

static void put_recipe(pn_buf *b, const pn_model_card *card) {
    pn_buf_text(b, "## Recipe\n\n");
    if (!card->recipe) {
        pn_buf_text(b, "Not recorded: written from a model directory, not from a run.\n\n");
        return;
    }
    if (card->where) pn_buf_printf(b, "%s\n\n", card->where);
    if (card->n_stages)
        pn_buf_text(b, "| training | teacher | tokens | tokens of a step | learning rate | schedule |\n"
                       "| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < card->n_stages; i++) {
        const pn_card_stage *s = &card->stage[i];
        pn_buf_char(b, '|');
        put_cell(b, s->name);
        put_cell(b, s->teacher);
        put_cell(b, s->tokens);
        put_cell(b, s->batch_tokens);
        put_cell(b, s->learning_rate);
        put_cell(b, s->schedule);
        pn_buf_char(b, '\n');
    }
    pn_buf_printf(b, "%s<details><summary>The whole configuration</summary>\n\n```yaml\n%s%s```\n\n</details>\n\n",
                  card->n_stages ? "\n" : "", card->recipe,
                  *card->recipe && card->recipe[strlen(card->recipe) - 1] != '\n' ? "\n" : "");
}

/* ---- what it scored ---- */

static void put_score(pn_buf *b, const json_t *row, const char *task, const char *metric) {
    const json_t *m = json_object_get(json_object_get(json_object_get(row, "tasks"), task), metric);
    const json_t *mean = json_object_get(m, "mean"), *least = json_object_get(m, "min"),
                 *most = json_object_get(m, "max");
    if (!json_is_number(mean)) {
        put_cell(b, NULL);
        return;
    }
    pn_buf_printf(b, " %.4f", json_number_value(mean));
    if (json_number_value(least) != json_number_value(most))
        pn_buf_printf(b, " (%.4f..%.4f)", json_number_value(least), json_number_value(most));
    pn_buf_text(b, " |");
}

/* The last held-out loss of a stage; NULL: none was measured. */
static const json_t *last_loss(const json_t *stage) {
    const json_t *points = json_object_get(stage, "heldout");
    const size_t n = json_array_size(points);
    const json_t *ce = n ? json_object_get(json_array_get(points, n - 1), "ce") : NULL;
    return json_is_number(ce) ? ce : NULL;
}

/* False: there are none. */
static bool put_losses(pn_buf *b, const json_t *stages, bool unfinished) {
    bool any = false;
    for (size_t i = 0; i < json_array_size(stages); i++) {
        const json_t *stage = json_array_get(stages, i), *ce = last_loss(stage);
        if (!ce) continue;
        if (!any)
            pn_buf_printf(b,
                          "On held-out rows of the training data, %s of each stage:\n\n"
                          "| stage | cross-entropy, nats | perplexity |\n| --- | --- | --- |\n",
                          unfinished ? "measured last" : "at the end");
        any = true;
        pn_buf_char(b, '|');
        put_cell(b, json_string_value(json_object_get(stage, "name")));
        pn_buf_printf(b, " %.4f | %.4f |\n", json_number_value(ce), exp(json_number_value(ce)));
    }
    if (any) pn_buf_char(b, '\n');
    return any;
}

static void put_scores(pn_buf *b, const pn_model_card *card) {
    const size_t n = json_array_size(card->scores);
    const char *task, *metric;
    json_t *metrics, *value;
    pn_buf_text(b, "## Measured scores\n\n");
    const bool losses = put_losses(b, card->trained, card->unfinished);
    if (!n) {
        if (!losses) pn_buf_text(b, "Not measured.\n\n");
        return;
    }
    pn_buf_text(b, "On held-out samples: mean (smallest..largest).\n\n| task | metric |");
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_object_get(json_array_get(card->scores, i), "name"));
        put_cell(b, i + 1 == n ? "this model" : name);
    }
    pn_buf_text(b, "\n| --- | --- |");
    for (size_t i = 0; i < n; i++) pn_buf_text(b, " --- |");
    pn_buf_char(b, '\n');
    json_object_foreach(json_object_get(json_array_get(card->scores, n - 1), "tasks"), task, metrics) {
        json_object_foreach(metrics, metric, value) {
            pn_buf_printf(b, "| %s | %s |", task, metric);
            for (size_t i = 0; i < n; i++) put_score(b, json_array_get(card->scores, i), task, metric);
            pn_buf_char(b, '\n');
        }
    }
    pn_buf_char(b, '\n');
}

pn_status pn_model_card_write(const char *path, const pn_model_card *card) {
    const pn_hf_kind kind = pn_hf_kind_of(card->config, card->kind);
    pn_buf b = { 0 };
    put_front_matter(&b, card, kind);
    pn_buf_printf(&b,
                  "# %s\n\nA causal language model made with postnas (PostNAS, arXiv 2508.15884).\n\n## Base\n\n%s\n\n",
                  card->name, card->base ? card->base : "Not recorded.");
    put_architecture(&b, card, kind);
    put_recipe(&b, card);
    put_scores(&b, card);
    put_usage(&b, card, kind);
    pn_status s = pn_buf_status(&b);
    if (!s) s = pn_file_write(path, b.data, b.n_bytes);
    pn_buf_free(&b);
    return s;
}
