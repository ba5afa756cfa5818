#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "clock.h"
#include "log.h"
#include "model_load.h"
#include "sampler.h"
#include "signals.h"
#include "tokenizer.h"

typedef struct output {
    const pn_tokenizer *tokenizer;
    pn_ids ids;
    size_t shown; /* bytes printed so far */
    pn_status status;
} output;

/* Prints what the new token adds to the text: a character may take several tokens. */
static bool emit(void *ctx, int32_t token) {
    output *o = ctx;
    char *text;
    size_t n;
    o->status = pn_ids_push(&o->ids, token);
    if (!o->status) o->status = pn_tokenizer_decode(o->tokenizer, o->ids.ids, o->ids.n, true, &text, &n);
    if (o->status) return false;
    fwrite(text + o->shown, 1, n - o->shown, stdout);
    fflush(stdout);
    o->shown = n;
    free(text);
    return !pn_interrupted();
}

typedef struct generate {
    pn_tokenizer *tokenizer;
    pn_model *model;
    pn_ids prompt;
    output out;
} generate;

static pn_status run_all(const pn_args *args, generate *g) {
    pn_sampler sampler = { 0 };
    pn_compute on;
    int64_t max_tokens, seed;
    const char *prompt = pn_args_value(args, "prompt");
    PN_CHECK(prompt, PN_USAGE, "generate: give --prompt TEXT");
    PN_TRY(pn_args_i64(args, "tokens", 1, 1 << 20, &max_tokens));
    PN_TRY(pn_args_f64(args, "temperature", 0, 100, &sampler.temperature));
    PN_TRY(pn_args_i64(args, "top-k", 0, 1 << 24, &sampler.top_k));
    PN_TRY(pn_args_f64(args, "top-p", 1e-6, 1, &sampler.top_p));
    PN_TRY(pn_args_i64(args, "seed", 0, INT64_MAX, &seed));
    PN_TRY(pn_args_compute(args, &on));
    PN_TRY(pn_compute_tell(&on));
    PN_TRY(pn_tokenizer_open(args->operand[0], &g->tokenizer));
    PN_TRY(pn_model_load(args->operand[0], PN_F32, &g->model));
    PN_TRY(pn_params_move(g->model->params, on.backend, on.dtype));
    if (pn_tokenizer_adds_bos(g->tokenizer)) PN_TRY(pn_ids_push(&g->prompt, pn_tokenizer_bos(g->tokenizer)));
    PN_TRY(pn_tokenizer_encode(g->tokenizer, prompt, strlen(prompt), true, &g->prompt));
    pn_rng_stream((uint64_t)seed, "generate", 0, &sampler.rng);
    g->out.tokenizer = g->tokenizer;
    fputs(prompt, stdout);
    double start = pn_seconds();
    PN_TRY(pn_generate(g->model, NULL, g->prompt.ids, g->prompt.n, max_tokens, pn_tokenizer_eos(g->tokenizer), &sampler,
                       emit, &g->out));
    PN_TRY(g->out.status);
    fputc('\n', stdout);
    double seconds = pn_seconds() - start;
    pn_info("%lld tokens after a prompt of %lld in %.2f s", (long long)g->out.ids.n, (long long)g->prompt.n, seconds);
    return PN_OK;
}

static pn_status run(const pn_args *args) {
    generate g = { 0 };
    pn_signals_install();
    pn_status s = run_all(args, &g);
    pn_ids_free(&g.out.ids);
    pn_ids_free(&g.prompt);
    pn_model_destroy(&g.model);
    pn_tokenizer_destroy(&g.tokenizer);
    return s;
}

static const pn_flag flags[] = {
    { .name = "prompt",
      .letter = 'p',
      .value = "TEXT",
      .help = "text to continue; special tokens in it are recognised" },
    { .name = "tokens", .letter = 'n', .value = "N", .help = "most tokens to generate", .def = "64" },
    { .name = "temperature", .value = "X", .help = "0: always the most likely token", .def = "0" },
    { .name = "top-k", .value = "N", .help = "sample among the N most likely; 0: all", .def = "0" },
    { .name = "top-p", .value = "X", .help = "sample within this much probability", .def = "1" },
    { .name = "seed", .value = "N", .help = "of the sampling", .def = "1" },
    { .name = "device", .value = "NAME", .help = "cpu, or cuda: one NVIDIA GPU", .def = "cpu" },
    { .name = "precision", .value = "TYPE", .help = "on cuda: bf16, or f32", .def = "auto" },
    PN_FLAG_END,
};

const pn_command pn_cmd_generate = {
    .name = "generate",
    .summary = "continue a text with any model directory",
    .usage = "MODEL --prompt TEXT [--tokens N] [--temperature X]",
    .help = "Loads a model directory (full attention or hybrid) and continues the prompt, token by token from the\n"
            "blocks' decode states. The text goes to standard output.\n"
            "\n"
            "    postnas generate runs/smollm2/model --prompt \"The capital of France is\" --tokens 20\n",
    .reads = "a model directory; nothing is downloaded\n",
    .writes = "standard output: the prompt and its continuation, as it comes\n",
    .see = "postnas eval: what the model can do, in numbers\n",
    .memory = "shorten --prompt, lower --tokens, or give --precision bf16 on a GPU",
    .flags = flags,
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};
