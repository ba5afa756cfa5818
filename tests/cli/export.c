/* postnas export: what the directory holds, that it scores as its model does, what --check finds, what is refused; and
 * checkpoints that fla wrote, imported. */
#include "cli_fixture.h"

#include "../block_option.h"
#include "../io/io_fixture.h"
#include "../random_weights.h"

#include "files.h"
#include "json.h"
#include "model_load.h"
#include "tokenizer.h"

#define BASE   POSTNAS_SOURCE_DIR "/data/quickstart-base"
#define GOLDEN POSTNAS_SOURCE_DIR "/tests/data/golden/"

/* The quickstart's base with a linear block in four of its layers, in F32 with its tokenizer. change: of the model's
 * weights before it is written; NULL: none. */
static const char *hybrid(const char *norm_eps, void (*change)(pn_model *m)) {
    static char dir[256];
    pn_model *base, *m;
    pn_tokenizer *t;
    ck_ok(pn_model_load(BASE, PN_F32, &base));
    pn_model_config c = base->config;
    for (int l = 0; l < c.n_layers; l += 2) {
        ck_ok(pn_block_spec_default(&pn_block_gated_deltanet, &c.layer[l]));
        set_option(&c.layer[l], "norm_eps", norm_eps);
    }
    ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
    ck_ok(pn_params_init(m->params, 4));
    for (int i = 0; i < m->params->n; i++) {
        pn_param *p = m->params->item[i], *from = pn_params_find(base->params, p->name);
        if (from && pn_tensor_same_shape(from->value, p->value)) ck_ok(pn_tensor_copy(p->value, from->value));
    }
    if (change) change(m);
    strcpy(dir, scratch("m"));
    ck_ok(pn_make_directories(dir));
    ck_ok(pn_model_save(m, dir, &(pn_save_options){ .dtype = PN_F32, .kind = PN_HF_JET_NEMOTRON }));
    ck_ok(pn_tokenizer_open(BASE, &t));
    ck_ok(pn_tokenizer_write_dir(t, dir));
    pn_tokenizer_destroy(&t);
    pn_model_destroy(&m);
    pn_model_destroy(&base);
    return dir;
}

static void in_third_decimal(pn_model *m) { /* values that BF16 has not */
    for (int i = 0; i < m->params->n; i++)
        for (int64_t k = 0; k < pn_tensor_elems(m->params->item[i]->value); k++)
            pn_f32(m->params->item[i]->value)[k] *= 1.001f;
}

/* The same function with small and large weights in its MLPs: the norm before them stays F32 in files. */
static void scale(pn_model *m, float by) {
    const struct {
        const char *name;
        float factor;
    } part[] = {
        { "post_attention_layernorm", 1 / by }, { "gate_proj", by }, { "up_proj", by * by }, { "down_proj", 1 / by }
    };
    for (int i = 0; i < m->params->n; i++) {
        pn_param *p = m->params->item[i];
        for (int j = 0; j < 4; j++)
            for (int64_t k = 0; strstr(p->name, part[j].name) && k < pn_tensor_elems(p->value); k++)
                pn_f32(p->value)[k] *= part[j].factor;
    }
}
static void too_small(pn_model *m) { /* F16 has few digits for these */
    scale(m, 0x1p-10f);
}
static void too_large(pn_model *m) { /* and none for these */
    scale(m, 0x1p-20f);
}

static program_result runs(const char *command) {
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s: %s", command, r.err);
    return r;
}

static void read_file(const char *dir, const char *name, char *text, size_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    read_back(f, text, size);
}

/* The model card that `export SOURCE OUT MORE` writes. */
static void card_of(const char *source, const char *out, const char *more, char *text, size_t size) {
    char command[4096];
    snprintf(command, sizeof command, "export %s %s %s", source, out, more);
    runs(command);
    read_file(out, "README.md", text, size);
}

/* ---- scores ---- */

