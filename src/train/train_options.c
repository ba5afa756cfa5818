#include "train_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "attention/attention_vary.h"
#include "log.h"

#define ROW_FLOAT(name_, field_, def_, min_, max_, help_)                                                              \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_FLOAT, .offset = offsetof(pn_train_options, field_), .def = def_,             \
        .min = min_, .max = max_, .help = help_                                                                        \
    }
#define ROW_RAMP(name_, field_, def_, max_, help_)                                                                     \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_RAMP, .offset = offsetof(pn_train_options, field_), .def = def_, .min = 0,    \
        .max = max_, .help = help_                                                                                     \
    }

/* ce_, kl_, feature_: the defaults of the losses' weights. */
#define ROWS(ce_, kl_, feature_)                                                                                       \
    PN_OPT_INT(pn_train_options, tokens, 1000000, 0, 9e15, "tokens to train on"),                                      \
        PN_OPT_INT(pn_train_options, batch_tokens, 4096, 1, 1e9,                                                       \
                   "tokens per step; a multiple of the data's sequence_length"),                                       \
        ROW_FLOAT("learning_rate", schedule.learning_rate, "1e-3", 0, 10, "peak learning rate"),                       \
        { .name = "schedule",                                                                                          \
          .kind = PN_OPTION_ENUM,                                                                                      \
          .offset = offsetof(pn_train_options, schedule.kind),                                                         \
          .def = "cosine",                                                                                             \
          .choices = pn_schedule_names,                                                                                \
          .help = "shape of the learning rate over the run" },                                                         \
        ROW_FLOAT("warmup", schedule.warmup, "0.05", 0, 1, "fraction of the steps spent rising to the peak"),          \
        ROW_FLOAT("final", schedule.final, "0.1", 0, 1, "fraction of the peak at the end"),                            \
        ROW_FLOAT("decay", schedule.decay, "0.2", 0, 1, "wsd: fraction of the steps spent falling"),                   \
        PN_OPT_FLOAT(pn_train_options, weight_decay, 0.01, 0, 10, "decoupled weight decay on matrices"),               \
        PN_OPT_FLOAT(pn_train_options, beta1, 0.9, 0, 0.99999, "AdamW first moment"),                                  \
        PN_OPT_FLOAT(pn_train_options, beta2, 0.95, 0, 0.999999, "AdamW second moment"),                               \
        PN_OPT_FLOAT(pn_train_options, epsilon, 1e-8, 0, 1, "AdamW epsilon"),                                          \
        PN_OPT_FLOAT(pn_train_options, clip, 1.0, 0, 1e9, "global gradient norm to clip at; 0: no clipping"),          \
        ROW_RAMP("ce", loss.ce, ce_, 1e6, "weight of the next-token cross-entropy"),                                   \
        ROW_RAMP("kl", loss.kl, kl_, 1e6, "weight of KL(teacher || student)"),                                         \
        ROW_RAMP("feature", loss.feature, feature_, 1e6, "weight of the per-layer feature loss"),                      \
        ROW_FLOAT("temperature", loss.temperature, "1", 0.01, 100, "of the KL term"),                                  \
        { .name = "recompute",                                                                                         \
          .kind = PN_OPTION_ENUM,                                                                                      \
          .offset = offsetof(pn_train_options, recompute),                                                             \
          .def = "auto",                                                                                               \
          .choices = pn_recompute_names,                                                                               \
          .help = "what backward makes again, to save memory: activations and norms (cheap), convolutions and "        \
                  "recurrences too (cores), whole layers; auto: the least that fits the GPU, and none on the CPU",     \
          .incidental = true },                                                                                        \
        PN_OPT_FLOAT(pn_train_options, memory_gb, 0, 0, 1e6, "GB of the GPU that training may take; 0: what is free",  \
                     .incidental = true),                                                                              \
        PN_OPT_BOOL(pn_train_options, deterministic, true,                                                             \
                    "the same bits every time; false: on a GPU cuDNN may sum the gradients of softmax attention in "   \
                    "any order, which is faster, and a run that is made again or goes on ends with others"),           \
        PN_OPT_FLOAT(pn_train_options, checkpoint_seconds, 120, 0, 1e9,                                                \
                     "seconds between checkpoints; 0: at the end only", .incidental = true)