/* What `postnas eval` says of a directory, written to its name with ".json"; the caller frees the tasks. */
static json_t *scores_of(const char *dir) {
    char command[2048], path[512];
    json_t *rows;
    snprintf(path, sizeof path, "%s.json", dir);
    snprintf(command, sizeof command,
             "eval %s --quiet --config " POSTNAS_SOURCE_DIR "/configs/quickstart.yaml --set model=" BASE
             " --set heldout.samples=1 --set search.tasks.0.documents=4 --set search.tasks.2.documents=2 --output %s",
             dir, path);
    runs(command);
    ck_ok(pn_json_load(path, 1 << 20, &rows));
    json_t *tasks = json_incref(json_object_get(json_array_get(rows, 0), "tasks"));
    ck_assert(json_is_object(tasks) && json_object_size(tasks) == 3);
    json_decref(rows);
    return tasks;
}

START_TEST(scores_as_its_model) {
    static const char *const types[] = { "fla", "jet_nemotron" };
    static const char *const dtypes[] = { "f32", "bf16" };
    const char *m = hybrid("1e-6", NULL);
    json_t *want = scores_of(m);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 2; k++) {
            char out[256], command[1024], name[32];
            snprintf(name, sizeof name, "%s-%s", types[i], dtypes[k]);
            strcpy(out, scratch(name));
            snprintf(command, sizeof command, "export %s %s --type %s --dtype %s --check", m, out, types[i], dtypes[k]);
            program_result r = runs(command);
            holds(r.err, "read back: every weight as written, the same logits on 288 tokens");
            if (k) {
                holds(r.err, "rounding to bf16 changed the logits by ");
                continue;
            }
            ck_assert_ptr_null(strstr(r.err, "rounding"));
            json_t *have = scores_of(out);
            ck_assert_msg(json_equal(want, have), "%s", out);
            json_decref(have);
        }
    }
    json_decref(want);
}
END_TEST

/* ---- a run ---- */

START_TEST(a_run_and_its_model) {
    static const char *const files[] = { "config.json",    "generation_config.json", "model.safetensors",
                                         "tokenizer.json", "tokenizer_config.json",  "README.md" };
    static char by_run[1 << 16], by_model[1 << 16];
    char run[256], out[256], yaml[256], command[2048], path[512], first_stage[512], text[1024];
    strcpy(run, scratch("run"));
    strcpy(out, scratch("a/out"));
    strcpy(yaml, scratch("recipe.yaml"));
    snprintf(text, sizeof text,
             "model: " BASE "\noutput: %s\nsequence_length: 256\nstages:\n"
             "  - {name: short, tokens: 512, batch_tokens: 256, learning_rate: 1e-3, mixture: [{skill: text}]}\n"
             "  - {name: long, tokens: 1024, batch_tokens: 256, mixture: [{skill: text}]}\n",
             run);
    write_text(yaml, text);
    snprintf(command, sizeof command, "finetune --quiet --config %s", yaml);
    runs(command);
    snprintf(command, sizeof command, "export %s %s --type auto --check", run, out);
    runs(command);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", out, files[i]);
        ck_assert_msg(pn_file_exists(path), "%s", path);
    }
    read_file(out, "README.md", by_run, sizeof by_run);
    holds(by_run, "tags: [postnas, qwen2]\n");
    holds(by_run, "# out\n");
    holds(by_run, "## Base\n\nquickstart-base\n"); /* of a path that is this machine's, the last part */
    holds(by_run, "| 0 to 7 | attention |");
    holds(by_run, "| short | none | 512 | 256 | 1e-3 | cosine |");
    holds(by_run, "```yaml\nmodel: quickstart-base\n");
    holds(by_run, "sequence_length: 256\n");
    ck_assert_ptr_null(strstr(by_run, "output:"));
    holds(by_run, "## Measured scores\n\nNot measured.\n");

    /* RUN/model is the same model of the same run */
    strcpy(out, scratch("b/out"));
    snprintf(path, sizeof path, "%s/model/", run);
    card_of(path, out, "--type auto", by_model, sizeof by_model);
    ck_assert_str_eq(by_run, by_model);

    /* what the first stage left is another model, of that stage alone */
    pn_model *first, *last;
    snprintf(first_stage, sizeof first_stage, "%s/stages/1", run);
    card_of(first_stage, scratch("stage/out"), "--type auto", by_model, sizeof by_model);
    holds(by_model, "## Recipe\n\nThis is the model after stage 1 of 2.\n\n| training |");
    holds(by_model, "| short | none | 512 | 256 | 1e-3 | cosine |");
    ck_assert_ptr_null(strstr(by_model, "| long |"));
    holds(by_run, "| long | none | 1024 | 256 |");
    ck_assert_ptr_null(strstr(by_run, "This is the model after"));
    ck_ok(pn_model_load(scratch("stage/out"), PN_F32, &first));
    ck_ok(pn_model_load(out, PN_F32, &last));
    const pn_tensor *x = pn_params_find(first->params, "model.norm.weight")->value;
    const pn_tensor *y = pn_params_find(last->params, "model.norm.weight")->value;
    ck_assert_mem_ne(pn_data(x), pn_data(y), pn_tensor_bytes(x));
    pn_model_destroy(&first);
    pn_model_destroy(&last);
    snprintf(path, sizeof path, "%s/stages/2", run);
    ck_assert(!pn_file_exists(path)); /* that is model/ */

    /* held-out losses that finetune measured */
    snprintf(path, sizeof path, "%s/result.json", run);
    write_text(path,
               "{\"kind\": \"finetune\", \"stages\": [{\"name\": \"short\", \"heldout\": []}, {\"name\": \"long\", "
               "\"heldout\": [{\"step\": 2, \"ce\": 1.5}, {\"step\": 4, \"ce\": 1.25}]}]}");
    card_of(run, scratch("losses"), "--type auto", by_model, sizeof by_model);
    holds(by_model,
          "| stage | cross-entropy, nats | perplexity |\n| --- | --- | --- |\n| long | 1.2500 | 3.4903 |\n\n## Use");

    write_text(path,
               "{\"kind\": \"finetune\", \"stages\": [{\"name\": \"short\", \"heldout\": [{\"step\": 2, \"ce\": 2}]}, "
               "{\"name\": \"long\", \"heldout\": [{\"step\": 4, \"ce\": 1.25}]}]}");
    card_of(first_stage, scratch("losses-1"), "--type auto", by_model, sizeof by_model);
    holds(by_model, "at the end of each stage:\n\n| stage | cross-entropy, nats | perplexity |\n| --- | --- | --- |\n"
                    "| short | 2.0000 | 7.3891 |\n\n## Use");

    /* scores that were measured afterwards; another directory is of no run */
    snprintf(path, sizeof path, "%s.json", out);
    json_decref(scores_of(out));
    strcpy(run, scratch("c/out"));
    snprintf(command, sizeof command, "--scores %s", path);
    card_of(out, run, command, by_model, sizeof by_model);
    holds(by_model, "## Base\n\nNot recorded.\n");
    holds(by_model, "## Recipe\n\nNot recorded");
    holds(by_model, "| task | metric | this model |\n| --- | --- | --- |\n| recall | accuracy | ");
    snprintf(command, sizeof command, "export %s %s --scores %s", out, scratch("d"), yaml);
    program_result r = program(command);
    ck_assert_int_eq(r.code, 2);
    holds(r.err, "recipe.yaml:1:");
    ck_assert(!pn_file_exists(scratch("d")));
}
END_TEST