const pn_option pn_train_option_table[] = { ROWS("0", "1", "1"), PN_OPT_END };

const pn_option pn_train_stage_table[] = {
    ROWS("1", "0", "0"),
    PN_OPT_INT(pn_train_options, micro_batch_tokens, 0, 0, 1e9,
               "tokens of a pass, a part of the batch: gradients of all parts add up to one step, which takes less "
               "memory; 0: the whole batch"),
    PN_OPT_INT(pn_train_options, warmup_tokens, 0, 0, 9e15, "tokens of the warm-up; 0: as warmup says"),
    PN_OPT_INT(pn_train_options, checkpoint_keep, 2, 1, 1e6, "newest checkpoints that are kept", .incidental = true),
    PN_OPT_INT(pn_train_options, heldout_tokens, 0, 0, 1e12,
               "tokens of the mixture's held-out split in an evaluation; 0: none are made"),
    PN_OPT_INT(pn_train_options, evaluate_tokens, 0, 0, 9e15,
               "tokens of training from one evaluation to the next; 0: at the stage's end only"),
    PN_OPT_INT(pn_train_options, skip_steps, 3, 0, 1e6,
               "steps in a row with a loss or gradient that is not finite, which are passed over; one more ends the "
               "run",
               .incidental = true),
    PN_OPT_INT(pn_train_options, skip_steps_in_all, 20, 0, 1e9, "the same in the whole stage", .incidental = true),
    PN_OPT_END,
};

void pn_train_stage_settle(pn_train_options *o) {
    if (o->warmup_tokens && o->tokens) o->schedule.warmup = fmin(1, (double)o->warmup_tokens / (double)o->tokens);
}

pn_loss_weights pn_loss_at(const pn_loss_schedule *l, int64_t step, int64_t steps) {
    const double x = steps > 1 ? (double)step / (double)(steps - 1) : 0;
    return (pn_loss_weights){ .ce = pn_ramp_at(&l->ce, x),
                              .kl = pn_ramp_at(&l->kl, x),
                              .feature = pn_ramp_at(&l->feature, x),
                              .temperature = l->temperature };
}

pn_loss_weights pn_loss_most(const pn_loss_schedule *l) {
    return (pn_loss_weights){ .ce = fmax(l->ce.from, l->ce.to),
                              .kl = fmax(l->kl.from, l->kl.to),
                              .feature = fmax(l->feature.from, l->feature.to),
                              .temperature = l->temperature };
}

int64_t pn_train_steps(const pn_train_options *o) {
    return o->tokens / o->batch_tokens;
}

int64_t pn_train_pass_tokens(const pn_train_options *o) {
    return o->micro_batch_tokens ? o->micro_batch_tokens : o->batch_tokens;
}

bool pn_train_is_stage(const pn_train_options *o) {
    return o->checkpoint_keep > 0;
}

int64_t pn_train_pass_within(int64_t share_tokens, int64_t row_tokens, int64_t most_tokens) {
    const int64_t rows = share_tokens / row_tokens;
    int64_t best = 1;
    for (int64_t i = 1; i * i <= rows; i++) { /* divisors come in pairs */
        if (rows % i) continue;
        if (i > best && i * row_tokens <= most_tokens) best = i;
        if (rows / i > best && rows / i * row_tokens <= most_tokens) best = rows / i;
    }
    return best * row_tokens;
}