START_TEST(a_search_has_scores) {
    static char card[1 << 16];
    char run[256], out[256], command[2048];
    strcpy(run, scratch("run"));
    strcpy(out, scratch("out"));
    snprintf(command, sizeof command,
             "search --quiet --config " POSTNAS_SOURCE_DIR "/configs/quickstart.yaml --set model=" BASE
             " --set output=%s --set supernet.tokens=2048 --set distill.tokens=1024 --set search.strategy=uniform "
             "--set compare.exhaustive=false --set compare.uniform=false --set compare.all_linear=false "
             "--set heldout.samples=1 --set search.tasks.0.documents=2 --set search.tasks.2.documents=2",
             run);
    runs(command);
    snprintf(command, sizeof command, "export %s %s --check", run, out);
    runs(command);
    read_file(out, "README.md", card, sizeof card);
    holds(card, "| candidates of the search | base | 2048 | 2048 | 5e-3 | cosine |");
    holds(card, "| distillation of the hybrid | base | 1024 | 1024 | 3e-3 | cosine |");
    holds(card, "| task | metric | teacher | this model |\n");
    holds(card, "| recall | accuracy_chance | 0.0385 | 0.0385 |");
    holds(card, "transformers cannot load it");
    snprintf(command, sizeof command, "export %s %s --type fla", run, scratch("fla"));
    char message[1024];
    snprintf(
        message, sizeof message,
        "%s: norm_eps of gated_deltanet is 1e-05 and the layers' rms_norm_eps is 1e-06, but a model of fla has one "
        "for both; write it as jet_nemotron, or train the blocks with norm_eps: 1e-06",
        scratch("fla"));
    refuses(command, 2, message);
    ck_assert(!pn_file_exists(scratch("fla")) && !pn_file_exists(scratch("fla.postnas-partial")));
}
END_TEST

/* ---- rounding ---- */

START_TEST(check_knows_rounding) {
    char command[1024];
    const char *m = hybrid("1e-5", in_third_decimal);
    snprintf(command, sizeof command, "export %s %s --dtype bf16 --check", m, scratch("bf16"));
    holds(runs(command).err, "limit 0.");
    snprintf(command, sizeof command, "export %s %s --dtype f16 --check", m, scratch("f16"));
    holds(runs(command).err, "limit 0.");
    static const struct {
        void (*change)(pn_model *m);
        const char *message;
    } bad[] = { { too_small, "; write the model with --dtype f32" }, { too_large, "is not finite" } };
    for (int i = 0; i < 2; i++) {
        m = hybrid("1e-5", bad[i].change);
        snprintf(command, sizeof command, "export %s %s --dtype bf16 --check", m, scratch(i ? "large" : "small"));
        runs(command);
        snprintf(command, sizeof command, "export %s %s --dtype f16 --check", m, scratch("narrow"));
        program_result r = program(command);
        ck_assert_int_eq(r.code, 1);
        holds(r.err, "narrow: ");
        holds(r.err, bad[i].message);
        ck_assert(!pn_file_exists(scratch("narrow")));
    }
}
END_TEST

/* ---- checkpoints of fla ---- */

START_TEST(checkpoints_of_fla) {
    static const char *const types[] = { "retnet", "gla", "delta_net", "gated_deltanet" };
    for (int i = 0; i < 4; i++) {
        char command[2048], out[256], name[64];
        snprintf(command, sizeof command,
                 "check model " GOLDEN "fla_%s --expected " GOLDEN "fla_%s/expected_outputs.safetensors", types[i],
                 types[i]);
        holds(runs(command).out, "3 passed, 0 failed");
        snprintf(name, sizeof name, "imported-%s", types[i]);
        strcpy(out, scratch(name));
        snprintf(command, sizeof command, "import " GOLDEN "fla_%s %s", types[i], out);
        holds(runs(command).out, "jet_nemotron, 4 layers");
        snprintf(command, sizeof command, "check model %s --expected " GOLDEN "fla_%s/expected_outputs.safetensors",
                 out, types[i]);
        holds(runs(command).out, "3 passed, 0 failed");
    }
}
END_TEST

TEST_MAIN("cli_export", scores_as_its_model, a_run_and_its_model, a_search_has_scores, check_knows_rounding,
          checkpoints_of_fla)