pn_status pn_train_options_check_rows(const pn_train_options *o, int64_t row, const char *where) {
    PN_CHECK(o->batch_tokens % row == 0, PN_USAGE,
             "%s: batch_tokens %lld is not a multiple of sequence_length %lld; use %lld", where,
             (long long)o->batch_tokens, (long long)row, (long long)((o->batch_tokens / row + 1) * row));
    PN_CHECK(o->tokens >= o->batch_tokens, PN_USAGE,
             "%s: tokens %lld is less than one step of batch_tokens %lld; raise tokens or lower batch_tokens", where,
             (long long)o->tokens, (long long)o->batch_tokens);
    const int64_t micro = pn_train_pass_tokens(o);
    PN_CHECK(micro % row == 0 && o->batch_tokens % micro == 0, PN_USAGE,
             "%s: micro_batch_tokens %lld must be a multiple of sequence_length %lld that divides batch_tokens %lld; "
             "use %lld",
             where, (long long)micro, (long long)row, (long long)o->batch_tokens,
             (long long)pn_train_pass_within(o->batch_tokens, row, micro));
    PN_CHECK(o->heldout_tokens % row == 0, PN_USAGE,
             "%s: heldout_tokens %lld is not a multiple of sequence_length %lld; use %lld", where,
             (long long)o->heldout_tokens, (long long)row, (long long)((o->heldout_tokens / row + 1) * row));
    PN_CHECK(
        o->heldout_tokens || !o->evaluate_tokens, PN_USAGE,
        "%s: evaluate_tokens asks for evaluations; say with heldout_tokens how much of the held-out split they are",
        where);
    return PN_OK;
}

pn_status pn_train_options_check(const pn_train_options *o, const pn_mixture *mixture, const char *where) {
    PN_CHECK(pn_mixture_has(mixture, PN_SPLIT_TRAIN), PN_USAGE,
             "%s: the mixture has no training rows; add a skill, or shards made for the train split", where);
    PN_TRY(pn_train_options_check_rows(o, pn_mixture_row_tokens(mixture), where));
    PN_CHECK(!o->heldout_tokens || pn_mixture_has(mixture, PN_SPLIT_HELDOUT), PN_USAGE,
             "%s: the mixture has no held-out rows; add a skill, or shards made for the heldout split, or leave out "
             "heldout_tokens",
             where);
    return PN_OK;
}

pn_status pn_train_options_check_ranks(const pn_train_options *o, int64_t row, int ranks, const char *where) {
    const int64_t all = ranks * row, mine = o->batch_tokens / ranks, pass = o->micro_batch_tokens;
    PN_CHECK(o->batch_tokens % all == 0, PN_USAGE,
             "%s: batch_tokens %lld is not a multiple of %lld, a row of %lld tokens for each of %d ranks; use %lld",
             where, (long long)o->batch_tokens, (long long)all, (long long)row, ranks,
             (long long)((o->batch_tokens / all + 1) * all));
    PN_CHECK(!pass || pass >= mine || mine % pass == 0, PN_USAGE,
             "%s: micro_batch_tokens %lld does not divide the %lld tokens that each of %d ranks has of a batch; use "
             "%lld",
             where, (long long)pass, (long long)mine, ranks, (long long)pn_train_pass_within(mine, row, pass));
    return PN_OK;
}

void pn_train_options_apply(const pn_train_options *o, pn_backend backend) {
    static bool told, warned;
    const char *wish = getenv("PN_CUDA_VARY");
    if (backend != PN_CUDA) return;
    pn_attention_vary(!o->deterministic);
    if (!o->deterministic && !told) pn_info("deterministic: false: gradients of attention may differ from run to run");
    if (o->deterministic && wish && !strcmp(wish, "1") && !warned)
        pn_warn("PN_CUDA_VARY=1 is for `postnas bench`; training does as its configuration says, deterministic: true");
    told = told || !o->deterministic;
    warned = warned || o->deterministic;
}

/* deterministic is the seed: what says true is identified as it was before the option was there. */
uint64_t pn_train_options_hash(const pn_train_options *o) {
    const double settings[] = { (double)o->tokens,
                                (double)o->batch_tokens,
                                (double)pn_train_pass_tokens(o),
                                (double)o->schedule.kind,
                                o->schedule.learning_rate,
                                o->schedule.warmup,
                                o->schedule.final,
                                o->schedule.decay,
                                o->weight_decay,
                                o->beta1,
                                o->beta2,
                                o->epsilon,
                                o->clip,
                                o->loss.ce.from,
                                o->loss.ce.to,
                                o->loss.kl.from,
                                o->loss.kl.to,
                                o->loss.feature.from,
                                o->loss.feature.to,
                                o->loss.temperature,
                                (double)o->evaluate_tokens,
                                (double)o->heldout_tokens };
    return XXH3_64bits_withSeed(settings, sizeof settings, !o->deterministic);
}
